"""The contents of results.json: all numbers of a cross-validation.

Scores over trials are means and standard deviations over folds and seeds. Pooled scores combine the
predictions of all folds with one seed, so that every utterance counts once, and are averaged over
the seeds with which a method has finished every fold. An ensemble is the mean of the class
probabilities of these seeds in each fold. Intervals are for pooled scores and ensembles, p-values
for pooled scores.
"""

import platform
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from config import is_svm, parse_method, strategy_of
from report.agreement import agreements
from report.statistics import compare, count_confusions, difference_interval, holm, intervals, mean_scores
from report.summaries import compare_settings, learning_curves, op_frequencies, trial_cost
from report.trials import Trial, TrialKey, method_order
from training.metrics import scores

VERSION = 1
SCORES = ("ua", "wa", "macro_f1")
COSTS = ("params", "multiply_adds", "seconds")
PAPER = {
    "source": "Rajapakshe et al., emoDARTS, IEEE Access 2024, doi 10.1109/ACCESS.2024.3439604",
    "protocol": "best epoch picked on the test fold",
}
PUBLISHED = {
    "iemocap": {"corpus": "IEMOCAP", "ua": 0.7655, "wa": 0.7803, **PAPER},
    "msp_improv": {"corpus": "MSP-IMPROV", "ua": 0.6563, "wa": None, **PAPER},
}
PACKAGES = ("torch", "numpy", "scikit-learn")


def collect_results(
    name: str, command: str, trials: Sequence[Trial], missing: Mapping[TrialKey, str]
) -> dict[str, Any]:
    """Compute the contents of results.json from one or more trials.

    `missing` holds the reason of each missing trial; `command` reproduces the study.
    """
    test = PooledTest(trials)
    methods = sorted({key.method for key in [*missing, *test.trials]}, key=method_order)
    baseline = best_baseline(test, methods)
    rows = [trial_row(trial) for trial in trials]
    datasets = {str(trial.metrics.get("dataset")) for trial in trials}
    return {
        "version": VERSION,
        "name": name,
        "command": command,
        **conditions(trials),
        "classes": list(test.classes),
        "folds": test.folds,
        "seeds": sorted({trial.key.seed for trial in trials}),
        "utterances": len(test.labels),
        "speakers": len(test.speakers),
        "tested_twice": len(test.labels) - len(set(test.utterances)),
        "methods": {method: method_results(method, rows, test, missing) for method in methods},
        "best_baseline": baseline,
        "comparisons": compare_pairs(test, choose_pairs(methods, baseline)),
        "trials": rows,
        "missing": [{**key._asdict(), "reason": reason} for key, reason in missing.items()],
        "searched": op_frequencies(trials),
        "agreements": agreements(trials),
        "curves": learning_curves(trials),
        "settings": compare_settings(trials),
        "versions": versions(),
        "published": [PUBLISHED[name] for name in sorted(datasets & set(PUBLISHED))],
    }


