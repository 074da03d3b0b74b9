"""The model file: what it restores, what it leaves out, and the damaged files that it refuses."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from data.speakers import SpeakerSet, pack_recordings
from genotypes import Genotype
from models.architecture import BaselineArchitecture, SearchedArchitecture
from models.augment_network import AugmentNetwork, set_drop_path
from models.baselines import BASELINES
from models.joint_network import Size
from models.saved import SavedModel
from utils import UserError

F, T = 8, 10
CLASSES = ("angry", "happy", "ünïcode")
FRONT_END = {"sample_rate": 8000, "n_mfcc": F, "frames": T}
TRAINED_ON = SpeakerSet(
    dataset="demo", corpus="demo", speakers=("F01", "Zoë"), recordings=pack_recordings(["0a", "ff"])
)
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
    """A network with an auxiliary head, whose running statistics differ from the initial ones."""
    torch.manual_seed(0)
    network = SearchedArchitecture(GENOTYPE, SIZE, dropout=0.5, auxiliary=True).build(len(CLASSES))
    set_drop_path(network, 0.5)
    network(torch.randn(6, 1, F, T) + 1)
    rng = np.random.default_rng(0)
    mean = rng.normal(size=F).astype(np.float32)
    std = rng.uniform(0.5, 2, F).astype(np.float32)
    return SavedModel(
        network.eval(), SearchedArchitecture(GENOTYPE, SIZE), mean, std, CLASSES, FRONT_END, TRAINED_ON
    )


@pytest.fixture(scope="module")
def file(model: SavedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "deep" / "model.safetensors"
    model.save(path)
    return path


def save_baseline(name: str, path: Path, deltas: int = 0) -> Path:
    torch.manual_seed(0)
    architecture = BaselineArchitecture(name, (F, T), deltas)
    network = architecture.build(len(CLASSES))
    mean, std = np.zeros(F, np.float32), np.ones(F, np.float32)
    SavedModel(network, architecture, mean, std, CLASSES, FRONT_END).save(path)
    return path


@pytest.fixture(scope="module")
def baseline_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a baseline whose weights depend on F and on T."""
    return save_baseline("cnn", tmp_path_factory.mktemp("baseline") / "model.safetensors")


def read_header(file: Path) -> dict:
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["emodarts"])


REMOVED = object()


def rewrite(source: Path, folder: Path, header: dict | str, tensors: dict | None = None) -> Path:
    """A copy of a model file with another header: the text of one, or a change of its entries.

    `tensors` replaces the tensors of these names; None removes one.
    """
    if not isinstance(header, str):
        updated = {**read_header(source), **header}
        header = json.dumps({key: value for key, value in updated.items() if value is not REMOVED})
    updated = {**load_file(source), **(tensors or {})}
    path = folder / "model.safetensors"
    save_file({name: t for name, t in updated.items() if t is not None}, path, {"emodarts": header})
    return path


def assert_refused(path: Path, message: str = "") -> None:
    with pytest.raises(UserError) as error:
        SavedModel.load(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


# ---------------------------------------------------------------- what a file restores


def test_loaded_model_equals_the_saved_one(model: SavedModel, file: Path):
    loaded = SavedModel.load(file)
    x = torch.randn(5, 1, F, T)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), model.network(x))
    assert not any(module.training for module in loaded.network.modules())
    assert loaded.network.genotype == GENOTYPE
    assert loaded.architecture == SearchedArchitecture(GENOTYPE, SIZE)
    assert loaded.classes == CLASSES
    assert loaded.front_end == FRONT_END
    assert loaded.trained_on == TRAINED_ON
    np.testing.assert_array_equal(loaded.mean, model.mean)
    np.testing.assert_array_equal(loaded.std, model.std)


@pytest.mark.parametrize(("name", "deltas"), [*((name, 0) for name in BASELINES), ("acrnn", 2)])
def test_loaded_baseline_equals_the_saved_one(tmp_path: Path, name: str, deltas: int):
    architecture = BaselineArchitecture(name, (F, T), deltas)
    path = save_baseline(name, tmp_path / "model.safetensors", deltas)
    loaded = SavedModel.load(path)
    torch.manual_seed(0)
    network = architecture.build(len(CLASSES)).eval()
    x = torch.randn(5, F, T)
    with torch.no_grad():
        assert torch.equal(loaded.standardised(x), network(x[:, None]))
    assert not any(module.training for module in loaded.network.modules())
    assert loaded.architecture == architecture
    header = read_header(path)
    assert (header["baseline"], header["shape"], header["deltas"]) == (name, [F, T], deltas)
    assert "genotype" not in header


def test_loaded_network_makes_the_deltas_of_the_saved_one(tmp_path: Path, model: SavedModel):
    torch.manual_seed(0)
    architecture = SearchedArchitecture(GENOTYPE, replace(SIZE, deltas=2))
    saved = replace(model, network=architecture.build(len(CLASSES)).eval(), architecture=architecture)
    saved.save(tmp_path / "model.safetensors")
    loaded = SavedModel.load(tmp_path / "model.safetensors")
    assert loaded.architecture == architecture
    x = torch.randn(5, F, T)
    with torch.no_grad():
        assert torch.equal(loaded.standardised(x), saved.standardised(x))


