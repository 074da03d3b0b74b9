"""The relaxations: how the alphas of an edge become the weights of its ops.

    softmax     w = softmax(alpha)                                      DARTS: Liu et al., ICLR 2019, eq. 2
    sigmoid     w = sigmoid(alpha); the ops do not compete              FairDARTS: Chu et al., ECCV 2020
    dirichlet   w ~ Dir(beta) with beta = elu(alpha) + 1                DrNAS: Chen et al., ICLR 2021
    gumbel      w = onehot(argmax_k s_k) with s = softmax((log softmax(alpha) + g) / tau) and g ~ Gumbel(0, 1);
                dw/dalpha = ds/dalpha                                   GDAS: Dong and Yang, CVPR 2019

The passes of a training step draw weights by a `Sample`, and those with one sample draw the same weights: the gradient
of second order is that of one function. All other passes, and the genotype, use the expected weights.

Shapes: E edges into a node; K ops.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

KL_WEIGHT = 1e-3
"""Weight of DrNAS' penalty, as in its authors' code."""
ZERO_ONE_WEIGHT = 10.0
"""Weight of FairDARTS' zero-one loss, as in its authors' code."""
FIRST_TAU, LAST_TAU = 10.0, 0.1
"""The temperature of GDAS at the first and the last step."""
LEAST_PERTURBATION = 0.03
"""The perturbation of SDARTS at the first step."""


@dataclass(frozen=True)
class Sample:
    """Which random weights the passes of a step draw."""

    seed: int
    progress: float
    """The share of the search's steps that are done, 0 to 1."""
    perturbation: float = 0.0
    """See `perturb`; 0: none."""

    def for_weights(self, largest: float) -> "Sample":
        """The sample of the step of the weights that follows; its perturbation rises from LEAST_PERTURBATION."""
        radius = LEAST_PERTURBATION + (largest - LEAST_PERTURBATION) * self.progress if largest else 0.0
        return replace(self, seed=self.seed + 1, perturbation=radius)


class Relaxation:
    """What makes weights (E, K) from alphas (E, K)."""

    is_random = False
    competing = True
    """Whether the weights of an edge sum to 1, so that `none` takes a share of them."""

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


class Sigmoid(Relaxation):
    """That of FairDARTS."""

    competing = False

    def expected(self, alpha: Tensor) -> Tensor:
        return alpha.sigmoid()

    def penalty(self, alphas: Sequence[Tensor]) -> Tensor:
        """L_01 = -mean (sigmoid(alpha) - 1/2)^2, which draws each weight to 0 or 1."""
        weights = torch.cat([alpha.sigmoid().flatten() for alpha in alphas])
        return -ZERO_ONE_WEIGHT * (weights - 0.5).square().mean()


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


RELAXATIONS = {"softmax": Softmax(), "dirichlet": Dirichlet(), "gumbel": Gumbel(), "sigmoid": Sigmoid()}


def draw_weights(relaxation: Relaxation, alphas: Sequence[Tensor], sample: Sample) -> list[Tensor]:
    """The random weights of a sample for the alphas of all nodes; torch's generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(sample.seed)
        weights = [relaxation.draw(alpha, sample.progress) for alpha in alphas]
        return [perturb(each, sample.perturbation) for each in weights] if sample.perturbation else weights


def perturb(weights: Tensor, radius: float) -> Tensor:
    """Add noise from U(-radius, radius) to the weights (E, K), clip them to [0, 1], and restore the sum of each edge.

    SDARTS-RS: Chen and Hsieh, ICML 2020, as in their code. An edge all of whose weights are clipped to 0 keeps its own.
    """
    noise = torch.empty(weights.shape, dtype=weights.dtype).uniform_(-radius, radius)
    noisy = (weights + noise.to(weights.device)).clamp(0, 1)
    total = noisy.sum(dim=-1, keepdim=True)
    scale = weights.sum(dim=-1, keepdim=True) / total.clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.where(total > 0, noisy * scale, weights)