class PooledTest:
    """The test sets of all folds as one, with the predictions of every trial.

    A fold is included if any trial has finished it; all trials of a fold have the same test set.
    Shapes: N utterances, S seeds, P speakers, C classes. `sexes` (P,) has an empty text where it is not known.
    """

    def __init__(self, trials: Sequence[Trial]):
        self.trials = {trial.key: trial for trial in trials}
        by_fold = {trial.key.fold: trial for trial in trials}
        self.folds = sorted(by_fold)
        tests = [by_fold[fold] for fold in self.folds]
        self.classes = trials[0].classes
        self.utterances = [name for test in tests for name in test.utterances]
        self.labels = np.concatenate([test.labels for test in tests])
        speaker_names = [name for test in tests for name in test.speakers]
        self.speakers, self.speaker_ids = np.unique(speaker_names, return_inverse=True)
        self.sexes = np.array([sex_of_speaker(name, trials) for name in self.speakers])

    def complete_seeds(self, method: str) -> list[int]:
        """The seeds with which a method has finished every fold."""
        seeds = sorted({key.seed for key in self.trials if key.method == method})
        return [s for s in seeds if all(TrialKey(method, fold, s) in self.trials for fold in self.folds)]

    def counts(self, method: str, seeds: Sequence[int]) -> np.ndarray:
        """The confusion counts (S, P, C, C) of a method with some of its complete seeds."""
        predicted = []  # (S, N)
        for seed in seeds:
            trials = [self.trials[TrialKey(method, fold, seed)] for fold in self.folds]
            predicted.append(np.concatenate([trial.predicted for trial in trials]))
        return self._count(np.array(predicted))

    def ensemble_counts(self, method: str, seeds: Sequence[int]) -> np.ndarray:
        """The confusion counts (1, P, C, C) of the mean probabilities over some complete seeds of a method."""
        predicted = []  # one array for each fold
        for fold in self.folds:
            each = [self.trials[TrialKey(method, fold, seed)].probabilities for seed in seeds]
            predicted.append(np.mean(each, axis=0, dtype=np.float64).argmax(axis=1))
        return self._count(np.concatenate(predicted)[None])

    def _count(self, predicted: np.ndarray) -> np.ndarray:
        """The confusion counts (S, P, C, C) of class ids (S, N)."""
        return count_confusions(
            self.labels, predicted, self.speaker_ids, len(self.speakers), len(self.classes)
        )

    def confusion(self, method: str) -> np.ndarray:
        """The confusion counts (C, C) over the complete seeds, or over all trials if there is none."""
        seeds = self.complete_seeds(method)
        confusion = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        for key, trial in self.trials.items():
            if key.method == method and (key.seed in seeds or not seeds):
                np.add.at(confusion, (trial.labels, trial.predicted), 1)
        return confusion


def sex_of_speaker(speaker: str, trials: Sequence[Trial]) -> str:
    """The sex of a speaker by the metrics of the trials; empty if they do not tell it, or do not agree."""
    found = {sex for trial in trials for sex, names in trial.speakers_by_sex.items() if speaker in names}
    return found.pop() if len(found) == 1 else ""


def conditions(trials: Sequence[Trial]) -> dict[str, Any]:
    """The dataset, protocol, fold scheme, allowed leaks and predicted copies, with names where methods differ."""
    found: dict[str, Any] = {}
    for name in ("dataset", "protocol", "folds_by"):
        found[name] = ", ".join(
            with_methods([(str(each.metrics.get(name)), each.key.method) for each in trials])
        )
    for name in ("allow_leak", "copies"):
        lists = [(each.metrics.get(name), each.key.method) for each in trials]
        values = [
            (str(value), method) for each, method in lists if isinstance(each, list) for value in each or [""]
        ]
        found[name] = with_methods(values)
    return found


def with_methods(values: Sequence[tuple[str, str]]) -> list[str]:
    """The distinct values of (value, method), sorted; an empty text stands for no value.

    A value that some of the methods do not have is followed by the names of those that have it.
    """
    methods = {method for _, method in values}
    by_value = {value: {method for each, method in values if each == value} for value, _ in values}
    return [
        value if having == methods else f"{value} ({', '.join(sorted(having, key=method_order))})"
        for value, having in sorted(by_value.items())
        if value
    ]


def trial_row(trial: Trial) -> dict[str, Any]:
    """The scores and the cost of a trial; scores are computed from its predictions."""
    return {
        **trial.key._asdict(),
        "folder": str(trial.key),
        **scores(trial.labels, trial.predicted),
        "n": len(trial.labels),
        "best_epoch": trial.metrics.get("best_epoch"),
        **trial_cost(trial),
        "genotype": trial.genotype and trial.genotype.to_json(),
    }