def test_header_that_does_not_name_deltas_has_none(file: Path, baseline_file: Path, tmp_path: Path):
    size = {name: value for name, value in asdict(SIZE).items() if name != "deltas"}
    assert SavedModel.load(rewrite(file, tmp_path, {"size": size})).architecture.size == SIZE
    assert SavedModel.load(rewrite(baseline_file, tmp_path, {"deltas": REMOVED})).architecture.deltas == 0


def test_saving_again_gives_the_same_bytes_and_no_other_file(file: Path, tmp_path: Path):
    SavedModel.load(file).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == ["model.safetensors"]


def test_auxiliary_head_is_not_saved(model: SavedModel, file: Path):
    saved, all_tensors = set(load_file(file)), set(model.network.state_dict())
    left_out = all_tensors - saved
    assert left_out
    assert all(".auxiliary." in name for name in left_out)
    assert saved - all_tensors == {"mean", "std"}


def test_standardised_is_the_network_on_standardised_features(model: SavedModel):
    features = torch.randn(4, F, T) * 3 + 2
    by_hand = (features.numpy() - model.mean[None, :, None]) / model.std[None, :, None]
    with torch.no_grad():
        found = model.standardised(features)
        expected = model.network(torch.from_numpy(by_hand)[:, None])
        assert not torch.allclose(found, model.network(features[:, None]))
    torch.testing.assert_close(found, expected)
    assert found.shape == (4, len(CLASSES))


def test_file_without_training_speakers_is_loaded(file: Path, tmp_path: Path):
    assert SavedModel.load(rewrite(file, tmp_path, {"trained_on": REMOVED})).trained_on is None


# ---------------------------------------------------------------- what is refused


def test_missing_file_names_the_command_that_writes_it(tmp_path: Path):
    assert_refused(tmp_path / "model.safetensors", "augment.py writes it")
    assert_refused(tmp_path, "augment.py writes it")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, -1])
def test_truncated_file_is_refused(file: Path, tmp_path: Path, keep: float):
    content = file.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert_refused(path, "is not a model of this program")


@pytest.mark.parametrize("content", [b"not a model", b"\x80\x04\x95" + b"\0" * 50, b"\xff" * 64, b"{}" * 40])
def test_file_of_another_format_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert_refused(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"emodarts": ""}, {"emodarts": "{"}])
def test_safetensors_of_another_program_are_refused(file: Path, tmp_path: Path, metadata: dict | None):
    path = tmp_path / "other.safetensors"
    save_file(load_file(file), path, metadata)
    assert_refused(path)


BAD_GENOTYPE = {
    "version": [9],
    "rnn": [[[["none", 0], ["lstm_1", 1]]]],
    "normal": [[[["sep_conv_3x3", 7], ["skip_connect", 1]]], [[["__class__", 0], ["skip_connect", 1]]]],
    "more": [1],
}
BAD_SIZE = {
    "layers": [3, "2", 2.5, -1, 0, None],
    "init_channels": [0, -2, 2**70, float("inf")],
    "rnn_layers": [0],
    "rnn_channels": [0, 5],
    "stem_multiplier": [0],
    "stem_stride": [0, 3, -1, "1"],
    "deltas": [1, -1, "0"],
    "rnn_bands": [0, 2, -1],
    "more": [1],
}
BAD_SPEAKERS = {"speakers": ["F01", [1]], "more": [1], "recordings": ["?", "AAAA", 1], "also": [1, {}]}


def changes(entry: dict, bad: dict[str, list]) -> list[dict]:
    """The entry with each of the bad values."""
    return [{**entry, key: value} for key, values in bad.items() for value in values]


BAD_HEADER = {
    "version": [2, None, "1"],
    "genotype": [None, "__import__('os').system('true')", {}, *changes(GENOTYPE.to_json(), BAD_GENOTYPE)],
    "size": [None, {}, [2, 2, 1, 4, 3], *changes(asdict(SIZE), BAD_SIZE)],
    "classes": [
        None, [], 3, ["angry", "happy"], "abc", [1, 2, 3], ["a", "b", ["c"]], ["a", "a", "b"]
    ],
    "front_end": [None, [1]],
    "copies": [None, "speed:0.9", [1], ["speed:9"], ["speed:0.9", "speed:0.90"]],
    "trained_on": [[], {}, *changes(TRAINED_ON.model_dump(), BAD_SPEAKERS)],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("change", changes({}, BAD_HEADER), ids=lambda change: json.dumps(change)[:50])
def test_bad_entry_of_the_header_is_refused(file: Path, tmp_path: Path, change: dict):
    assert_refused(rewrite(file, tmp_path, change))


COMMON = ("version", "classes", "front_end")
ENTRIES = {"file": (*COMMON, "genotype", "size"), "baseline_file": (*COMMON, "baseline", "shape")}


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in ENTRIES.items() for key in keys])
def test_header_without_an_entry_is_refused(request, tmp_path: Path, kind: str, key: str):
    assert_refused(rewrite(request.getfixturevalue(kind), tmp_path, {key: REMOVED}))


