"""Training a derived network or one designed by hand: the optimizer, the step, and the choice of the epoch."""

from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from config import RISE, AugmentConfig
from data.speakers import SpeakerSet
from data.transforms import cutout, mixup, spec_augment
from genotypes import Genotype
from models.architecture import Architecture, BaselineArchitecture, SearchedArchitecture
from models.augment_network import set_drop_path
from models.baselines import Shape
from models.joint_network import Size
from models.saved import SavedModel
from training.experiment import Experiment
from training.losses import ClassificationLoss, MixupLoss
from training.precision import PASS_DTYPES
from training.predictions import Predictions, predict
from training.run_folder import log
from training.steps import Metrics, weight_step


def choose_architecture(config: AugmentConfig, genotype: Genotype | None, shape: Shape) -> Architecture:
    """The architecture that the flags ask for, for inputs of a shape (F, T)."""
    if genotype is None:
        return BaselineArchitecture(config.model, shape, config.deltas)
    size = Size.of(config)
    size.check_bands(shape[0])
    return SearchedArchitecture(
        genotype,
        size,
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


class Retraining:
    """The training of a network, and the choice of its epoch."""

    def __init__(self, config: AugmentConfig, experiment: Experiment, genotype: Genotype | None):
        """Without a genotype, the network is the one of --model, designed by hand."""
        self.config = config
        self.experiment = experiment
        self.store = experiment.store
        self.train_rows, self.picking_rows = experiment.fold.parts(config.protocol)
        self.store.check_copies(config.test_copies, "--test_copies")
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

    def trained_on(self, searched_on: SpeakerSet | None) -> SpeakerSet:
        """The speakers that the training, the choice of the epoch and the search of the genotype use."""
        rows = np.concatenate([self.train_rows, self.picking_rows])
        return self.experiment.speakers(rows).union(searched_on)

    def saved_model(self, searched_on: SpeakerSet | None) -> SavedModel:
        """The network with its current weights, and all that a prediction needs."""
        mean, std = self.statistics
        return SavedModel(
            self.network,
            self.architecture,
            mean,
            std,
            self.store.classes,
            self.store.front_end.model_dump(),
            self.trained_on(searched_on),
            self.config.normalise,
            self.config.test_copies,
        )

    def log_setup(self) -> None:
        """Log the data, the network, and the device."""
        sizes = len(self.train_rows), len(self.picking_rows), len(self.experiment.fold.test)
        log.info("data      %d rows to train, %d to pick the epoch, %d to test", *sizes)
        if self.config.test_copies:
            log.info("copies    predicted besides each utterance: %s", ", ".join(self.config.test_copies))
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
        """Predict the utterances of these rows with the current weights; with --test_copies, over their copies too."""
        rows = self.store.with_copies(rows, self.config.test_copies)
        return predict(self.network, self.features, self.store, rows, self.config.batch_size)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Score the utterances that pick the epoch, if any, and keep the weights if this epoch is picked so far."""
        ua = loss = 0.0
        record = {"lr": self.scheduler.get_last_lr()[0]}
        if len(self.picking_rows):
            predictions = self.predict(self.picking_rows)
            ua, loss = predictions.scores()["ua"], predictions.loss
            record = {"valid/loss": loss, "valid/ua": ua, **record}
        if self.config.pick == "best" or epoch == self.config.epochs:
            self.best.update((ua, -loss), epoch)
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
