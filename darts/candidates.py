"""The choice among several genotypes: each is retrained, and the validation speakers choose.

Successive halving (Jamieson and Talwalkar, AISTATS 2016) by a third: a rung retrains what is left for some epochs and
keeps the best third, which the next rung retrains anew for three times as many. The last rung has a third of the epochs
of a whole retraining, and each rung takes about as long as one. With --parallel, Ray runs several retrainings of a rung
at the same time.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cli import from_file
from config import RISE, AugmentConfig, SearchConfig, available_cores
from data.speakers import SpeakerSet
from data.store import FeatureStore
from genotypes import Genotype
from training import distributed
from training.devices import freed_memory_kept
from training.experiment import Experiment, start_experiment
from training.interruption import Interruption
from training.loop import fit
from training.precision import set_precision
from training.retraining import Retraining
from training.run_folder import RunFolder, log
from utils import Interrupted, UserError, progress

KEPT = 3
"""One of so many candidates survives a rung."""
FEWEST_EPOCHS = int(1 / RISE) + 1
"""The shortest retraining, which --schedule onecycle allows."""
RETRIES = 3
"""How often --parallel restarts a retraining whose process dies, from its last checkpoint."""


class Retrained(NamedTuple):
    """The scores of a candidate on the validation speakers."""

    loss: float
    """The cross-entropy; every class counts the same."""
    ua: float


def choose(
    genotypes: Sequence[Genotype],
    searched_on: SpeakerSet | None,
    config: SearchConfig,
    experiment: Experiment,
) -> tuple[Genotype, SpeakerSet]:
    """The genotype of the lowest loss on the validation speakers, and all speakers that were used for the choice.

    The retrainings are in runs/NAME/candidates, each with its model.
    """
    distributed.require_equal(
        str(genotypes).encode(), "the candidates of the processes differ: run equal machines"
    )
    left = list(genotypes)
    for number, (count, epochs) in enumerate(rungs(len(left), retraining_config(config).epochs), 1):
        log.info("\nrung      %d: %d candidates, %d epochs each", number, count, epochs)
        names = [f"{config.name}/candidates/{number}/{i}" for i in range(1, count + 1)]
        configs = [retraining_config(config, name=name, epochs=epochs) for name in names]
        retrain_each = retrain_in_parallel if config.parallel > 1 else retrain_one_by_one
        losses = {}
        try:
            for i, scores in retrain_each(left, searched_on, configs, experiment):
                log.info(
                    "candidate %s  loss %.3f  UA %.1f %%", configs[i].folder, scores.loss, 100 * scores.ua
                )
                losses[i] = scores.loss
        except Interrupted:
            log.info("interrupted in rung %d; --resume continues from here", number)
            raise
        left = [left[i] for i in sorted(range(count), key=losses.__getitem__)[: count // KEPT or 1]]
    rows = np.concatenate([experiment.fold.train, experiment.fold.validation])
    return left[0], experiment.speakers(rows).union(searched_on)


def rungs(candidates: int, epochs: int) -> Iterator[tuple[int, int]]:
    """For each rung, the number of candidates and of epochs; the last rung has fewer than 6 candidates."""
    later = 0
    while candidates // KEPT ** (later + 1) > 1:
        later += 1
    for rung in range(later, -1, -1):
        yield candidates, min(epochs, max(FEWEST_EPOCHS, epochs // KEPT ** (rung + 1)))
        candidates = candidates // KEPT or 1


def retraining_config(config: SearchConfig, **changes: Any) -> AugmentConfig:
    """The flags that augment.py would take from --config; but the retraining never looks at test speakers.

    Raises `UserError` if a flag of the section is wrong.
    """
    shared = {"dataset": config.dataset, "fold": config.fold, **config.shared_flags()}
    fixed = {
        "model": "searched",
        "genotype": None,
        "protocol": "held_out",
        "resume": True,
        "overwrite": False,
    }
    flags = {**shared, **fixed, "name": config.name, **changes}
    return from_file(AugmentConfig, config.config, with_top=True, **flags)


def sections(config: SearchConfig) -> dict[str, Any]:
    """The sections of the search's config.json besides its flags: `augment`, if candidates are retrained."""
    return {"augment": retraining_section(config)} if config.candidates > 1 else {}