def test_header_holds_up_to_a_million_speakers(file: Path, tmp_path: Path):
    def make_file(count: int) -> Path:
        trained_on = {"dataset": "d", "corpus": "c", "speakers": ["S"] * count}
        return rewrite(file, tmp_path, {"trained_on": trained_on})

    assert len(SavedModel.load(make_file(100_000)).trained_on.speakers) == 100_000
    assert_refused(make_file(10**6 + 1))


@pytest.mark.parametrize("text", ["null", "3", "[]", '"text"', "[" * 100_000, "NaN"])
def test_header_that_is_not_an_object_is_refused(file: Path, tmp_path: Path, text: str):
    assert_refused(rewrite(file, tmp_path, text))


BAD_BASELINE = {
    "baseline": ["gru", "lstm", None, ["cnn"], "searched"],
    "shape": [
        None, [F], [F, T, 1], [F + 1, T], [F, 2 * T], [F, -T], [F, 0], [F, float(T)], [F, str(T)], [F, 2**31],
        [2**31, 2**31], [F, 2**70],
    ],
    "deltas": [1, 3, -1, "0", None, 2**40],
    "size": [asdict(SIZE)],
    "more": [1],
}  # fmt: skip
GENOTYPE_AND_SIZE = {"genotype": GENOTYPE.to_json(), "size": asdict(SIZE)}


@pytest.mark.parametrize(
    "change", [*changes({}, BAD_BASELINE), GENOTYPE_AND_SIZE], ids=lambda change: json.dumps(change)[:50]
)
def test_bad_header_of_a_baseline_is_refused_before_anything_is_built(baseline_file, tmp_path, change):
    assert_refused(rewrite(baseline_file, tmp_path, change))


@pytest.mark.parametrize(
    "field", ["layers", "rnn_layers", "init_channels", "rnn_channels", "stem_multiplier", "deltas"]
)
def test_huge_size_is_refused_before_anything_is_built(file, tmp_path, monkeypatch, field):
    """A small file must not make the program build 10^9 cells, or allocate weights of 10^9 channels."""

    def build(genotype: Genotype, size: Size, classes: int, *more: object) -> AugmentNetwork:
        depth = max(size.layers, size.rnn_layers)
        width = max(size.init_channels, size.rnn_channels, size.stem_multiplier, size.deltas)
        allocates = torch.get_default_device().type != "meta"
        if depth > 10**6 or (width > 10**6 and allocates):
            raise AssertionError(f"began to build {size}")
        return AugmentNetwork(genotype, size, classes, *more)

    monkeypatch.setattr("models.architecture.AugmentNetwork", build)
    assert_refused(rewrite(file, tmp_path, {"size": {**asdict(SIZE), field: 10**9}}))


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
    ids=lambda change: " ".join(f"{name} {t if t is None else [*t.shape]}" for name, t in change.items()),
)
def test_tensors_that_do_not_fit_are_refused(file: Path, tmp_path: Path, change: dict):
    assert_refused(rewrite(file, tmp_path, {}, change))


# ---------------------------------------------------------------- random damage

SMALL = st.integers(-2, 4)
VALUES = (
    st.none() | st.booleans() | SMALL | st.floats(-4, 4) | st.text(max_size=3) | st.lists(SMALL, max_size=3)
)
no_fixture_check = [HealthCheck.function_scoped_fixture]


def paths_into(value: object, path: tuple = ()) -> list[tuple]:
    """The path to every part of a JSON value."""
    children = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    paths = [path]
    for key, child in children:
        paths += paths_into(child, (*path, key))
    return paths


def replace_part(value: object, path: tuple, new: object) -> object:
    """The JSON value with one part replaced."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replace_part(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@settings(max_examples=120, suppress_health_check=no_fixture_check)
@given(data=st.data())
@pytest.mark.parametrize("kind", ["file", "baseline_file"])
def test_changed_header_gives_a_working_model_or_a_user_error(request, kind, tmp_path, data):
    file = request.getfixturevalue(kind)
    header = read_header(file)
    path = data.draw(st.sampled_from(paths_into(header)))
    changed = replace_part(header, path, data.draw(VALUES))
    try:
        loaded = SavedModel.load(rewrite(file, tmp_path, json.dumps(changed)))
    except UserError:
        return
    with torch.no_grad():
        assert loaded.standardised(torch.zeros(2, F, T)).shape == (2, len(loaded.classes))


@settings(max_examples=60, suppress_health_check=no_fixture_check)
@given(st.data())
def test_changed_byte_gives_a_model_or_a_user_error(file: Path, tmp_path: Path, data: st.DataObject):
    path = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    end_of_header = 8 + int.from_bytes(content[:8], "little")
    content[data.draw(st.integers(8, end_of_header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        SavedModel.load(path)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017  most changes raise nothing
