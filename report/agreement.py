"""How far the genotypes that a search has found agree: with another seed, and with other training speakers."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from config import strategy_of
from models.agreement import agreement, common_share, edges_of
from models.search_space import SearchSpace
from report.trials import DAMAGED, Trial

DRAWN = 60
"""The number of random genotypes whose pairs give the agreement by chance."""


def agreements(trials: Sequence[Trial]) -> dict[str, dict[str, float | None]]:
    """{method: {"seeds": mean agreement, "folds": ..., "chance": ...}} of the searched methods; None without a pair.

    `seeds`: of pairs with the same fold, so with the same speakers; `folds`: of pairs with the same seed.
    """
    found = {}
    for method in filter(strategy_of, dict.fromkeys(trial.key.method for trial in trials)):
        own = [trial for trial in trials if trial.key.method == method and trial.genotype]
        pairs = list(combinations(own, 2))
        if pairs:
            found[method] = {
                "seeds": mean_agreement((a, b) for a, b in pairs if a.key.fold == b.key.fold),
                "folds": mean_agreement((a, b) for a, b in pairs if a.key.seed == b.key.seed),
                "chance": chance(own[0].configs.get("search", {})),
            }
    return found


def mean_agreement(pairs: Iterable[tuple[Trial, Trial]]) -> float | None:
    """The mean agreement of the genotypes of pairs of trials."""
    shares = [agreement(a.genotype, b.genotype) for a, b in pairs]
    return float(np.mean(shares)) if shares else None


def chance(config: dict[str, Any]) -> float | None:
    """The mean agreement of random genotypes of the space of a search's config.json; None if that is damaged."""
    try:
        rnn_nodes = config["rnn_nodes"] if config["rnn_layers"] else 0
        space = SearchSpace(
            config["cnn_nodes"], rnn_nodes, tuple(config["cnn_ops"]), tuple(config["rnn_ops"])
        )
        drawn = [edges_of(space.draw(number)) for number in range(DRAWN)]
    except DAMAGED:
        return None
    return float(np.mean([common_share(a, b) for a, b in combinations(drawn, 2)]))
