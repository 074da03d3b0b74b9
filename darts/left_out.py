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
    """The share of edges that the genotype of the lowest loss has in common with the one chosen with all speakers."""
    rank: int
    """The rank of the genotype chosen with all speakers: 1 if it still has the lowest loss."""


def choices(
    genotypes: Sequence[Genotype], chosen: Genotype, losses: ndarray, labels: ndarray, speakers: ndarray
) -> list[Choice]:
    """The choice without each speaker, sorted by the rank of the chosen genotype, the worst first.

    `losses` (G, N) are those of the utterances, with `labels` and `speakers` (N,). Every class counts the same.
    The list is empty if there is only one speaker.
    """
    distinct = np.unique(speakers)
    if len(distinct) < 2:
        return []
    position = genotypes.index(chosen)
    found = []
    for speaker in distinct:
        others = speakers != speaker
        weights = class_weights(labels[others], labels.max() + 1).numpy()[labels[others]]
        means = losses[:, others] @ weights / weights.sum()  # (G,)
        best = genotypes[means.argmin()]
        rank = 1 + int((means < means[position]).sum())
        found.append(Choice(str(speaker), agreement(best, chosen), rank))
    return sorted(found, key=lambda choice: -choice.rank)
