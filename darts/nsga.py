"""NSGA-II: evolution towards the best trade-offs between several objectives (Deb et al., IEEE TEVC 2002).

With a single objective, it keeps the best of parents and children. All objectives are minimised.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy import ndarray

T = TypeVar("T")


def generation(
    population: Sequence[T],
    mutate: Callable[[T], T],
    objectives: Callable[[T], Sequence[float]],
    rng: np.random.Generator,
) -> list[T]:
    """The best half of a population and of as many children, the best first.

    A child is the mutation of the better of two individuals that are drawn. Equal individuals are kept once.
    """
    size = len(population)
    ranked = survivors(population, objectives, size)
    pairs = rng.integers(len(ranked), size=(size, 2))
    children = [mutate(ranked[pair.min()]) for pair in pairs]
    return survivors([*ranked, *children], objectives, size)


def survivors(individuals: Sequence[T], objectives: Callable[[T], Sequence[float]], size: int) -> list[T]:
    """The best individuals, the best first: by the number of their front, then by crowding distance."""
    distinct = list(dict.fromkeys(individuals))
    values = np.array([objectives(each) for each in distinct])
    chosen: list[int] = []
    for front in fronts(values):
        distance = crowding_distance(values[front])
        chosen += [front[i] for i in np.argsort(-distance, kind="stable")]
    return [distinct[i] for i in chosen[:size]]


def fronts(values: ndarray) -> list[list[int]]:
    """Sort individuals with objectives `values` (individuals, objectives) into fronts.

    The first front holds those that no other dominates, the next those that only the first front dominates, and so on.
    A dominates B if it is nowhere worse and somewhere better.
    """
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    dominates = no_worse & (values[:, None] < values[None]).any(axis=2)
    left = np.arange(len(values))
    found = []
    while len(left):
        dominated = dominates[np.ix_(left, left)].any(axis=0)
        found.append(left[~dominated].tolist())
        left = left[dominated]
    return found


def crowding_distance(values: ndarray) -> ndarray:
    """How far the neighbours of each individual of a front are apart, (individuals,); infinite at the ends.

    The sum over the objectives of the distance between the next lower and the next higher value, as a share of the
    front's range.
    """
    distance = np.zeros(len(values))
    for objective in values.T:
        order = np.argsort(objective, kind="stable")
        span = objective[order[-1]] - objective[order[0]]
        distance[order[[0, -1]]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (objective[order[2:]] - objective[order[:-2]]) / span
    return distance
