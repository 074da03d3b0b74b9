"""How much the choice among scored genotypes depends on single speakers: each is left out in turn.

Shapes: G genotypes, N utterances.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from genotypes import Genotype
from models.agreement import agreement
from training.losses import class_weights


class Choice(NamedTuple):
    """The choice without the utterances of a speaker."""

    speaker: str
    agreement: float
    """The share of edges that the genotype of the lowest loss has in common with the one chosen by all speakers."""
    rank: int
    """The rank of the one chosen by all speakers: 1 if it is still the best."""


def choices(
    genotypes: Sequence[Genotype], chosen: Genotype, losses: ndarray, labels: ndarray, speakers: ndarray
) -> list[Choice]:
    """The choice without each speaker, if there are several; first those without whom the chosen one ranks lowest.

    `losses` (G, N) are those of the utterances, with `labels` and `speakers` (N,). Every class counts the same.
    """
    distinct = np.unique(speakers)
    if len(distinct) < 2:
        return []
    found = []
    for speaker in distinct:
        left = speakers != speaker
        weights = class_weights(labels[left], labels.max() + 1).numpy()[labels[left]]
        means = losses[:, left] @ weights / weights.sum()  # (G,)
        best = genotypes[means.argmin()]
        rank = 1 + int((means < means[genotypes.index(chosen)]).sum())
        found.append(Choice(str(speaker), agreement(best, chosen), rank))
    return sorted(found, key=lambda choice: -choice.rank)
