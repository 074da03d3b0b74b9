"""From the feature store to batches on a device.

The batch of a step is a function of the rows, the seed and the step alone, so a run can go on from any step.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from data.store import FeatureStore
from utils import UserError

RESIDENT_BYTES = {"cpu": 2**28, "else": 2**32}
"""Features up to this size are kept in memory, on the device; of larger ones a batch is fetched at a time."""


class Features:
    """Standardised features of a store as tensors (N, 1, F, T) on a device; one copy serves every part of a fold."""

    def __init__(self, store: FeatureStore, mean: np.ndarray, std: np.ndarray, device: torch.device):
        """`mean` and `std` (F,): per coefficient, over the training rows."""
        self.array, self.host_labels, self.device = store.features, store.labels, device
        self.labels = torch.from_numpy(self.host_labels).to(device)
        self.mean, self.std = (torch.from_numpy(v).to(device)[:, None] for v in (mean, std))
        fits = self.array.nbytes <= RESIDENT_BYTES.get(device.type, RESIDENT_BYTES["else"])
        self.resident = self._standardised(torch.from_numpy(self.array[:]).to(device)) if fits else None

    def read(self, rows: np.ndarray) -> Tensor:
        """The part of a fetch that reads from disk, for threads to do ahead; (N, F, T) in the host's memory."""
        x = torch.from_numpy(self.array[rows])
        return x.pin_memory() if self.device.type == "cuda" else x

    def fetch(self, rows: np.ndarray, read: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(x (N, 1, F, T), y (N,)) of some rows; `read` is what `read` gave for them, if that ran ahead."""
        index = self._sent(torch.from_numpy(rows))
        if self.resident is not None:
            return self.resident[index], self.labels[index]
        x = self._sent(self.read(rows) if read is None else read)
        return self._standardised(x), self.labels[index]

    def _sent(self, x: Tensor) -> Tensor:
        """On the device; CUDA's need not be waited for. On Apple's a copy might read what is freed meanwhile."""
        return x.to(self.device, non_blocking=self.device.type == "cuda")

    def _standardised(self, x: Tensor) -> Tensor:
        return x.sub_(self.mean).div_(self.std).unsqueeze(1)

    def in_order(self, rows: np.ndarray, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every row once, in order: what a test reads."""
        for start in range(0, len(rows), batch_size):
            yield self.fetch(rows[start : start + batch_size])


class TrainingBatches:
    """Shuffled batches of equal size, without end: `batches[step]`. An epoch is `len(batches)` steps.

    Each epoch drops the rows that do not fill a batch, others every time. `share` = (rank, processes): every process
    takes its own rows of a common permutation. `stream` tells apart the shuffles of one seed. Where `balanced`, an
    epoch draws as many rows of each class: of large classes others every time, of small ones some more than once.
    """

    def __init__(
        self,
        features: Features,
        rows: np.ndarray,
        batch_size: int,
        seed: int,
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
        stream: int = 0,
        balanced: bool = False,
    ):
        if batch_size > len(rows):
            raise UserError(
                f"--batch_size {batch_size} is more than the {len(rows)} training utterances there are"
            )
        if batch_size % share[1] or batch_size < 2 * share[1]:
            raise UserError(
                f"--batch_size {batch_size} must give each of {share[1]} processes the same, two at least"
            )
        self.features, self.rows, self.batch_size, self.share = features, rows, batch_size, share
        self.seed, self.balanced = (seed, stream), balanced
        self.permutation = lru_cache(maxsize=2)(self._permutation)
        self.threads = ThreadPoolExecutor(workers) if workers and features.resident is None else None
        self.ahead: dict[int, Future] = {}
        self.waited = 0.0  # seconds that those who asked for batches have waited for them

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        start = time.perf_counter()
        batch = self._fetch(step)
        self.waited += time.perf_counter() - start
        return batch

    def _fetch(self, step: int) -> tuple[Tensor, Tensor]:
        if self.threads is None:
            return self.features.fetch(self.rows_of(step))
        for later in range(step, step + 3):
            if later not in self.ahead:
                self.ahead[later] = self.threads.submit(self.features.read, self.rows_of(later))
        return self.features.fetch(self.rows_of(step), self.ahead.pop(step).result())

    def rows_of(self, step: int) -> np.ndarray:
        """This process's rows of a step."""
        epoch, place = divmod(step, len(self))
        batch = self.permutation(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        return batch[self.share[0] :: self.share[1]]

    def _permutation(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([*self.seed, epoch])
        return rng.permutation(self._even(rng) if self.balanced else self.rows)

    def _even(self, rng: np.random.Generator) -> np.ndarray:
        """As many rows as there are, each class as often as the others, each row of a class as often as the others."""
        labels = self.features.host_labels[self.rows]
        classes = np.unique(labels)
        share = -(-len(self.rows) // len(classes))
        drawn = []
        for label in classes:
            own = self.rows[labels == label]
            rounds = [rng.permutation(own) for _ in range(-(-share // len(own)))]
            drawn.append(np.concatenate(rounds)[:share])
        return np.concatenate(drawn)
