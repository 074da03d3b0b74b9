"""The memory that a search takes, estimated before it begins, and the choice of --batch_size auto and --recompute auto.

    peak = (2 or 3) W + max over cells c of [ sum_{j <= c} N s_j + N (r_c + t_c) + sum_{j > c} w_j ]

W is the size of the weights, which exist once as themselves, once as momentum buffers, and in the
second order once more (w', then the direction of the finite difference). When the backward pass
reaches cell c, the cells up to c still hold what they have stored for it (s per utterance), and the
cells behind c the gradients of their weights (w). A cell that is recomputed holds the rest of its
activations (r), and the backward pass works on some maps (t). N is the number of utterances per
process.

With --precision bf16, s, r and t are about halved and a pass holds a 16-bit copy of its weights.
The float32 passes at w+ and w- compute no weight gradients; in the second order, the larger of both
peaks counts.

A step of the evolution is one of the first order that recomputes nothing. It trains one genotype, so w counts the
weights that this uses.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from config import SearchConfig
from darts.supernet import make_one_shot, make_supernet
from data.halves import halves
from genotypes import RNN_SCOPES
from models.memory import CellMemory, measure_cells, measure_genotype
from models.one_shot_network import OneShotNetwork
from training import distributed
from training.devices import free_memory
from training.experiment import Experiment
from training.precision import PASS_DTYPES
from training.run_folder import earlier_flags
from utils import UserError, progress

GB = 1e9
BATCH_SIZES = [2**k for k in range(1, 11)]
RECOMPUTE = ("none", "ops", "cells")
"""The choices of --recompute, in the order in which auto tries them."""
PROGRAM = {"cpu": 80e6}
"""Bytes that libraries allocate when they are first used, by device."""
MEASURED = 8
"""Genotypes that are measured for the evolution."""
USABLE = {"cpu": 0.7}
"""The share of the free memory that `auto` fills, by device: the system's allocator keeps some of what is freed."""


@dataclass(frozen=True)
class Demand:
    """The memory that the cells of a supernet need."""

    cells: Sequence[CellMemory]
    program: float = 0.0
    bf16_cells: Sequence[CellMemory] = ()
    """The same cells in bf16 passes; empty unless --precision bf16."""

    def peak(self, utterances: int, order: str, recompute: str) -> float:
        """Bytes above those of the idle program, with this many utterances per process."""
        weights = sum(cell.weights for cell in self.cells)
        passes = pass_peak(self.cells, utterances, recompute)
        if self.bf16_cells:
            passes = weights / 2 + pass_peak(self.bf16_cells, utterances, recompute)
            if order == "second":
                float32_pass = pass_peak(self.cells, utterances, recompute, weight_gradients=False)
                passes = max(passes, float32_pass)
        copies = 3 if order == "second" else 2
        return self.program + copies * weights + passes


def pass_peak(
    cells: Sequence[CellMemory], utterances: int, recompute: str, weight_gradients: bool = True
) -> float:
    """The largest memory that a forward and backward pass through the cells holds."""
    stored = sum(cell.stored[recompute] for cell in cells)
    gradients = peak = 0.0
    for cell in reversed(cells):
        activations = stored + cell.recomputed(recompute, weight_gradients) + cell.working
        peak = max(peak, utterances * activations + gradients)
        stored -= cell.stored[recompute]
        gradients += cell.gradients if weight_gradients else 0.0
    return max(peak, gradients)


def estimate(config: SearchConfig, classes: int, shape: tuple[int, int], device: torch.device) -> Demand:
    """The demand of a search for inputs (F, T), measured on its supernet with zeros for weights.

    SeqNN cells from the second on are nearly equal (the second also projects the CNN's output), so at most two are
    built. The random generators are not changed.
    """
    rnn_layers = min(config.rnn_layers, 2)
    small = config.model_copy(update={"rnn_layers": rnn_layers, "recompute": "none"})
    make, measure = (make_one_shot, measure_largest) if evolves(config) else (make_supernet, measure_cells)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        with torch.device("meta"):
            network = make(small, classes)
        network.to_empty(device=device)
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.zero_()
        cells = measure(network, shape)
        dtype = PASS_DTYPES[config.precision]
        bf16_cells = measure(network, shape, dtype) if dtype else []
    more = config.rnn_layers - rnn_layers
    return Demand(
        cells + cells[-1:] * more, PROGRAM.get(device.type, 0.0), bf16_cells + bf16_cells[-1:] * more
    )


