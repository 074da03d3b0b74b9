"""Augment: train the network of a genotype from scratch and test it once on speakers it has never heard.

python augment.py --name NAME --dataset DATASET --fold K     ->  runs/NAME/augment/metrics.json, model.safetensors

--model cnn_lstm_att, for example, trains a network designed by hand in its place, and nothing else changes.
"""

from cli import command_line, run_command
from config import AugmentConfig

if __name__ == "__main__":
    CONFIG = command_line(
        AugmentConfig
    )  # before torch is imported, so that --help and mistakes are answered at once

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from data.leaks import abbreviate, leak_error
from data.speakers import SpeakerSet
from data.transforms import cutout, mixup, spec_augment
from genotypes import Found, Genotype, look_up
from models.architecture import Architecture, Designed, Searched
from models.augment_network import drop_paths_of
from models.baselines import Shape
from models.bf16 import in_type
from models.complexity import multiply_adds
from models.joint_network import Size
from models.saved import SavedModel
from plots import cells
from training import distributed, states
from training.devices import mean_gradient
from training.experiment import Experiment, begin
from training.loop import Metrics, fit, weight_step
from training.losses import JointLoss, blend
from training.metrics import table
from training.precision import DTYPES
from training.predictions import Predictions, draw_confusion, hear
from training.run_folder import RUNS, RunFolder, log
from utils import UserError, write_json


def run(config: AugmentConfig) -> dict[str, Any]:
    """Train, pick the epoch, test; return what metrics.json says."""
    genotype, searched_on = find_genotype(config)
    experiment = begin(config)
    origin = experiment.origin(genotype=genotype and genotype.to_json())
    folder = RunFolder("augment", config, experiment.fabric.is_global_zero, origin)
    augment = Augment(config, experiment, genotype, searched_on)
    with folder:
        distributed.barrier()  # no process looks for a checkpoint before the first has taken the folder
        introduce(folder, augment)
        fit(folder, augment, experiment.device)
        return test(folder, augment)


def introduce(folder: RunFolder, augment: "Augment") -> None:
    """Say what is trained, on what, and where."""
    sizes = len(augment.train_rows), len(augment.picking_rows), len(augment.experiment.fold.test)
    log.info("augment   %s", folder.path)
    log.info("data      %d rows to train, %d to pick the epoch, %d to test", *sizes)
    for line in augment.experiment.leaks.lines():
        log.info("shared    %s", line)
    what = augment.config.model, augment.weight_count / 1e6, augment.features.device
    log.info("network   %s, %.3f M weights on %s", *what)
    log.info("precision %s\n", augment.config.precision)


def find_genotype(config: AugmentConfig) -> Found | tuple[None, None]:
    """The genotype of the flag, or of the search of the same name, and whom the search heard, where that is known.

    Neither for a network that is designed by hand. `UserError` where there is none, or one that does not fit
    --rnn_layers.
    """
    if config.model != "searched":
        return None, None
    path = RUNS / config.name / "search" / "genotype.json"
    if config.genotype is None and not path.exists():
        raise UserError(
            f"--genotype is missing, and there is no {path}: run search.py --name {config.name} first"
        )
    found = look_up(config.genotype or str(path))
    if config.rnn_layers and not found.genotype.rnn:
        raise UserError("--genotype has no rnn part (is it one of pt.darts?): pass --rnn_layers 0")
    return found


def heard_in_search(searched_on: SpeakerSet | None, experiment: Experiment) -> list[str] | None:
    """The test speakers whom the search of the genotype heard; None where nothing is known of a search.

    `UserError` where there are any, and --allow_leak does not allow it. Validation speakers may have been heard: they
    pick the epoch, the test is of others.
    """
    if searched_on is None:
        return None
    config, heard = experiment.config, searched_on.overlap(experiment.speakers(experiment.fold.test))
    if heard and "speakers" not in config.allow_leak:
        leak = f"the search of the genotype heard {abbreviate(heard)}, so this is no test"
        better = f"search on this fold (search.py --fold {config.fold}, the same --folds_by)"
        raise leak_error(f"fold {config.fold}", leak, better)
    return heard


def choose(config: AugmentConfig, genotype: Genotype | None, shape: Shape) -> Architecture:
    """What the flags ask to train, for inputs of a shape (F, T)."""
    if genotype is None:
        return Designed(config.model, shape)
    size = Size(config.layers, config.init_channels, config.rnn_layers, config.rnn_channels)
    return Searched(genotype, size, config.dropout, auxiliary=config.aux_weight > 0)


