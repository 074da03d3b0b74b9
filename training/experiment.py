"""The setting that search and augment start from: the processes, the feature store and the fold."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from config import RunConfig
from data.batches import Features, TrainingBatches
from data.datasets import dataset_folds, open_dataset
from data.folds import Fold, choose_fold
from data.leaks import Leaks, check_leaks, speaker_set, speakers_under_test
from data.normalisation import sound_frames, standardise, statistics
from data.speakers import SpeakerSet, TestSpeakers
from data.store import FeatureStore
from models.fused import synchronise
from training import distributed
from training.losses import class_weights
from training.precision import set_precision
from training.provenance import Origin, describe


@dataclass(frozen=True)
class Experiment:
    """A device, a feature store and a fold of it."""

    config: RunConfig
    device: torch.device
    store: FeatureStore
    fold: Fold
    leaks: Leaks

    def features(self, training_rows: np.ndarray) -> tuple[Features, tuple[np.ndarray, np.ndarray]]:
        """The features on the device, standardised as --normalise says; and the (mean, std) of the training rows."""
        frames = sound_frames(self.store.manifest, self.store.front_end)
        training = statistics(self.store.features, training_rows, frames[training_rows])
        mean, std = training.mean, training.std
        standardisation = standardise(self.store, self.config.normalise, mean, std)
        return Features(self.store, standardisation, self.device), (mean, std)

    def batches(self, features: Features, rows: np.ndarray, stream: int = 0) -> TrainingBatches:
        """Shuffled batches of this rank's share. Each `stream` is shuffled differently."""
        config = self.config
        share = distributed.rank(), distributed.world_size()
        balanced = config.balance == "sampling"
        return TrainingBatches(
            features, rows, config.batch_size, config.seed, config.workers, share, stream, balanced
        )

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, with synchronised BatchNorm if --sync_batchnorm asks for it."""
        if self.config.sync_batchnorm:
            synchronise(network, distributed.world_size())
        return network.to(self.device)

    def class_weights(self, rows: np.ndarray) -> Tensor | None:
        """The class weights of the loss on these rows; None unless --balance asks for them."""
        if self.config.balance != "weights":
            return None
        return class_weights(self.store.labels[rows], len(self.store.classes)).to(self.device)

    def speakers(self, rows: np.ndarray) -> SpeakerSet:
        """The speakers in these rows."""
        return speaker_set(self.store, rows, self.config.dataset_name)

    @property
    def test_speakers(self) -> TestSpeakers:
        """The speakers of the test."""
        return speakers_under_test(self.store, self.fold.test, self.config.dataset)

    def origin(self, **inputs: Any) -> Origin:
        """The provenance of a run on this dataset and on `inputs`; empty except on rank 0, which writes it."""
        if not distributed.is_first():
            return Origin({}, {})
        store = {str(self.store.folder): self.store.fingerprint()}
        return Origin({**store, **inputs}, describe(self.device))


def start_experiment(config: RunConfig) -> Experiment:
    """Start the processes, seed them, open the dataset, choose the fold, and check it for leaks."""
    device = distributed.start(config.gpus)
    set_precision(config.precision, device)
    torch.manual_seed(config.seed)
    with distributed.first_rank_first():
        store = open_dataset(config.dataset, config.config, config.features)
    folds = dataset_folds(store, config)
    fold = choose_fold(folds, config.fold)
    leaks = check_leaks(store.manifest, fold, config.allow_leak, f"fold {config.fold}")
    return Experiment(config, device, store, fold, leaks)
