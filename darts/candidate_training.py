"""The retraining of candidates: one after another in this process, or several at a time by Ray."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from config import AugmentConfig, available_cores
from data.speakers import SpeakerSet
from genotypes import Genotype
from training import distributed
from training.devices import freed_memory_kept
from training.experiment import Experiment, start_experiment
from training.interruption import Interruption
from training.loop import fit
from training.precision import set_precision
from training.retraining import Retraining
from training.run_folder import RunFolder
from utils import Interrupted, UserError, progress

RETRIES = 3
"""How often a retraining whose process dies is restarted from its last checkpoint."""


class Candidate(NamedTuple):
    """A genotype, the flags of its retraining, and the speakers of its search."""

    genotype: Genotype
    config: AugmentConfig
    searched_on: SpeakerSet | None


class Scores(NamedTuple):
    """The scores of a candidate on the validation speakers."""

    loss: float
    """The cross-entropy; every class counts the same."""
    ua: float


def train_one_by_one(candidates: Sequence[Candidate], experiment: Experiment) -> Iterator[tuple[int, Scores]]:
    """Train candidates; yield the index of each and its scores."""
    for i, candidate in enumerate(candidates):
        yield i, train(candidate, replace(experiment, config=candidate.config))


def train_in_parallel(
    candidates: Sequence[Candidate], experiment: Experiment
) -> Iterator[tuple[int, Scores]]:
    """Train --parallel candidates at a time, each in a process of its own; yield first what ends first.

    Raises `Interrupted` after a signal, the error of a training that fails, and `UserError` if its process dies.
    """
    from ray.exceptions import RayError  # here, because importing Ray takes most of a second

    from training.ray_tasks import Resources, ray_session, run_tasks

    at_once = experiment.config.parallel
    gpus = torch.cuda.device_count() if experiment.device.type == "cuda" else 0
    each = Resources(cpus=1, gpus=min(1, gpus / at_once))
    threads = max(1, available_cores() // at_once)
    tasks = {i: (candidate, str(Path.cwd()), threads) for i, candidate in enumerate(candidates)}
    bar = progress(None, "candidates", total=len(tasks))
    with Interruption() as interruption, ray_session(each, cpus=at_once), bar:
        for ended in run_tasks(train_in_a_process, tasks, each, RETRIES):
            if interruption.signal:
                raise Interrupted(interruption.signal)
            if ended:
                i, outcome = ended
                if isinstance(outcome, RayError):
                    raise UserError(
                        f"the process of {candidates[i].config.folder} died {RETRIES + 1} times, perhaps for lack of "
                        "memory: continue with --resume and a lower --parallel"
                    )
                if isinstance(outcome, Exception):
                    raise outcome
                bar.clear()
                yield i, outcome
            bar.update(1 if ended else 0)
            bar.refresh()


def train_in_a_process(candidate: Candidate, working_folder: str, threads: int) -> Scores:
    """Train a candidate in a process that Ray has started."""
    os.chdir(working_folder)
    torch.set_num_threads(threads)
    return train(candidate, start_experiment(candidate.config))


def train(candidate: Candidate, experiment: Experiment) -> Scores:
    """Train a candidate, or continue to, and save its model; return its scores."""
    genotype, config, searched_on = candidate
    torch.manual_seed(config.seed)  # equal weights in all processes, whatever has run before
    set_precision(config.precision, experiment.device)
    if not genotype.rnn:
        config = config.model_copy(update={"rnn_layers": 0})
    origin = experiment.origin(genotype=genotype.to_json())
    folder = RunFolder("augment", config, distributed.is_first(), origin, on_terminal=False)
    retraining = Retraining(config, experiment, genotype)
    with folder:
        distributed.barrier()  # no rank looks for a checkpoint before rank 0 has taken the folder
        retraining.log_setup()
        with freed_memory_kept():
            fit(folder, retraining, experiment.device)
        retraining.best.restore()
        if folder.writes:
            retraining.saved_model(searched_on).save(folder.path / "model.safetensors")
    predictions = retraining.predict(retraining.picking_rows)
    loss = float(distributed.mean([torch.tensor(predictions.balanced_loss)])[0])
    return Scores(loss, predictions.scores()["ua"])
