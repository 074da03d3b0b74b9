"""The relaxations: how the alphas of an edge become the weights of its ops.

    softmax     w = softmax(alpha)                                      DARTS: Liu et al., ICLR 2019, eq. 2
    dirichlet   w ~ Dir(beta) with beta = elu(alpha) + 1                DrNAS: Chen et al., ICLR 2021
    gumbel      w = onehot(argmax_k s_k) with s = softmax((log softmax(alpha) + g) / tau) and g ~ Gumbel(0, 1);
                dw/dalpha = ds/dalpha                                   GDAS: Dong and Yang, CVPR 2019

The passes of a training step draw weights by a `Sample`, and those with one sample draw the same weights: the gradient
of second order is that of one function. All other passes, and the genotype, use the expected weights.

Shapes: E edges into a node; K ops.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

KL_WEIGHT = 1e-3
"""Weight of DrNAS' penalty, as in its authors' code."""
FIRST_TAU, LAST_TAU = 10.0, 0.1
"""The temperature of GDAS at the first and the last step."""


@dataclass(frozen=True)
class Sample:
    """Which random weights passes draw."""

    seed: int
    progress: float
    """The share of the search's steps that are done, 0 to 1."""


class Relaxation:
    """What makes weights (E, K) from alphas (E, K). The weights of an edge sum to 1."""

    is_random = False

    def expected(self, alpha: Tensor) -> Tensor:
        """The weights, or their mean if they are random."""
        raise NotImplementedError

    def draw(self, alpha: Tensor, progress: float) -> Tensor:
        """The weights of a training step; random ones are drawn by torch's generator of the CPU."""
        return self.expected(alpha)

    def penalty(self, alphas: Sequence[Tensor]) -> Tensor | None:
        """What is added to the loss of the alphas, if anything."""
        return None


class Softmax(Relaxation):
    """That of DARTS."""

    def expected(self, alpha: Tensor) -> Tensor:
        return alpha.softmax(dim=-1)


class Dirichlet(Relaxation):
    """That of DrNAS."""

    is_random = True

    def concentration(self, alpha: Tensor) -> Tensor:
        """beta = elu(alpha) + 1."""
        return F.elu(alpha) + 1

    def expected(self, alpha: Tensor) -> Tensor:
        beta = self.concentration(alpha)
        return beta / beta.sum(dim=-1, keepdim=True)

    def draw(self, alpha: Tensor, progress: float) -> Tensor:
        beta = self.concentration(alpha.cpu())
        return torch.distributions.Dirichlet(beta).rsample().to(alpha.device)

    def penalty(self, alphas: Sequence[Tensor]) -> Tensor:
        """The sum over the edges of KL(Dir(beta) || Dir(1))."""
        divergences = []
        for alpha in alphas:
            found = torch.distributions.Dirichlet(self.concentration(alpha))
            uniform = torch.distributions.Dirichlet(torch.ones_like(alpha))
            divergences.append(torch.distributions.kl_divergence(found, uniform).sum())
        return KL_WEIGHT * torch.stack(divergences).sum()


class Gumbel(Softmax):
    """That of GDAS; the expected weights are the probabilities with which it chooses the ops."""

    is_random = True

    def draw(self, alpha: Tensor, progress: float) -> Tensor:
        tau = FIRST_TAU + (LAST_TAU - FIRST_TAU) * progress
        return F.gumbel_softmax(alpha.cpu().log_softmax(dim=-1), tau, hard=True).to(alpha.device)


RELAXATIONS = {"softmax": Softmax(), "dirichlet": Dirichlet(), "gumbel": Gumbel()}


def draw_weights(relaxation: Relaxation, alphas: Sequence[Tensor], sample: Sample) -> list[Tensor]:
    """The random weights of a sample for the alphas of all nodes; torch's generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(sample.seed)
        return [relaxation.draw(alpha, sample.progress) for alpha in alphas]
