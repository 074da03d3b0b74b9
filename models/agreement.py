"""The agreement of genotypes: the share of edges, each an op and a source, that the same node has in both.

Genotypes are compared in their canonical form, in which the order of edges and of independent nodes makes no
difference.
"""

from collections import Counter

from genotypes import Genotype
from models.search_space import KINDS, canonical


def agreement(first: Genotype, second: Genotype) -> float:
    """The share of edges that two genotypes have in common, 0 to 1."""
    return common_share(edges_of(first), edges_of(second))


def common_share(a: Counter, b: Counter) -> float:
    """The share of edges that are in both."""
    return (a & b).total() / max(a.total(), b.total(), 1)


def edges_of(genotype: Genotype) -> Counter:
    """(kind of cell, node, op, source) of each edge of the canonical form."""
    genotype = canonical(genotype)
    return Counter(
        (kind, number, *edge)
        for kind in KINDS
        for number, node in enumerate(getattr(genotype, kind))
        for edge in node
    )
