"""The search space: the number of nodes of a cell, and the candidate ops of its edges."""

import math
from dataclasses import dataclass

import numpy as np

from genotypes import Genotype, Node

KINDS = ("normal", "reduce", "rnn")


@dataclass(frozen=True)
class SearchSpace:
    """The nodes of a cell and the candidate ops of the CNN and the SeqNN (`none`, if it is one, is the last)."""

    cnn_nodes: int
    rnn_nodes: int
    cnn_ops: tuple[str, ...]
    rnn_ops: tuple[str, ...]

    def of(self, kind: str) -> tuple[int, tuple[str, ...]]:
        """(nodes, ops) of a kind of cell: "normal", "reduce" or "rnn"."""
        return (self.rnn_nodes, self.rnn_ops) if kind == "rnn" else (self.cnn_nodes, self.cnn_ops)

    @property
    def size(self) -> int:
        """The number of genotypes: the product over all nodes of (pairs of earlier states) x (ops but `none`)^2."""
        size = 1
        for kind in KINDS:
            node_count, ops = self.of(kind)
            for i in range(node_count):
                size *= math.comb(i + 2, 2) * len(without_none(ops)) ** 2
        return size

    def draw(self, *seed: int) -> Genotype:
        """Draw a genotype; all are equally likely."""
        rng = np.random.default_rng(seed)
        return Genotype.of_nodes(*(self.draw_cell(rng, kind) for kind in KINDS))

    def draw_cell(self, rng: np.random.Generator, kind: str) -> tuple[Node, ...]:
        """Draw the nodes of a cell."""
        node_count, ops = self.of(kind)
        return tuple(draw_node(rng, i + 2, without_none(ops)) for i in range(node_count))


def draw_node(rng: np.random.Generator, states: int, ops: tuple[str, ...]) -> Node:
    """Draw two distinct earlier states, and an op for each."""
    sources = sorted(rng.choice(states, 2, replace=False).tolist())
    return tuple((ops[rng.integers(len(ops))], source) for source in sources)


def without_none(ops: tuple[str, ...]) -> tuple[str, ...]:
    """The ops that a genotype may contain: all but `none`."""
    return tuple(op for op in ops if op != "none")
