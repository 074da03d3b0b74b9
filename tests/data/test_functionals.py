"""Functionals of a store's features: compared with NumPy and librosa, one coefficient at a time."""

import librosa
import numpy as np
import pytest
import soundfile

from config import FrontEnd
from data.corpora import Utterance
from data.functionals import functionals, read_sound, store_functionals, utterance_rows
from data.preparation import Settings, prepare
from data.store import FeatureStore

FRONT_END = FrontEnd(
    sample_rate=8000, n_fft=256, hop_length=128, n_mels=20, n_mfcc=6, duration=1.0, frames=20, long="chunks"
)
SECONDS = {"a_short": 0.31, "b_whole": 1.0, "c_long": 2.6}
CLIP_FRAMES = {"a_short": [7], "b_whole": [20], "c_long": [20, 20, 20]}
"""The frames of sound in each clip: the share of the clip that is sound, times 20, rounded up."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store with recordings of different lengths, and with a perturbed copy of each."""
    folder = tmp_path_factory.mktemp("functionals")
    rng = np.random.default_rng(0)
    utterances = []
    for name, seconds in SECONDS.items():
        soundfile.write(folder / f"{name}.wav", rng.normal(0, 0.1, round(seconds * 8000)), 8000)
        utterances.append(Utterance(name, folder / f"{name}.wav", "S1", "sad"))
    settings = Settings("noise", FRONT_END, copies=("speed:0.9",))
    return prepare(utterances, settings, folder / "features" / "noise")[0]


def expected(series: np.ndarray) -> list[float]:
    """The functionals of one series."""
    slope = np.polyfit(np.arange(len(series)), series, 1)[0]
    return [np.mean(series), np.std(series), slope, *np.quantile(series, [0.05, 0.25, 0.5, 0.75, 0.95])]


@pytest.mark.parametrize("lengths", [[20], [3], [20, 20, 7]])
def test_functionals_equal_numpy_and_deltas_equal_librosa(lengths: list[int]):
    rng = np.random.default_rng(1)
    clips = [rng.normal(0, 5, (4, frames)).astype(np.float32) for frames in lengths]
    padded = [np.pad(clip, ((0, 0), (2, 2)), mode="edge") for clip in clips]  # librosa's window must fit
    deltas = [librosa.feature.delta(clip, width=5, mode="nearest")[:, 2:-2] for clip in padded]
    series = [*np.hstack(clips), *np.hstack(deltas)]
    np.testing.assert_allclose(functionals(clips), np.concatenate([*map(expected, series)]), atol=1e-5)


def test_a_single_frame_has_no_deviation_slope_or_delta():
    values = functionals([np.array([[2.5], [-1.0]], np.float32)])
    static = [[x, 0, 0, x, x, x, x, x] for x in (2.5, -1.0)]
    np.testing.assert_array_equal(values, np.concatenate([*static, np.zeros(16)]))


def test_utterances_have_the_rows_of_their_clips_and_no_copies(store: FeatureStore):
    utterances = utterance_rows(store, range(len(store)))
    assert {name: len(rows) for name, rows in utterances.items()} == {"a_short": 1, "b_whole": 1, "c_long": 3}
    assert not any(store.manifest[row].copy for rows in utterances.values() for row in rows)
    assert any(row.copy for row in store.manifest)


@pytest.mark.parametrize("name", SECONDS)
def test_padding_is_not_read(name: str, store: FeatureStore):
    rows = utterance_rows(store, range(len(store)))[name]
    clips = read_sound(store, rows)
    assert [clip.shape for clip in clips] == [(6, frames) for frames in CLIP_FRAMES[name]]
    for row, clip in zip(rows, clips, strict=True):
        np.testing.assert_array_equal(clip, store.features[row][:, : clip.shape[1]])


def test_store_functionals_are_those_of_each_utterance(store: FeatureStore):
    utterances = utterance_rows(store, range(len(store)))
    values = store_functionals(store, utterances)
    assert values.shape == (3, 16 * 6)
    for vector, rows in zip(values, utterances.values(), strict=True):
        np.testing.assert_array_equal(vector, functionals(read_sound(store, rows)))
