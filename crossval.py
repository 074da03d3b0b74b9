"""Cross-validate: methods x folds x seeds, each a search and a retraining, side by side on Ray, and one report.

python crossval.py --name N --dataset D --folds all --seeds 1 2 --methods darts random cnn_lstm_att
    ->  runs/N/results.json, results.md, report.html
"""

from cli import command_line, run_command
from config import CrossvalConfig

if __name__ == "__main__":
    CONFIG = command_line(
        CrossvalConfig
    )  # before torch is imported, so that --help and mistakes are answered at once

import shlex
import sys
from pathlib import Path

from data.datasets import open_dataset
from data.folds import choose_fold, make_folds
from data.leaks import check_leaks
from report.page import write_report
from report.trials import METHODS, Key, keys_in
from study import cluster
from study.board import Board
from study.runner import compare, flags_of, is_done, plan, run_trial
from training.interruption import Interruption
from training.run_folder import RUNS
from utils import Interrupted, UserError, delete_folder, write_json

MARK = "crossval.json"
"""The file that tells a study's folder."""


def run(config: CrossvalConfig) -> dict[Key, str]:
    """Run what is missing, report on all; return the trials that failed, and why.

    `UserError`, before anything is touched, for whatever is wrong with the flags, the dataset, its folds or Ray.
    """
    keys = check(config)
    todo = [key for key in keys if config.overwrite or not is_done(key, config)]
    print(
        f"{len(keys)} trials, {len(keys) - len(todo)} of them done already; runs are in {RUNS / config.name}"
    )
    failed = work_off(todo, config) if todo else {}
    if not any(is_done(key, config) for key in keys_in(RUNS / config.name)):
        print("no trial has finished: there is nothing to report")
        return failed
    page = write_report(
        RUNS / config.name, shlex.join(["python", "crossval.py", *sys.argv[1:]]), keys, failed
    )
    print(f"\n{page.with_name('results.md').read_text()}\nreport  {page}")
    return failed


def check(config: CrossvalConfig) -> list[Key]:
    """The trials, once the dataset, the folds, every trial's flags and what is there already are seen to be right."""
    store = open_dataset(config.dataset, config.config)
    folds = make_folds(store.manifest, config.folds_by, config.keep_unknown_speakers)
    keys = list(plan(config, len(folds)))
    for number in sorted({key.fold for key in keys}):
        check_leaks(store.manifest, choose_fold(folds, number), config.allow_leak, f"fold {number}")
    for key in keys:
        flags_of(key, config)
    look(config, keys)
    return keys


def look(config: CrossvalConfig, keys: list[Key]) -> None:
    """`UserError` where the folder is not the study's, is neither resumed nor overwritten, or had other settings."""
    folder = RUNS / config.name
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MARK).exists():
        raise UserError(f"{folder} holds something other than a cross-validation: choose another --name")
    if config.resume:
        for key in [*keys, *(key for key in keys_in(folder) if key.method in METHODS and key not in keys)]:
            compare(key, config)
    elif not config.overwrite:
        raise UserError(
            f"{folder} holds a cross-validation: --resume runs what is missing, --overwrite starts anew"
        )


def take(config: CrossvalConfig) -> None:
    """Begin to write: delete what --overwrite deletes, and mark the folder as a study's."""
    if config.overwrite:
        delete_folder(RUNS / config.name)
    write_json(RUNS / config.name / MARK, config.model_dump(mode="json", exclude={"resume", "overwrite"}))


def work_off(todo: list[Key], config: CrossvalConfig) -> dict[Key, str]:
    """Run trials on Ray and show how they do; return those that failed, and why.

    SIGINT and SIGTERM are noted, and end it between two looks: raised inside Ray, they would come out as its own error.
    """
    failed = {}
    place, threads = str(Path.cwd()), max(1, int(config.cpus_per_trial))
    calls = {key: (place, threads, *flags_of(key, config)) for key in todo}
    with Interruption() as interruption, cluster.joined(config):
        take(config)
        with Board(todo, config) as board:
            for ended in cluster.run_all(run_trial, calls, config):
                if ended:
                    board.end(*ended)
                    if isinstance(ended[1], Exception):
                        failed[ended[0]] = board.outcomes[ended[0]]
                board.refresh()
                if interruption.signal:
                    raise Interrupted(interruption.signal)
    return failed


if __name__ == "__main__":
    failed = run_command(run, CONFIG)
    sys.exit(1 if failed else 0)
