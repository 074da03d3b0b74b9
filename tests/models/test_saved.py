"""The model file: what it gives back, what it leaves out, and what it refuses."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import models.architecture
from data.speakers import SpeakerSet
from genotypes import Genotype
from models.architecture import Designed, Searched
from models.augment_network import AugmentNetwork
from models.baselines import BASELINES
from models.joint_network import Size
from models.saved import SavedModel
from utils import UserError

F, T = 8, 10
CLASSES = ("angry", "happy", "ünïcode")
FRONT_END = {"sample_rate": 8000, "n_mfcc": F, "frames": T}
TRAINED_ON = SpeakerSet(dataset="demo", corpus="demo", speakers=("F01", "Zoë"))
SIZE = Size(layers=2, init_channels=2, rnn_layers=1, rnn_channels=4)
GENOTYPE = Genotype(
    normal=[[["sep_conv_3x3", 0], ["skip_connect", 1]]],
    normal_concat=[2],
    reduce=[[["max_pool_3x3", 0], ["skip_connect", 1]]],
    reduce_concat=[2],
    rnn=[[["lstm_1", 0], ["rnn_att_1", 1]]],
    rnn_concat=[2],
)


@pytest.fixture(scope="module")
def model() -> SavedModel:
    """A network with an auxiliary head whose weights and running statistics are those of no fresh one."""
    torch.manual_seed(0)
    network = Searched(GENOTYPE, SIZE, dropout=0.5, auxiliary=True).build(len(CLASSES))
    set_drop_path(network, 0.5)
    network(torch.randn(6, 1, F, T) + 1)
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=F).astype(np.float32), rng.uniform(0.5, 2, F).astype(np.float32)
    return SavedModel(network.eval(), Searched(GENOTYPE, SIZE), mean, std, CLASSES, FRONT_END, TRAINED_ON)


@pytest.fixture(scope="module")
def file(model: SavedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "deep" / "model.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def header(file: Path) -> dict:
    return header_of(file)


def write(path: Path, file: Path, header: object, change: dict | None = None) -> Path:
    """The good file's tensors, some exchanged (None: left out), under another header."""
    tensors = {
        name: tensor for name, tensor in {**load_file(file), **(change or {})}.items() if tensor is not None
    }
    save_file(tensors, path, {"emodarts": header if isinstance(header, str) else json.dumps(header)})
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        SavedModel.load(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_loaded_model_is_the_saved_one(model: SavedModel, file: Path):
    loaded = SavedModel.load(file)
    x = torch.randn(5, 1, F, T)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), model.network(x))
    assert not any(module.training for module in loaded.network.modules())
    assert loaded.network.genotype == GENOTYPE
    assert (loaded.architecture, loaded.classes, loaded.front_end) == (
        Searched(GENOTYPE, SIZE),
        CLASSES,
        FRONT_END,
    )
    assert loaded.trained_on == TRAINED_ON
    np.testing.assert_array_equal(loaded.mean, model.mean)
    np.testing.assert_array_equal(loaded.std, model.std)


