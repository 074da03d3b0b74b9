"""The yardstick of a study: a support vector machine on functionals, chosen and tested as the networks are.

It is fitted to the training speakers. Kernel, C and gamma are those with the highest UA on the utterances that pick a
network's epoch; with --protocol refit it is then fitted to these too. It has no random part: trials that differ in the
seed alone are equal.

Shapes: U utterances, D functionals.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import gen_batches

from config import Normalise, Protocol, ResultFlags, RunName
from data.datasets import dataset_folds, open_dataset
from data.folds import Fold, choose_fold
from data.functional_tables import read_table
from data.functionals import Utterances, store_functionals, utterance_rows
from data.leaks import check_leaks
from data.store import FeatureStore
from training.metrics import scores, table
from training.predictions import Predictions, draw_confusion
from training.provenance import Origin, describe
from training.run_folder import RunFolder, log
from utils import write_json

GRID = (
    ("linear", None, (1e-4, 1e-3, 1e-2, 1e-1)),
    ("rbf", 0.25, (1.0, 3.0, 10.0, 30.0)),
    ("rbf", 1.0, (1.0, 3.0, 10.0, 30.0)),
)
"""What is chosen from: a kernel, gamma times D (squared distances grow with D), and values of C."""
MOST_FITTED = 5000
"""The utterances that a machine is fitted to at most; its time grows with their square."""
BLOCK = 1000  # utterances of which the kernel is computed at a time


class SvmConfig(ResultFlags):
    """The settings of a trial; `study.runner` makes them from the flags of crossval.py."""

    name: RunName
    fold: PositiveInt
    seed: NonNegativeInt
    protocol: Protocol
    normalise: Normalise
    """speaker: each functional is standardised over the utterances of a speaker. The others change nothing: the machine
    standardises by its training rows."""
    table: Path | None
    """A table of functionals to use instead of those of the feature store."""


class Candidate(NamedTuple):
    """The kernel, C and gamma (None if linear) of a support vector machine."""

    kernel: str
    C: float
    gamma: float | None

    def __str__(self) -> str:
        gamma = "" if self.gamma is None else f", gamma {self.gamma:.3g}"
        return f"{self.kernel}, C {self.C:g}{gamma}"

    def machine(self) -> Pipeline:
        """Standardisation and a support vector machine, not fitted; classes weigh the same.

        The kernel is a function because matrix products then compute it, which is up to 80 times faster.
        """
        kernel = partial(pairwise_kernels, metric=self.kernel, filter_params=True, gamma=self.gamma)
        return make_pipeline(
            StandardScaler(), SVC(C=self.C, kernel=kernel, class_weight="balanced", break_ties=True)
        )


def candidates(functionals: int) -> Iterator[Candidate]:
    """The dozen machines to choose from, the simplest first."""
    for kernel, width, penalties in GRID:
        for penalty in penalties:
            yield Candidate(kernel, penalty, width and width / functionals)


def choose(
    x: np.ndarray, y: np.ndarray, picking_x: np.ndarray, picking_y: np.ndarray
) -> tuple[Candidate, float, Pipeline]:
    """Fit all candidates to x (U, D) and classes y (U,); return the best, its UA on the others, and its fit.

    Of candidates with the same UA, the first is taken.
    """
    best = None
    for candidate in candidates(x.shape[1]):
        machine = candidate.machine().fit(x, y)
        ua = scores(picking_y, decide(machine, picking_x).argmax(axis=1))["ua"]
        if best is None or ua > best[1]:
            best = candidate, ua, machine
    return best


def decide(machine: Pipeline, x: np.ndarray) -> np.ndarray:
    """The decision values (U, classes) of a fitted machine; the predicted class has the largest."""
    blocks = gen_batches(len(x), BLOCK)
    values = np.concatenate([machine.decision_function(x[block]) for block in blocks])
    return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values


def thin_out(store: FeatureStore, utterances: Utterances, most: int) -> Utterances:
    """About `most` of the utterances, spread evenly over each class, one of each at least; all if they are fewer."""
    if len(utterances) <= most:
        return utterances
    names = list(utterances)
    y = store.labels[[rows[0] for rows in utterances.values()]]
    by_class = np.argsort(y, kind="stable")
    spread = by_class[np.linspace(0, len(y) - 1, most).round().astype(np.int64)]
    _, first = np.unique(y, return_index=True)
    return {names[i]: utterances[names[i]] for i in np.union1d(spread, first)}


def read_functionals(config: SvmConfig, store: FeatureStore, utterances: Utterances) -> np.ndarray:
    """The functionals (U, D) of utterances, from the table if there is one, or else from the features of the store."""
    if config.table:
        return read_table(config.table, store, utterances)
    return store_functionals(store, utterances)


def run(config: SvmConfig) -> dict[str, Any]:
    """Fit, choose, test; return the contents of metrics.json."""
    store = open_dataset(config.dataset, config.config)
    fold = choose_fold(dataset_folds(store, config), config.fold)
    leaks = check_leaks(store.manifest, fold, config.allow_leak, f"fold {config.fold}")
    origin = Origin(fingerprints(config, store), describe(torch.device("cpu")))
    with RunFolder("augment", config, origin=origin) as folder:
        predictions, details = fit_and_predict(config, store, fold)
        metrics = {
            **predictions.report(),
            "protocol": config.protocol,
            "dataset": config.dataset,
            "fold": config.fold,
            "seed": config.seed,
            "folds_by": config.folds_by,
            "allow_leak": list(config.allow_leak),
            "leaks": leaks.to_json(),
            "model": "svm",
            **details,
        }
        predictions.write(folder.path / "predictions.csv")
        draw_confusion(metrics, folder.plots / "confusion.png")
        write_json(folder.path / "metrics.json", metrics)
        log.info("\n%s", table(metrics))
        return metrics


def fit_and_predict(config: SvmConfig, store: FeatureStore, fold: Fold) -> tuple[Predictions, dict[str, Any]]:
    """Choose a machine and predict the test utterances; also return what metrics.json says of the machine."""
    refits = config.protocol == "refit"
    parts = fold.parts("held_out" if refits else config.protocol)
    training, picking = (utterance_rows(store, rows) for rows in parts)
    training = thin_out(store, training, MOST_FITTED)
    test = utterance_rows(store, fold.test)
    log.info(
        "data      %d utterances to train, %d to choose, %d to test", *map(len, (training, picking, test))
    )

    utterances = training | picking | test
    x = read_functionals(config, store, utterances)
    rows = np.array([clips[0] for clips in utterances.values()])
    y = store.labels[rows]
    if config.normalise == "speaker":
        x = standardise_by(np.array([store.speakers[row] for row in rows]), x)
    place = {name: i for i, name in enumerate(utterances)}
    fitted, picks, tested = ([place[name] for name in part] for part in (training, picking, test))
    candidate, ua, machine = choose(x[fitted], y[fitted], x[picks], y[picks])
    if refits:
        fitted = fitted + picks
        machine = candidate.machine().fit(x[fitted], y[fitted])
    log.info("chosen    %s, from %d functionals, UA %.1f %%", candidate, x.shape[1], 100 * ua)

    decisions = torch.from_numpy(decide(machine, x[tested]))
    details = {
        "table": config.table and str(config.table),
        "functionals": x.shape[1],
        "fitted": len(fitted),
        "chosen": {**candidate._asdict(), "ua": ua},
    }
    return Predictions(store, rows[tested], decisions.log_softmax(dim=1)), details


def standardise_by(groups: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Standardise each functional of x (U, D) over the utterances of the same group (U,)."""
    result = np.empty_like(x)
    for name in np.unique(groups):
        members = groups == name
        result[members] = StandardScaler().fit_transform(x[members])
    return result


def fingerprints(config: SvmConfig, store: FeatureStore) -> dict[str, str]:
    """The SHA-256 of the feature store and of the table, if there is one."""
    found = {str(store.folder): store.fingerprint()}
    if config.table:
        with config.table.open("rb") as file:
            found[str(config.table)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
