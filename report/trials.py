"""The trials of a cross-validation as they lie on disk: runs/NAME/METHOD-foldK-seedS/, each one run of its own.

A trial that is not there, is damaged, or heard other utterances than the rest is left out, and the report says why.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genotypes import Genotype
from utils import UserError, read_text

METHODS = {  # in the order of the report, and as a reader knows them
    "darts": "DARTS",
    "random": "Random search",
    "cnn": "CNN",
    "rnn": "RNN",
    "lstm": "LSTM",
    "cnn_lstm": "CNN + LSTM",
    "cnn_lstm_att": "CNN + LSTM + attention",
}
MOST = 100_000  # trials, with those that are missing
SEARCHED = ("darts", "random")
FOLDER = re.compile(r"(?P<method>\w+)-fold(?P<fold>\d{1,6})-seed(?P<seed>\d{1,18})", re.ASCII)
COLUMNS = ["utterance", "speaker", "emotion", "predicted"]
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    csv.Error,
    UserError,
)


class Key(NamedTuple):
    """What a trial tries."""

    method: str
    fold: int
    seed: int

    def __str__(self) -> str:
        return f"{self.method}-fold{self.fold}-seed{self.seed}"


@dataclass(frozen=True, eq=False)
class Trial:
    """A finished trial. N utterances, in the order of their names; labels and predictions are ids of `classes`."""

    key: Key
    metrics: dict[str, Any]
    classes: tuple[str, ...]
    utterances: tuple[str, ...]
    speakers: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    configs: dict[str, dict[str, Any]]  # of "augment" and, where there was one, "search"
    histories: dict[str, list[dict[str, Any]]]
    genotype: Genotype | None
    seconds: dict[str, Any]  # of the search and of the retraining, where they are known

    @property
    def heard(self) -> tuple[Any, ...]:
        """What must be the same in all trials of a fold."""
        return self.classes, self.utterances, self.speakers, self.labels.tobytes()


def keys_in(folder: Path) -> list[Key]:
    """The trials that have a folder, finished or not."""
    names = (FOLDER.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
    return in_order(Key(name["method"], int(name["fold"]), int(name["seed"])) for name in names if name)


def in_order(keys: Iterable[Key]) -> list[Key]:
    """By method, then fold, then seed; methods as in the report, unknown ones last."""
    return sorted(keys, key=lambda key: (*rank(key.method), key.fold, key.seed))


def rank(method: str) -> tuple[int, str]:
    """Where a method stands in the report."""
    return (list(METHODS).index(method) if method in METHODS else len(METHODS)), method


def read_trials(
    folder: Path, planned: Iterable[Key] = (), reasons: Mapping[Key, str] | None = None
) -> tuple[list[Trial], dict[Key, str]]:
    """The finished trials, and why the others are missing.

    Expected is what was `planned`; and every method in every fold with every seed that any folder has. `reasons` says
    why trials failed, where the caller knows.
    """
    found = [*keys_in(folder), *(Key(*key) for key in planned)]
    methods, folds, seeds = (
        (dict.fromkeys(values) for values in zip(*found, strict=True)) if found else ((), (), ())
    )
    if (size := len(methods) * len(folds) * len(seeds)) > MOST:
        raise UserError(
            f"{folder}: the names of its folders make {size:,} trials; a report is of at most {MOST:,}"
        )
    trials, missing = [], {}
    for key in in_order(Key(m, f, s) for m in methods for f in folds for s in seeds):
        try:
            trials.append(read_trial(folder / str(key), key))
        except FileNotFoundError:
            missing[key] = (reasons or {}).get(
                key, "not finished" if (folder / str(key)).is_dir() else "not run"
            )
        except UNREADABLE as error:
            missing[key] = f"cannot be read: {type(error).__name__}: {str(error)[:120]}"
    return _same_test(trials, missing), missing


def _same_test(trials: Sequence[Trial], missing: dict[Key, str]) -> list[Trial]:
    """Only the trials that heard in their fold what most did there; the others go to `missing`."""
    classes = Counter(trial.classes for trial in trials).most_common(1)
    heard = {
        fold: Counter(
            t.heard for t in trials if t.key.fold == fold and t.classes == classes[0][0]
        ).most_common(1)
        for fold in {trial.key.fold for trial in trials}
    }
    for trial in trials:
        if trial.heard not in [most for most, _ in heard[trial.key.fold]]:
            missing[trial.key] = "tested on other utterances or classes than most trials of its fold"
    return [trial for trial in trials if trial.key not in missing]


def read_trial(folder: Path, key: Key) -> Trial:
    """A trial's files. `FileNotFoundError` where its test is not there yet, any of `UNREADABLE` where it is damaged."""
    metrics = _object(folder / "augment" / "metrics.json")
    rows, classes = _predictions(folder / "augment" / "predictions.csv")
    if list(classes) != metrics["classes"]:
        raise ValueError("metrics.json and predictions.csv disagree about the classes")
    utterances, speakers, labels, predicted = zip(*sorted(rows), strict=True)
    ids = {name: number for number, name in enumerate(classes)}
    stages = [stage for stage in ("augment", "search") if (folder / stage / "config.json").exists()]
    genotype = folder / "search" / "genotype.json"
    return Trial(
        key, metrics, classes, utterances, speakers,
        np.array([ids[label] for label in labels]), np.array([ids[label] for label in predicted]),
        {stage: _object(folder / stage / "config.json") for stage in stages},
        {stage: _history(folder / stage / "history.jsonl") for stage in ("augment", "search")},
        Genotype.load(genotype) if genotype.exists() else None,
        _object(folder / "seconds.json") if (folder / "seconds.json").exists() else {},
    )  # fmt: skip


def _object(path: Path) -> dict[str, Any]:
    return dict(json.loads(read_text(path)).items())


def _history(path: Path) -> list[dict[str, Any]]:
    """An epoch a line; none where there is no file."""
    lines = read_text(path).splitlines() if path.exists() else []
    return [dict(json.loads(line).items()) for line in lines if line.strip()]


def _predictions(path: Path) -> tuple[list[list[str]], tuple[str, ...]]:
    """(utterance, speaker, emotion, predicted) of each line, and the classes."""
    header, *rows = list(csv.reader(io.StringIO(read_text(path), newline=""))) or [[]]
    if header[:4] != COLUMNS or not rows or any(len(row) != len(header) for row in rows):
        raise ValueError("predictions.csv is damaged")
    if len({row[0] for row in rows}) < len(rows):
        raise ValueError("predictions.csv has an utterance twice")
    return [row[:4] for row in rows], tuple(header[4:])