def retraining_section(config: SearchConfig) -> dict[str, Any]:
    """The section `augment` of the search's config.json, so that it says how the candidates are retrained.

    Raises `UserError` if a flag of the section is wrong, or if the names of the candidates' runs would be too long.
    """
    last = f"{config.name}/candidates/{config.candidates}/{config.candidates}"
    flags = retraining_config(config, name=last)
    shared = {"name", "dataset", "fold", "config", "resume", "overwrite", "genotype", *config.shared_flags()}
    return flags.model_dump(mode="json", exclude=shared)


def check_store(config: SearchConfig, store: FeatureStore) -> None:
    """Raise `UserError` if the retraining would predict copies that the store lacks."""
    store.check_copies(retraining_config(config).test_copies, "--test_copies")


def check_parallel(config: SearchConfig) -> None:
    """Raise `UserError` if a search on several processes has --parallel, which starts processes of its own."""
    if config.parallel > 1 and distributed.world_size() > 1:
        raise UserError("--parallel starts processes of its own: leave it out, or start one process")


# ---------------------------------------------------------------- the retrainings of a rung


def retrain_one_by_one(
    genotypes: Sequence[Genotype],
    searched_on: SpeakerSet | None,
    configs: Sequence[AugmentConfig],
    experiment: Experiment,
) -> Iterator[tuple[int, Retrained]]:
    """Retrain genotypes, each by its flags; yield the index of each and its scores."""
    for i, (genotype, config) in enumerate(zip(genotypes, configs, strict=True)):
        yield i, retrain(genotype, searched_on, config, replace(experiment, config=config))


def retrain_in_parallel(
    genotypes: Sequence[Genotype],
    searched_on: SpeakerSet | None,
    configs: Sequence[AugmentConfig],
    experiment: Experiment,
) -> Iterator[tuple[int, Retrained]]:
    """Retrain --parallel genotypes at a time, each in a process of its own; yield first what ends first.

    Raises `Interrupted` after a signal, the error of a retraining that fails, and `UserError` if its process dies.
    """
    from ray.exceptions import RayError  # here, because importing Ray takes most of a second

    from training.ray_tasks import Resources, ray_session, run_tasks

    at_once = experiment.config.parallel
    gpus = torch.cuda.device_count() if experiment.device.type == "cuda" else 0
    each = Resources(cpus=1, gpus=min(1, gpus / at_once))
    threads = max(1, available_cores() // at_once)
    tasks = {
        i: (str(Path.cwd()), threads, genotype, searched_on, config)
        for i, (genotype, config) in enumerate(zip(genotypes, configs, strict=True))
    }
    bar = progress(None, "candidates", total=len(tasks))
    with Interruption() as interruption, ray_session(each, cpus=at_once), bar:
        for ended in run_tasks(retrain_in_a_process, tasks, each, RETRIES):
            if interruption.signal:
                raise Interrupted(interruption.signal)
            if ended:
                i, outcome = ended
                if isinstance(outcome, RayError):
                    raise UserError(
                        f"the process of candidate {configs[i].folder} died {RETRIES + 1} times, perhaps for lack of "
                        "memory: continue with --resume and a lower --parallel"
                    )
                if isinstance(outcome, Exception):
                    raise outcome
                bar.clear()
                yield i, outcome
            bar.update(1 if ended else 0)
            bar.refresh()


def retrain_in_a_process(
    working_folder: str,
    threads: int,
    genotype: Genotype,
    searched_on: SpeakerSet | None,
    config: AugmentConfig,
) -> Retrained:
    """`retrain` in a process that Ray has started."""
    os.chdir(working_folder)
    torch.set_num_threads(threads)
    return retrain(genotype, searched_on, config, start_experiment(config))


def retrain(
    genotype: Genotype, searched_on: SpeakerSet | None, config: AugmentConfig, experiment: Experiment
) -> Retrained:
    """Retrain a genotype, or continue to; return its scores."""
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
    return Retrained(loss, predictions.scores()["ua"])
