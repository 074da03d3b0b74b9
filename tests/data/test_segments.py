"""Parts of recordings: their times as text, their sound, and their place in a feature store."""

import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import data.preparation
from config import FrontEnd
from data.corpora import Utterance
from data.features import UnreadableAudio, read_clips
from data.preparation import Settings, prepare
from data.segments import parse_seconds
from data.store import FeatureStore

RATE = 8000
SMALL = FrontEnd(sample_rate=RATE, n_fft=256, hop_length=128, n_mels=16, n_mfcc=8, duration=0.5, frames=8)
microseconds = st.integers(0, 10**12)


@given(microseconds)
def test_times_are_read_in_the_forms_in_which_programs_write_them(microseconds: int) -> None:
    time = timedelta(microseconds=microseconds)
    hours, rest = divmod(microseconds, 3_600_000_000)
    clock = f"{hours:02d}:{rest // 60_000_000:02d}:{rest % 60_000_000 / 1e6:09.6f}"
    days = f"{time.days} days {str(time - timedelta(days=time.days)).zfill(8)}"
    seconds = repr(microseconds / 1e6)
    for text in (clock, days, seconds, seconds.replace(".", ","), f" {seconds} s"):
        assert parse_seconds(text) == pytest.approx(microseconds / 1e6, abs=1e-6)


@pytest.mark.parametrize("text", ["", " ", "NaT", "nan", "None"])
def test_a_time_may_be_left_out(text: str) -> None:
    assert parse_seconds(text) is None


@pytest.mark.parametrize(
    "text", ["-1", "1.2.3", "one", "1:", "1 day ago", "1e999", "inf", "1;5", "0x1", "1,234.5"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_seconds(text)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Four seconds of noise that grows louder, so that its parts differ."""
    sound = np.linspace(0.01, 0.5, 4 * RATE) * np.random.default_rng(0).uniform(-1, 1, 4 * RATE)
    soundfile.write(tmp_path / "four.wav", sound, RATE, subtype="FLOAT")
    return tmp_path / "four.wav"


def cut(recording: Path, start: float, end: float | None) -> Path:
    """Write a part of a recording to a file of its own."""
    sound, _ = soundfile.read(recording, dtype="float32")
    file = recording.with_name(f"{start}-{end}.wav")
    soundfile.write(
        file, sound[round(start * RATE) : None if end is None else round(end * RATE)], RATE, subtype="FLOAT"
    )
    return file


@pytest.mark.parametrize("long", ["first", "center", "chunks"])
@pytest.mark.parametrize("copy", ["", "speed:0.9", "pitch:2"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.3), (1.25, 1.5), (1.0, 2.7), (2.6, None), (3.0, 4.05)])
def test_a_part_sounds_like_a_file_that_holds_only_it(recording, start, end, copy, long) -> None:
    front_end = SMALL.model_copy(update={"long": long})
    expected = list(read_clips(cut(recording, start, end), front_end, copy))
    found = list(read_clips(recording, front_end, copy, start=start, end=end))
    assert len(found) == len(expected) >= 1
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.sound, theirs.sound)
        assert (mine.start, mine.end) == pytest.approx(
            (theirs.start + start, theirs.end + start), abs=2 / RATE
        )
        assert mine.recording == pytest.approx(theirs.recording)


@pytest.mark.parametrize(("start", "end"), [(4.0, None), (5.0, 6.0), (3.0, 4.5)])
def test_a_part_that_the_file_does_not_have_is_unreadable(
    recording: Path, start: float, end: float | None
) -> None:
    with pytest.raises(UnreadableAudio, match=rf"4\.000 s long: it has no part from {start:g} s"):
        list(read_clips(recording, SMALL, start=start, end=end))


def parts(recording: Path, *times: tuple[float, float | None]) -> list[Utterance]:
    return [
        Utterance(f"four#t={number}", recording, f"S{number}", "sad", start=start, end=end)
        for number, (start, end) in enumerate(times)
    ]


def make(utterances: list[Utterance], folder: Path, **settings: object) -> tuple[FeatureStore, int]:
    return prepare(utterances, Settings("noise", SMALL, **settings), folder)


def test_a_store_holds_the_parts_and_computes_only_those_that_change(
    recording, tmp_path, monkeypatch
) -> None:
    copies = ("noise:10",)
    store, _ = make(parts(recording, (0.0, 1.0), (1.0, 1.5), (9.0, 9.5)), tmp_path / "x", copies=copies)
    assert [(row.start, row.duration, row.copy) for row in store.manifest] == [
        (0.0, 1.0, ""), (0.0, 1.0, "noise:10"), (1.0, 0.5, ""), (1.0, 0.5, "noise:10")
    ]  # fmt: skip
    assert [file for file, _ in store.skipped] == [f"{recording}#t=9,9.5"]
    files = [
        Utterance(str(n), cut(recording, *part), "S", "sad")
        for n, part in enumerate([(0.0, 1.0), (1.0, 1.5)])
    ]
    alone, _ = make(files, tmp_path / "y")
    np.testing.assert_array_equal(store.features[np.array([0, 2])], alone.features[np.array([0, 1])])

    read = []
    monkeypatch.setattr(
        data.preparation, "read_clips", lambda *words: read.append(words) or read_clips(*words)
    )
    changed, kept = make(parts(recording, (0.0, 1.0), (1.0, 1.75)), tmp_path / "x", copies=copies)
    assert kept == 2
    assert [words[-2:] for words in read] == [(1.0, 1.75)] * 2
    assert math.isclose(changed.manifest[2].duration, 0.75)
    fresh, _ = make(parts(recording, (0.0, 1.0), (1.0, 1.75)), tmp_path / "z", copies=copies)
    for name in ("manifest.csv", "features.npy", "config.json", "skipped.csv"):
        assert (changed.folder / name).read_bytes() == (fresh.folder / name).read_bytes()
