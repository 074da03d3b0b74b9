"""The trials of a cross-validation, read from disk.

A trial is one method on one fold with one seed, in runs/NAME/METHOD-foldK-seedS/. A trial that has
not finished, has damaged files, or has another test set than most trials of its fold is missing.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product, starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config import parse_method
from genotypes import Genotype, load_genotype
from utils import UserError, read_text

METHODS = {
    "darts": "DARTS",
    "evolution": "Evolution",
    "random": "Random search",
    "cnn": "CNN",
    "rnn": "RNN",
    "lstm": "LSTM",
    "cnn_lstm": "CNN + LSTM",
    "cnn_lstm_att": "CNN + LSTM + attention",
    "acrnn": "ACRNN",
    "svm": "SVM on functionals",
}
"""The kinds of methods in the order of the report, with their titles (see `config.methods`)."""
SVM = "svm"
"""The support vector machine on functionals of the store."""
MAX_TRIALS = 100_000
FOLDER_NAME = re.compile(r"(?P<method>\w+)-fold(?P<fold>\d{1,6})-seed(?P<seed>\d{1,18})", re.ASCII)
COLUMNS = ["utterance", "speaker", "emotion", "predicted"]
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error, UserError)
"""The errors that damaged files of a trial can raise."""


class TrialKey(NamedTuple):
    """The method, fold and seed of a trial. As a string, it is the name of the trial's folder."""

    method: str
    fold: int
    seed: int

    def __str__(self) -> str:
        return f"{self.method}-fold{self.fold}-seed{self.seed}"


@dataclass(frozen=True, eq=False)
class Trial:
    """A finished trial with N test utterances, sorted by name, and C classes."""

    key: TrialKey
    metrics: dict[str, Any]
    classes: tuple[str, ...]  # (C,)
    utterances: tuple[str, ...]  # (N,)
    speakers: tuple[str, ...]  # (N,)
    labels: np.ndarray  # (N,) indices into `classes`
    predicted: np.ndarray  # (N,) indices into `classes`
    probabilities: np.ndarray  # (N, C), float32
    configs: dict[str, dict[str, Any]]  # by stage: "augment" and, for searched methods, "search"
    histories: dict[str, list[dict[str, Any]]]  # by stage; an empty list if the stage has no history
    genotype: Genotype | None
    seconds: dict[str, Any]  # training time by stage; empty if not known

    @cached_property
    def speakers_by_sex(self) -> dict[str, set[str]]:
        """The test speakers of each sex, if metrics.json names them; the file may hold anything."""
        by_sex = self.metrics.get("by_sex")
        entries = by_sex.items() if isinstance(by_sex, dict) else ()
        names = {sex: entry.get("speakers") for sex, entry in entries if isinstance(entry, dict)}
        return {sex: set(map(str, each)) for sex, each in names.items() if isinstance(each, list)}

    @property
    def test_set(self) -> tuple[Any, ...]:
        """The part that must be equal in all trials of a fold."""
        return self.classes, self.utterances, self.speakers, self.labels.tobytes()


