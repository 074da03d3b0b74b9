"""How much memory a search will take, told before it begins; and what to choose so that it fits.

    peak = (2 or 3) W + max over cells c of [ sum_{j <= c} N s_j + N (r_c + t_c) + sum_{j > c} w_j ]

W: the bytes of the weights, held as themselves, as their momenta, and in the second order once more (w', then the
direction of the finite difference). When backward comes to cell c, the cells up to it hold what they have stored for
it, s an utterance, and those behind it the gradients of their weights, w; a cell that is computed again holds all that
it had not stored, r; and backward works on some maps, t. N: utterances a process.

With --precision bf16, s, r and t are about halved, and a pass holds its weights once more, in 16 bits; but the passes
at w+ and w-, which compute no gradient of a weight, are of float32: in the second order the larger of both counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from config import SearchConfig
from darts.bilevel import make_supernet
from data.folds import halves
from genotypes import RNN_SCOPES
from models.memory import Footprint, footprints
from training import distributed
from training.devices import free_memory
from training.experiment import Experiment
from training.precision import DTYPES
from utils import UserError, progress

GB = 1e9
BATCHES = [2**k for k in range(1, 11)]
RECOMPUTE = ("none", "ops", "cells")  # from the fastest to the smallest
PROGRAM = {"cpu": 80e6}
"""Bytes that libraries take when first used, besides all tensors."""
SPARE = {"cpu": 0.7}
"""The share of the free memory that a choice may fill: the system's allocator keeps some of what is freed."""


@dataclass(frozen=True)
class Demand:
    """The memory that a search takes, from what the cells of its supernet do."""

    cells: Sequence[Footprint]
    program: float = 0.0
    low: Sequence[Footprint] = ()
    """The same cells in passes of 16 bits, where there are such."""

    def peak(self, utterances: int, order: str, recompute: str) -> float:
        """Bytes above those of the idle program, with so many utterances a process."""
        weights = sum(cell.weights for cell in self.cells)
        passes = backward(self.cells, utterances, recompute)
        if self.low:
            exact = (
                backward(self.cells, utterances, recompute, of_weights=False) if order == "second" else 0.0
            )
            passes = max(weights / 2 + backward(self.low, utterances, recompute), exact)
        return self.program + (3 if order == "second" else 2) * weights + passes


def backward(cells: Sequence[Footprint], utterances: int, recompute: str, of_weights: bool = True) -> float:
    """The most that a pass through cells holds, with or without gradients of their weights."""
    stored, gradients, peak = sum(cell.stored[recompute] for cell in cells), 0.0, 0.0
    for cell in reversed(cells):
        peak = max(peak, utterances * (stored + cell.again(recompute, of_weights) + cell.working) + gradients)
        stored -= cell.stored[recompute]
        gradients += cell.weights if of_weights else 0.0
    return max(peak, gradients)


def demand(config: SearchConfig, classes: int, shape: tuple[int, int], device: torch.device) -> Demand:
    """That of a configuration, for inputs (F, T): found on its own supernet, with zeros for weights.

    From the second on, SeqNN cells are alike: two are looked at. The random generators are left as they were.
    """
    looked_at = config.model_copy(update={"rnn_layers": min(config.rnn_layers, 2), "recompute": "none"})
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        with torch.device("meta"):
            network = make_supernet(looked_at, classes)
        network.to_empty(device=device)
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.zero_()
        found, dtype = footprints(network, shape), DTYPES[config.precision]
        low = footprints(network, shape, dtype) if dtype else []
    more = config.rnn_layers - looked_at.rnn_layers
    return Demand(found + found[-1:] * more, PROGRAM.get(device.type, 0.0), low + low[-1:] * more)


