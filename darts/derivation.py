"""The genotype that a search derives: from the alphas of which epochs, and after which of them."""

from collections.abc import Collection
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from config import SearchConfig
from genotypes import Genotype
from models.search_network import SearchNetwork
from models.search_space import different


class Derivation:
    """The genotype picked so far; part of the checkpoint.

    That of an epoch follows from the mean of the weights of the ops after the last --alpha_average epochs, by
    `genotypes.discretise`. --pick says whether that of the last epoch counts, or that of the best.
    """

    def __init__(self, config: SearchConfig, network: SearchNetwork):
        self.config = config
        self.network = network
        self.recent: list[dict[str, list[Tensor]]] = []
        """The weights of the ops after the last epochs, by kind of cell and node."""
        self.epoch = 0
        self.score: tuple[float, float] | None = None
        self.genotype: Genotype | None = None

    @torch.no_grad()
    def update(self, epoch: int, score: tuple[float, float] | None) -> Genotype:
        """Derive the genotype of an epoch, keep it if it is picked, and return it.

        Higher scores are better; None is the score of an epoch that has not trained the alphas.
        """
        self.recent = [*self.recent, self.network.op_weights()][-self.config.alpha_average :]
        genotype = self.network.genotype(self.mean(), self.config.edges_by)
        if self.config.pick == "last" or self.score is None or score > self.score:
            self.epoch = epoch
            self.score = score
            self.genotype = genotype
        return genotype

    def candidates(self, count: int, stem_twice: Collection[str]) -> list[Genotype]:
        """The picked genotype, then others that are drawn from the mean alphas, all different (see `draw`).

        Fewer than `count` if 100 draws for each do not find so many.
        """
        rng = np.random.default_rng([self.config.seed, self.config.fold])
        drawn = (self.draw(rng) for _ in range(100 * count))
        return different(chain([self.genotype], drawn), count, stem_twice)

    def draw(self, rng: np.random.Generator) -> Genotype:
        """Derive a genotype from the mean alphas with Gumbel noise: p_k becomes p_k exp(g_k) / sum_j p_j exp(g_j).

        The strongest op of an edge is then op k with probability p_k (the Gumbel-max trick).
        """
        noisy = {}
        for kind, nodes in self.mean().items():
            noises = [torch.from_numpy(rng.gumbel(size=tuple(p.shape))) for p in nodes]
            logits = [p.cpu().double().log() + g for p, g in zip(nodes, noises, strict=True)]
            noisy[kind] = [each.softmax(dim=-1) for each in logits]
        return self.network.genotype(noisy, self.config.edges_by)

    def mean(self) -> dict[str, list[Tensor]]:
        """The mean over the recent epochs, (edges, ops) for each kind of cell and node."""
        means = {}
        for kind in self.recent[0]:
            nodes = zip(*(alphas[kind] for alphas in self.recent), strict=True)
            means[kind] = [torch.stack(node).mean(dim=0) for node in nodes]
        return means

    def state_dict(self) -> dict[str, Any]:
        genotype = self.genotype and self.genotype.to_json()
        return {"recent": self.recent, "epoch": self.epoch, "score": self.score, "genotype": genotype}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recent = state["recent"]
        self.epoch = state["epoch"]
        self.score = state["score"]
        self.genotype = state["genotype"] and Genotype.from_json(state["genotype"])
