"""The search space: its size, and that all of its genotypes are drawn with the same probability."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from genotypes import PUBLISHED_CNN_OPS, RNN_OPS, Genotype
from models.search_space import KINDS, SearchSpace, canonical

PUBLISHED = SearchSpace(4, 4, PUBLISHED_CNN_OPS, RNN_OPS)
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


@pytest.mark.parametrize("space", [SMALL, ONE_GENOTYPE, WITHOUT_NONE])
def test_genotypes_are_all_of_the_space_each_once(space: SearchSpace):
    assert sorted(map(str, space.genotypes())) == sorted(map(str, list_genotypes(space)))


@pytest.mark.parametrize("space", [SMALL, ONE_GENOTYPE, WITHOUT_NONE])
def test_a_genotype_is_in_the_space_that_lists_it(space: SearchSpace):
    listed = set(list_genotypes(space))
    others = list_genotypes(ONE_GENOTYPE) + list_genotypes(WITHOUT_NONE) + [SMALL.draw(i) for i in range(50)]
    for genotype in [*others, *itertools.islice(listed, 50)]:
        assert (genotype in space) == (genotype in listed)
    node = (("skip_connect", 0), ("skip_connect", 0))
    assert Genotype.of_nodes([node], [node], []) not in ONE_GENOTYPE
    genotype = SMALL.draw(1)
    assert dataclasses.replace(genotype, normal_concat=(3,)) not in SMALL


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


# ---------------------------------------------------------------- mutation and symmetry


def edges_of(genotype: Genotype) -> list[tuple]:
    """All edges, each node's in order."""
    return [edge for kind in KINDS for node in getattr(genotype, kind) for edge in node]


def without_order(genotype: Genotype) -> tuple:
    """The genotype with a set of edges for each node."""
    return tuple(tuple(map(frozenset, getattr(genotype, kind))) for kind in KINDS)


def test_a_mutation_changes_one_edge_and_stays_in_the_space():
    listed = set(list_genotypes(SMALL))
    with_any_order = set(map(without_order, listed))
    rng = np.random.default_rng(0)
    genotype = SMALL.draw(1)
    changed_ops = changed_sources = 0
    for _ in range(300):
        child = SMALL.mutate(genotype, rng)
        changes = [
            pair for pair in zip(edges_of(genotype), edges_of(child), strict=True) if pair[0] != pair[1]
        ]
        assert len(changes) == 1
        (before, after) = changes[0]
        changed_ops += before[0] != after[0]
        changed_sources += before[1] != after[1]
        assert without_order(child) in with_any_order
        genotype = child
    assert min(changed_ops, changed_sources) > 50
    assert changed_ops + changed_sources == 300


def test_mutations_reach_every_genotype():
    space = SearchSpace(1, 0, ("max_pool_3x3", "sep_conv_3x3"), ())
    rng = np.random.default_rng(0)
    genotype = space.draw(1)
    seen = set()
    for _ in range(400):
        genotype = space.mutate(genotype, rng)
        seen.add(canonical(genotype))
    assert seen == {canonical(each) for each in list_genotypes(space)}


def test_a_space_of_one_genotype_has_no_mutation():
    assert ONE_GENOTYPE.mutate(ONE_GENOTYPE.draw(1), np.random.default_rng(0)) == ONE_GENOTYPE.draw(1)


def test_the_space_of_the_table_has_108_genotypes_up_to_symmetry():
    space = SearchSpace(1, 1, ("max_pool_3x3", "sep_conv_3x3"), ("lstm_1", "lstm_att_1", "skip_connect"))
    assert space.size == 144
    assert len({canonical(each, ("normal",)) for each in list_genotypes(space)}) == 108
    assert len({canonical(each) for each in list_genotypes(space)}) == 144


def test_canonical_ignores_the_order_of_edges_and_of_independent_nodes():
    a, b, c, d = ("max_pool_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 1)
    rnn = [[("lstm_1", 0), ("lstm_1", 1)]]
    one = Genotype.of_nodes([[a, b], [c, d]], [[a, b]], rnn)
    other = Genotype.of_nodes([[d, c], [b, a]], [[b, a]], rnn)
    assert canonical(one) == canonical(other)
    chain = Genotype.of_nodes([[a, b], [c, ("max_pool_3x3", 2)]], [[a, b]], rnn)
    assert canonical(chain) != canonical(one)
    swapped = [[("max_pool_3x3", 1), ("sep_conv_3x3", 0)], [("skip_connect", 1), ("max_pool_3x3", 2)]]
    exchanged = Genotype.of_nodes(swapped, [[a, b]], rnn)
    assert canonical(exchanged) != canonical(chain)
    assert canonical(exchanged, ["normal"]) == canonical(chain, ["normal"])


@pytest.mark.parametrize("seed", range(20))
def test_canonical_genotypes_are_equal_graphs(seed: int):
    """The canonical form keeps the multiset of ops on each path from an input to the output."""
    genotype = PUBLISHED.draw(seed)
    form = canonical(genotype)
    assert canonical(form) == form
    for kind in KINDS:
        assert paths(getattr(form, kind)) == paths(getattr(genotype, kind))


def paths(nodes: tuple) -> Counter:
    """The paths from an input of a cell to its output, each as the input and the ops on the way."""
    states = [Counter({(0,): 1}), Counter({(1,): 1})]
    for node in nodes:
        state = Counter()
        for op, source in node:
            for path, count in states[source].items():
                state[(*path, op)] += count
        states.append(state)
    return sum(states[2:], Counter())


def test_canonical_is_the_least_of_all_orders():
    """Against all permutations of the nodes that keep every node behind those it depends on."""
    for seed in range(30):
        genotype = PUBLISHED.draw(seed)
        for kind in KINDS:
            nodes = getattr(genotype, kind)
            forms = []
            for order in itertools.permutations(range(4)):
                names = {0: 0, 1: 1, **{old + 2: new + 2 for new, old in enumerate(order)}}
                form = [tuple(sorted((op, names[source]) for op, source in nodes[old])) for old in order]
                if all(source < i + 2 for i, node in enumerate(form) for _, source in node):
                    forms.append(tuple(form))
            assert getattr(canonical(genotype), kind) == min(forms)


def test_canonical_of_many_nodes_takes_no_time():
    space = SearchSpace(12, 12, PUBLISHED_CNN_OPS, RNN_OPS)
    assert canonical(canonical(space.draw(1))) == canonical(space.draw(1))
