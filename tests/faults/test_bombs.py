"""Files that would execute something, fill the memory, never end, or lead out of their folder."""

import json
import os
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hostile import FRONT_END, Toy, prepare_corpus, train, write_corpus, write_store

from config import EvaluateConfig, SearchConfig
from data.arrays import RowReader
from data.features import read_clips
from data.front_end import FrontEnd
from data.journal import stamp
from data.store import FeatureStore
from engine.checkpoints import Checkpoints
from engine.runs import RunFolder
from engine.training import Position
from flags import parse
from models.saved import SavedModel
from study.details import number
from study.trials import read_trials
from utils import UserError, printable, run_command

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, below which it must stay."""
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    return tmp_path


class Trap:
    """What leaves a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


class Room:
    """What takes a gigabyte where it is unpickled."""

    def __reduce__(self):
        return bytearray, (2**30,)


def compressed() -> None:
    """A checkpoint of some kB that unpacks to a hundred times as much."""
    torch.save({"version": 1, "x": torch.zeros(10**6)}, "whole.pt")
    with zipfile.ZipFile("whole.pt") as whole, zipfile.ZipFile("checkpoint.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))


CHECKPOINTS: dict[str, Callable[[], object]] = {
    "executes": lambda: torch.save({"version": 1, "x": Trap()}, "checkpoint.pt"),
    "fills the memory": lambda: torch.save({"version": 1, "x": Room()}, "checkpoint.pt"),
    "unpacks to more": compressed,
    "is a pipe": lambda: (os.mkfifo("checkpoint.pt"), Path("checkpoint.previous.pt").write_bytes(b"")),
}


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_hostile_checkpoint_is_damaged(make: Callable[[], object]):
    make()
    with pytest.raises(UserError, match="damaged, or no checkpoint"):
        Checkpoints(Path()).load(CPU)
    assert not Path("sprung").exists()


NESTED: list = [1.0]
for _ in range(40):
    NESTED = [NESTED, NESTED]
STATES = {
    "epoch": {"epoch": "1"},
    "step": {"step": -1},
    "step beyond the epoch": {"step": 2**20},
    "totals": {"totals": {"loss": torch.zeros(3)}},
    "history": {"history": [1]},
    "history without end": {"history": [{"x": NESTED}]},
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_whole_checkpoint_with_another_state_is_refused(change: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.training.MOST", 10**5)
    train()
    path = Path("runs/toy/search/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    state["position"] |= {
        "epoch": 1,
        "step": 1,
        "totals": {"loss": torch.zeros(())},
        "history": [{"epoch": 1}],
        **change,
    }
    torch.save(state, path)
    with pytest.raises(UserError, match="--overwrite starts anew"):
        train()


def test_moments_of_another_shape_and_a_lost_random_state_are_refused():
    train()
    path = Path("runs/toy/search/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    moments = state["optimizer"]["state"][0]["exp_avg"]
    for part, wrong in (("optimizer", torch.zeros(1).expand(2**40)), ("random", None)):
        state["optimizer"]["state"][0]["exp_avg"] = wrong if part == "optimizer" else moments
        state["random"] = state["random"] if part == "optimizer" else {}
        torch.save(state, path)
        with pytest.raises(UserError, match="does not fit this run"):
            train()


def test_a_position_is_its_own_state():
    position = Position()
    position.load_state_dict(Position(1, 1, {"loss": torch.ones(())}, [{"epoch": 1}]).state_dict())
    assert (position.epoch, position.step) == (1, 1)


LAUGHS = "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))
MERGES = LAUGHS.replace("[x]", "{x: 1}").replace(" [", " {<<: [").replace("]\n", "]}\n")
YAML = {
    "laughs": LAUGHS + "name: *i",
    "merges": MERGES,
    "colons": "epochs: 1" + ":1" * 40_000,
    "a long number": "epochs: 0x" + "f" * 40_000,
    "brackets": "name: " + "[" * 90_000,
    "executes": "name: !!python/object/apply:os.mkdir ['sprung']",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_a_hostile_yaml_file_is_one_line(text: str):
    Path("flags.yaml").write_text(text)
    with pytest.raises(UserError, match="not a readable YAML file"):
        parse(SearchConfig, "search", ["--config", "flags.yaml"])
    assert not Path("sprung").exists()


@pytest.mark.parametrize("size", [2**60, 2**63, 2**64 - 1, 100_000_001])
def test_a_model_whose_header_claims_more_than_there_is_is_refused(size: int):
    Path("m.safetensors").write_bytes(size.to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="is not a model"):
        SavedModel.load(Path("m.safetensors"))


def test_an_array_that_claims_more_rows_than_it_has_is_refused():
    np.save("x.npy", np.zeros((4, 8, 8), np.float32))
    Path("x.npy").write_bytes(Path("x.npy").read_bytes().replace(b"(4, 8, 8), }       ", b"(4000000000, 8, 8)}"))
    with pytest.raises(ValueError, match=r"cut short|damaged"):
        RowReader(Path("x.npy"))


def header(place: int, value: int, size: int = 4) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[place : place + size] = value.to_bytes(size, "little")

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [(header(24, 1), "a rate of 1 Hz"), (header(24, 2**31 - 1), "a rate of"), (header(40, 2**32 - 1), "")],
    ids=["one sample a second", "billions", "more samples than there are"],
)
def test_what_a_wav_claims_costs_nothing(change: Callable, message: str):
    soundfile.write("a.wav", np.full(8000, 0.1), 8000)
    content = bytearray(Path("a.wav").read_bytes())
    change(content)
    Path("a.wav").write_bytes(content)
    if message:
        with pytest.raises(UserError, match=message):
            list(read_clips(Path("a.wav"), FRONT_END))
    else:
        assert len(list(read_clips(Path("a.wav"), FRONT_END))) == 4


def test_a_flac_file_that_claims_months_is_not_cut_up():
    soundfile.write("a.flac", np.full(8000, 0.1), 8000)
    content = bytearray(Path("a.flac").read_bytes())
    content[22:26] = b"\xff" * 4
    Path("a.flac").write_bytes(content)
    with pytest.raises(UserError, match="149 hours, of which at most 24 can be cut up"):
        list(read_clips(Path("a.flac"), FRONT_END))


def test_a_front_end_that_no_memory_holds_is_refused():
    with pytest.raises(ValueError, match="a clip would become"):
        FrontEnd(duration=600, sample_rate=192_000, hop_length=1)
    assert FrontEnd(duration=600).points < 2**26


@pytest.mark.parametrize("name", ["config.json", "manifest.csv", "skipped.csv", "features.npy"])
def test_a_pipe_in_a_store_is_not_waited_for(name: str):
    write_store()
    Path("store", name).unlink()
    os.mkfifo(Path("store", name))
    with pytest.raises(UserError, match=r"regular file|no features"):
        FeatureStore.open(Path("store"))


@pytest.mark.parametrize("word", ["../x", "/abs", "a/../../x", "a\n", ".hidden", "a/", "-"])
def test_a_name_stays_in_its_folder(word: str):
    for kind, flag in ((SearchConfig, "--name"), (SearchConfig, "--dataset"), (EvaluateConfig, "--dataset")):
        with pytest.raises(UserError, match=flag):
            parse(kind, "search", [f"{flag}={word}", *(["--model=m", "--out=o"] if kind is EvaluateConfig else [])])


def test_utterances_named_out_of_their_folder_write_nothing_there(here: Path):
    write_corpus()
    text = (
        Path("list.csv").read_text().replace("0.wav", "../inside/0.wav").replace("1.wav", str(Path("1.wav").resolve()))
    )
    Path("list.csv").write_text(text + "a\0b.wav,S1,sad,1,x\n" + "x" * 5000 + ".wav,S1,sad,1,x\n")
    before = set(here.iterdir())
    prepare_corpus()
    assert set(here.iterdir()) == before
    assert len(FeatureStore.open(Path("store")).skipped) == 2
    assert stamp(Path("a\0b")) == ""


def test_a_link_in_a_run_is_not_written_through(here: Path):
    train()
    (here / "thesis").write_text("a thesis")
    log = Path("runs/toy/search/search.log")
    log.unlink()
    log.symlink_to(here / "thesis")
    with pytest.raises(UserError, match="is a link"):
        train()
    assert (here / "thesis").read_text() == "a thesis"


def test_a_run_may_be_a_link_and_overwriting_it_deletes_the_link_alone(here: Path):
    train()
    Path("runs/toy/search").rename(here / "disk")
    Path("runs/toy/search").symlink_to(here / "disk")
    train()
    config = Toy().config.model_copy(update={"resume": False, "overwrite": True})
    for _ in range(2):
        with RunFolder("search", config):
            assert not Path("runs/toy/search").is_symlink()
        assert (here / "disk" / "checkpoint.pt").exists()


@pytest.mark.parametrize("origin", [{"inputs": [1]}, {"starts": 5}, [], {"inputs": None}])
def test_an_origin_of_another_form_is_refused(origin: object):
    train()
    Path("runs/toy/search/origin.json").write_text(json.dumps(origin))
    with pytest.raises(UserError, match="is damaged"):
        train()


def test_names_of_trials_do_not_multiply_without_bound():
    for i in range(50):
        Path(f"study/m{i}-fold{i}-seed{i}").mkdir(parents=True)
    with pytest.raises(UserError, match="make 125,000 trials"):
        read_trials(Path("study"))


def test_numbers_of_any_size_are_none():
    assert [number(n) for n in (10**400, -(10**400), float("nan"), float("inf"), True, "1", 3, 0.5)] == [None] * 6 + [
        3,
        0.5,
    ]


def test_what_a_message_says_cannot_move_the_cursor(capsys: pytest.CaptureFixture):
    def fail() -> None:
        raise UserError("a \x1b[2J \u202e \udcff ü")

    with pytest.raises(SystemExit):
        run_command(fail)
    assert capsys.readouterr().err == "error: a \\x1b[2J \\u202e \\udcff ü\n"
    assert printable("ok ü") == "ok ü"