def find_keys(folder: Path) -> list[TrialKey]:
    """The keys of the trials that have a folder, finished or not, in the order of the report."""
    names = (FOLDER_NAME.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
    keys = [TrialKey(name["method"], int(name["fold"]), int(name["seed"])) for name in names if name]
    return sort_keys(keys)


def sort_keys(keys: Iterable[TrialKey]) -> list[TrialKey]:
    """Sort by method (see `method_order`), then fold, then seed."""
    return sorted(keys, key=lambda key: (method_order(key.method), key.fold, key.seed))


def method_order(method: str) -> tuple[int, str]:
    """The sort key of a method: in the order of `METHODS`, then unknown methods by name."""
    kind = parse_method(method).kind
    position = list(METHODS).index(kind) if kind in METHODS else len(METHODS)
    return position, method


def read_trials(
    folder: Path, planned: Iterable[TrialKey] = (), reasons: Mapping[TrialKey, str] | None = None
) -> tuple[list[Trial], dict[TrialKey, str]]:
    """Read the trials of a study; return the finished trials and the reason of each missing one.

    Expected are all combinations of the methods, folds and seeds of the folders and of `planned`.
    Raises `UserError` if these are more than `MAX_TRIALS`. `reasons` says why trials have failed.
    """
    reasons = reasons or {}
    keys = [*find_keys(folder), *planned]
    methods = {key.method for key in keys}
    folds = {key.fold for key in keys}
    seeds = {key.seed for key in keys}
    size = len(methods) * len(folds) * len(seeds)
    if size > MAX_TRIALS:
        raise UserError(
            f"{folder}: the methods, folds and seeds of its folders make {size:,} trials; "
            f"a report can hold at most {MAX_TRIALS:,}"
        )
    trials = []
    missing = {}
    for key in sort_keys(starmap(TrialKey, product(methods, folds, seeds))):
        trial_folder = folder / str(key)
        try:
            trials.append(read_trial(trial_folder, key))
        except FileNotFoundError:
            missing[key] = reasons.get(key, "not finished" if trial_folder.is_dir() else "not run")
        except DAMAGED as error:
            missing[key] = f"cannot be read: {type(error).__name__}: {str(error)[:120]}"
    return _exclude_other_tests(trials, missing), missing


def _exclude_other_tests(trials: Sequence[Trial], missing: dict[TrialKey, str]) -> list[Trial]:
    """Keep the trials with the most common classes and, in each fold, the most common test set.

    The others are added to `missing`.
    """
    class_counts = Counter(trial.classes for trial in trials)
    test_counts: dict[int, Counter] = {}
    for trial in trials:
        if trial.classes == class_counts.most_common(1)[0][0]:
            test_counts.setdefault(trial.key.fold, Counter())[trial.test_set] += 1
    expected = {fold: counts.most_common(1)[0][0] for fold, counts in test_counts.items()}
    for trial in trials:
        if trial.test_set != expected.get(trial.key.fold):
            missing[trial.key] = "tested on other utterances or classes than most trials of its fold"
    return [trial for trial in trials if trial.key not in missing]


def read_trial(folder: Path, key: TrialKey) -> Trial:
    """Read a trial. Raises `FileNotFoundError` if it was not tested, `DAMAGED` if a file is damaged."""
    metrics = _read_object(folder / "augment" / "metrics.json")
    rows, classes = _read_predictions(folder / "augment" / "predictions.csv")
    if list(classes) != metrics["classes"]:
        raise ValueError("metrics.json and predictions.csv have different classes")
    utterances, speakers, labels, predicted, *probabilities = zip(*sorted(rows), strict=True)
    class_ids = {name: number for number, name in enumerate(classes)}
    configs = {stage: folder / stage / "config.json" for stage in ("augment", "search")}
    genotype = folder / "search" / "genotype.json"
    seconds = folder / "seconds.json"
    return Trial(
        key=key,
        metrics=metrics,
        classes=classes,
        utterances=utterances,
        speakers=speakers,
        labels=np.array([class_ids[label] for label in labels]),
        predicted=np.array([class_ids[label] for label in predicted]),
        probabilities=_parse_probabilities(probabilities),
        configs={stage: _read_object(path) for stage, path in configs.items() if path.exists()},
        histories={stage: _read_history(folder / stage / "history.jsonl") for stage in configs},
        genotype=load_genotype(genotype) if genotype.exists() else None,
        seconds=_read_object(seconds) if seconds.exists() else {},
    )


def _read_object(path: Path) -> dict[str, Any]:
    return _parse_object(read_text(path), path.name)


def _read_history(path: Path) -> list[dict[str, Any]]:
    """One entry per epoch; an empty list if the file does not exist."""
    lines = read_text(path).splitlines() if path.exists() else []
    return [_parse_object(line, path.name) for line in lines if line.strip()]


def _parse_object(text: str, file: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{file} does not hold a JSON object")
    return value


def _read_predictions(path: Path) -> tuple[list[list[str]], tuple[str, ...]]:
    """The rows (`COLUMNS`, then a probability for each class), and the classes."""
    header, *rows = list(csv.reader(io.StringIO(read_text(path), newline=""))) or [[]]
    if header[: len(COLUMNS)] != COLUMNS or not rows or any(len(row) != len(header) for row in rows):
        raise ValueError("predictions.csv is damaged")
    if len({row[0] for row in rows}) < len(rows):
        raise ValueError("predictions.csv has an utterance twice")
    return rows, tuple(header[len(COLUMNS) :])


def _parse_probabilities(columns: Sequence[Sequence[str]]) -> np.ndarray:
    """The probabilities (N, C) of C columns of N numbers."""
    values = np.array(columns, dtype=np.float64).T
    if not np.all((values >= 0) & (values <= 1)):  # False for NaN
        raise ValueError("predictions.csv has a probability that is not from 0 to 1")
    return values.astype(np.float32)
