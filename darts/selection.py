"""--selection perturbation: the ops and edges whose removal from the supernet hurts most (DARTS-PT).

Wang et al., ICLR 2021: a large alpha does not tell that an op matters. Each edge in turn, in random order, loses one op
after the other; the op without which the loss is largest stays, with weight 1, and the others are removed. Then each
node loses, one after the other, the edges without which the loss is smallest, until two are left. The paper trains the
weights further after each decision; here they stay as the search has trained them.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from darts.architect import Architect
from darts.hessian import AlphaLoss
from genotypes import Genotype
from training.steps import Batch
from utils import progress


def select(architect: Architect, batches: Sequence[Batch]) -> Genotype:
    """The genotype that the losses on these batches select from the supernet of a finished search.

    The passes are in training mode without dropout: BatchNorm takes its statistics from the batch.
    """
    loss = AlphaLoss(architect)
    with loss.fixed():
        return Selection(loss, batches).genotype()


class Selection:
    """The weights of the ops that are left of a supernet."""

    def __init__(self, loss: AlphaLoss, batches: Sequence[Batch]):
        self.loss = loss
        self.batches = batches
        self.network = loss.network
        self.rng = np.random.default_rng(loss.architect.config.seed)

    @torch.no_grad()
    def genotype(self) -> Genotype:
        """Decide every edge, then every node."""
        weights = {kind: [w.clone() for w in nodes] for kind, nodes in self.network.op_weights().items()}
        edges = [(kind, w, edge) for kind, nodes in weights.items() for w in nodes for edge in range(len(w))]
        nodes = [w for each in weights.values() for w in each]
        with self.network.using(weights):
            for i in progress(self.rng.permutation(len(edges)), "selection"):
                self.select_op(*edges[i])
            for i in self.rng.permutation(len(nodes)):
                self.select_edges(nodes[i])
        return self.network.genotype(weights)

    def select_op(self, kind: str, weights: Tensor, edge: int) -> None:
        """Keep one op of an edge of a node's `weights` (E, K)."""
        _, ops = self.network.space.of(kind)
        candidates = [k for k, op in enumerate(ops) if op != "none"]
        losses = self.losses_without(weights, ((edge, k) for k in candidates))
        weights[edge] = 0.0
        weights[edge, candidates[int(np.argmax(losses))]] = 1.0

    def select_edges(self, weights: Tensor) -> None:
        """Keep two edges of a node's `weights` (E, K)."""
        left = list(range(len(weights)))
        while len(left) > 2:
            losses = self.losses_without(weights, left)
            weights[left.pop(int(np.argmin(losses)))] = 0.0

    def losses_without(self, weights: Tensor, parts: Iterable[int | tuple[int, int]]) -> list[float]:
        """The loss without each of these edges or ops of a node's `weights` (E, K)."""
        losses = []
        for part in parts:
            before = weights[part].clone()
            weights[part] = 0.0
            losses.append(self.loss.value(self.batches))
            weights[part] = before
        return losses