def method_results(
    method: str, rows: Sequence[dict[str, Any]], test: PooledTest, missing: Iterable[TrialKey]
) -> dict[str, Any]:
    """The scores and the cost of a method. `rows` holds the `trial_row` of every trial."""
    rows = [row for row in rows if row["method"] == method]
    different = list({row["fold"]: row for row in rows}.values()) if is_svm(method) else rows
    confusion = test.confusion(method)
    return {
        "finished": len(rows),
        "missing": sum(key.method == method for key in missing),
        **{name: summarise([row[name] for row in different]) for name in SCORES},
        "pooled": pooled_scores(method, test),
        "ensemble": ensemble_scores(method, test),
        "recall": _recalls(confusion, test.classes),
        "confusion": confusion.tolist(),
        **{name: summarise([row[name] for row in rows if row[name] is not None]) for name in COSTS},
    }


def summarise(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean, standard deviation, range and number of values; None if a value is unknown."""
    if not values or None in values:
        return None
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def pooled_scores(method: str, test: PooledTest) -> dict[str, Any] | None:
    """The pooled scores of a method with their intervals; None if no seed is complete."""
    seeds = test.complete_seeds(method)
    if not seeds:
        return None
    counts = test.counts(method, seeds)
    by_sex = {sex: mean_scores(counts[:, test.sexes == sex])["ua"] for sex in sorted({*test.sexes} - {""})}
    return {"seeds": seeds, **mean_scores(counts), "ci95": intervals(counts), "ua_by_sex": by_sex}


def ensemble_scores(method: str, test: PooledTest) -> dict[str, Any] | None:
    """The pooled scores of the ensemble over the seeds, and its gain in UA over the mean of the single seeds.

    None if fewer than two seeds are complete, or if the method has no random part.
    """
    seeds = test.complete_seeds(method)
    if len(seeds) < 2 or is_svm(method):
        return None
    counts, single = test.ensemble_counts(method, seeds), test.counts(method, seeds)
    own = mean_scores(counts)
    gain = {"ua": own["ua"] - mean_scores(single)["ua"], "ci95": difference_interval(counts, single)}
    return {"seeds": seeds, **own, "ci95": intervals(counts), "gain": gain}


def _recalls(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, float | None]:
    """The recall of each class; None for a class without utterances."""
    totals = confusion.sum(axis=1)
    correct = confusion.diagonal()
    return {c: float(k / n) if n else None for c, k, n in zip(classes, correct, totals, strict=True)}


def best_baseline(test: PooledTest, methods: Sequence[str]) -> str | None:
    """The baseline with the highest pooled UA; None if no baseline has a complete seed."""
    ua = {}
    for method in methods:
        seeds = test.complete_seeds(method)
        if not strategy_of(method) and seeds:
            ua[method] = mean_scores(test.counts(method, seeds))["ua"]
    return max(ua, key=ua.get, default=None)


def choose_pairs(methods: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """The comparisons to make: every method with the best baseline, every other search with each random search, and
    every method that has settings of its own with the plain one."""
    with_baseline = [(method, baseline) for method in methods if baseline and method != baseline]
    random = [method for method in methods if strategy_of(method) == "random"]
    searched = [method for method in methods if strategy_of(method) and method not in random]
    plain = {method: parse_method(method).kind for method in methods if parse_method(method).variant}
    variants = [
        pair for pair in plain.items() if pair[1] in methods and baseline not in pair and not is_svm(pair[1])
    ]
    return [*with_baseline, *product(searched, random), *variants]


def compare_pairs(test: PooledTest, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Compare each pair over the seeds complete for both; pairs without such a seed are left out.

    `p_holm` is the p-value with Holm's correction for the number of comparisons.
    """
    comparisons = []
    for a, b in pairs:
        seeds = sorted(set(test.complete_seeds(a)) & set(test.complete_seeds(b)))
        if seeds:
            result = compare(test.counts(a, seeds), test.counts(b, seeds))
            comparisons.append({"a": a, "b": b, **result, "seeds": seeds})
    corrected = holm([result["p"] for result in comparisons])
    return [{**result, "p_holm": p} for result, p in zip(comparisons, corrected, strict=True)]


def versions() -> dict[str, str]:
    """Versions of the program, Python, the system and the packages that scores depend on."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    return {
        "emoDARTS": tomllib.loads(text)["project"]["version"],
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in PACKAGES},
    }
