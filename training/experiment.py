"""What a search and an augment run start from: the processes, the corpus, and the fold."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from config import RunConfig
from data.batches import Features, TrainingBatches
from data.datasets import open_dataset
from data.folds import Fold, choose_fold, make_folds
from data.leaks import Leaks, check_leaks, speaker_set
from data.speakers import SpeakerSet
from data.store import FeatureStore, statistics
from models.fused.cnn.sync_batchnorm import synchronise
from training.devices import make_fabric
from training.losses import class_weights
from training.precision import settle
from training.provenance import Origin, describe


@dataclass(frozen=True)
class Experiment:
    """The seeded processes of a run, its feature store, and its fold."""

    config: RunConfig
    fabric: Fabric
    store: FeatureStore
    fold: Fold
    leaks: Leaks

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    def origin(self, **inputs: Any) -> Origin:
        """What a run on this dataset, and on `inputs`, is made from; known to the process that writes alone."""
        if not self.fabric.is_global_zero:
            return Origin({}, {})
        store = {str(self.store.folder): self.store.fingerprint()}
        return Origin({**store, **inputs}, describe(self.device))

    def speakers(self, rows: np.ndarray) -> SpeakerSet:
        """Whom one hears in rows."""
        return speaker_set(self.store, rows, self.config.dataset)

    def features(self, training_rows: np.ndarray) -> tuple[Features, tuple[np.ndarray, np.ndarray]]:
        """The features, standardised by the training rows alone, and the (mean, std) that did it."""
        mean, std = statistics(self.store.features, training_rows)
        return Features(self.store, mean, std, self.device), (mean, std)

    def batches(self, features: Features, rows: np.ndarray, stream: int = 0) -> TrainingBatches:
        """Shuffled batches of this process's share; `stream` tells apart the shuffles of one run."""
        config, share = self.config, (self.fabric.global_rank, self.fabric.world_size)
        balanced = config.balance == "sampling"
        return TrainingBatches(
            features, rows, config.batch_size, config.seed, config.workers, share, stream, balanced
        )

    def place(self, network: nn.Module) -> nn.Module:
        """A network on this process's device, its BatchNorms as --sync_batchnorm says."""
        synchronise(network, self.fabric.world_size if self.config.sync_batchnorm else 1)
        return network.to(self.device)

    def class_weights(self, rows: np.ndarray) -> Tensor | None:
        """The weights of the classes in a loss over training rows, where --balance asks for some."""
        if self.config.balance != "weights":
            return None
        return class_weights(self.store.labels[rows], len(self.store.classes)).to(self.device)


def begin(config: RunConfig) -> Experiment:
    """Start the processes, seed them alike, open the dataset, choose the fold and see that it leaks nothing."""
    fabric = make_fabric(config.gpus)
    fabric.launch()
    settle(config.precision, fabric.device)  # after Fabric, which asks torch by the older API
    torch.manual_seed(config.seed)
    with fabric.rank_zero_first():
        store = open_dataset(config.dataset, config.config)
    fold = choose_fold(make_folds(store.manifest, config.folds_by, config.keep_unknown_speakers), config.fold)
    leaks = check_leaks(store.manifest, fold, config.allow_leak, f"fold {config.fold}")
    return Experiment(config, fabric, store, fold, leaks)
