"""A cross-validation made up for tests: the files that its trials would have left."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.store import Row
from genotypes import CNN_OPS, RNN_OPS, Genotype
from training.metrics import report, write_predictions

CLASSES = ("angry", "happy", "neutral", "sad")
SKILLS = {
    "darts": 0.72,
    "random": 0.66,
    "cnn": 0.58,
    "rnn": 0.5,
    "lstm": 0.56,
    "cnn_lstm": 0.63,
    "cnn_lstm_att": 0.68,
}
EPOCHS = 24


def manifest(fold: int, speakers: int = 4, each: int = 24, prefix: str = "") -> list[Row]:
    """The test utterances of a fold: those of its session."""
    names = [f"{prefix}S{fold}{letter}" for letter in "abcdefghij"[:speakers]]
    plan = [(name, CLASSES[i % len(CLASSES)], i) for name in names for i in range(each)]
    return [
        Row(f"{who}-{i:03}", "", who, str(fold), label, "", 1.0, "", "", 0.0, "") for who, label, i in plan
    ]


def write_trial(
    folder: Path, method: str, fold: int, seed: int, rows: Sequence[Row], classes=CLASSES, **metrics
) -> Path:
    """Write runs/NAME/METHOD-foldK-seedS/ with predictions as good as `SKILLS` says; return it."""
    rng = np.random.default_rng([fold, seed, *method.encode()])
    ease = np.random.default_rng(fold).normal(0, 0.6, 99)  # some speakers are easier, for every method
    speakers = sorted({row.speaker for row in rows})
    labels = np.array([classes.index(row.emotion) for row in rows])
    logits = rng.gumbel(size=(len(rows), len(classes)))
    skill = 5 * SKILLS.get(method, 0.5) - 1.8 + np.array([ease[speakers.index(row.speaker)] for row in rows])
    logits[np.arange(len(rows)), labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    path = folder / f"{method}-fold{fold}-seed{seed}"
    (path / "augment").mkdir(parents=True)
    found = report(labels, probabilities.argmax(axis=1), [row.speaker for row in rows], classes)
    found |= {
        "protocol": "held_out",
        "best_epoch": 17,
        "params": 200_000 + int(rng.integers(30_000)),
        "dataset": "demo",
    }
    found |= {"fold": fold, "seed": seed, "folds_by": "auto", "allow_leak": [], **metrics}
    (path / "augment" / "metrics.json").write_text(json.dumps(found))
    write_predictions(path / "augment" / "predictions.csv", rows, classes, probabilities)
    write_history(path / "augment", rng, EPOCHS)
    config = {
        "name": "x",
        "fold": fold,
        "seed": seed,
        "lr": 0.025,
        "epochs": EPOCHS,
        "rnn_layers": 0 if method == "cnn" else 1,
    }
    (path / "augment" / "config.json").write_text(json.dumps(config))
    if method in ("darts", "random"):
        write_search(path / "search", rng, method)
    (path / "seconds.json").write_text(json.dumps({"search": 20.0, "augment": 60.0}))
    return path


def write_history(folder: Path, rng: np.random.Generator, epochs: int) -> None:
    """A loss that falls and a UA that rises."""
    falls = np.exp(-np.arange(1, epochs + 1) / 8)
    loss, ua = 0.4 + falls + rng.normal(0, 0.03, epochs), 0.7 - 0.45 * falls + rng.normal(0, 0.03, epochs)
    lines = [{"epoch": i + 1, "train/loss": loss[i], "valid/ua": ua[i]} for i in range(epochs)]
    (folder / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))


def write_search(folder: Path, rng: np.random.Generator, method: str) -> None:
    """A genotype; of a search by gradient a history and a configuration as well."""
    folder.mkdir()
    random_genotype(rng).save(folder / "genotype.json")
    (folder / "config.json").write_text(
        json.dumps({"cnn_ops": list(CNN_OPS), "order": "second", "strategy": method})
    )
    if method == "darts":
        write_history(folder, rng, 8)


def random_genotype(rng: np.random.Generator, nodes: int = 2) -> Genotype:
    """Any cells."""

    def cell(ops: Sequence[str]) -> list[list[tuple[str, int]]]:
        pairs = [rng.choice(i + 2, 2, replace=False).tolist() for i in range(nodes)]
        return [[(str(rng.choice(ops[:-1])), source) for source in pair] for pair in pairs]

    concat = list(range(2, nodes + 2))
    return Genotype(cell(CNN_OPS), concat, cell(CNN_OPS), concat, cell(RNN_OPS), concat)


def cross_validation(
    folder: Path, methods: Sequence[str], folds: int = 4, seeds: Sequence[int] = (1, 2), **metrics
) -> Path:
    """All trials of a cross-validation."""
    for fold in range(1, folds + 1):
        rows = manifest(fold)
        for method in methods:
            for seed in seeds:
                write_trial(folder, method, fold, seed, rows, **metrics)
    return folder
