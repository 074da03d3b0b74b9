"""The choice among several genotypes: each is retrained, and the validation speakers choose.

Successive halving (Jamieson and Talwalkar, AISTATS 2016) by a third: a rung retrains what is left for some epochs and
keeps the best third, which the next rung retrains anew for three times as many. Each rung takes about the time of one
whole retraining, and the last one a third of the epochs of --config.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cli import from_file
from config import RISE, AugmentConfig, SearchConfig
from data.speakers import SpeakerSet
from genotypes import Genotype
from training import distributed
from training.devices import freed_memory_kept
from training.experiment import Experiment
from training.loop import fit
from training.retraining import Retraining
from training.run_folder import RunFolder, log
from utils import delete_folder

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

    In the loss every class counts the same. The retrainings are in runs/NAME/candidates, each with its model.
    """
    if config.overwrite and distributed.is_first():
        delete_folder(config.folder / "candidates")
    left = list(genotypes)
    for number, (count, epochs) in enumerate(rungs(len(left), retraining_config(config).epochs), 1):
        log.info("\nrung      %d: %d candidates, %d epochs each", number, count, epochs)
        losses = []
        for i, genotype in enumerate(left, 1):
            name = f"{config.name}/candidates/{number}/{i}"
            own = retraining_config(config, name=name, epochs=epochs)
            losses.append(retrain(genotype, searched_on, own, replace(experiment, config=own)))
        left = [left[i] for i in sorted(range(count), key=losses.__getitem__)[: count // KEPT or 1]]
    rows = np.concatenate([experiment.fold.train, experiment.fold.validation])
    return left[0], experiment.speakers(rows).union(searched_on)


def rungs(candidates: int, epochs: int) -> Iterator[tuple[int, int]]:
    """For each rung, the number of candidates and of epochs; the last rung has fewer than 9 candidates."""
    later = 0
    while candidates // KEPT ** (later + 1) > 1:
        later += 1
    for rung in range(later, -1, -1):
        yield candidates, max(FEWEST_EPOCHS, epochs // KEPT ** (rung + 1))
        candidates = candidates // KEPT or 1


def retraining_config(config: SearchConfig, **changes: object) -> AugmentConfig:
    """The flags of the retraining, from the section `augment` of --config; it never looks at test speakers."""
    shared = {"dataset": config.dataset, "fold": config.fold, **config.shared_flags()}
    fixed = {"model": "searched", "genotype": None, "protocol": "held_out", "resume": True}
    return from_file(AugmentConfig, config.config, **{**shared, **fixed, "name": config.name, **changes})


def retrain(
    genotype: Genotype, searched_on: SpeakerSet | None, config: AugmentConfig, experiment: Experiment
) -> float:
    """Retrain a genotype, or continue to; return its loss on the validation speakers."""
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
    loss = predictions.balanced_loss
    log.info(
        "candidate %s  loss %.3f  UA %.1f %%", folder.path.parent, loss, 100 * predictions.scores()["ua"]
    )
    return loss
