"""Scores of a test (UA, WA, macro-F1, recalls, confusion matrix, intervals), and the file of predictions.

Scores are fractions of 1, computed over all utterances of a set at once. UA (unweighted accuracy)
is the mean recall of the classes that occur; WA (weighted accuracy) is the plain accuracy.

Shapes: N utterances. Labels and predictions are integer class ids (N,).
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
"""Resamples of a bootstrap."""
MIN_SPEAKERS = 4
"""The fewest speakers of which a bootstrap gives an interval.

The resamples of P speakers stay between the lowest and the highest of their scores. This range holds the median of all
speakers with a probability of 1 - 2 ** (1 - P): 0 with one speaker, 50 % with two, 75 % with three. With up to three,
the interval would be this range: the lowest resample, which has a probability of P ** -P, is more than 2.5 % of all.
"""
TOO_FEW_SPEAKERS = "too few speakers for an interval"


def scores(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return {"ua", "wa", "macro_f1"}."""
    present = np.unique(labels)
    return {
        "ua": float(recall_score(labels, predicted, labels=present, average="macro", zero_division=0)),
        "wa": float(np.mean(labels == predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def report(
    labels: np.ndarray,
    predicted: np.ndarray,
    speakers: Sequence[str],
    classes: Sequence[str],
    sexes: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Return all scores that metrics.json holds; the recall of a class that does not occur is None.

    `speakers` (N,) and `sexes`, (N,) or empty, are those of the utterances; a sex that is not known is an empty text.
    """
    ids = range(len(classes))
    recalls = recall_score(labels, predicted, labels=ids, average=None, zero_division=np.nan)
    return {
        **scores(labels, predicted),
        "n": len(labels),
        "classes": list(classes),
        "recall": {c: None if np.isnan(r) else float(r) for c, r in zip(classes, recalls, strict=True)},
        "confusion": confusion_matrix(labels, predicted, labels=ids).tolist(),
        "ci95": confidence_intervals(labels, predicted, speakers, len(classes), seed),
        "by_sex": scores_by_sex(labels, predicted, speakers, sexes),
    }


def scores_by_sex(
    labels: np.ndarray, predicted: np.ndarray, speakers: Sequence[str], sexes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return {sex: {"ua", "n", "speakers"}} for each sex that is known."""
    found = {}
    for sex in sorted(set(sexes) - {""}):
        own = np.asarray(sexes) == sex
        names = sorted(set(np.asarray(speakers)[own].tolist()))
        found[sex] = {"ua": scores(labels[own], predicted[own])["ua"], "n": int(own.sum()), "speakers": names}
    return found


def confidence_intervals(
    labels: np.ndarray, predicted: np.ndarray, speakers: Sequence[str], classes: int, seed: int = 0
) -> dict[str, list[float] | None]:
    """Return 95 % percentile bootstrap intervals {"ua": [low, high], "wa": [low, high]}.

    The bootstrap resamples speakers, not utterances, because the utterances of a speaker are not
    independent. With fewer than `MIN_SPEAKERS`, both are None.
    """
    names, speaker = np.unique(np.asarray(speakers), return_inverse=True)
    if len(names) < MIN_SPEAKERS:
        return {"ua": None, "wa": None}
    confusions = np.zeros((len(names), classes, classes))  # (speakers, true, predicted)
    np.add.at(confusions, (speaker, labels, predicted), 1)
    draws = np.random.default_rng(seed).integers(len(names), size=(BOOTSTRAPS, len(names)))
    confusion = confusions[draws].sum(axis=1)  # (draws, true, predicted)
    correct = np.diagonal(confusion, axis1=1, axis2=2)  # (draws, classes)
    support = confusion.sum(axis=2)  # (draws, classes)
    recall = np.divide(correct, support, out=np.full_like(correct, np.nan), where=support > 0)
    samples = {"ua": np.nanmean(recall, axis=1), "wa": correct.sum(axis=1) / support.sum(axis=1)}
    return {name: np.percentile(values, [2.5, 97.5]).tolist() for name, values in samples.items()}


def table(metrics: dict[str, Any]) -> str:
    """Format the content of metrics.json for the terminal."""
    interval = {
        name: "95 % interval {:.1%} to {:.1%}".format(*bounds) if bounds else TOO_FEW_SPEAKERS
        for name, bounds in metrics["ci95"].items()
    }
    lines = [f"test on {metrics['n']} utterances of {', '.join(metrics['test_speakers'])}"]
    if "best_epoch" in metrics:
        lines.append(f"epoch {metrics['best_epoch']}, protocol {metrics['protocol']}")
    lines += [
        f"  UA        {metrics['ua']:6.1%}   {interval['ua']}",
        f"  WA        {metrics['wa']:6.1%}   {interval['wa']}",
        f"  macro-F1  {metrics['macro_f1']:6.1%}",
    ]
    for sex, found in metrics["by_sex"].items():
        lines.append(f"  UA        {found['ua']:6.1%}   {sex} ({found['n']} utterances)")
    lines += [f"  recall    {r:6.1%}   {name}" for name, r in metrics["recall"].items() if r is not None]
    return "\n".join(lines)


def write_predictions(
    path: Path, manifest: Sequence[Row], classes: Sequence[str], probabilities: np.ndarray
) -> None:
    """Write a CSV file with the labels, the predicted class and the class probabilities of each utterance.

    `probabilities` is (N, classes), in the order of `manifest` and `classes`.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["utterance", "speaker", "emotion", "predicted", *classes])
    for row, p in zip(manifest, probabilities, strict=True):
        predicted = classes[p.argmax()]
        numbers = [f"{value:.6f}" for value in p]
        lines.writerow([row.utterance, row.speaker, row.emotion, predicted, *numbers])
    write_text(path, text.getvalue())
