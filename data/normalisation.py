"""Standardisation of the features: the mean and the deviation of each coefficient over the frames of sound.

They are taken over the training rows, over each speaker's own rows, or over each utterance. Those of a speaker need no
labels: they remove what all recordings of a speaker have in common, such as the microphone.

Shapes: N rows of the store, G groups of rows, F coefficients, T frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from config import FrontEnd
from data.arrays import RowReader
from data.folds import is_known_speaker
from data.perturbation import speed_of
from data.store import FeatureStore, Row

CHUNK = 64  # rows that are read at a time


@dataclass(frozen=True, eq=False)
class Standardisation:
    """(x - mean) / std, with the mean and the deviation of the group of each row."""

    mean: np.ndarray  # (G, F) float32
    std: np.ndarray  # (G, F) float32
    group: np.ndarray  # (N,) int64


def standardise(store: FeatureStore, kind: str, mean: np.ndarray, std: np.ndarray) -> Standardisation:
    """The standardisation of a store.

    kind: "training", by this mean and std (F,), or "speaker" or "utterance", by their own.
    """
    if kind == "training":
        return Standardisation(mean[None], std[None], np.zeros(len(store), np.int64))
    return own_statistics(store, kind)


def own_statistics(store: FeatureStore, kind: str) -> Standardisation:
    """The standardisation of each row by the statistics of its own group.

    kind: "speaker" or "utterance". A perturbed copy counts as another speaker, since it has another spectrum. Without
    the name of a speaker, each utterance is a group.
    """
    names = [_group_of(row, kind) for row in store.manifest]
    _, group = np.unique(names, axis=0, return_inverse=True)
    group = group.ravel()
    frames = sound_frames(store.manifest, store.front_end)
    rows_of = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    found = [statistics(store.features, rows, frames[rows]) for rows in rows_of]
    return Standardisation(np.stack([s.mean for s in found]), np.stack([s.std for s in found]), group)


def _group_of(row: Row, kind: str) -> tuple[str, str, str]:
    """The name of a row's group: speaker, utterance, copy."""
    if kind == "speaker" and is_known_speaker(row.speaker):
        return row.speaker, "", row.copy
    return "", row.utterance, row.copy


def sound_frames(manifest: Sequence[Row], front_end: FrontEnd) -> np.ndarray:
    """The number of frames of each row that hold sound, (N,) int64; the frames after them are padding."""
    return np.array(
        [frames_of((row.end - row.start) / speed_of(row.copy), front_end) for row in manifest], np.int64
    )


def frames_of(seconds: float, front_end: FrontEnd) -> int:
    """The number of frames that so many seconds of sound fill; 1 at least."""
    return min(max(1, math.ceil(seconds / front_end.duration * front_end.frames)), front_end.frames)


class Statistics:
    """The mean and the deviation of each coefficient over frames that are added a few clips at a time."""

    def __init__(self) -> None:
        self.scaler = StandardScaler()

    def add(self, clips: np.ndarray, frames: np.ndarray) -> None:
        """Add the first `frames` (n,) frames of each of the clips (n, F, T)."""
        is_sound = np.arange(clips.shape[2]) < frames[:, None]  # (n, T)
        self.scaler.partial_fit(clips.transpose(0, 2, 1)[is_sound])

    @property
    def mean(self) -> np.ndarray:
        """(F,) float32."""
        return self.scaler.mean_.astype(np.float32)

    @property
    def std(self) -> np.ndarray:
        """(F,) float32; 1 for a coefficient that is constant."""
        return self.scaler.scale_.astype(np.float32)


def statistics(features: RowReader | np.ndarray, rows: np.ndarray, frames: np.ndarray) -> Statistics:
    """The statistics of the sound in these rows; the order of `rows` does not matter.

    frames: the number of frames of each of these rows that count, see `sound_frames`.
    Raises `ValueError` if there are no rows.
    """
    if not len(rows):
        raise ValueError("statistics of no rows")
    order = np.argsort(rows)  # the order on disk
    found = Statistics()
    for chunk in np.split(order, range(CHUNK, len(order), CHUNK)):
        found.add(features[rows[chunk]], frames[chunk])
    return found
