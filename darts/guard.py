"""--guard: what a search measures of its alphas after every epoch, and when it warns that its cells collapse.

A DARTS search can collapse: its cells fill with skip connections, or with whatever trains fastest, and the derived
network is worse than a random one. Zela et al., "Understanding and robustifying differentiable architecture search"
(ICLR 2020), find that the largest eigenvalue of the Hessian of the validation loss in the alphas rises before that.

Nothing here changes the training: no random number is drawn, and weights, alphas and running statistics are only read.

Shapes: D alphas of all edges, in one vector; K ops of an edge.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from config import GUARD_EPOCHS, SearchConfig
from darts.architect import Architect
from darts.hessian import AlphaLoss, largest_eigenvalue, random_vector
from darts.monitoring import describe_alphas
from data.batches import Features
from genotypes import Genotype
from models.cells import CELL_TYPES
from models.joint_network import Size
from models.search_space import KINDS, SearchSpace, without_none
from plots.cells import TITLES
from training import distributed
from training.run_folder import log

PASSES = {"first": 2, "second": 5}
"""Passes of a step of the search, by the order of the alpha gradient."""
LEAST_PRODUCTS = 2
"""With one, the eigenvector would stay as it is."""
MOST_PRODUCTS = 4
FIRST_PRODUCTS = 8
"""Products of the first reading, which starts from a random vector, the others from the last eigenvector."""

WINDOW = 5
DELAY = 4
FACTOR = 1.3
"""The rule of the paper's code: the mean of WINDOW readings is more than FACTOR times that of DELAY readings before."""
RARE = 0.05
"""The share of random genotypes below which a majority of skip connections is a sign of a collapse."""
SMALL = 2.0
"""The percentile of the derived network's size below which it is one."""
PATIENCE = 3
"""Epochs in a row after which these two are warned of, because they come and go in the first epochs of any search."""
DRAWN = 200
"""Random genotypes that the size is compared with."""