class Augment:
    """The training of a network, and the choice of its epoch."""

    def __init__(
        self,
        config: AugmentConfig,
        experiment: Experiment,
        genotype: Genotype | None,
        searched_on: SpeakerSet | None,
    ):
        self.config, self.experiment, self.store = config, experiment, experiment.store
        self.searched_on, self.heard_in_search = searched_on, heard_in_search(searched_on, experiment)
        self.train_rows, self.picking_rows = experiment.fold.parts(config.protocol)
        self.features, self.statistics = experiment.features(self.train_rows)
        self.batches = experiment.batches(self.features, self.train_rows)
        self.steps = len(self.batches)

        self.architecture = choose(config, genotype, self.store.front_end.shape)
        self.network = network = experiment.place(self.architecture.build(len(self.store.classes)))
        self.call = in_type(network, DTYPES[config.precision])
        self.drop_paths = drop_paths_of(network)
        self.weight_count = sum(
            p.numel() for name, p in network.named_parameters() if ".auxiliary." not in name
        )
        self.optimizer = torch.optim.SGD(
            network.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.scheduler = CosineAnnealingLR(self.optimizer, config.epochs)
        self.criterion = JointLoss(experiment.class_weights(self.train_rows), config.aux_weight)
        self.best = Best(network)
        self.parts = {
            "network": network,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "best": self.best,
        }

    @property
    def waited(self) -> float:
        """Seconds that the steps so far have waited for batches."""
        return self.batches.waited

    def step(self, i: int) -> Metrics:
        """One step of the weights on a training batch."""
        for drop_path in self.drop_paths:
            drop_path.probability = self.config.drop_path_prob * (i // self.steps) / self.config.epochs
        x, y = self.batches[i]
        x = cutout(spec_augment(x, self.config.freq_mask, self.config.time_mask), self.config.cutout_length)
        criterion = self.criterion
        if self.config.mixup:
            x, partner, share = mixup(x, self.config.mixup)
            criterion = blend(criterion, partner, share)
        return weight_step(self.call, self.optimizer, (x, y), criterion, mean_gradient, self.config.grad_clip)

    def hear(self, rows: np.ndarray) -> Predictions:
        """What the network hears in rows as it is now."""
        return hear(self.network, self.features, self.store, rows, self.config.batch_size)

    @property
    def trained_on(self) -> SpeakerSet:
        """Whom the network, and the search of its genotype, hear before its test."""
        rows = np.concatenate([self.train_rows, self.picking_rows])
        return self.experiment.speakers(rows).union(self.searched_on)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Scores on the utterances that pick the epoch; the best epoch's weights are kept."""
        heard = self.hear(self.picking_rows)
        ua, loss = heard.scores()["ua"], heard.loss
        self.best.offer((ua, -loss), epoch)
        record = {"valid/loss": loss, "valid/ua": ua, "lr": self.scheduler.get_last_lr()[0]}
        self.scheduler.step()
        return record


class Best:
    """The network of the best epoch so far, by UA and then by loss; part of the checkpoint."""

    def __init__(self, network: nn.Module):
        self.network, self.epoch, self.rank, self.weights = network, 0, None, {}

    def offer(self, rank: tuple[float, float], epoch: int) -> None:
        """Keep this epoch's weights if it ranks above all before it."""
        if self.rank is None or rank > self.rank:
            self.rank, self.epoch = rank, epoch
            self.weights = {name: t.clone() for name, t in self.network.state_dict().items()}

    def restore(self) -> None:
        """Put the best epoch's weights into the network."""
        self.network.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "rank": self.rank, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """`ValueError` where a state is not that of a best network: a checkpoint may be anyone's."""
        none_yet = {"epoch": 0, "rank": None, "weights": {}}
        one = {"epoch": 0, "rank": (0.0, 0.0), "weights": dict(self.network.state_dict())}
        states.require_alike(state, none_yet if state["rank"] is None else one)
        self.epoch, self.rank, self.weights = state["epoch"], state["rank"], state["weights"]


def test(folder: RunFolder, augment: Augment) -> dict[str, Any]:
    """Test the best epoch's network on the test speakers, and write everything that came out."""
    config, store, genotype = augment.config, augment.store, augment.architecture.genotype
    augment.best.restore()
    heard = augment.hear(augment.experiment.fold.test)
    metrics = {
        **heard.report(),
        "protocol": config.protocol,
        "best_epoch": augment.best.epoch,
        "params": augment.weight_count,
        "multiply_adds": multiply_adds(augment.network, store.front_end.shape),
        "dataset": config.dataset,
        "fold": config.fold,
        "seed": config.seed,
        "folds_by": config.folds_by,
        "allow_leak": list(config.allow_leak),
        "leaks": augment.experiment.leaks.to_json(),
        "heard_in_search": augment.heard_in_search,
        "model": config.model,
        "genotype": genotype and genotype.to_json(),
    }
    if folder.writes:
        parts = augment.network, augment.architecture, *augment.statistics
        model = SavedModel(*parts, store.classes, store.front_end.model_dump(), augment.trained_on)
        model.save(folder.path / "model.safetensors")
        heard.write_predictions(folder.path / "predictions.csv")
        draw(folder, genotype, metrics)
        write_json(folder.path / "metrics.json", metrics)
    log.info("\n%s\n", table(metrics))
    log.info("metrics   %s\npictures  %s", folder.path / "metrics.json", folder.plots)
    log.info("next      python predict.py --model %s FILE.wav", folder.path.parent)
    return metrics


def draw(folder: RunFolder, genotype: Genotype | None, metrics: dict[str, Any]) -> None:
    """Draw the cells, where there are some, and the confusion matrix, and show the test in TensorBoard."""
    picture = folder.plots / "confusion.png"
    end = (
        folder.config.epochs + 1
    )  # after every epoch: a finished run that is resumed supersedes what it has shown
    if genotype:
        cells.draw_genotype(genotype, folder.plots)
    draw_confusion(metrics, picture)
    folder.show("test/confusion", picture, end)
    folder.add_scalars({f"test/{name}": metrics[name] for name in ("ua", "wa", "macro_f1")}, end)


if __name__ == "__main__":
    run_command(run, CONFIG)
