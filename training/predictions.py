"""Utterances of a store and what networks have heard in them: scores, and the files of a test.

Shared by augment.py, which tests the network that it has trained, and evaluate.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.batches import Features
from data.store import FeatureStore
from plots import charts
from training.evaluation import cross_entropy, logits_of, pooled
from training.metrics import report, scores, write_predictions


@dataclass(frozen=True, eq=False)
class Predictions:
    """U utterances, each by its first row, and the log of the probability of each class, (U, classes)."""

    store: FeatureStore
    rows: np.ndarray
    log_probabilities: Tensor

    @cached_property
    def labels(self) -> np.ndarray:
        """The true classes, (U,)."""
        return self.store.labels[self.rows]

    @cached_property
    def probabilities(self) -> np.ndarray:
        return self.log_probabilities.exp().numpy()

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest classes, (U,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        return cross_entropy(self.log_probabilities, self.labels)

    def scores(self) -> dict[str, float]:
        """UA, WA and macro-F1."""
        return scores(self.labels, self.predicted)

    def report(self) -> dict[str, Any]:
        """What metrics.json says of every test, whatever was tested."""
        speakers = [self.store.speakers[row] for row in self.rows]
        told = report(self.labels, self.predicted, speakers, self.store.classes)
        return {**told, "test_speakers": sorted(set(speakers))}

    def write_predictions(self, path: Path) -> None:
        """One line an utterance."""
        manifest = [self.store.manifest[row] for row in self.rows]
        write_predictions(path, manifest, self.store.classes, self.probabilities)


def hear(
    network: nn.Module, features: Features, store: FeatureStore, rows: np.ndarray, batch_size: int
) -> Predictions:
    """What a network hears in the utterances of rows; of several clips of one, the mean probability."""
    logits = logits_of(network, features.in_order(rows, batch_size))
    names = np.array([store.manifest[row].utterance for row in rows])
    first, clips = np.unique(names, return_index=True, return_counts=True)[1:]
    return Predictions(store, rows[first], pooled(logits, clips))


def mean_of(predictions: Sequence[Predictions]) -> Predictions:
    """The mean probabilities of several networks that heard the same."""
    each = torch.stack([hearing.log_probabilities for hearing in predictions])
    mean = each.logsumexp(dim=0) - math.log(len(each))
    return Predictions(predictions[0].store, predictions[0].rows, mean)


def draw_confusion(metrics: dict[str, Any], path: Path) -> None:
    """The confusion matrix of a test, with its scores for a title."""
    title = f"UA {metrics['ua']:.1%}, WA {metrics['wa']:.1%}"
    charts.draw_confusion(metrics["confusion"], metrics["classes"], path, title)
