"""Cross-validate methods over folds and seeds: run all trials in parallel, and write one report.

python crossval.py --name N --dataset D --folds all --seeds 1 2 --methods darts random cnn_lstm_att
    ->  runs/N/results.json, results.md, report.html
"""

from cli import command_line, command_to_type, run_command
from config import AugmentConfig, CrossvalConfig, method_name, parse_method

if __name__ == "__main__":  # before the slow imports, so that --help answers at once
    CONFIG = command_line(CrossvalConfig)

import json
import sys
from pathlib import Path

from data.datasets import dataset_folds, open_dataset
from data.folds import choose_fold
from data.functional_tables import read_table
from data.functionals import utterance_rows
from data.leaks import check_leaks
from models.joint_network import Size
from report.trials import METHODS, TrialKey, find_keys
from report.writer import write_report
from search import genotype_inputs
from study.live_table import LiveTable, describe_failure
from study.runner import (
    check_own_settings,
    check_settings,
    is_finished,
    note_methods_without_deltas,
    planned_trials,
    run_trial,
    trial_configs,
)
from training.interruption import Interruption
from training.ray_tasks import Resources, ray_session, run_tasks
from utils import Interrupted, UserError, delete_folder, read_text, write_json

STUDY_FILE = "crossval.json"
"""The file that marks the folder of a cross-validation. It holds the flags."""


def run(config: CrossvalConfig) -> dict[TrialKey, str]:
    """Run the missing trials and report on all; return the reason of each trial that failed.

    Raises `UserError`, before anything is written, if flags, dataset, folds or Ray cannot be used.
    """
    folder = config.folder
    keys = check(config)
    note_methods_without_deltas(config)
    todo = [key for key in keys if config.overwrite or not is_finished(key, config)]
    print(f"{len(keys)} trials, {len(keys) - len(todo)} already done; the runs are in {folder}")
    config = with_earlier_trials(config)
    failed = run_trials(todo, config) if todo else {}
    if not any(is_finished(key, config) for key in find_keys(folder)):
        print("no trial has finished: there is nothing to report")
        return failed
    page = write_report(folder, command_of(config), keys, failed)
    print(f"\n{page.with_name('results.md').read_text(encoding='utf-8')}\nreport  {page}")
    return failed


def check(config: CrossvalConfig) -> list[TrialKey]:
    """Check the dataset, folds, flags of every trial and the folder; return the planned trials."""
    store = open_dataset(config.dataset, config.config, config.features)
    folds = dataset_folds(store, config)
    check_own_settings(config)
    keys = list(planned_trials(config, len(folds)))
    for number in sorted({key.fold for key in keys}):
        check_leaks(store.manifest, choose_fold(folds, number), config.allow_leak, f"fold {number}")
    for key in keys:
        searched, training = trial_configs(key, config)
        if isinstance(training, AugmentConfig):
            store.check_copies(training.test_copies, "--test_copies")
            Size.of(training).check_bands(store.front_end.shape[0])
        if searched:
            Size.of(searched).check_bands(store.front_end.shape[0])
            genotype_inputs(searched)
    for table in config.tables.values():
        read_table(table, store, utterance_rows(store, range(len(store))))
    check_folder(config, keys)
    return keys


def check_folder(config: CrossvalConfig, keys: list[TrialKey]) -> None:
    """Raise `UserError` if the folder holds anything that the flags do not resume or overwrite."""
    folder = config.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / STUDY_FILE).exists():
        raise UserError(f"{folder} holds something other than a cross-validation: choose another --name")
    if config.resume:
        earlier = [key for key in find_keys(folder) if has_shared_settings(key.method)]
        for key in dict.fromkeys([*keys, *earlier]):
            check_settings(key, config)
    elif not config.overwrite:
        raise UserError(
            f"{folder} holds a cross-validation: --resume runs the missing trials, --overwrite starts again"
        )


def has_shared_settings(method: str) -> bool:
    """Whether a method has the settings of --config, and none of its own."""
    kind, _, variant = parse_method(method)
    return kind in METHODS and not variant


def with_earlier_trials(config: CrossvalConfig) -> CrossvalConfig:
    """The flags, with the folds, seeds and methods of earlier command lines of a study that is resumed."""
    path = config.folder / STUDY_FILE
    if not (config.resume and path.exists()):
        return config
    try:
        earlier = CrossvalConfig(**json.loads(read_text(path)))
    except ValueError:  # damaged, or of another version
        return config
    folds = dict.fromkeys((*earlier.folds, *config.folds))
    methods = {method_name(typed): typed for typed in (*earlier.methods, *config.methods)}
    both = {
        "folds": ("all",) if "all" in folds else tuple(folds),
        "seeds": tuple(dict.fromkeys((*earlier.seeds, *config.seeds))),
        "methods": tuple(methods.values()),
    }
    return config.model_copy(update=both)


def command_of(config: CrossvalConfig) -> str:
    """The command line that runs the whole study anew."""
    flags = config.model_dump(exclude_defaults=True, exclude={"resume", "overwrite"})
    return command_to_type(CrossvalConfig, config.config, flags)


def create_folder(config: CrossvalConfig) -> None:
    """Delete an earlier study if --overwrite says so, and write the study file."""
    if config.overwrite:
        delete_folder(config.folder)
    flags = config.model_dump(mode="json", exclude={"resume", "overwrite"})
    write_json(config.folder / STUDY_FILE, flags)


def run_trials(keys: list[TrialKey], config: CrossvalConfig) -> dict[TrialKey, str]:
    """Run trials by Ray and show their progress; return the reason of each trial that failed.

    A signal only sets `interruption.signal`, and the loop ends at the next poll. An exception
    raised inside Ray would come out as an error of Ray.
    """
    failed = {}
    working_folder = str(Path.cwd())
    threads = max(1, int(config.cpus_per_trial))
    arguments = {key: (working_folder, threads, *trial_configs(key, config)) for key in keys}
    each = Resources(config.cpus_per_trial, config.gpus_per_trial)
    with Interruption() as interruption, ray_session(each, config.ray_address):
        create_folder(config)
        with LiveTable(keys, config) as table:
            for ended in run_tasks(run_trial, arguments, each, config.retries):
                if ended:
                    key, outcome = ended
                    table.add_outcome(key, outcome)
                    if isinstance(outcome, Exception):
                        failed[key] = describe_failure(outcome)
                table.refresh()
                if interruption.signal:
                    raise Interrupted(interruption.signal)
    return failed


if __name__ == "__main__":
    failed = run_command(run, CONFIG)
    sys.exit(1 if failed else 0)
