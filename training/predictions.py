"""Predictions of a network: logits of batches, the mean over the clips of an utterance, scores and files of a test.

Shapes: N clips, U utterances.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.batches import Features
from data.store import FeatureStore
from plots import charts
from training.losses import class_weights
from training.metrics import report, scores, write_predictions
from training.precision import ieee_float32


@dataclass(frozen=True, eq=False)
class Predictions:
    """The class probabilities of U utterances of a store.

    `rows` (U,) are the first rows of the utterances; `log_probabilities` is (U, classes).
    """

    store: FeatureStore
    rows: np.ndarray
    log_probabilities: Tensor

    @cached_property
    def labels(self) -> np.ndarray:
        """The true classes, (U,)."""
        return self.store.labels[self.rows]

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(U, classes)."""
        return self.log_probabilities.exp().numpy()

    @property
    def predicted(self) -> np.ndarray:
        """The most probable classes, (U,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        return mean_loss(self.log_probabilities, self.labels)

    @property
    def balanced_loss(self) -> float:
        """The mean over the classes of the mean cross-entropy of their utterances."""
        return balanced_loss(self.log_probabilities, self.labels)

    def scores(self) -> dict[str, float]:
        """UA, WA and macro-F1."""
        return scores(self.labels, self.predicted)

    def report(self) -> dict[str, Any]:
        """The entries of metrics.json that every test has."""
        speakers = [self.store.speakers[row] for row in self.rows]
        sexes = [self.store.manifest[row].sex for row in self.rows]
        metrics = report(self.labels, self.predicted, speakers, self.store.classes, sexes)
        return {**metrics, "test_speakers": sorted(set(speakers))}

    def write(self, path: Path) -> None:
        """Write predictions.csv, one line per utterance."""
        manifest = [self.store.manifest[row] for row in self.rows]
        write_predictions(path, manifest, self.store.classes, self.probabilities)


def predict(
    network: nn.Module, features: Features, store: FeatureStore, rows: np.ndarray, batch_size: int
) -> Predictions:
    """Predict the utterances of these rows: the mean over the clips of each copy, and over the copies.

    The rows of an utterance, and those of each of its copies, are consecutive; the first are those of the original.
    """
    logits = compute_logits(network, features.in_order(rows, batch_size))
    clips = [(store.manifest[row].utterance, store.manifest[row].copy) for row in rows]
    clips_of_copy = run_lengths(clips)
    first_clips = rows_before(clips_of_copy)
    copies_of_utterance = run_lengths([clips[i][0] for i in first_clips])
    first = first_clips[rows_before(copies_of_utterance)]
    probabilities = average_clips(average_clips(logits, clips_of_copy), copies_of_utterance)
    return Predictions(store, rows[first], probabilities)


def run_lengths(values: Iterable[Any]) -> list[int]:
    """How often each value follows itself: [2, 1] for [a, a, b]."""
    return [len(list(group)) for _, group in groupby(values)]


def rows_before(counts: Sequence[int]) -> np.ndarray:
    """The number of rows before each of consecutive groups of rows: [0, 2] for groups of [2, 1]."""
    return np.cumsum([0, *counts])[:-1]


@torch.no_grad()
def compute_logits(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The logits (N, classes), on the CPU, in evaluation mode. The mode of the network is restored."""
    training = network.training
    network.eval()
    with ieee_float32():
        logits = torch.cat([network(x) for x, _ in batches]).float().cpu()
    network.train(training)
    return logits


def average_clips(logits: Tensor, clips: Sequence[int]) -> Tensor:
    """The log of the mean probability over the clips of each utterance: logits (N, classes) -> (U, classes).

    `clips` (U,) counts the clips of each utterance, whose logits are consecutive rows.
    """
    parts = logits.log_softmax(dim=1).split(list(clips))
    return torch.stack([part.logsumexp(dim=0) - math.log(len(part)) for part in parts])


def mean_loss(logits: Tensor, labels: Any) -> float:
    """The mean cross-entropy of logits (N, classes)."""
    return float(F.cross_entropy(logits, torch.as_tensor(labels)))


def balanced_loss(logits: Tensor, labels: np.ndarray) -> float:
    """The mean over the classes in `labels` (N,) of the mean cross-entropy of their logits (N, classes)."""
    weights = class_weights(labels, logits.shape[1])
    return float(F.cross_entropy(logits, torch.as_tensor(labels), weights))


def average_networks(predictions: Sequence[Predictions]) -> Predictions:
    """The mean probabilities of several networks, which have predicted the same rows."""
    each = torch.stack([one.log_probabilities for one in predictions])
    mean = each.logsumexp(dim=0) - math.log(len(each))
    return Predictions(predictions[0].store, predictions[0].rows, mean)


def draw_confusion(metrics: dict[str, Any], path: Path) -> None:
    """Draw the confusion matrix of a test; the title shows its scores."""
    title = f"UA {metrics['ua']:.1%}, WA {metrics['wa']:.1%}"
    charts.draw_confusion(metrics["confusion"], metrics["classes"], path, title)
