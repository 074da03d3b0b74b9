"""Scores of a test: UA, WA, macro-F1, recalls, confusion, confidence intervals; their table and the predictions' file.

Every utterance counts once, over the whole set at once. Rates are fractions of 1.
UA (unweighted accuracy) is the mean recall of the classes that occur; WA (weighted accuracy) is the plain accuracy.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from data.store import Row
from utils import write_text

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
    return {
        name: [float(bound) for bound in np.percentile(values, [2.5, 97.5])] for name, values in rates.items()
    }


def table(metrics: dict[str, Any]) -> str:
    """The result as a person reads it."""
    interval = {
        name: f"95 % interval {low:.1%} to {high:.1%}" for name, (low, high) in metrics["ci95"].items()
    }
    lines = [f"test on {metrics['n']} utterances of {', '.join(metrics['test_speakers'])}"]
    if "best_epoch" in metrics:
        lines.append(f"epoch {metrics['best_epoch']}, protocol {metrics['protocol']}")
    lines += [
        f"  UA        {metrics['ua']:6.1%}   {interval['ua']}",
        f"  WA        {metrics['wa']:6.1%}   {interval['wa']}",
        f"  macro-F1  {metrics['macro_f1']:6.1%}",
    ]
    lines += [f"  recall    {r:6.1%}   {name}" for name, r in metrics["recall"].items() if r is not None]
    return "\n".join(lines)


def write_predictions(
    path: Path, manifest: Sequence[Row], classes: Sequence[str], probabilities: np.ndarray
) -> None:
    """One line a test utterance: who said it, what it is, what was predicted, and how probable each class was."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["utterance", "speaker", "emotion", "predicted", *classes])
    for row, p in zip(manifest, probabilities, strict=True):
        lines.writerow(
            [row.utterance, row.speaker, row.emotion, classes[p.argmax()], *(f"{value:.6f}" for value in p)]
        )
    write_text(path, text.getvalue())
