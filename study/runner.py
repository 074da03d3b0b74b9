"""Running the trials of a cross-validation: each is a search and a retraining, by the code of the commands."""

import json
import os
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch

import augment
import search
from cli import from_file
from config import AugmentConfig, CrossvalConfig, SearchConfig
from report.trials import SEARCHED, Key
from training.run_folder import RunFolder
from utils import write_json


def plan(config: CrossvalConfig, folds: int) -> Iterator[Key]:
    """The trials of the flags, of `folds` folds."""
    chosen = range(1, folds + 1) if config.folds == ("all",) else map(int, config.folds)
    for fold, seed, method in product(chosen, config.seeds, config.methods):
        yield Key(method, fold, seed)


def folder_of(key: Key, config: CrossvalConfig) -> Path:
    """Where a trial's runs are."""
    return config.folder / str(key)


def is_done(key: Key, config: CrossvalConfig) -> bool:
    """Whether a trial has been tested."""
    return (folder_of(key, config) / "augment" / "metrics.json").exists()


def stage(folder: Path) -> str:
    """How far a trial has come, as its files tell."""
    for kind in ("augment", "search"):
        if (folder / kind / "config.json").exists():
            epochs = json.loads((folder / kind / "config.json").read_text())["epochs"]
            history = folder / kind / "history.jsonl"
            done = history.read_text().count("\n") if history.exists() else 0
            return f"{kind}, epoch {min(done + 1, epochs)} of {epochs}"
    return "waiting"


def flags_of(key: Key, config: CrossvalConfig) -> tuple[SearchConfig | None, AugmentConfig]:
    """What the commands would be told: their sections of the configuration file, and the trial's own flags.

    `UserError` where the file's flags are wrong.
    """
    flags = {
        "name": f"{config.name}/{key}",
        "results_path": config.results_path,
        "dataset": config.dataset,
        "fold": key.fold,
        "folds_by": config.folds_by,
        "allow_leak": config.allow_leak,
        "seed": key.seed,
        "gpus": "auto" if config.gpus_per_trial else "none",
        "resume": True,  # of a trial whose process died, or that was interrupted
    }
    model = "searched" if key.method in SEARCHED else key.method
    retraining = from_file(AugmentConfig, config.config, **flags, model=model, genotype=None)
    if key.method not in SEARCHED:
        return None, retraining
    return from_file(SearchConfig, config.config, **flags, strategy=key.method), retraining


def compare(key: Key, config: CrossvalConfig) -> None:
    """`UserError` where a trial was begun under other settings: one report is of one set of them."""
    for kind, flags in zip(("search", "augment"), flags_of(key, config), strict=True):
        if flags and (folder_of(key, config) / kind / "config.json").exists():
            RunFolder(kind, flags)


def run_trial(
    place: str, threads: int, searching: SearchConfig | None, retraining: AugmentConfig
) -> dict[str, Any]:
    """Search and retrain in the folder `place`; return what metrics.json says.

    `seconds.json` is for the report; a trial that is begun again has none, for the time that was lost is not known.
    """
    os.chdir(place)
    again = retraining.folder.exists()
    torch.set_num_threads(threads)
    start = time.perf_counter()
    if searching:
        search.run(searching)
    searched = time.perf_counter()
    metrics = augment.run(retraining)
    seconds = {"search": searched - start, "augment": time.perf_counter() - searched}
    if not again:
        write_json(retraining.folder / "seconds.json", seconds)
    return metrics
