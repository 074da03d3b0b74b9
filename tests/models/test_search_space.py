"""The search space: its size, and that all of its genotypes are drawn with the same probability."""

import itertools
from collections import Counter

import pytest
from scipy.stats import chisquare

from genotypes import CNN_OPS, RNN_OPS, Genotype
from models.search_space import KINDS, SearchSpace

PUBLISHED = SearchSpace(4, 4, CNN_OPS, RNN_OPS)
SMALL = SearchSpace(
    2, 1, ("max_pool_3x3", "sep_conv_3x3", "none"), ("lstm_1", "rnn_1", "skip_connect", "none")
)
ONE_GENOTYPE = SearchSpace(1, 0, ("skip_connect", "none"), ("lstm_1",))
WITHOUT_NONE = SearchSpace(1, 2, ("skip_connect",), ("rnn_1", "lstm_1"))


def list_cells(node_count: int, ops: tuple[str, ...]) -> list[tuple]:
    """All cells with this number of nodes."""
    pairs_of_ops = list(itertools.product([op for op in ops if op != "none"], repeat=2))
    nodes = []
    for i in range(node_count):
        pairs_of_states = list(itertools.combinations(range(i + 2), 2))
        edges = itertools.product(pairs_of_ops, pairs_of_states)
        nodes.append([tuple(zip(chosen, sources, strict=True)) for chosen, sources in edges])
    return list(itertools.product(*nodes))


def list_genotypes(space: SearchSpace) -> list[Genotype]:
    cells = itertools.product(*(list_cells(*space.of(kind)) for kind in KINDS))
    return [Genotype.of_nodes(*parts) for parts in cells]


@pytest.mark.parametrize("space", [SMALL, ONE_GENOTYPE, WITHOUT_NONE])
def test_size_is_the_number_of_listed_genotypes(space: SearchSpace):
    genotypes = list_genotypes(space)
    assert space.size == len(genotypes) == len(set(genotypes))


def test_size_of_the_published_space():
    pairs = 1 * 3 * 6 * 10
    assert PUBLISHED.size == (pairs * 7**8) ** 2 * (pairs * 13**8)


def test_draws_are_listed_genotypes():
    assert {SMALL.draw(seed) for seed in range(300)} <= set(list_genotypes(SMALL))


@pytest.mark.parametrize("space", [PUBLISHED, SMALL, ONE_GENOTYPE])
def test_draws_are_valid_genotypes_of_the_space(space: SearchSpace):
    for seed in range(200):
        genotype = space.draw(seed)
        assert Genotype.from_json(genotype.to_json()) == genotype
        for kind in KINDS:
            node_count, ops = space.of(kind)
            nodes = getattr(genotype, kind)
            assert len(nodes) == node_count
            assert getattr(genotype, f"{kind}_concat") == tuple(range(2, node_count + 2))
            assert all(op in ops for node in nodes for op, _ in node)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_uniform_over_all_cells(kind: str):
    """A chi-square test with fixed seeds, so that it always passes or always fails."""
    possible = list_cells(*SMALL.of(kind))
    counts = Counter(getattr(SMALL.draw(seed), kind) for seed in range(6000))
    assert counts.keys() == set(possible)
    assert chisquare([counts[cell] for cell in possible]).pvalue > 1e-3


def test_cells_of_different_kinds_are_drawn_independently():
    draws = [SMALL.draw(seed) for seed in range(6000)]
    counts = Counter((genotype.normal[0], genotype.reduce[0]) for genotype in draws)
    assert len(counts) == 16
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_seed_determines_the_genotype():
    assert PUBLISHED.draw(7) == PUBLISHED.draw(7)
    assert len({PUBLISHED.draw(seed) for seed in range(500)}) == 500
