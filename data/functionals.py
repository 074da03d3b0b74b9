"""Functionals: an utterance of any length as one vector of numbers, for a classifier without a notion of time.

They are computed here from the features of a store; `data.functional_tables` reads those of other programs.

Shapes: U utterances, F coefficients, D functionals.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torchaudio.functional import compute_deltas

from data.normalisation import sound_frames
from data.store import FeatureStore

PERCENTILES = (5, 25, 50, 75, 95)

Utterances = dict[str, list[int]]
"""The rows of each utterance in a store, by name."""


def utterance_rows(store: FeatureStore, rows: Iterable[int]) -> Utterances:
    """Group rows of a store by their utterances, in order; perturbed copies are left out."""
    utterances: Utterances = {}
    for row in rows:
        if not store.manifest[row].copy:
            utterances.setdefault(store.manifest[row].utterance, []).append(int(row))
    return utterances


def store_functionals(store: FeatureStore, utterances: Utterances) -> np.ndarray:
    """Compute the functionals (U, D) of utterances from all their clips; D is 16 F (see `functionals`)."""
    return np.stack([functionals(read_sound(store, rows)) for rows in utterances.values()])


def read_sound(store: FeatureStore, rows: Sequence[int]) -> list[np.ndarray]:
    """Read the features (F, frames) of each of these rows, without the frames that are padding."""
    frames = sound_frames([store.manifest[row] for row in rows], store.front_end)
    return [store.features[row][:, :count] for row, count in zip(rows, frames, strict=True)]


def functionals(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the functionals (16 F,) of an utterance: eight of each coefficient, then eight of each delta.

    The eight are mean, standard deviation, slope of the regression line (per frame), and the percentiles 5, 25, 50, 75
    and 95, over all frames of the utterance. `clips` are its features (F, frames), one clip after another. A delta is
    the slope over five frames of a clip (Young et al., The HTK Book, section 5.9).
    """
    deltas = [compute_deltas(torch.from_numpy(clip)).numpy() for clip in clips]
    series = np.vstack([np.hstack(clips), np.hstack(deltas)]).astype(np.float64)  # (2 F, frames)
    time = np.arange(series.shape[1]) - (series.shape[1] - 1) / 2
    slope = series @ time / max(np.square(time).sum(), 1)  # 0 for a single frame
    percentiles = np.percentile(series, PERCENTILES, axis=1)
    eight = np.vstack([series.mean(axis=1), series.std(axis=1), slope, percentiles])  # (8, 2 F)
    return eight.T.ravel()
