"""Scores of a test: UA, WA, macro-F1, recalls, confusion, and confidence intervals by a bootstrap over speakers.

Every utterance counts once, over the whole set at once. Rates are fractions of 1.
UA (unweighted accuracy) is the mean recall of the classes that occur; WA (weighted accuracy) is the plain accuracy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, recall_score

BOOTSTRAPS = 2000


def scores(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """{"ua", "wa", "macro_f1"} of integer class ids (N,)."""
    present = np.unique(labels)
    return {
        "ua": float(recall_score(labels, predicted, labels=present, average="macro", zero_division=0)),
        "wa": float(np.mean(labels == predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def report(
    labels: np.ndarray, predicted: np.ndarray, speakers: Sequence[str], classes: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """All that metrics.json says of a set of predictions; a class that does not occur has recall null."""
    ids = range(len(classes))
    recalls = recall_score(labels, predicted, labels=ids, average=None, zero_division=np.nan)
    return {
        **scores(labels, predicted),
        "n": len(labels),
        "classes": list(classes),
        "recall": {c: None if np.isnan(r) else float(r) for c, r in zip(classes, recalls, strict=True)},
        "confusion": confusion_matrix(labels, predicted, labels=ids).tolist(),
        "ci95": confidence_intervals(labels, predicted, speakers, len(classes), seed),
    }


def confidence_intervals(
    labels: np.ndarray, predicted: np.ndarray, speakers: Sequence[str], classes: int, seed: int = 0
) -> dict[str, list[float]]:
    """95 % percentile intervals of UA and WA; the bootstrap draws speakers, since their utterances go together."""
    names, speaker = np.unique(np.asarray(speakers), return_inverse=True)
    confusions = np.zeros((len(names), classes, classes))
    np.add.at(confusions, (speaker, labels, predicted), 1)
    draws = np.random.default_rng(seed).integers(len(names), size=(BOOTSTRAPS, len(names)))
    confusion = confusions[draws].sum(axis=1)  # (draws, true, predicted)
    correct, support = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2)
    recall = np.divide(correct, support, out=np.full_like(correct, np.nan), where=support > 0)
    rates = {"ua": np.nanmean(recall, axis=1), "wa": correct.sum(axis=1) / support.sum(axis=1)}
    return {name: [float(bound) for bound in np.percentile(values, [2.5, 97.5])] for name, values in rates.items()}
