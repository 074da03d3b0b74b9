"""A synthetic cross-validation for tests: the files that its trials would have written."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from config import strategy_of
from data.store import Row
from genotypes import CNN_OPS, RNN_OPS, Genotype
from training.metrics import report, write_predictions

CLASSES = ("angry", "happy", "neutral", "sad")
SKILLS = {
    "darts": 0.72,
    "random": 0.66,
    "cnn_lstm_att": 0.68,
    "cnn_lstm": 0.63,
    "cnn": 0.58,
    "lstm": 0.56,
    "svm": 0.62,
}
"""How well a method predicts; a higher value gives a higher UA, and other methods have 0.5."""
EPOCHS = 24


def manifest(fold: int, speakers: int = 4, each: int = 24, prefix: str = "") -> list[Row]:
    """The test utterances of a fold, `each` per speaker."""
    rows = []
    for letter in "abcdefghij"[:speakers]:
        name = f"{prefix}S{fold}{letter}"
        for i in range(each):
            label = CLASSES[i % len(CLASSES)]
            rows.append(Row(f"{name}-{i:03}", "", name, str(fold), label, "", 1.0, "", "", 0.0, ""))
    return rows


def write_trial(
    folder: Path, method: str, fold: int, seed: int, rows: Sequence[Row], classes=CLASSES, **metrics
) -> Path:
    """Write the folder of a trial, with predictions as good as `SKILLS` says; return its path."""
    rng = np.random.default_rng([fold, seed, *method.encode()])
    probabilities = random_probabilities(rng, method, fold, rows, classes)
    predicted = probabilities.argmax(axis=1)
    labels = np.array([classes.index(row.emotion) for row in rows])
    path = folder / f"{method}-fold{fold}-seed{seed}"
    (path / "augment").mkdir(parents=True)
    scores = report(labels, predicted, [row.speaker for row in rows], classes, [row.sex for row in rows])
    details = {"protocol": "held_out", "best_epoch": 17, "dataset": "demo", "folds_by": "auto"}
    details |= {"fold": fold, "seed": seed, "allow_leak": [], "params": 200_000 + int(rng.integers(30_000))}
    config = {"name": "x", "fold": fold, "seed": seed, "lr": 0.025, "epochs": EPOCHS}
    config["rnn_layers"] = 0 if method == "cnn" else 1
    (path / "augment" / "metrics.json").write_text(json.dumps({**scores, **details, **metrics}))
    (path / "augment" / "config.json").write_text(json.dumps(config))
    write_predictions(path / "augment" / "predictions.csv", rows, classes, probabilities)
    write_history(path / "augment", rng, EPOCHS)
    if strategy_of(method):
        write_search(path / "search", rng, method)
    (path / "seconds.json").write_text(json.dumps({"search": 20.0, "augment": 60.0}))
    return path


def random_probabilities(
    rng: np.random.Generator, method: str, fold: int, rows: Sequence[Row], classes: Sequence[str]
) -> np.ndarray:
    """Random class probabilities (N, C). Some speakers are easier than others, for every method."""
    speakers = sorted({row.speaker for row in rows})
    ease = np.random.default_rng(fold).normal(0, 0.6, 99)
    logits = rng.gumbel(size=(len(rows), len(classes)))
    for i, row in enumerate(rows):
        skill = 5 * SKILLS.get(method, 0.5) - 1.8
        logits[i, classes.index(row.emotion)] += skill + ease[speakers.index(row.speaker)]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def write_history(folder: Path, rng: np.random.Generator, epochs: int) -> None:
    """Write a history with a falling loss and a rising UA."""
    decay = np.exp(-np.arange(1, epochs + 1) / 8)
    loss = 0.4 + decay + rng.normal(0, 0.03, epochs)
    ua = 0.7 - 0.45 * decay + rng.normal(0, 0.03, epochs)
    lines = [{"epoch": i + 1, "train/loss": loss[i], "valid/ua": ua[i]} for i in range(epochs)]
    (folder / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))


def write_search(folder: Path, rng: np.random.Generator, method: str) -> None:
    """Write a random genotype and a configuration; for DARTS also a history."""
    folder.mkdir()
    random_genotype(rng).save(folder / "genotype.json")
    config = {"cnn_ops": list(CNN_OPS), "order": "second", "strategy": method}
    (folder / "config.json").write_text(json.dumps(config))
    if method == "darts":
        write_history(folder, rng, 8)


def random_genotype(rng: np.random.Generator, nodes: int = 2) -> Genotype:
    """A genotype with random ops and edges."""

    def random_cell(ops: Sequence[str]) -> list[list[tuple[str, int]]]:
        sources = [rng.choice(i + 2, 2, replace=False).tolist() for i in range(nodes)]
        cell = []
        for pair in sources:
            cell.append([(str(rng.choice(ops[:-1])), source) for source in pair])
        return cell

    return Genotype.of_nodes(random_cell(CNN_OPS), random_cell(CNN_OPS), random_cell(RNN_OPS))


def cross_validation(
    folder: Path, methods: Sequence[str], folds: int = 4, seeds: Sequence[int] = (1, 2), **metrics
) -> Path:
    """Write all trials of a cross-validation into `folder` and return it."""
    for fold in range(1, folds + 1):
        rows = manifest(fold)
        for method in methods:
            for seed in seeds:
                write_trial(folder, method, fold, seed, rows, **metrics)
    return folder
