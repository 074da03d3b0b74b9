"""What a search chooses from: so many nodes a cell, each with two earlier states, and an op for each of the two."""

import math
from dataclasses import dataclass

import numpy as np

from genotypes import Genotype, Node


@dataclass(frozen=True)
class SearchSpace:
    """The nodes of a cell and the candidate ops of each cell type (`none` last where it is one of them)."""

    cnn_nodes: int
    rnn_nodes: int
    cnn_ops: tuple[str, ...]
    rnn_ops: tuple[str, ...]

    def of(self, kind: str) -> tuple[int, tuple[str, ...]]:
        """(nodes, ops) of a kind of cell: "normal", "reduce" or "rnn"."""
        return (self.rnn_nodes, self.rnn_ops) if kind == "rnn" else (self.cnn_nodes, self.cnn_ops)

    @property
    def genotypes(self) -> int:
        """How many there are: the product over all nodes of (pairs of earlier states) x (ops but `none`)^2."""
        return math.prod(
            math.comb(node + 2, 2) * len(chosen_from(ops)) ** 2
            for nodes, ops in map(self.of, ("normal", "reduce", "rnn"))
            for node in range(nodes)
        )

    def draw(self, *seed: int) -> Genotype:
        """One of them; all are equally likely."""
        rng = np.random.default_rng(seed)
        return Genotype.of_nodes(*(self._draw_cell(rng, kind) for kind in ("normal", "reduce", "rnn")))

    def _draw_cell(self, rng: np.random.Generator, kind: str) -> tuple[Node, ...]:
        nodes, ops = self.of(kind)
        return tuple(draw_node(rng, node + 2, chosen_from(ops)) for node in range(nodes))


def draw_node(rng: np.random.Generator, states: int, ops: tuple[str, ...]) -> Node:
    """Two distinct earlier states, and an op for each, uniformly."""
    sources = sorted(rng.choice(states, 2, replace=False).tolist())
    return tuple((ops[rng.integers(len(ops))], source) for source in sources)


def chosen_from(ops: tuple[str, ...]) -> tuple[str, ...]:
    """The ops that a genotype may hold: all but `none`."""
    return tuple(op for op in ops if op != "none")
