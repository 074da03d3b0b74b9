"""NSGA-II against plain definitions, and on a problem whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from darts import nsga

values = st.integers(1, 12).flatmap(
    lambda n: st.integers(1, 3).flatmap(lambda m: arrays(np.float64, (n, m), elements=st.integers(0, 4)))
)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(a <= b) and any(a < b)


@given(values)
def test_fronts_by_definition(found: np.ndarray):
    fronts = nsga.fronts(found)
    assert sorted(i for front in fronts for i in front) == list(range(len(found)))
    for number, front in enumerate(fronts):
        for i in front:
            assert not any(dominates(found[j], found[i]) for later in fronts[number:] for j in later)
            if number:
                assert any(dominates(found[j], found[i]) for j in fronts[number - 1])


def test_crowding_distance_by_hand():
    found = np.array([[0.0, 10.0], [2.0, 6.0], [3.0, 5.0], [10.0, 0.0]])
    inner = [3 / 10 + 5 / 10, 8 / 10 + 6 / 10]
    np.testing.assert_allclose(nsga.crowding_distance(found), [np.inf, *inner, np.inf])


def test_equal_values_have_no_distance():
    assert list(nsga.crowding_distance(np.ones((3, 2)))) == [np.inf, 0.0, np.inf]


def test_survivors_with_one_objective_are_the_lowest_and_distinct():
    assert nsga.survivors([5, 3, 3, 9, 1, 7], lambda x: (x,), 3) == [1, 3, 5]


def test_survivors_prefer_the_first_front_and_then_the_ends():
    points = [(0, 4), (4, 0), (1, 3), (2, 2), (5, 5)]
    kept = nsga.survivors(points, lambda point: point, 3)
    assert set(kept[:2]) == {(0, 4), (4, 0)}
    assert (5, 5) not in nsga.survivors(points, lambda point: point, 4)


@pytest.mark.parametrize("objectives", [lambda x: (x * x,), lambda x: (x * x, (x - 4) ** 2)])
def test_generations_reach_the_optimum(objectives):
    """Whole numbers that change by one: the optimum of one objective is 0, the front of both is 0 to 4."""
    rng = np.random.default_rng(0)
    population = [int(x) for x in rng.integers(50, 100, size=12)]
    for _ in range(200):
        population = nsga.generation(population, lambda x: x + int(rng.choice([-1, 1])), objectives, rng)
    best = nsga.fronts(np.array([objectives(x) for x in population]))[0]
    expected = {0} if len(objectives(0)) == 1 else {0, 1, 2, 3, 4}
    assert {population[i] for i in best} == expected


def test_the_best_is_never_lost():
    rng = np.random.default_rng(1)
    population = [3, 8, 9, 10]
    for _ in range(20):
        population = nsga.generation(population, lambda x: x + 5, lambda x: (x,), rng)
        assert population[0] == 3