@dataclass(frozen=True)
class Planner:
    """Chooses for one search on one device."""

    config: SearchConfig
    demand: Demand
    free: float
    spare: float
    rows: int
    """Training rows of the smaller half: no batch is larger."""

    @classmethod
    def of(cls, experiment: Experiment, config: SearchConfig) -> "Planner":
        """That of a search on the device and the data of an experiment."""
        store, device = experiment.store, experiment.device
        parts = halves(store.manifest, experiment.fold.train, config.train_portion, config.seed)
        needs = demand(config, len(store.classes), store.front_end.shape, device)
        return cls(config, needs, free_memory(device), SPARE.get(device.type, 0.9), min(map(len, parts)))

    def peak(self, batch_size: int, order: str, recompute: str) -> float:
        """Bytes that a process takes at the peak."""
        return self.demand.peak(batch_size // distributed.world_size(), order, recompute)

    def fits(self, batch_size: int, order: str, recompute: str) -> bool:
        return self.peak(batch_size, order, recompute) <= self.spare * self.free

    def told(self, batch_size: int, order: str, recompute: str) -> str:
        """The peak in GB, in brackets where it does not fit."""
        number = f"{self.peak(batch_size, order, recompute) / GB:.2f}"
        return number if self.fits(batch_size, order, recompute) else f"({number})"

    def settle(self) -> "Planner":
        """With a choice for each `auto` in `config`: the largest batch that fits, and the least computed again.

        `UserError` where nothing fits. A choice of the user's may fill what an `auto` would spare.
        """
        config, sizes = self.config, self._sizes()
        ways = RECOMPUTE if config.recompute == "auto" else (config.recompute,)
        for batch_size, recompute in product(sizes, ways):
            if self.fits(batch_size, config.order, recompute):
                return self._with(batch_size, recompute)
        if self.peak(sizes[-1], config.order, ways[-1]) > self.free:
            raise UserError(self._way_out(sizes[-1], ways[-1]))
        return self._with(sizes[-1], ways[-1])

    def _with(self, batch_size: int, recompute: str) -> "Planner":
        return replace(
            self, config=self.config.model_copy(update={"batch_size": batch_size, "recompute": recompute})
        )

    def __str__(self) -> str:
        """What the search as it is settled will take."""
        config = self.config
        peak = self.peak(config.batch_size, config.order, config.recompute) / GB
        return (
            f"about {peak:.2f} GB at the peak, of {self.free / GB:.1f} free; --recompute {config.recompute}"
        )

    def _sizes(self) -> list[int]:
        """The batch sizes to choose from, the largest first."""
        if self.config.batch_size != "auto":
            return [self.config.batch_size]
        least = 2 * distributed.world_size()
        return [
            n for n in reversed(BATCHES) if least <= n <= self.rows and n % distributed.world_size() == 0
        ] or [least]

    def _way_out(self, batch_size: int, recompute: str) -> str:
        """What to say where a search does not fit."""
        order, needs = self.config.order, self.peak(batch_size, self.config.order, recompute) / GB
        problem = (
            f"--batch_size {batch_size} --recompute {recompute} --order {order} takes about {needs:.1f} GB of memory, "
            f"and {self.free / GB:.1f} GB are free"
        )
        for other, n in product((order, "first"), reversed(BATCHES)):
            if n <= batch_size and self.fits(n, other, "cells"):
                return f"{problem}: pass --batch_size {n} --recompute cells --order {other}, or see --plan"
        return f"{problem}: choose fewer --rnn_nodes, --rnn_layers or --rnn_ops; see --plan"


def smaller_spaces(config: SearchConfig) -> Iterator[tuple[str, SearchConfig]]:
    """Searches that leave something out, each by the flag that does."""
    changes = [("cnn_nodes", n, n) for n in (3, 2) if n < config.cnn_nodes]
    if config.rnn_layers:
        changes += [("rnn_nodes", n, n) for n in (3, 2) if n < config.rnn_nodes]
        changes += [("rnn_layers", n, n) for n in (2, 1) if n < config.rnn_layers]
        changes += [("nested_depth", "", True)] * (not config.nested_depth)
        changes += [
            ("rnn_ops", name, ops) for name, ops in RNN_SCOPES.items() if set(ops) < set(config.rnn_ops)
        ]
    for flag, word, value in changes:
        yield f"--{flag} {word}".strip(), config.model_copy(update={flag: value})


def table(experiment: Experiment, config: SearchConfig) -> str:
    """What the choices would take, for people: by batch size, order and recompute, then of smaller search spaces."""
    planner, ways = Planner.of(experiment, config), list(product(("second", "first"), RECOMPUTE))
    sizes = [n for n in BATCHES if n <= planner.rows and n % distributed.world_size() == 0]
    batch_size = sizes[-1] if config.batch_size == "auto" else config.batch_size
    lines = [
        f"GB at the peak, of {planner.free / GB:.1f} free on {experiment.device}; (in brackets): does not fit\n",
        row("--order", (order for order, _ in ways)),
        row("--recompute", (recompute for _, recompute in ways)),
        *(row(f"--batch_size {n}", (planner.told(n, *way) for way in ways)) for n in sizes),
    ]
    spaces = list(smaller_spaces(config))
    lines += [f"\nsmaller spaces, with --batch_size {batch_size}"] * bool(spaces)
    for name, smaller in progress(spaces, "plan"):
        other = Planner.of(experiment, smaller)
        lines.append(row(name, (other.told(batch_size, *way) for way in ways)))
    return "\n".join(lines)


def row(name: str, cells: Iterable[str]) -> str:
    """A line of the table."""
    return f"{name:20}" + "".join(f"{cell:>10}" for cell in cells)
