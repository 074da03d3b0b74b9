"""Files that claim more than they hold, or that would expand to fill the memory."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import FRONT_END, outside

from cli import parse
from config import FrontEnd, SearchConfig
from data.arrays import RowReader
from data.features import read_clips
from models.saved import SavedModel
from report.summaries import valid_number
from report.trials import read_trials
from utils import UserError

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
def test_a_hostile_yaml_file_is_refused(text: str):
    Path("flags.yaml").write_text(text)
    with pytest.raises(UserError, match="not a readable YAML file"):
        parse(SearchConfig, ["--config", "flags.yaml"])
    assert not Path("sprung").exists()


@pytest.mark.parametrize("size", [2**60, 2**63, 2**64 - 1, 100_000_001])
def test_a_model_with_too_large_a_header_is_refused(size: int):
    Path("m.safetensors").write_bytes(size.to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="is not a model"):
        SavedModel.load(Path("m.safetensors"))


def test_an_array_that_claims_too_many_rows_is_refused():
    np.save("x.npy", np.zeros((4, 8, 8), np.float32))
    Path("x.npy").write_bytes(
        Path("x.npy").read_bytes().replace(b"(4, 8, 8), }       ", b"(4000000000, 8, 8)}")
    )
    with pytest.raises(ValueError, match=r"cut short|damaged"):
        RowReader(Path("x.npy"))


def header(offset: int, value: int, size: int = 4) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[offset : offset + size] = value.to_bytes(size, "little")

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [(header(24, 1), "a rate of 1 Hz"), (header(24, 2**31 - 1), "a rate of"), (header(40, 2**32 - 1), "")],
    ids=["one sample a second", "billions", "more samples than there are"],
)
def test_a_wav_file_with_a_false_header_is_refused_or_read_to_its_end(change: Callable, message: str):
    soundfile.write("a.wav", np.full(8000, 0.1), 8000)
    content = bytearray(Path("a.wav").read_bytes())
    change(content)
    Path("a.wav").write_bytes(content)
    if message:
        with pytest.raises(UserError, match=message):
            list(read_clips(Path("a.wav"), FRONT_END))
    else:
        assert len(list(read_clips(Path("a.wav"), FRONT_END))) == 4


def test_a_flac_file_that_claims_days_is_refused():
    soundfile.write("a.flac", np.full(8000, 0.1), 8000)
    content = bytearray(Path("a.flac").read_bytes())
    content[22:26] = b"\xff" * 4
    Path("a.flac").write_bytes(content)
    with pytest.raises(UserError, match="149 hours long; at most 24 hours can be read"):
        list(read_clips(Path("a.flac"), FRONT_END))


def test_a_front_end_too_large_for_the_memory_is_refused():
    with pytest.raises(ValueError, match="a clip would need"):
        FrontEnd(duration=600, sample_rate=192_000, hop_length=1)
    assert FrontEnd(duration=600).clip_values < 2**26


def test_too_many_trials_are_refused():
    for i in range(50):
        Path(f"study/m{i}-fold{i}-seed{i}").mkdir(parents=True)
    with pytest.raises(UserError, match="make 125,000 trials"):
        read_trials(Path("study"))


def test_numbers_that_a_report_cannot_show_are_none():
    values = (10**400, -(10**400), float("nan"), float("inf"), True, "1", 3, 0.5)
    assert [valid_number(value) for value in values] == [None] * 6 + [3, 0.5]
