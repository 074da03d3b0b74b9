"""Runs the trials of a cross-validation: each is a run of search.py and of augment.py, or of `study.svm`."""

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
from cli import COMMANDS, as_typed, from_file, note, read_yaml
from config import (
    STRATEGIES,
    WITH_DELTAS,
    AugmentConfig,
    CrossvalConfig,
    SearchConfig,
    is_svm,
    method_name,
    parse_method,
)
from darts import candidates
from report.trials import TrialKey
from study import svm
from study.svm import SvmConfig
from training.run_folder import RunFolder
from utils import UserError, write_json

WAITING = "waiting"


def planned_trials(config: CrossvalConfig, folds: int) -> Iterator[TrialKey]:
    """The trials that the flags ask for, on a dataset with this number of folds."""
    chosen = range(1, folds + 1) if config.folds == ("all",) else map(int, config.folds)
    for fold, seed, method in product(chosen, config.seeds, config.methods):
        yield TrialKey(method_name(method), fold, seed)


def trial_folder(key: TrialKey, config: CrossvalConfig) -> Path:
    """The folder of a trial, with a subfolder for each stage."""
    return config.folder / str(key)


def is_finished(key: TrialKey, config: CrossvalConfig) -> bool:
    """Whether a trial has been tested."""
    return (trial_folder(key, config) / "augment" / "metrics.json").exists()


def progress_of(folder: Path) -> str:
    """The stage and epoch of the trial in `folder`, or `WAITING` if it has not started."""
    for stage in ("augment", "search"):
        config = folder / stage / "config.json"
        history = folder / stage / "history.jsonl"
        if config.exists():
            epochs = json.loads(config.read_text(encoding="utf-8")).get("epochs")
            if epochs is None:  # an SVM
                return "fitting"
            done = history.read_text(encoding="utf-8").count("\n") if history.exists() else 0
            return f"{stage}, epoch {min(done + 1, epochs)} of {epochs}"
    return WAITING


def trial_configs(
    key: TrialKey, config: CrossvalConfig
) -> tuple[SearchConfig | None, AugmentConfig | SvmConfig]:
    """The configurations of a trial's search (None for a baseline) and training.

    They combine the sections of the method's configuration file with the flags that identify the trial. A baseline that
    takes no --deltas has none. Raises `UserError` if flags of the file are wrong.
    """
    flags = {
        "name": f"{config.name}/{key}",
        "dataset": config.dataset,
        "fold": key.fold,
        "folds_by": config.folds_by,
        "allow_leak": config.allow_leak,
        "seed": key.seed,
        "results_path": config.results_path,
        "resume": True,  # a trial may have been interrupted
        "overwrite": False,
    }
    if is_svm(key.method):
        as_networks = from_file(AugmentConfig, config.config).model_dump(include={"protocol", "normalise"})
        return None, SvmConfig(**flags, **as_networks, table=config.tables.get(key.method))
    flags["gpus"] = "auto" if config.gpus_per_trial else "none"
    kind, candidates, _ = parse_method(key.method)
    file = config.settings_of(key.method)
    model = "searched" if kind in STRATEGIES else kind
    given = {**flags, "model": model, "genotype": None, "search_id": None}
    if model not in WITH_DELTAS:
        given["deltas"] = 0
    augment_config = from_file(AugmentConfig, file, **given)
    if model != "searched":
        return None, augment_config
    given = {"strategy": kind, "candidates": candidates, "parallel": 1, "plan": False}
    if kind != "darts":
        # these flags of the file are for darts
        given |= {"guard": "warn", "cuda_graphs": False, "relaxation": "softmax", "selection": "alphas"}
    if kind != "evolution":
        given |= {"objectives": ["loss"], "start_genotypes": []}  # these for the evolution
    return from_file(SearchConfig, file, **flags, **given), augment_config


def check_own_settings(config: CrossvalConfig) -> None:
    """Check the configuration files that methods have for themselves.

    Raises `UserError` if one is missing or wrong, has flags without effect, or does not extend another while --config
    is given, whose flags would then have no effect.
    """
    for name, file in config.own_settings.items():
        if not file.is_file():
            raise UserError(f"--methods: there is no file {file}")
        values = read_yaml(file)
        if at_top := [str(key) for key in values if key not in (*COMMANDS, "extends")]:
            raise UserError(
                f"{file}: {', '.join(at_top)[:80]} must be under search: or augment: to be for trials"
            )
        if config.config and "extends" not in values:
            base = os.path.relpath(config.config, file.parent)
            raise UserError(f"{file} leaves out all flags of --config: let it begin with extends: {base}")
        try:
            trial_configs(TrialKey(name, 1, 1), config)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None


def note_methods_without_deltas(config: CrossvalConfig) -> None:
    """Say which methods are trained without the --deltas of their configuration file."""
    plain = {}
    for name in map(method_name, config.methods):
        deltas = from_file(AugmentConfig, config.settings_of(name), model="searched").deltas
        if deltas and not is_svm(name) and parse_method(name).kind not in (*STRATEGIES, *WITH_DELTAS):
            plain[name] = deltas
    if plain:
        deltas = as_typed(sorted(set(plain.values())))
        note(f"--deltas {deltas} is not for {', '.join(plain)}: they are as published, without deltas")


def check_settings(key: TrialKey, config: CrossvalConfig) -> None:
    """Raise `UserError` if a trial was started with other settings."""
    search_config, training_config = trial_configs(key, config)
    folder = trial_folder(key, config)
    if search_config and (folder / "search" / "config.json").exists():
        RunFolder("search", search_config, sections=candidates.sections(search_config))
    if (folder / "augment" / "config.json").exists():
        RunFolder("augment", training_config)


def run_trial(
    working_folder: str,
    threads: int,
    search_config: SearchConfig | None,
    augment_config: AugmentConfig | SvmConfig,
) -> dict[str, Any]:
    """Search (if there is a `search_config`) and train; return the contents of metrics.json.

    Writes the times to seconds.json, but not for a resumed trial, whose total time is not known.
    """
    os.chdir(working_folder)
    torch.set_num_threads(threads)
    folder = augment_config.folder
    resumed = folder.exists()
    start = time.perf_counter()
    if search_config:
        search.run(search_config)
    searched = time.perf_counter()
    train = svm.run if isinstance(augment_config, SvmConfig) else augment.run
    metrics = train(augment_config)
    seconds = {"search": searched - start, "augment": time.perf_counter() - searched}
    if not resumed:
        write_json(folder / "seconds.json", seconds)
    return metrics
