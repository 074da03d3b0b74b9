"""What `benchmarks/space.py` and `benchmarks/searches.py` say of tables whose answer is known."""

import re
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import ROOT

from genotypes import Genotype

ROWS = {
    "dataset": "demo",
    "fold": 1,
    "weights": 10,
    "multiply_adds": 20,
    "cpu_seconds": 1.5,
    "commit": "12345e6",
}


@pytest.fixture
def benchmarks(monkeypatch) -> Namespace:
    """Both modules, which are removed again after the test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import searches
    import space

    yield Namespace(searches=searches, space=space)
    for name in ("searches", "space"):
        del sys.modules[name]


def make_rows(ua: np.ndarray, loss: np.ndarray | None = None) -> list[dict]:
    """A row for each genotype and seed; `ua` (genotypes, seeds) is that of the test, in percent."""
    loss = -ua if loss is None else loss
    return [
        {
            **ROWS,
            "genotype": f"g{i}",
            "seed": seed,
            "validation_ua": ua[i, seed - 1] / 100,
            "validation_loss": loss[i, seed - 1],
            "test_ua": ua[i, seed - 1] / 100,
        }
        for i in range(len(ua))
        for seed in (1, 2)
    ]


def test_report_separates_the_deviations_between_genotypes_and_seeds(benchmarks):
    rng = np.random.default_rng(0)
    ua = 70 + rng.normal(0, 3, (4000, 1)) + rng.normal(0, 2, (4000, 2))
    line = next(
        line for line in benchmarks.space.report(make_rows(ua)).splitlines() if "test_ua: mean" in line
    )
    mean, between, within = map(float, re.findall(r"\d+\.\d", line)[:3])
    assert mean == pytest.approx(70, abs=0.2)
    assert between == pytest.approx(3, abs=0.15)
    assert within == pytest.approx(2, abs=0.15)


def test_table_is_read_as_it_was_written(benchmarks, tmp_path, capsys):
    rows = make_rows(np.array([[71.25, 70.5], [64.0, 66.0]]))
    for row in rows:
        benchmarks.space.append(tmp_path / "table.csv", row)
    assert benchmarks.space.read_table(tmp_path / "table.csv") == rows
    assert benchmarks.space.read_table(tmp_path / "other.csv") == []
    assert "g0" not in capsys.readouterr().out


def test_truth_has_the_genotypes_with_all_seeds(benchmarks):
    rows = make_rows(np.array([[71.0, 70.5], [64.0, 66.0], [50.0, 51.0]]))
    truth = benchmarks.searches.Truth.of(rows[:3] + rows[4:])
    assert truth.genotypes == ["g0", "g2"]
    np.testing.assert_allclose(truth.test_ua, [[71.0, 70.5], [50.0, 51.0]])


def test_best_of_several_has_the_lowest_loss_of_the_first_seed(benchmarks):
    ua = np.array([[60.0, 60], [70, 70], [80, 80], [90, 90]])
    loss = np.array([[0.4, 9], [0.1, 9], [0.3, 9], [0.2, 0]])
    truth = benchmarks.searches.Truth.of(make_rows(ua, loss))
    one, two = (truth.test_ua.mean(axis=1)[benchmarks.searches.best_of(k, truth)].mean() for k in (1, 2))
    assert one == pytest.approx(75, abs=0.2)
    order = [70, 90, 80, 60]  # by loss; the best of two is number r in this order with chance (7 - 2r) / 16
    assert two == pytest.approx(sum(x * (7 - 2 * r) / 16 for r, x in enumerate(order)), abs=0.2)
    assert set(benchmarks.searches.best_of(200, truth)) == {1}


def test_log_probability_is_the_sum_over_the_edges(benchmarks):
    normal = [[("max_pool_3x3", 0), ("sep_conv_3x3", 1)], [("sep_conv_3x3", 0), ("sep_conv_3x3", 2)]]
    genotype = Genotype.of_nodes(normal, normal)
    ops = ("max_pool_3x3", "sep_conv_3x3")
    first, second = torch.tensor([[0.1, 0.9], [0.4, 0.6]]), torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.8, 0.2]])
    found = benchmarks.searches.log_probability(genotype.normal, [first.log(), second.log()], ops)
    assert found == pytest.approx(np.log(0.1 * 0.6 * 0.7 * 0.2), rel=1e-5)
