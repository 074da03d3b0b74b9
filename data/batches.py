"""Feature store -> batches on a device.

The batch of a step depends only on the rows, the seed and the step, so that a run can be resumed at
any step.

Shapes: N rows of the store or of a batch, F coefficients, T frames.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from data.normalisation import Standardisation
from data.store import FeatureStore
from utils import UserError

RESIDENT_BYTES = {"cpu": 2**28, "else": 2**32}
"""Features up to this size, by type of device, are kept on it; larger ones are read for each batch."""
STEPS_AHEAD = 2  # batches that threads read before they are needed


class Features:
    """Standardised features of a store as tensors (N, 1, F, T) on a device."""

    def __init__(self, store: FeatureStore, standardisation: Standardisation, device: torch.device):
        self.array = store.features
        self.device = device
        self.host_labels = store.labels
        self.labels = torch.from_numpy(store.labels).to(device)
        self.mean = torch.from_numpy(standardisation.mean).to(device)  # (G, F)
        self.std = torch.from_numpy(standardisation.std).to(device)
        self.group = torch.from_numpy(standardisation.group).to(device)  # (N,)
        self.resident: Tensor | None = None
        if self.array.nbytes <= RESIDENT_BYTES.get(device.type, RESIDENT_BYTES["else"]):
            everything = torch.arange(len(self.array), device=device)
            self.resident = self._standardise(torch.from_numpy(self.array[:]).to(device), everything)

    def read(self, rows: np.ndarray) -> Tensor:
        """Read rows from disk into the host's memory, (N, F, T); threads may do this ahead of `fetch`."""
        x = torch.from_numpy(self.array[rows])
        return x.pin_memory() if self.device.type == "cuda" else x

    def fetch(self, rows: np.ndarray, read: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x (N, 1, F, T) and y (N,) of rows; `read` is the result of `self.read`, if it ran."""
        index = self._to_device(torch.from_numpy(rows))
        if self.resident is not None:
            return self.resident[index], self.labels[index]
        x = self._to_device(self.read(rows) if read is None else read)
        return self._standardise(x, index), self.labels[index]

    def in_order(self, rows: np.ndarray, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every row once, in order, in batches; the last one may be smaller."""
        for start in range(0, len(rows), batch_size):
            yield self.fetch(rows[start : start + batch_size])

    def _to_device(self, x: Tensor) -> Tensor:
        """Copy to the device; asynchronously on CUDA alone, as MPS could read freed memory."""
        return x.to(self.device, non_blocking=self.device.type == "cuda")

    def _standardise(self, x: Tensor, index: Tensor) -> Tensor:
        """Standardise x (N, F, T), the rows `index`, in place; return it as (N, 1, F, T)."""
        group = self.group[index]
        return x.sub_(self.mean[group].unsqueeze(2)).div_(self.std[group].unsqueeze(2)).unsqueeze(1)


class TrainingBatches:
    """Shuffled batches of equal size, without end: `batches[step]`. One epoch is `len(batches)` steps.

    In every epoch each row occurs at most once; the rows that do not fill a batch are dropped,
    others each time. If `balanced`, an epoch has the same number of rows of each class instead:
    large classes are sampled, with other rows each time, and rows of small classes are repeated.
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
        """rows: the rows to draw from.
        batch_size: rows per batch, over all processes.
        workers: threads that read batches ahead, if the features are not on the device.
        share: (rank, number of processes); all processes share one permutation, and each takes its
        own rows of it.
        stream: distinguishes the shuffles of one seed.

        Raises `UserError` if the batch size is larger than the rows, or cannot be shared.
        """
        if batch_size > len(rows):
            raise UserError(f"--batch_size {batch_size} is more than the {len(rows)} training utterances")
        processes = share[1]
        if batch_size % processes or batch_size < 2 * processes:
            raise UserError(
                f"--batch_size {batch_size} must give each of {processes} processes the same number of "
                "rows, two or more"
            )
        self.features = features
        self.rows = rows
        self.batch_size = batch_size
        self.share = share
        self.seed = (seed, stream)
        self.balanced = balanced
        self.permutation = lru_cache(maxsize=2)(self._permutation)  # batches ahead may be of the next epoch
        self.threads = ThreadPoolExecutor(workers) if workers and features.resident is None else None
        self.ahead: dict[int, Future] = {}
        self.waited = 0.0  # seconds that callers have waited for batches

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
        for later in range(step, step + 1 + STEPS_AHEAD):
            if later not in self.ahead:
                self.ahead[later] = self.threads.submit(self.features.read, self.rows_of(later))
        return self.features.fetch(self.rows_of(step), self.ahead.pop(step).result())

    def rows_of(self, step: int) -> np.ndarray:
        """The rows of this process in a step."""
        epoch, place = divmod(step, len(self))
        batch = self.permutation(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        rank, processes = self.share
        return batch[rank::processes]

    def _permutation(self, epoch: int) -> np.ndarray:
        """The shuffled rows of an epoch."""
        rng = np.random.default_rng([*self.seed, epoch])
        return rng.permutation(self._balanced_rows(rng) if self.balanced else self.rows)

    def _balanced_rows(self, rng: np.random.Generator) -> np.ndarray:
        """Draw equally many rows of each class, and each row of a class equally often (within 1)."""
        labels = self.features.host_labels[self.rows]
        classes = np.unique(labels)
        per_class = -(-len(self.rows) // len(classes))
        drawn = []
        for label in classes:
            members = self.rows[labels == label]
            passes = -(-per_class // len(members))
            shuffled = [rng.permutation(members) for _ in range(passes)]
            drawn.append(np.concatenate(shuffled)[:per_class])
        return np.concatenate(drawn)


def equal_batches(rows: np.ndarray, batch_size: int, seed: int) -> list[np.ndarray]:
    """The rows, shuffled, in batches of nearly equal size, for BatchNorm that takes its statistics from the batch."""
    shuffled = np.random.default_rng(seed).permutation(rows)
    return np.array_split(shuffled, -(-len(rows) // batch_size))
