"""Standardisation: the statistics of the frames of sound, over the training rows, a speaker, or an utterance."""

from pathlib import Path

import numpy as np
import pytest

from config import FrontEnd
from data.arrays import RowReader, RowWriter
from data.normalisation import CHUNK, frames_of, own_statistics, sound_frames, standardise, statistics
from data.store import FeatureStore, Row

F, T = 3, 10
FRONT_END = FrontEnd(sample_rate=8000, n_fft=256, hop_length=128, n_mels=8, n_mfcc=F, duration=2, frames=T)


def row(name: str, speaker: str = "S1", end: float = 2.0, copy: str = "", start: float = 0.0) -> Row:
    labels = {"session": "", "emotion": "sad", "split": "", "text": "", "stamp": ""}
    return Row(name, f"{name}.wav", speaker, duration=9.0, copy=copy, start=start, end=end, **labels)


def make_store(folder: Path, rows: list[Row]) -> FeatureStore:
    rng = np.random.default_rng(0)
    writer = RowWriter(folder / "features.npy", (F, T))
    writer.append(rng.normal(rng.normal(0, 50, (1, F, 1)), rng.uniform(0.1, 9, (1, F, 1)), (len(rows), F, T)))
    writer.close()
    reader = RowReader(folder / "features.npy")
    return FeatureStore(folder, "noise", FRONT_END, ("sad",), rows, reader, [])


def sound_of(store: FeatureStore, rows: list[int], frames: list[int]) -> np.ndarray:
    """All frames of sound in these rows, (n, F) float64."""
    parts = [store.features[r][:, :count].T for r, count in zip(rows, frames, strict=True)]
    return np.concatenate(parts).astype(np.float64)


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [(2.0, 10), (9.0, 10), (1.0, 5), (1.01, 6), (0.99, 5), (0.2, 1), (0.01, 1), (0.0, 1)],
)
def test_frames_that_sound_fills(seconds: float, frames: int):
    assert frames_of(seconds, FRONT_END) == frames


def test_frames_of_copies_and_later_clips():
    """A copy at double speed is half as long; a clip's place in the recording does not count."""
    rows = [row("a", end=1.0), row("a", end=1.0, copy="speed:2"), row("a", start=6.0, end=7.0), row("b")]
    assert sound_frames(rows, FRONT_END).tolist() == [5, 3, 5, 10]


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_statistics_are_those_of_the_frames_of_sound(tmp_path: Path, count: int):
    rng = np.random.default_rng(count)
    store = make_store(tmp_path, [row(f"u{i}") for i in range(count)])
    rows = rng.permutation(count)
    frames = rng.integers(1, T + 1, count)
    found = statistics(store.features, rows, frames)
    truth = sound_of(store, rows, frames)
    np.testing.assert_allclose(found.mean, truth.mean(axis=0), rtol=1e-5, atol=1e-5)
    if len(truth) > 1:
        np.testing.assert_allclose(found.std, truth.std(axis=0), rtol=1e-4)


def test_a_constant_coefficient_becomes_zero():
    found = statistics(np.full((2, F, T), -80.0, np.float32), np.arange(2), np.array([T, T]))
    assert found.std.tolist() == [1.0] * F


def test_no_rows_have_no_statistics():
    with pytest.raises(ValueError, match="no rows"):
        statistics(np.zeros((2, F, T), np.float32), np.arange(0), np.arange(0))


def test_each_speaker_is_a_group_and_so_is_each_of_its_kinds_of_copies(tmp_path: Path):
    rows = [
        row("a", "S1", end=1.0),
        row("b", "S2"),
        row("c", "S1"),
        row("c", "S1", copy="speed:0.9"),
        row("d", "Unknown"),
        row("e", "Unknown", end=0.4),
    ]
    store = make_store(tmp_path, rows)
    found = own_statistics(store, "speaker")
    groups = [[0, 2], [1], [3], [4], [5]]
    assert len(found.mean) == len(groups)
    frames = sound_frames(rows, FRONT_END)
    for members in groups:
        assert len(set(found.group[members])) == 1
        group = found.group[members[0]]
        truth = sound_of(store, members, frames[members])
        np.testing.assert_allclose(found.mean[group], truth.mean(axis=0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.std[group], truth.std(axis=0), rtol=1e-4)


def test_each_utterance_is_a_group_with_all_its_clips(tmp_path: Path):
    store = make_store(
        tmp_path, [row("a"), row("b"), row("a", start=2.0, end=4.0), row("a", copy="noise:10")]
    )
    assert own_statistics(store, "utterance").group.tolist() in ([0, 2, 0, 1], [0, 1, 0, 2], [1, 2, 1, 0])


def test_training_statistics_hold_for_all_rows(tmp_path: Path):
    store = make_store(tmp_path, [row("a"), row("b"), row("c")])
    mean, std = np.arange(F, dtype=np.float32), np.ones(F, np.float32)
    found = standardise(store, "training", mean, std)
    assert found.mean[found.group].tolist() == [mean.tolist()] * 3
    assert found.std[found.group].tolist() == [std.tolist()] * 3
