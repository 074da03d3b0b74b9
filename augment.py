"""Augment: train the network of a genotype from scratch, and test it once on speakers that it was not trained on.

python augment.py --name NAME --dataset DATASET --fold K     ->  runs/NAME/augment/metrics.json, model.safetensors

--model cnn_lstm_att, for example, trains a network designed by hand instead; nothing else changes.
"""

from cli import command_line, command_to_type, note, run_command
from config import RISE, AugmentConfig, PredictConfig, SearchConfig

if __name__ == "__main__":
    CONFIG = command_line(AugmentConfig)  # before torch is imported: --help and mistakes take no time

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from data.leaks import abbreviate, leak_error
from data.speakers import SpeakerSet
from data.transforms import cutout, mixup, spec_augment
from genotypes import Genotype, read_source
from models.architecture import Architecture, BaselineArchitecture, SearchedArchitecture
from models.augment_network import set_drop_path
from models.baselines import Shape
from models.complexity import multiply_adds
from models.joint_network import Size
from models.saved import SavedModel
from plots import cells
from training import distributed
from training.experiment import Experiment, start_experiment
from training.loop import fit
from training.losses import ClassificationLoss, MixupLoss
from training.metrics import table
from training.precision import PASS_DTYPES
from training.predictions import Predictions, draw_confusion, predict
from training.run_folder import RunFolder, log
from training.steps import Metrics, weight_step
from utils import UserError, write_json


def run(config: AugmentConfig) -> dict[str, Any]:
    """Train, pick the epoch, test; return the contents of metrics.json."""
    genotype, searched_on = find_genotype(config)
    config = without_missing_rnn(config, genotype)
    experiment = start_experiment(config)
    origin = experiment.origin(genotype=genotype and genotype.to_json())
    folder = RunFolder("augment", config, distributed.is_first(), origin)
    augment = Augment(config, experiment, genotype, searched_on)
    with folder:
        distributed.barrier()  # no rank looks for a checkpoint before rank 0 has taken the folder
        log.info("augment   %s", folder.path)
        augment.log_setup()
        fit(folder, augment, experiment.device)
        return test(folder, augment)


def find_genotype(config: AugmentConfig) -> tuple[Genotype | None, SpeakerSet | None]:
    """The genotype of --genotype or of a search, and the speakers it was searched on, if known.

    Both are None for a network designed by hand. Raises `UserError` if no genotype is found, or if it is invalid.
    """
    if config.model != "searched":
        return None, None
    search = config.search_id or config.name
    path = config.results_path / search / "search" / "genotype.json"
    if config.genotype is None and not path.exists():
        raise UserError(missing_genotype(path, search, config))
    source = config.genotype or str(path)
    genotype, searched_on, place = read_source(source)
    if place:
        note(place)
    return genotype, parse_speakers(searched_on, source)


def missing_genotype(path: Path, search: str, config: AugmentConfig) -> str:
    """The message for a search that has not ended, with the command that continues or starts it."""
    settings = path.with_name("config.json")
    if path.with_name("checkpoint.pt").exists() and settings.exists():
        shown = {"resume": True, "results_path": config.results_path}
        return (
            f"the search {search} is unfinished; first run: {command_to_type(SearchConfig, settings, shown)}"
        )
    shown = {"name": search, "dataset": config.dataset, "fold": config.fold}
    command = command_to_type(SearchConfig, config.config, shown, config.shared_flags())
    return f"--genotype is missing, and there is no {path}; first run: {command}"


def parse_speakers(searched_on: dict[str, Any] | None, source: str) -> SpeakerSet | None:
    """Check `searched_on` of a genotype file. Raises `UserError` if it is not what search.py writes."""
    if searched_on is None:
        return None
    try:  # from JSON, where a list stands for a tuple
        return SpeakerSet.model_validate_json(json.dumps(searched_on))
    except (ValueError, RecursionError):
        raise UserError(
            f"genotype {source[:80]!r}: searched_on must have the texts dataset and corpus and the list speakers, "
            "as search.py writes it"
        ) from None


def without_missing_rnn(config: AugmentConfig, genotype: Genotype | None) -> AugmentConfig:
    """Set --rnn_layers to 0 if the genotype has no SeqNN cell, as those of pt.darts."""
    if genotype is None or genotype.rnn or not config.rnn_layers:
        return config
    note(f"the genotype has no rnn part: --rnn_layers is 0, not {config.rnn_layers}")
    return config.model_copy(update={"rnn_layers": 0})


