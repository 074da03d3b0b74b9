"""The search space: the number of nodes of a cell, and the candidate ops of its edges."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

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

    def __contains__(self, genotype: Genotype) -> bool:
        """Whether the cells have as many nodes as here, all in the output, each with two sources and candidate ops."""
        cells = {kind: getattr(genotype, kind) for kind in KINDS}
        return all(map(self.has_cell, KINDS, cells.values())) and genotype == Genotype.of_nodes(**cells)

    def has_cell(self, kind: str, cell: Sequence[Node]) -> bool:
        """Whether a cell of a kind is in the space."""
        node_count, ops = self.of(kind)
        distinct = all(len({source for _, source in node}) == len(node) for node in cell)
        known = {op for node in cell for op, _ in node} <= set(without_none(ops))
        return len(cell) == node_count and distinct and known

    def genotypes(self) -> Iterator[Genotype]:
        """All genotypes. The order of the two edges of a node makes no difference."""
        return (Genotype.of_nodes(*cells) for cells in product(*map(self.cells, KINDS)))

    def cells(self, kind: str) -> list[tuple[Node, ...]]:
        """All cells of a kind."""
        node_count, ops = self.of(kind)
        pairs_of_ops = list(product(without_none(ops), repeat=2))
        nodes = [
            [
                tuple(zip(pair, sources, strict=True))
                for sources in combinations(range(i + 2), 2)
                for pair in pairs_of_ops
            ]
            for i in range(node_count)
        ]
        return list(product(*nodes))

    def draw(self, *seed: int) -> Genotype:
        """Draw a genotype; all are equally likely."""
        rng = np.random.default_rng(seed)
        return Genotype.of_nodes(*(self.draw_cell(rng, kind) for kind in KINDS))

    def draw_cell(self, rng: np.random.Generator, kind: str) -> tuple[Node, ...]:
        """Draw the nodes of a cell."""
        node_count, ops = self.of(kind)
        return tuple(draw_node(rng, i + 2, without_none(ops)) for i in range(node_count))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """Change one edge of a genotype: draw another op for it, or another source (Real et al., AAAI 2019)."""
        if self.size == 1:
            return genotype
        while True:
            cells = {kind: getattr(genotype, kind) for kind in KINDS}
            edges = [(kind, i, j) for kind in KINDS for i in range(len(cells[kind])) for j in range(2)]
            kind, i, j = edges[rng.integers(len(edges))]
            nodes = [list(node) for node in cells[kind]]
            op, source = nodes[i][j]
            if rng.random() < 0.5:
                ops = without_none(self.of(kind)[1])
                op = ops[rng.integers(len(ops))]
            else:
                source = int(rng.integers(i + 2))
            if (op, source) != nodes[i][j] and source != nodes[i][1 - j][1]:
                nodes[i][j] = (op, source)
                return Genotype.of_nodes(**{**cells, kind: [tuple(node) for node in nodes]})


def draw_node(rng: np.random.Generator, states: int, ops: tuple[str, ...]) -> Node:
    """Draw two distinct earlier states, and an op for each."""
    sources = sorted(rng.choice(states, 2, replace=False).tolist())
    return tuple((ops[rng.integers(len(ops))], source) for source in sources)


def without_none(ops: tuple[str, ...]) -> tuple[str, ...]:
    """The ops that a genotype may contain: all but `none`."""
    return tuple(op for op in ops if op != "none")


# ---------------------------------------------------------------- symmetry


def canonical(genotype: Genotype, stem_twice: Collection[str] = ()) -> Genotype:
    """The same genotype for all that build the same network up to the order of its channels.

    The order of the two edges of a node, and of nodes that do not depend on each other, makes no difference. Both
    inputs of the first CNN cell are the output of the stem: a kind of cell in `stem_twice`, of which a network has no
    other cell, is the same with its inputs exchanged.
    """
    cells = {}
    for kind in KINDS:
        nodes = dict(enumerate(getattr(genotype, kind)))
        inputs = [{0: 0, 1: 1}, {0: 1, 1: 0}] if kind in stem_twice else [{0: 0, 1: 1}]
        cells[kind] = min(smallest_order(nodes, names) for names in inputs)
    return Genotype.of_nodes(**cells)


def different(genotypes: Iterable[Genotype], count: int, stem_twice: Collection[str]) -> list[Genotype]:
    """The first `count` genotypes whose canonical forms differ; fewer if there are not so many."""
    found: dict[Genotype, Genotype] = {}
    for genotype in genotypes:
        found.setdefault(canonical(genotype, stem_twice), genotype)
        if len(found) == count:
            break
    return list(found.values())


def smallest_order(nodes: Mapping[int, Node], names: Mapping[int, int]) -> tuple[Node, ...]:
    """The first in lexical order of all orders of these nodes, with their edges sorted and their states renamed.

    `names` maps the states that nodes may depend on so far to their new names. A node follows those it depends on.
    """
    if not nodes:
        return ()
    renamed = {
        i: tuple(sorted((op, names[source]) for op, source in node))
        for i, node in nodes.items()
        if all(source in names for _, source in node)
    }
    first = min(renamed.values())
    rests = []
    for i in (i for i, node in renamed.items() if node == first):
        others = {j: node for j, node in nodes.items() if j != i}
        rests.append(smallest_order(others, {**names, i + 2: len(names)}))
    return (first, *min(rests))
