"""The choice among several genotypes: each is retrained, and the validation speakers choose.

Successive halving (Jamieson and Talwalkar, AISTATS 2016) by a third: a rung retrains what is left for some epochs and
keeps the best third, which the next rung retrains anew for three times as many. The last rung has a third of the epochs
of a whole retraining, and each rung takes about as long as one.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cli import from_file
from config import RISE, AugmentConfig, SearchConfig
from darts.candidate_training import Candidate, train_in_parallel, train_one_by_one
from data.speakers import SpeakerSet
from data.store import FeatureStore
from genotypes import Genotype
from training import distributed
from training.experiment import Experiment
from training.run_folder import log
from utils import Interrupted, UserError

KEPT = 3
"""One of so many candidates survives a rung."""
FEWEST_EPOCHS = int(1 / RISE) + 1
"""The shortest retraining, which --schedule onecycle allows."""


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
        candidates = [Candidate(*each, searched_on) for each in zip(left, configs, strict=True)]
        train = train_in_parallel if config.parallel > 1 else train_one_by_one
        losses = {}
        try:
            for i, scores in train(candidates, experiment):
                folder = configs[i].folder
                log.info("candidate %s  loss %.3f  UA %.1f %%", folder, scores.loss, 100 * scores.ua)
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
    return from_file(AugmentConfig, config.config, **flags)


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