def choose_architecture(config: AugmentConfig, genotype: Genotype | None, shape: Shape) -> Architecture:
    """The architecture that the flags ask for, for inputs of a shape (F, T)."""
    if genotype is None:
        return BaselineArchitecture(config.model, shape, config.deltas)
    return SearchedArchitecture(
        genotype,
        Size.of(config),
        config.dropout,
        auxiliary=config.aux_weight > 0,
        fused=config.fused == "auto",
    )


def make_optimizer(config: AugmentConfig, network: nn.Module) -> Optimizer:
    """SGD with momentum as published, or AdamW (Loshchilov and Hutter, ICLR 2019).

    AdamW decays the weights of convolutions, linear maps and recurrences, but neither biases nor the scales of norms.
    """
    if config.optimizer == "sgd":
        return SGD(
            network.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    groups = [
        {"params": [p for p in network.parameters() if p.dim() > 1]},
        {"params": [p for p in network.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, config.lr, weight_decay=config.weight_decay)


def make_scheduler(config: AugmentConfig, optimizer: Optimizer) -> LRScheduler:
    """The learning rate of an epoch: a cosine that falls to 0, or one cycle (Smith and Topin 2019) that rises first."""
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, config.epochs)
    return OneCycleLR(optimizer, config.lr, config.epochs, pct_start=RISE, cycle_momentum=False)


class Augment:
    """The training of a network, and the choice of its epoch."""

    def __init__(
        self,
        config: AugmentConfig,
        experiment: Experiment,
        genotype: Genotype | None,
        searched_on: SpeakerSet | None,
    ):
        self.config = config
        self.experiment = experiment
        self.store = experiment.store
        self.searched_on = searched_on
        self.test_speakers_in_search = check_searched_speakers(searched_on, experiment)
        self.train_rows, self.picking_rows = experiment.fold.parts(config.protocol)
        self.features, self.statistics = experiment.features(self.train_rows)
        self.batches = experiment.batches(self.features, self.train_rows)
        self.steps = len(self.batches)

        self.architecture = choose_architecture(config, genotype, self.store.front_end.shape)
        self.network = experiment.place(self.architecture.build(len(self.store.classes)))
        self.optimizer = make_optimizer(config, self.network)
        self.scheduler = make_scheduler(config, self.optimizer)
        self.loss = ClassificationLoss(
            experiment.class_weights(self.train_rows), config.aux_weight, config.label_smoothing
        )
        self.best = BestEpoch(self.network)
        self.parts = {
            "network": self.network,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "best": self.best,
        }

    @property
    def weight_count(self) -> int:
        """The number of weights, without the auxiliary head."""
        return sum(p.numel() for name, p in self.network.named_parameters() if ".auxiliary." not in name)

    @property
    def trained_on(self) -> SpeakerSet:
        """The speakers that the search of the genotype, the training and the choice of the epoch use."""
        rows = np.concatenate([self.train_rows, self.picking_rows])
        return self.experiment.speakers(rows).union(self.searched_on)

    def log_setup(self) -> None:
        """Log the data, the network, and the device."""
        sizes = len(self.train_rows), len(self.picking_rows), len(self.experiment.fold.test)
        log.info("data      %d rows to train, %d to pick the epoch, %d to test", *sizes)
        for line in self.experiment.leaks.lines():
            log.info("shared    %s", line)
        millions = self.weight_count / 1e6
        log.info("network   %s, %.3f M weights on %s", self.config.model, millions, self.features.device)
        log.info("precision %s\n", self.config.precision)

    @property
    def wait_seconds(self) -> float:
        """The seconds that the steps so far have waited for batches."""
        return self.batches.waited

    def step(self, i: int) -> Metrics:
        """One step of the weights on an augmented training batch."""
        config = self.config
        epoch = i // self.steps
        set_drop_path(self.network, config.drop_path_prob * epoch / config.epochs)
        x, y = self.batches[i]
        x = spec_augment(x, config.freq_mask, config.time_mask)
        x = cutout(x, config.cutout_length)
        loss: nn.Module = self.loss
        if config.mixup:
            x, partner, share = mixup(x, config.mixup)
            loss = MixupLoss(loss, partner, share)
        dtype = PASS_DTYPES[config.precision]
        return weight_step(self.network, self.optimizer, (x, y), loss, config.grad_clip, dtype)

    def predict(self, rows: np.ndarray) -> Predictions:
        """Predict these rows with the current weights."""
        return predict(self.network, self.features, self.store, rows, self.config.batch_size)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Score the utterances that pick the epoch, and keep the weights if this epoch is the best."""
        predictions = self.predict(self.picking_rows)
        ua = predictions.scores()["ua"]
        loss = predictions.loss
        if self.config.pick == "best" or epoch == self.config.epochs:
            self.best.update((ua, -loss), epoch)
        record = {"valid/loss": loss, "valid/ua": ua, "lr": self.scheduler.get_last_lr()[0]}
        self.scheduler.step()
        return record


class BestEpoch:
    """The weights of the best epoch so far, by UA and then by loss; part of the checkpoint."""

    def __init__(self, network: nn.Module):
        self.network = network
        self.epoch = 0
        self.score: tuple[float, float] | None = None
        self.weights: dict[str, Tensor] = {}

    def update(self, score: tuple[float, float], epoch: int) -> None:
        """Keep the current weights if this score is higher than all before."""
        if self.score is None or score > self.score:
            self.score = score
            self.epoch = epoch
            self.weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    def restore(self) -> None:
        """Load the weights of the best epoch into the network."""
        self.network.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "score": self.score, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.score = state["score"]
        self.weights = state["weights"]


def check_searched_speakers(searched_on: SpeakerSet | None, experiment: Experiment) -> list[str] | None:
    """The test speakers on which the genotype was searched; None if that is not known or cannot be told.

    Raises `UserError` if there are any, unless --allow_leak speakers. Validation speakers may be among those of the
    search: they pick the epoch, and the test uses others.
    """
    if searched_on is None:
        return None
    config = experiment.config
    shared = searched_on.heard(experiment.test_speakers)
    if shared and "speakers" not in config.allow_leak:
        leak = f"the genotype was searched on test speakers ({abbreviate(shared)})"
        better = f"search on this fold (search.py --fold {config.fold}, the same --folds_by)"
        raise leak_error(f"fold {config.fold}", leak, better, ["speakers", *config.allow_leak])
    return shared


def test(folder: RunFolder, augment: Augment) -> dict[str, Any]:
    """Test the network of the best epoch on the test speakers, and write all results."""
    config = augment.config
    store = augment.store
    genotype = augment.architecture.genotype
    augment.best.restore()
    predictions = augment.predict(augment.experiment.fold.test)
    metrics = {
        **predictions.report(),
        "protocol": config.protocol,
        "best_epoch": augment.best.epoch,
        "params": augment.weight_count,
        "multiply_adds": multiply_adds(augment.network, store.front_end.shape),
        "dataset": config.dataset_name,
        "fold": config.fold,
        "seed": config.seed,
        "folds_by": config.folds_by,
        "allow_leak": list(config.allow_leak),
        "leaks": augment.experiment.leaks.to_json(),
        "heard_in_search": augment.test_speakers_in_search,
        "model": config.model,
        "genotype": genotype and genotype.to_json(),
    }
    if folder.writes:
        mean, std = augment.statistics
        model = SavedModel(
            augment.network,
            augment.architecture,
            mean,
            std,
            store.classes,
            store.front_end.model_dump(),
            augment.trained_on,
            config.normalise,
        )
        model.save(folder.path / "model.safetensors")
        predictions.write(folder.path / "predictions.csv")
        draw(folder, genotype, metrics)
        write_json(folder.path / "metrics.json", metrics)
    log.info("\n%s\n", table(metrics))
    log.info("metrics   %s\npictures  %s", folder.path / "metrics.json", folder.plots)
    shown = {"model": folder.path.parent, "files": ["FILE.wav"]}
    log.info("next      %s", command_to_type(PredictConfig, config.config, shown, {"gpus": config.gpus}))
    return metrics


def draw(folder: RunFolder, genotype: Genotype | None, metrics: dict[str, Any]) -> None:
    """Draw the cells, if any, and the confusion matrix, and show the test in TensorBoard."""
    if genotype:
        cells.draw_genotype(genotype, folder.plots)
    picture = folder.plots / "confusion.png"
    draw_confusion(metrics, picture)
    step = folder.config.epochs + 1  # behind all epochs: a finished run that is resumed replaces it
    folder.add_image("test/confusion", picture, step)
    folder.add_scalars({f"test/{name}": metrics[name] for name in ("ua", "wa", "macro_f1")}, step)


if __name__ == "__main__":
    run_command(run, CONFIG)