class Guard:
    """Reads the alphas after every epoch, warns, and with --guard keep returns the genotype from before a rise.

    `rows` are the rows that train the alphas; the passes use a few fixed batches of them. All ranks read the same.
    """

    def __init__(self, config: SearchConfig, architect: Architect, features: Features, rows: np.ndarray):
        self.config = config
        self.network = architect.network
        self.space = self.network.space
        self.loss = AlphaLoss(architect)
        self.features = features
        tenth = len(rows) // config.batch_size * PASSES[config.order] // 10  # of the passes of an epoch
        self.products = min(max(tenth // 2, LEAST_PRODUCTS), MOST_PRODUCTS)
        self.halves = disjoint_batches(rows, config.batch_size, max(self.products // 2, 1), config.seed)
        self.size = OpWeights(self.space, Size.of(config))
        self.random_sizes = [self.size.of(self.space.draw(i)) for i in range(DRAWN)]

        self.vector = self.loss.without_shifts(random_vector(self.loss.alphas()))
        """The last eigenvector, from which the next reading starts."""
        self.eigenvalues: list[float] = []
        self.genotypes: list[dict[str, Any]] = []
        self.warnings: dict[str, list[Any]] = {}
        """The signs that hold: the epoch in which each began, and its text."""

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("vector", "eigenvalues", "genotypes", "warnings")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def read(self, epoch: int, genotype: Genotype) -> dict[str, float]:
        """Measure after an epoch, log a sign that has come to stay, and return the numbers of the record."""
        self.genotypes.append(genotype.to_json())
        skips = {kind: count_skips(genotype, kind) for kind in self.network.alphas}
        percentile = percentile_of(self.size.of(genotype), self.random_sizes)
        record = {
            **self.read_gradients(),
            "guard/size_percentile": percentile,
            **{f"guard/skips_{kind}": float(count) for kind, count in skips.items()},
            **self.relative_entropies(),
        }
        self.eigenvalues.append(record["guard/eigenvalue"])
        signs = {**self.rise_sign(), **self.skip_signs(skips), **self.size_sign(percentile)}
        self.warnings = {
            name: [self.warnings[name][0] if name in self.warnings else epoch, text]
            for name, text in signs.items()
        }
        for name, (begun, text) in self.warnings.items():
            if epoch - begun + 1 == (1 if name == "rise" else PATIENCE):
                log.warning("guard     epoch %d: %s", epoch, text)
        return record

    def read_gradients(self) -> dict[str, float]:
        """The largest eigenvalue of the Hessian on the first half; by kind of cell, the agreement of both halves."""
        first, second = ([self.features.fetch(rows) for rows in half] for half in self.halves)
        alphas = self.loss.alphas()
        products = self.products if self.eigenvalues else FIRST_PRODUCTS
        with self.loss.fixed():
            value, self.vector = largest_eigenvalue(
                lambda v: self.loss.hessian_product(v, alphas, first), self.vector, products
            )
            gradients = [self.loss.gradient(alphas, half) for half in (first, second)]
        edges = [self.loss.by_kind(gradient) for gradient in gradients]
        taus = {f"guard/tau_{kind}": mean_tau(edges[0][kind], edges[1][kind]) for kind in edges[0]}
        return {"guard/eigenvalue": value, **taus}

    def relative_entropies(self) -> dict[str, float]:
        """By kind of cell: the mean entropy of its edges as a share of the largest, log K; 0 for a single op."""
        entropies = describe_alphas(self.network)
        record = {}
        for kind in self.network.alphas:
            most = math.log(len(self.space.of(kind)[1]))
            record[f"guard/entropy_{kind}"] = entropies[f"alpha_entropy/{kind}"] / most if most else 0.0
        return record

    def choose(self, genotype: Genotype) -> Genotype:
        """Log the signs that hold at the end of the search; return the genotype that is its result."""
        for begun, text in self.warnings.values():
            log.warning("guard     since epoch %d: %s", begun, text)
        if not self.warnings:
            log.info("guard     no sign of a collapse")
        rise = first_rise(self.eigenvalues)
        if rise is None or self.config.guard != "keep":
            return genotype
        return Genotype.from_json(self.genotypes[before_rise(rise) - 1])

    def rise_sign(self) -> dict[str, str]:
        """The sign of a rise of the eigenvalue; it holds from then on."""
        epoch = first_rise(self.eigenvalues)
        if epoch is None:
            return {}
        earlier, now = windows(self.eigenvalues, epoch)
        before = before_rise(epoch) + self.config.frozen_epochs
        rise = f"the largest eigenvalue of the alphas' Hessian rose from {earlier:.3g} to {now:.3g}"
        if self.config.guard == "keep":
            return {"rise": f"{rise}; the genotype of epoch {before} is kept: try --w_weight_decay 0.003"}
        return {
            "rise": f"{rise}; nothing is done: try --guard keep, which returns the genotype of epoch {before}, "
            "or --w_weight_decay 0.003"
        }

    def skip_signs(self, skips: Mapping[str, int]) -> dict[str, str]:
        """The signs of cells with more skip connections than other ops, where these are rare in random genotypes."""
        signs = {}
        for kind, count in skips.items():
            edges = 2 * self.space.of(kind)[0]
            chance = majority_chance(self.space, kind)
            if count > edges / 2 and chance < RARE:
                what = "all" if count == edges else f"{count} of {edges}"
                signs[f"skips_{kind}"] = (
                    f"{TITLES[kind]}: {what} edges are skip connections (more than half: {chance:.1%} of random "
                    f"genotypes); nothing is done: {self.advice}"
                )
        return signs

    def size_sign(self, percentile: float) -> dict[str, str]:
        """The sign of a network that is smaller than nearly all others."""
        if percentile >= SMALL:
            return {}
        share = (100 - percentile) / 100
        text = f"the derived network has fewer weights than {share:.1%} of random genotypes"
        return {"size": f"{text}; nothing is done: {self.advice}"}

    @property
    def advice(self) -> str:
        """What to try: skip connections win where the weights are not trained yet or have smaller outputs."""
        on = {"--op_norm": self.config.op_norm, "--alpha_start 0.3": self.config.alpha_start > 0}
        return " or ".join(["try more --epochs", *(flag for flag, is_on in on.items() if not is_on)])


# ---------------------------------------------------------------- the agreement of two sets of utterances


def disjoint_batches(rows: np.ndarray, batch_size: int, count: int, seed: int) -> list[list[np.ndarray]]:
    """Two halves of `count` batches each, disjoint if there are enough rows; the share of this rank."""
    rank, processes = distributed.rank(), distributed.world_size()
    fits = len(rows) // (2 * count) // processes * processes
    size = max(min(batch_size, fits), 2 * processes)
    shuffled = np.random.default_rng(seed).permutation(rows)
    halves = shuffled[: count * size], shuffled[-count * size :]
    return [[half[i * size : (i + 1) * size][rank::processes] for i in range(count)] for half in halves]


def mean_tau(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The mean over edges of Kendall's tau between two vectors (K,); 0 for an edge whose ops are all equal."""
    pairs = zip(first, second, strict=True)
    taus = [kendalltau(a.cpu(), b.cpu()).statistic if len(a) > 1 else 0.0 for a, b in pairs]
    return float(np.nan_to_num(taus).mean())  # without an order, tau is NaN


# ---------------------------------------------------------------- the rise of the eigenvalue


def windows(eigenvalues: Sequence[float], epoch: int) -> tuple[float, float]:
    """The means of the WINDOW readings up to epoch - DELAY, and up to an epoch, counted from 1."""
    earlier = eigenvalues[epoch - DELAY - WINDOW : epoch - DELAY]
    return float(np.mean(earlier)), float(np.mean(eigenvalues[epoch - WINDOW : epoch]))


def first_rise(eigenvalues: Sequence[float]) -> int | None:
    """The first epoch, from GUARD_EPOCHS on, in which the rule of early stopping holds (section 4.3 of the paper)."""
    for epoch in range(GUARD_EPOCHS, len(eigenvalues) + 1):
        earlier, now = windows(eigenvalues, epoch)
        if now > FACTOR * earlier > 0:
            return epoch
    return None


def before_rise(epoch: int) -> int:
    """The epoch in the middle of the earlier window, whose genotype is the last good one."""
    return epoch - DELAY - WINDOW // 2


# ---------------------------------------------------------------- skip connections and size


def count_skips(genotype: Genotype, kind: str) -> int:
    """The skip connections among the edges of a cell."""
    return sum(op == "skip_connect" for node in getattr(genotype, kind) for op, _ in node)


def majority_chance(space: SearchSpace, kind: str) -> float:
    """The probability that more than half of the edges of a random cell are skip connections.

    The ops of its 2n edges are drawn independently, so their number is binomial.
    """
    node_count, ops = space.of(kind)
    ops, edges = without_none(ops), 2 * node_count
    p = ops.count("skip_connect") / len(ops)
    return sum(math.comb(edges, k) * p**k * (1 - p) ** (edges - k) for k in range(node_count + 1, edges + 1))


class OpWeights:
    """The number of weights in the ops of a derived network, all in which genotypes of a space differ."""

    def __init__(self, space: SearchSpace, size: Size):
        self.table: Counter[tuple[str, str, int]] = Counter()
        """(kind, op, stride): the weights of such an edge in all cells of the kind."""
        channels = size.init_channels
        for kind in size.kinds:
            channels *= 2 if kind == "reduce" else 1
            self.add_cell(space, kind, channels)
        for _ in range(size.rnn_layers):
            self.add_cell(space, "rnn", size.rnn_channels)

    def add_cell(self, space: SearchSpace, kind: str, channels: int) -> None:
        for op in without_none(space.of(kind)[1]):
            for stride in (1, 2) if kind == "reduce" else (1,):
                self.table[kind, op, stride] += count_weights(kind, op, channels, stride)

    def of(self, genotype: Genotype) -> int:
        """The weights of the ops of a genotype."""
        return sum(
            self.table[kind, op, 2 if kind == "reduce" and source < 2 else 1]
            for kind in KINDS
            for node in getattr(genotype, kind)
            for op, source in node
        )


@cache
def count_weights(kind: str, op: str, channels: int, stride: int) -> int:
    """The weights of an op of a derived network."""
    with torch.device("meta"):  # takes no memory and draws no random numbers
        module = CELL_TYPES[kind].ops[op](channels, stride, True)
    return sum(p.numel() for p in module.parameters())


def percentile_of(value: int, others: Sequence[int]) -> float:
    """The share of smaller ones among the others in percent; equal ones count half."""
    below = np.less(others, value).mean() + np.equal(others, value).mean() / 2
    return float(100 * below)
