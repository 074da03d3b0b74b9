"""The agreement of genotypes: pairs of trials, equal networks, and random genotypes."""

from itertools import product
from pathlib import Path

import pytest
from synthetic import CLASSES, cross_validation, manifest, write_trial

from genotypes import Genotype
from models.search_space import SearchSpace
from report.agreement import agreement, agreements, chance
from report.results import collect_results
from report.tables import agreement_table
from report.text import NO_VALUE
from report.trials import read_trials

POOLS = [("max_pool_3x3", 0), ("avg_pool_3x3", 1)]
CONVS = [("sep_conv_3x3", 0), ("dil_conv_3x3", 1)]
LSTMS = [("lstm_1", 0), ("lstm_2", 1)]
SPACE = {
    "cnn_nodes": 1,
    "rnn_nodes": 1,
    "rnn_layers": 1,
    "cnn_ops": ["max_pool_3x3", "sep_conv_3x3", "none"],
    "rnn_ops": ["lstm_1", "skip_connect"],
}


def make_genotype(normal=POOLS, reduce=POOLS, rnn=LSTMS) -> Genotype:
    return Genotype.of_nodes([normal], [reduce], [rnn])


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (make_genotype(), 1.0),
        (make_genotype(normal=POOLS[::-1]), 1.0),  # the order of the edges of a node
        (make_genotype(normal=[POOLS[0], CONVS[1]]), 5 / 6),
        (make_genotype(normal=[("max_pool_3x3", 1), ("avg_pool_3x3", 0)]), 4 / 6),  # the sources exchanged
        (make_genotype(CONVS, CONVS, [("rnn_1", 0), ("rnn_2", 1)]), 0.0),
    ],
)
def test_agreement_is_the_share_of_common_edges(other: Genotype, share: float):
    assert agreement(make_genotype(), other) == pytest.approx(share)
    assert agreement(other, make_genotype()) == pytest.approx(share)


def test_order_of_independent_nodes_makes_no_difference():
    first = Genotype.of_nodes([POOLS, CONVS], [POOLS, CONVS], [LSTMS, LSTMS])
    second = Genotype.of_nodes([CONVS, POOLS], [CONVS, POOLS], [LSTMS, LSTMS])
    assert agreement(first, second) == 1.0


def test_equal_edges_into_different_nodes_are_different():
    first = [[("max_pool_3x3", 0), ("avg_pool_3x3", 1)], [("sep_conv_3x3", 0), ("skip_connect", 2)]]
    second = [[("sep_conv_3x3", 0), ("avg_pool_3x3", 1)], [("max_pool_3x3", 0), ("skip_connect", 2)]]
    found = agreement(Genotype.of_nodes(first, first), Genotype.of_nodes(second, second))
    assert found == pytest.approx(2 / 4)


def test_networks_without_a_seqnn_are_compared_by_their_cnn():
    cnn = Genotype.of_nodes([POOLS], [CONVS])
    assert agreement(cnn, cnn) == 1.0


def test_chance_is_the_mean_agreement_of_all_genotypes_of_the_space():
    space = SearchSpace(1, 1, tuple(SPACE["cnn_ops"]), tuple(SPACE["rnn_ops"]))
    pairs = product(list(space.genotypes()), repeat=2)
    shares = [agreement(a, b) for a, b in pairs]
    assert chance(SPACE) == pytest.approx(sum(shares) / len(shares), abs=0.03)


@pytest.mark.parametrize(
    "config", [{}, {**SPACE, "cnn_nodes": "many"}, {**SPACE, "cnn_ops": None}, {**SPACE, "rnn_ops": ["x"]}]
)
def test_chance_of_a_damaged_configuration_is_not_known(config):
    assert chance(config) is None


def test_pairs_share_the_fold_or_the_seed(tmp_path: Path):
    """Four trials of two folds and two seeds; the cells depend on the fold alone, but for one edge."""
    for fold, seed in product((1, 2), (1, 2)):
        path = write_trial(tmp_path, "darts", fold, seed, manifest(fold), CLASSES)
        normal = [POOLS, CONVS][fold - 1]
        rnn = [LSTMS[0], ("rnn_1", 1)] if (fold, seed) == (1, 2) else LSTMS
        make_genotype(normal, rnn=rnn).save(path / "search" / "genotype.json")
    found = agreements(read_trials(tmp_path)[0])
    assert found["darts"]["seeds"] == pytest.approx((5 / 6 + 1) / 2)
    assert found["darts"]["folds"] == pytest.approx((4 / 6 + 3 / 6) / 2)


def test_table_has_the_searched_methods_and_a_dash_where_there_is_no_pair(tmp_path: Path):
    cross_validation(tmp_path, ["darts", "random", "cnn"], folds=2, seeds=(1,))
    trials, missing = read_trials(tmp_path)
    table = agreement_table(collect_results("x", "", trials, missing))
    assert [row[0] for row in table.rows] == ["DARTS", "Random search"]
    for row in table.rows:
        assert row[1] == row[3] == NO_VALUE
        assert row[2].endswith("%")
