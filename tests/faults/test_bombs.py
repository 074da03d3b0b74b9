"""Files that would execute something, fill the memory, or never end."""

import os
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hostile import FRONT_END, here

from cli import parse
from config import FrontEnd, SearchConfig
from data.arrays import RowReader
from data.features import read_clips
from models.saved import SavedModel
from report.summaries import valid_number
from report.trials import read_trials
from training.checkpoints import Checkpoints
from utils import UserError

CPU = torch.device("cpu")


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
    with (
        zipfile.ZipFile("whole.pt") as whole,
        zipfile.ZipFile("checkpoint.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
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


LAUGHS = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi")
)
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
        parse(SearchConfig, ["--config", "flags.yaml"])
    assert not Path("sprung").exists()


@pytest.mark.parametrize("size", [2**60, 2**63, 2**64 - 1, 100_000_001])
def test_a_model_whose_header_claims_more_than_there_is_is_refused(size: int):
    Path("m.safetensors").write_bytes(size.to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="is not a model"):
        SavedModel.load(Path("m.safetensors"))


def test_an_array_that_claims_more_rows_than_it_has_is_refused():
    np.save("x.npy", np.zeros((4, 8, 8), np.float32))
    Path("x.npy").write_bytes(
        Path("x.npy").read_bytes().replace(b"(4, 8, 8), }       ", b"(4000000000, 8, 8)}")
    )
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
    with pytest.raises(ValueError, match="a clip would need"):
        FrontEnd(duration=600, sample_rate=192_000, hop_length=1)
    assert FrontEnd(duration=600).clip_values < 2**26


def test_names_of_trials_do_not_multiply_without_bound():
    for i in range(50):
        Path(f"study/m{i}-fold{i}-seed{i}").mkdir(parents=True)
    with pytest.raises(UserError, match="make 125,000 trials"):
        read_trials(Path("study"))


def test_numbers_of_any_size_are_none():
    assert [
        valid_number(n) for n in (10**400, -(10**400), float("nan"), float("inf"), True, "1", 3, 0.5)
    ] == [None] * 6 + [
        3,
        0.5,
    ]