def evolves(config: SearchConfig) -> bool:
    """Whether the search trains a one-shot supernet."""
    return config.strategy == "evolution"


def measure_largest(
    network: OneShotNetwork, shape: tuple[int, int], dtype: torch.dtype | None = None
) -> list[CellMemory]:
    """The memory of each cell, in a pass of that genotype of some which stores the most."""
    drawn = [measure_genotype(network, network.space.draw(i), shape, dtype) for i in range(MEASURED)]
    return max(drawn, key=lambda cells: sum(cell.stored["none"] for cell in cells))


@dataclass(frozen=True)
class Planner:
    """The memory of a search on one device."""

    config: SearchConfig
    demand: Demand
    free: float
    """Free bytes per process."""
    usable: float
    """The share of them that `auto` fills."""
    rows: int
    """Training rows, of the smaller half if there are two: the largest possible batch."""

    @classmethod
    def of(cls, experiment: Experiment, config: SearchConfig) -> "Planner":
        """The planner of a search on the device and the data of an experiment."""
        store = experiment.store
        device = experiment.device
        demand = estimate(config, len(store.classes), store.front_end.shape, device)
        free = -distributed.maximum(-int(free_memory(device)))  # the minimum: all ranks must choose the same
        parts = [experiment.fold.train]
        if not evolves(config):
            parts = halves(store.manifest, *parts, config.train_portion, config.seed, config.halves)
        return cls(config, demand, free, USABLE.get(device.type, 0.9), min(len(part) for part in parts))

    @property
    def order(self) -> str:
        """The order of the step: the evolution has no alphas, so that its step is like one of the first order."""
        return "first" if evolves(self.config) else self.config.order

    @property
    def recomputations(self) -> Sequence[str]:
        """The values of --recompute to choose from."""
        if evolves(self.config):
            return ("none",)
        return RECOMPUTE if self.config.recompute == "auto" else (self.config.recompute,)

    def peak(self, batch_size: int, order: str, recompute: str) -> float:
        """The peak of one process in bytes."""
        return self.demand.peak(batch_size // distributed.world_size(), order, recompute)

    def fits(self, batch_size: int, order: str, recompute: str) -> bool:
        """Whether the peak fits into the usable memory."""
        return self.peak(batch_size, order, recompute) <= self.usable * self.free

    def choose(self) -> "Planner":
        """Replace `auto` in the flags: by the largest batch that fits, and the least recomputation.

        Flags that the user has set may fill all of the free memory. Raises `UserError` if nothing fits.
        """
        config = self.config
        sizes = self.batch_sizes() if config.batch_size == "auto" else [config.batch_size]
        for batch_size, recompute in product(sizes, self.recomputations):
            if self.fits(batch_size, self.order, recompute):
                return self.with_flags(batch_size, recompute)
        batch_size = sizes[-1]
        recompute = min(self.recomputations, key=lambda choice: self.peak(batch_size, self.order, choice))
        if self.peak(batch_size, self.order, recompute) > self.free:
            raise UserError(self.advice(batch_size, recompute))
        return self.with_flags(batch_size, recompute)

    def with_flags(self, batch_size: int, recompute: str) -> "Planner":
        """The planner with these flags in its configuration."""
        update = {"batch_size": batch_size, "recompute": recompute}
        return replace(self, config=self.config.model_copy(update=update))

    def batch_sizes(self) -> list[int]:
        """The batch sizes that `auto` tries, from the largest."""
        processes = distributed.world_size()
        smallest = 2 * processes
        sizes = [n for n in BATCH_SIZES if smallest <= n <= self.rows and n % processes == 0]
        return sizes[::-1] or [smallest]

    def __str__(self) -> str:
        config = self.config
        peak = self.peak(config.batch_size, self.order, config.recompute) / GB
        recompute = "" if evolves(config) else f"; --recompute {config.recompute}"
        return f"about {peak:.2f} GB at the peak, of {self.free / GB:.1f} free{recompute}"

    def advice(self, batch_size: int, recompute: str) -> str:
        """The error for a search that does not fit, with flags that do."""
        peak = self.peak(batch_size, self.order, recompute) / GB
        problem = (
            f"{self.flags(batch_size, self.order, recompute)} takes about {peak:.1f} GB of memory, "
            f"and {self.free / GB:.1f} GB are free"
        )
        choices = ("none",) if evolves(self.config) else ("ops", "cells")
        for order, n, choice in product((self.order, "first"), reversed(BATCH_SIZES), choices):
            if n <= batch_size and self.fits(n, order, choice):
                return f"{problem}: pass {self.flags(n, order, choice)}, or see --plan"
        return f"{problem}: choose fewer --rnn_nodes, --rnn_layers or --rnn_ops; see --plan"

    def flags(self, batch_size: int, order: str, recompute: str) -> str:
        """The flags of a choice, as they are typed."""
        alphas = "" if evolves(self.config) else f" --recompute {recompute} --order {order}"
        return f"--batch_size {batch_size}{alphas}"

    def table_entry(self, batch_size: int, order: str, recompute: str) -> str:
        """The peak in GB, in parentheses if it does not fit."""
        number = f"{self.peak(batch_size, order, recompute) / GB:.2f}"
        return number if self.fits(batch_size, order, recompute) else f"({number})"


def choose(experiment: Experiment, config: SearchConfig) -> Planner:
    """Plan a search, and choose --batch_size and --recompute if they are `auto`. A resumed run keeps its batch size."""
    if config.batch_size == "auto" and config.resume:
        earlier = earlier_flags(config.folder / "search").get("batch_size")
        if isinstance(earlier, int) and earlier > 1:
            config = config.model_copy(update={"batch_size": earlier})
    return Planner.of(experiment, config).choose()


# ---------------------------------------------------------------- the table of --plan


def table(experiment: Experiment, config: SearchConfig) -> str:
    """The peaks by batch size, order and recomputation, then those of smaller search spaces."""
    planner = Planner.of(experiment, config)
    columns = [("first", "none")] if evolves(config) else list(product(("second", "first"), RECOMPUTE))
    sizes = planner.batch_sizes()[::-1]
    batch_size = sizes[-1] if config.batch_size == "auto" else config.batch_size
    lines = [
        f"GB at the peak, of {planner.free / GB:.1f} free on {experiment.device}; in parentheses: does not fit\n"
    ]
    if not evolves(config):
        lines.append(table_row("--order", (order for order, _ in columns)))
        lines.append(table_row("--recompute", (recompute for _, recompute in columns)))
    for n in sizes:
        lines.append(table_row(f"--batch_size {n}", (planner.table_entry(n, *column) for column in columns)))
    spaces = list(smaller_spaces(config))
    if spaces:
        lines.append(f"\nsmaller search spaces, with --batch_size {batch_size}")
    for flag, smaller in progress(spaces, "plan"):
        other = Planner.of(experiment, smaller)
        lines.append(table_row(flag, (other.table_entry(batch_size, *column) for column in columns)))
    return "\n".join(lines)


def table_row(name: str, entries: Iterable[str]) -> str:
    """A line of the table."""
    return f"{name:20}" + "".join(f"{entry:>10}" for entry in entries)


def smaller_spaces(config: SearchConfig) -> Iterator[tuple[str, SearchConfig]]:
    """Smaller search spaces, each with the flag that leads to it."""
    changes = [("cnn_nodes", n, n) for n in (3, 2) if n < config.cnn_nodes]
    if config.rnn_layers:
        changes += [("rnn_nodes", n, n) for n in (3, 2) if n < config.rnn_nodes]
        changes += [("rnn_layers", n, n) for n in (2, 1) if n < config.rnn_layers]
        changes += [("nested_depth", "", True)] * (not config.nested_depth and not evolves(config))
        changes += [
            ("rnn_ops", name, ops) for name, ops in RNN_SCOPES.items() if set(ops) < set(config.rnn_ops)
        ]
    for flag, shown, value in changes:
        yield f"--{flag} {shown}".strip(), config.model_copy(update={flag: value})
