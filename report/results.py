"""results.json: everything that a cross-validation found, as numbers.

A score is told in two ways. Over trials: the mean and the standard deviation of the folds' and seeds' scores. Pooled:
all folds' predictions of a seed as one test, in which every utterance counts once, then the mean over the seeds; this
is the one with an interval and a p-value. Pooled are the seeds with which a method finished every fold.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from report.details import chosen, cost, curves, settings, versions
from report.statistics import compare, confusions, holm, intervals, mean_rates
from report.trials import SEARCHED, Key, Trial, rank, read_trials
from training.metrics import scores
from utils import UserError

VERSION = 1
SCORES = ("ua", "wa", "macro_f1")
PAPER = {
    "source": "Rajapakshe et al., emoDARTS, IEEE Access 2024, doi 10.1109/ACCESS.2024.3439604",
    "protocol": "best epoch picked on the test fold",
}
PUBLISHED = {
    "iemocap": {"corpus": "IEMOCAP", "ua": 0.7655, "wa": 0.7803, **PAPER},
    "msp_improv": {"corpus": "MSP-IMPROV", "ua": 0.6563, "wa": None, **PAPER},
}


def collect(
    folder: Path, command: str = "", planned: Iterable[Key] = (), reasons: Mapping[Key, str] | None = None
) -> dict[str, Any]:
    """All that results.json says of the trials in `folder`. `UserError` where none has finished."""
    trials, missing = read_trials(Path(folder), planned, reasons)
    if not trials:
        raise UserError(f"{folder} holds no finished trial: run crossval.py first")
    pool = Pool(trials)
    methods = sorted({key.method for key in [*missing, *(trial.key for trial in trials)]}, key=rank)
    baseline = best_baseline(pool, methods)
    return {
        "version": VERSION,
        "name": Path(folder).name,
        "command": command,
        **shared(trials),
        "classes": list(pool.classes),
        "folds": pool.folds,
        "seeds": sorted({trial.key.seed for trial in trials}),
        "utterances": len(pool.labels),
        "speakers": len(pool.names),
        "tested_twice": len(pool.labels) - len(set(pool.utterances)),
        "methods": {method: summary(method, trials, pool, missing) for method in methods},
        "best_baseline": baseline,
        "comparisons": compared(pool, pairs(methods, baseline)),
        "trials": [line(trial) for trial in trials],
        "missing": [{**key._asdict(), "reason": reason} for key, reason in missing.items()],
        "searched": chosen(trials),
        "curves": curves(trials),
        "settings": settings(trials),
        "versions": versions(),
        "published": [
            PUBLISHED[name]
            for name in sorted({str(t.metrics.get("dataset")) for t in trials} & set(PUBLISHED))
        ],
    }


class Pool:
    """The folds that any trial has finished, as one test: N utterances of P speakers, and each prediction of it."""

    def __init__(self, trials: Sequence[Trial]):
        one = {trial.key.fold: trial for trial in trials}  # all trials of a fold heard the same
        self.folds = sorted(one)
        self.classes = trials[0].classes
        self.utterances = [name for fold in self.folds for name in one[fold].utterances]
        self.labels = np.concatenate([one[fold].labels for fold in self.folds])
        speakers = np.concatenate([np.array(one[fold].speakers, dtype=object) for fold in self.folds])
        self.names, self.speaker = np.unique(speakers.astype(np.str_), return_inverse=True)
        self.predicted = {trial.key: trial.predicted for trial in trials}

    def seeds(self, method: str) -> list[int]:
        """The seeds with which a method has finished every fold."""
        tried = {key.seed for key in self.predicted if key.method == method}
        return sorted(s for s in tried if all(Key(method, fold, s) in self.predicted for fold in self.folds))

    def counts(self, method: str, seeds: Sequence[int]) -> np.ndarray:
        """The counts (S, P, C, C) of a method with these seeds."""
        predicted = [
            np.concatenate([self.predicted[Key(method, fold, s)] for fold in self.folds]) for s in seeds
        ]
        return confusions(self.labels, np.array(predicted), self.speaker, len(self.names), len(self.classes))


def shared(trials: Sequence[Trial]) -> dict[str, Any]:
    """What should be one and the same in all trials, such as the protocol; several values are all named."""
    out = {}
    for name in ("dataset", "protocol", "folds_by"):
        out[name] = ", ".join(sorted({str(trial.metrics.get(name)) for trial in trials}))
    allowed = [trial.metrics.get("allow_leak") for trial in trials]
    leaks = {str(leak) for each in allowed if isinstance(each, list) for leak in each}
    return {**out, "allow_leak": sorted(leaks)}


def line(trial: Trial) -> dict[str, Any]:
    """A trial in a few numbers, computed from its predictions."""
    found = {**trial.key._asdict(), "folder": str(trial.key), **scores(trial.labels, trial.predicted)}
    extra = {"n": len(trial.labels), "best_epoch": trial.metrics.get("best_epoch"), **cost(trial)}
    return {**found, **extra, "genotype": trial.genotype and trial.genotype.to_json()}


def summary(method: str, trials: Sequence[Trial], pool: Pool, missing: Mapping[Key, str]) -> dict[str, Any]:
    """What a method reached and what it cost."""
    mine = [trial for trial in trials if trial.key.method == method]
    lines = [line(trial) for trial in mine]
    confusion = pooled_confusion(method, mine, pool)
    return {
        "finished": len(mine),
        "missing": sum(key.method == method for key in missing),
        **{name: spread([found[name] for found in lines]) for name in SCORES},
        "pooled": pooled(method, pool),
        "recall": _recalls(confusion, pool.classes),
        "confusion": confusion.tolist(),
        **{name: spread([found[name] for found in lines]) for name in ("params", "multiply_adds", "seconds")},
    }


def spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean, standard deviation (n - 1; None of a single value), and number; None where a value is not known."""
    if not values or None in values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {
        "mean": float(np.mean(values)),
        "std": std,
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def pooled(method: str, pool: Pool) -> dict[str, Any] | None:
    """The scores over all folds at once, with intervals; None where no seed has finished every fold."""
    seeds = pool.seeds(method)
    if not seeds:
        return None
    counts = pool.counts(method, seeds)
    return {"seeds": seeds, **mean_rates(counts), "ci95": intervals(counts)}


def pooled_confusion(method: str, mine: Sequence[Trial], pool: Pool) -> np.ndarray:
    """Counts (C, C) summed over the pooled seeds; over whatever has finished where no seed is complete."""
    if seeds := pool.seeds(method):
        return pool.counts(method, seeds).sum(axis=(0, 1))
    confusion = np.zeros((len(pool.classes),) * 2, dtype=np.int64)
    for trial in mine:
        np.add.at(confusion, (trial.labels, trial.predicted), 1)
    return confusion


def _recalls(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, float | None]:
    totals, correct = confusion.sum(axis=1), confusion.diagonal()
    return {c: float(k / n) if n else None for c, k, n in zip(classes, correct, totals, strict=True)}


def best_baseline(pool: Pool, methods: Sequence[str]) -> str | None:
    """The human-designed network with the highest pooled UA."""
    known = {
        m: mean_rates(pool.counts(m, pool.seeds(m)))["ua"]
        for m in methods
        if m not in SEARCHED and pool.seeds(m)
    }
    return max(known, key=known.get) if known else None


def pairs(methods: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """Who is compared with whom: each method with the best baseline, and the search with chance."""
    with_baseline = [(method, baseline) for method in methods if baseline and method != baseline]
    return with_baseline + ([SEARCHED] if set(SEARCHED) <= set(methods) else [])


def compared(pool: Pool, chosen_pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The comparisons, over the seeds that both methods have finished; p-values also as corrected by Holm."""
    found = []
    for a, b in chosen_pairs:
        if seeds := sorted(set(pool.seeds(a)) & set(pool.seeds(b))):
            found.append(
                {"a": a, "b": b, **compare(pool.counts(a, seeds), pool.counts(b, seeds)), "seeds": seeds}
            )
    corrected = holm([one["p"] for one in found])
    return [{**one, "p_holm": p} for one, p in zip(found, corrected, strict=True)]