@pytest.fixture(scope="module")
def designed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a baseline whose weights depend on F and on T."""
    return save_designed("cnn", tmp_path_factory.mktemp("designed") / "model.safetensors")


def save_designed(name: str, path: Path) -> Path:
    torch.manual_seed(0)
    architecture = Designed(name, (F, T))
    parts = architecture.build(len(CLASSES)), architecture, np.zeros(F, np.float32), np.ones(F, np.float32)
    SavedModel(*parts, CLASSES, FRONT_END).save(path)
    return path


def header_of(file: Path) -> dict:
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["emodarts"])


@pytest.mark.parametrize("name", BASELINES)
def test_a_loaded_baseline_is_the_saved_one(tmp_path: Path, name: str):
    loaded = SavedModel.load(save_designed(name, tmp_path / "model.safetensors"))
    torch.manual_seed(0)
    network, x = BASELINES[name](len(CLASSES), (F, T)).eval(), torch.randn(5, F, T)
    with torch.no_grad():
        assert torch.equal(loaded.standardised(x), network(x[:, None]))
    assert not any(module.training for module in loaded.network.modules())
    assert loaded.architecture == Designed(name, (F, T))
    assert {"baseline": name, "shape": [F, T]}.items() <= header_of(tmp_path / "model.safetensors").items()
    assert "genotype" not in header_of(tmp_path / "model.safetensors")


def test_saving_again_gives_the_same_bytes_and_leaves_nothing_beside(file: Path, tmp_path: Path):
    SavedModel.load(file).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == ["model.safetensors"]


def test_the_auxiliary_head_stays_behind(model: SavedModel, file: Path):
    stored, own = set(load_file(file)), set(model.network.state_dict())
    left = own - stored
    assert left
    assert all(".auxiliary." in name for name in left)
    assert stored - own == {"mean", "std"}


def test_standardised_is_the_network_on_standardised_features(model: SavedModel):
    features = torch.randn(4, F, T) * 3 + 2
    by_hand = (features.numpy() - model.mean[None, :, None]) / model.std[None, :, None]
    with torch.no_grad():
        found = model.standardised(features)
        expected = model.network(torch.from_numpy(by_hand)[:, None])
        assert not torch.allclose(found, model.network(features[:, None]))
    torch.testing.assert_close(found, expected)
    assert found.shape == (4, len(CLASSES))


def test_a_missing_file_says_what_makes_it(tmp_path: Path):
    assert "augment.py writes it" in refused(tmp_path / "model.safetensors")
    assert "augment.py writes it" in refused(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, -1])
def test_a_truncated_file_is_refused(file: Path, tmp_path: Path, keep: float):
    content = file.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert "is not a model of this program" in refused(path)


@pytest.mark.parametrize("content", [b"not a model", b"\x80\x04\x95" + b"\0" * 50, b"\xff" * 64, b"{}" * 40])
def test_another_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path / "model.safetensors")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"emodarts": ""}, {"emodarts": "{"}])
def test_safetensors_of_another_program_are_refused(file: Path, tmp_path: Path, metadata: dict | None):
    save_file(load_file(file), tmp_path / "other.safetensors", metadata)
    refused(tmp_path / "other.safetensors")


HOSTILE = [
    ("version", 2),
    ("version", None),
    ("version", "1"),
    ("genotype", None),
    ("genotype", "__import__('os').system('true')"),
    ("genotype", {}),
    ("genotype", {**GENOTYPE.to_json(), "version": 9}),
    ("genotype", {**GENOTYPE.to_json(), "rnn": [[["none", 0], ["lstm_1", 1]]]}),
    ("genotype", {**GENOTYPE.to_json(), "normal": [[["sep_conv_3x3", 7], ["skip_connect", 1]]]}),
    ("genotype", {**GENOTYPE.to_json(), "normal": [[["__class__", 0], ["skip_connect", 1]]]}),
    ("genotype", {**GENOTYPE.to_json(), "more": 1}),
    ("size", None),
    ("size", {}),
    ("size", [2, 2, 1, 4, 3]),
    ("size", {**asdict(SIZE), "more": 1}),
    ("size", {**asdict(SIZE), "layers": 3}),
    ("size", {**asdict(SIZE), "layers": "2"}),
    ("size", {**asdict(SIZE), "layers": 2.5}),
    ("size", {**asdict(SIZE), "layers": -1}),
    ("size", {**asdict(SIZE), "layers": 0}),
    ("size", {**asdict(SIZE), "layers": None}),
    ("size", {**asdict(SIZE), "init_channels": 0}),
    ("size", {**asdict(SIZE), "init_channels": -2}),
    ("size", {**asdict(SIZE), "init_channels": 2**70}),
    ("size", {**asdict(SIZE), "init_channels": float("inf")}),
    ("size", {**asdict(SIZE), "rnn_layers": 0}),
    ("size", {**asdict(SIZE), "rnn_channels": 0}),
    ("size", {**asdict(SIZE), "rnn_channels": 5}),
    ("size", {**asdict(SIZE), "stem_multiplier": 0}),
    ("classes", None),
    ("classes", []),
    ("classes", 3),
    ("classes", ["angry", "happy"]),
    ("classes", "abc"),
    ("classes", [1, 2, 3]),
    ("classes", ["a", "b", ["c"]]),
    ("classes", ["a", "a", "b"]),
    ("front_end", None),
    ("front_end", [1]),
    ("trained_on", []),
    ("trained_on", {}),
    ("trained_on", {"dataset": "demo", "corpus": "demo", "speakers": "F01"}),
    ("trained_on", {"dataset": "demo", "corpus": "demo", "speakers": [1]}),
    ("trained_on", {"dataset": "demo", "corpus": "demo", "speakers": [], "more": 1}),
]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(("key", "value"), HOSTILE, ids=lambda part: json.dumps(part)[:50])
def test_a_header_that_does_not_fit_is_refused(
    file: Path, header: dict, tmp_path: Path, key: str, value: object
):
    refused(write(tmp_path / "model.safetensors", file, {**header, key: value}))


@pytest.mark.parametrize("key", ["version", "genotype", "size", "classes", "front_end"])
def test_a_header_that_lacks_a_part_is_refused(file: Path, header: dict, tmp_path: Path, key: str):
    refused(
        write(tmp_path / "model.safetensors", file, {name: header[name] for name in header if name != key})
    )


def test_a_file_that_does_not_say_whom_the_network_heard_is_read(file: Path, header: dict, tmp_path: Path):
    older = {name: value for name, value in header.items() if name != "trained_on"}
    assert SavedModel.load(write(tmp_path / "model.safetensors", file, older)).trained_on is None


def test_as_many_speakers_as_any_corpus_has_can_be_stored_and_no_more(
    file: Path, header: dict, tmp_path: Path
):
    for count in (100_000, 10**6 + 1):
        trained_on = {"dataset": "d", "corpus": "c", "speakers": ["S"] * count}
        path = write(tmp_path / f"{count}.safetensors", file, {**header, "trained_on": trained_on})
        if count > 10**6:
            refused(path)
        else:
            assert len(SavedModel.load(path).trained_on.speakers) == count


@pytest.mark.parametrize("text", ["null", "3", "[]", '"text"', "[" * 100_000, "NaN"])
def test_a_header_that_is_no_object_is_refused(file: Path, tmp_path: Path, text: str):
    refused(write(tmp_path / "model.safetensors", file, text))


@pytest.mark.parametrize(
    "change",
    [
        {"baseline": "gru"},
        {"baseline": "lstm"},
        {"baseline": None},
        {"baseline": ["cnn"]},
        {"baseline": "searched"},
        {"shape": None},
        {"shape": [F]},
        {"shape": [F, T, 1]},
        {"shape": [F + 1, T]},
        {"shape": [F, 2 * T]},
        {"shape": [F, -T]},
        {"shape": [F, 0]},
        {"shape": [F, float(T)]},
        {"shape": [F, str(T)]},
        {"shape": [F, 2**31]},
        {"shape": [2**31, 2**31]},
        {"shape": [F, 2**70]},
        {"size": asdict(SIZE)},
        {"genotype": GENOTYPE.to_json(), "size": asdict(SIZE)},
        {"more": 1},
    ],
    ids=lambda change: json.dumps(change)[:50],
)
def test_a_header_that_does_not_fit_a_baseline_is_refused(designed: Path, tmp_path: Path, change: dict):
    """Nothing of the size that it claims is built on the way."""
    refused(write(tmp_path / "model.safetensors", designed, {**header_of(designed), **change}))


@pytest.mark.parametrize("part", ["baseline", "shape", "classes", "front_end", "version"])
def test_a_baselines_header_that_lacks_a_part_is_refused(designed: Path, tmp_path: Path, part: str):
    left = {name: value for name, value in header_of(designed).items() if name != part}
    refused(write(tmp_path / "model.safetensors", designed, left))


@pytest.mark.parametrize(
    "field", ["layers", "rnn_layers", "init_channels", "rnn_channels", "stem_multiplier"]
)
def test_a_size_that_would_fill_the_memory_is_refused_before_anything_is_built(
    file: Path, header: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
):
    """A file of some kilobytes must not make the program build 10^9 cells, or weights of 10^9 channels."""

    def build(genotype: Genotype, size: Size, classes: int, *more: object) -> AugmentNetwork:
        depth, width = max(size.layers, size.rnn_layers), max(size.init_channels, size.rnn_channels)
        if depth > 10**6 or (
            max(width, size.stem_multiplier) > 10**6 and torch.get_default_device().type != "meta"
        ):
            raise AssertionError(f"began to build {size}")
        return AugmentNetwork(genotype, size, classes, *more)

    monkeypatch.setattr(models.architecture, "AugmentNetwork", build)
    size = {**header["size"], field: 10**9}
    refused(write(tmp_path / "model.safetensors", file, {**header, "size": size}))


@pytest.mark.parametrize(
    "change",
    [
        {"network.head.weight": torch.zeros(3, 5)},
        {"network.head.bias": torch.zeros(4)},
        {"network.head.bias": None},
        {"more": torch.zeros(1)},
        {"mean": None},
        {"std": None},
        {"mean": torch.zeros(())},
        {"mean": torch.zeros(F, 2)},
        {"std": torch.ones(F + 1)},
        {"std": torch.ones(F, dtype=torch.bfloat16)},
        {"mean": torch.zeros(0), "std": torch.zeros(0)},
    ],
    ids=lambda change: " ".join(
        f"{name} {None if t is None else list(t.shape)}" for name, t in change.items()
    ),
)
def test_tensors_that_do_not_fit_are_refused(file: Path, header: dict, tmp_path: Path, change: dict):
    refused(write(tmp_path / "model.safetensors", file, header, change))


SMALL = st.integers(-2, 4)
VALUES = (
    st.none() | st.booleans() | SMALL | st.floats(-4, 4) | st.text(max_size=3) | st.lists(SMALL, max_size=3)
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path to every part of a JSON value."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def exchanged(value: object, path: tuple, new: object) -> object:
    """The value with one part replaced."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = exchanged(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("kind", ["file", "designed"])
def test_any_change_of_the_header_gives_a_model_that_works_or_a_user_error(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path, data: st.DataObject
):
    file = request.getfixturevalue(kind)
    header = header_of(file)
    place, new = data.draw(st.sampled_from(places(header))), data.draw(VALUES)
    path = write(tmp_path / "model.safetensors", file, exchanged(header, place, new))
    try:
        loaded = SavedModel.load(path)
    except UserError:
        return
    with torch.no_grad():
        assert loaded.standardised(torch.zeros(2, F, T)).shape == (2, len(loaded.classes))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_changed_gives_a_model_or_a_user_error(file: Path, tmp_path: Path, data: st.DataObject):
    content = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[data.draw(st.integers(8, header - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "model.safetensors").write_bytes(content)
    said = ""
    try:
        SavedModel.load(tmp_path / "model.safetensors")
    except UserError as error:
        said = str(error)
    assert not said or str(tmp_path) in said
