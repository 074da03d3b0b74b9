"""The search space: how many genotypes it has, and that a draw gives each of them the same chance."""

import itertools
from collections import Counter

import pytest
from scipy.stats import chisquare

from genotypes import CNN_OPS, RNN_OPS, Genotype
from models.search_space import SearchSpace

PUBLISHED = SearchSpace(4, 4, CNN_OPS, RNN_OPS)
SMALL = SearchSpace(
    2, 1, ("max_pool_3x3", "sep_conv_3x3", "none"), ("lstm_1", "rnn_1", "skip_connect", "none")
)
CERTAIN = SearchSpace(1, 0, ("skip_connect", "none"), ("lstm_1",))


def cells(nodes: int, ops: tuple[str, ...]) -> list[tuple]:
    """All cells of so many nodes, listed one by one."""
    per_node = [
        [
            tuple(zip(chosen, sources, strict=True))
            for sources in itertools.combinations(range(node + 2), 2)
            for chosen in itertools.product([op for op in ops if op != "none"], repeat=2)
        ]
        for node in range(nodes)
    ]
    return list(itertools.product(*per_node))


def every_genotype(space: SearchSpace) -> list[Genotype]:
    listed = (cells(*space.of(kind)) for kind in ("normal", "reduce", "rnn"))
    return [Genotype.of_nodes(*parts) for parts in itertools.product(*listed)]


@pytest.mark.parametrize("space", [SMALL, CERTAIN, SearchSpace(1, 2, ("skip_connect",), ("rnn_1", "lstm_1"))])
def test_number_of_genotypes_is_that_of_the_list(space: SearchSpace):
    listed = every_genotype(space)
    assert space.genotypes == len(listed) == len(set(listed))


def test_number_of_genotypes_of_the_published_space():
    pairs = 1 * 3 * 6 * 10
    assert PUBLISHED.genotypes == (pairs * 7**8) ** 2 * (pairs * 13**8)


def test_every_draw_is_one_of_the_list():
    listed = set(every_genotype(SMALL))
    assert {SMALL.draw(seed) for seed in range(300)} <= listed


@pytest.mark.parametrize("space", [PUBLISHED, SMALL, CERTAIN], ids=["published", "small", "certain"])
def test_every_draw_is_a_valid_genotype_of_the_space(space: SearchSpace):
    for seed in range(200):
        genotype = space.draw(seed)  # checks itself
        assert Genotype.from_json(genotype.to_json()) == genotype
        for kind in ("normal", "reduce", "rnn"):
            nodes, ops = space.of(kind)
            assert len(getattr(genotype, kind)) == nodes
            assert getattr(genotype, f"{kind}_concat") == tuple(range(2, nodes + 2))
            assert all(op in ops for node in getattr(genotype, kind) for op, _ in node)


@pytest.mark.parametrize("kind", ["normal", "reduce", "rnn"])
def test_draws_are_uniform_over_all_cells(kind: str):
    """Chi-square over 48 or 9 cells and 6000 seeds; the seeds are fixed, so this fails always or never."""
    possible = cells(*SMALL.of(kind))
    counts = Counter(getattr(SMALL.draw(seed), kind) for seed in range(6000))
    assert counts.keys() == set(possible)
    assert chisquare([counts[cell] for cell in possible]).pvalue > 1e-3


def test_kinds_of_cells_are_drawn_independently():
    counts = Counter((g.normal[0], g.reduce[0]) for g in map(SMALL.draw, range(6000)))
    assert len(counts) == 16
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_the_seed_decides():
    assert PUBLISHED.draw(7) == PUBLISHED.draw(7)
    assert len({PUBLISHED.draw(seed) for seed in range(500)}) == 500
