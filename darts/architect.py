"""The bilevel step of the search: a step of the alphas on one half of the data, a step of the weights on the other.

    min_alpha L_val(w*(alpha), alpha)   where   w*(alpha) = argmin_w L_train(w, alpha)      (Liu et al. 2019, eqs. 3, 4)

The alphas follow the first- or the second-order gradient (section 2.3):

    w' = w - xi (momentum v + dL_train(w, alpha)/dw + decay w)                                    the unrolled step
    first order:   d/dalpha L_val(w, alpha)
    second order:  d/dalpha L_val(w', alpha) - xi [d/dalpha L_train(w+, alpha) - d/dalpha L_train(w-, alpha)] / (2 eps)
                   with w± = w ± eps d/dw' L_val(w', alpha) and eps = 0.01 / ||d/dw' L_val(w', alpha)||   (eqs. 7, 8)

Each pass receives its weights as arguments: the network's own weights, the optimizer's state and
the BatchNorm statistics are only read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from config import SearchConfig
from models import passes
from models.relaxations import Sample
from models.search_network import SearchNetwork
from training.distributed import gradient
from training.precision import PASS_DTYPES, ieee_float32
from training.steps import Batch, Metrics, weight_step

Weights = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]

ALPHA_BETAS = (0.5, 0.999)
EPSILON = 0.01
"""The step of the finite difference, before it is divided by the norm of the gradient (footnote 2 of the paper)."""
TINY = 1e-12
"""Lower bound of that norm."""


@dataclass(frozen=True)
class UnrolledStep:
    """The step of SGD with momentum that leads from w to w'."""

    xi: float
    momentum: float
    decay: float
    buffers: Weights
    """The momentum buffers v, by the name of their weight; a missing one is zero."""

    def apply(self, name: str, w: Tensor, d_train: Tensor) -> Tensor:
        """w' of one weight, computed in place: it overwrites the gradient `d_train`."""
        step = d_train.add_(w, alpha=self.decay)
        if name in self.buffers:
            step.add_(self.buffers[name], alpha=self.momentum)
        return step.mul_(-self.xi).add_(w)


class Architect:
    """A supernet with the optimizers of its weights and its alphas."""

    def __init__(self, config: SearchConfig, network: SearchNetwork, loss: Loss = F.cross_entropy):
        self.config = config
        self.network = network
        self.loss = loss
        self.dtype = PASS_DTYPES[config.precision]
        self.weight_optimizer = torch.optim.SGD(
            network.weights().values(),
            config.w_lr,
            momentum=config.w_momentum,
            weight_decay=config.w_weight_decay,
        )
        self.alpha_optimizer = torch.optim.Adam(
            network.architecture_parameters(),
            config.alpha_lr,
            ALPHA_BETAS,
            weight_decay=config.alpha_weight_decay,
            capturable=config.cuda_graphs,  # counts its steps on the device
        )

    def step(
        self, train: Batch, val: Batch, samples: tuple[Sample | None, Sample | None] = (None, None)
    ) -> Metrics:
        """Update the alphas along their gradient, then the weights at the new alphas.

        `samples` decide the weights of the ops in either step, if they are random (see `models.relaxations`).
        """
        with self.network.sampling(samples[0]):
            self.alpha_step(train, val)
        return self.weight_step(train, samples[1])

    def weight_step(self, train: Batch, sample: Sample | None = None) -> Metrics:
        """One step of SGD at the present alphas."""
        with self.network.sampling(sample):
            return weight_step(
                self.network, self.weight_optimizer, train, self.loss, self.config.w_grad_clip, self.dtype
            )

    def alpha_step(self, train: Batch, val: Batch) -> None:
        """One step of Adam along the first- or second-order gradient, with that of the relaxation's penalty."""
        if self.config.order == "second":
            gradients = self.second_order(train, val, self.unrolled_step())
        else:
            gradients = self.first_order(val)
        alphas = self.network.architecture_parameters()
        penalty = self.network.relaxation.penalty(alphas)
        if penalty is not None:  # L_val includes it; it does not depend on the weights
            penalties = torch.autograd.grad(penalty, alphas)
            gradients = [d + d_penalty for d, d_penalty in zip(gradients, penalties, strict=True)]
        for alpha, d in zip(alphas, gradients, strict=True):
            alpha.grad = d
        self.alpha_optimizer.step()
        self.alpha_optimizer.zero_grad()

    def unrolled_step(self) -> UnrolledStep:
        """The step that the weight optimizer is about to take."""
        group = self.weight_optimizer.param_groups[0]
        state = self.weight_optimizer.state
        buffers = {
            name: state[w]["momentum_buffer"] for name, w in self.network.weights().items() if w in state
        }
        return UnrolledStep(group["lr"], group["momentum"], group["weight_decay"], buffers)

    def first_order(self, val: Batch) -> list[Tensor]:
        """d/dalpha L_val(w, alpha), with w held fixed."""
        return self.alpha_gradient(detach(self.network.weights()), val, self.dtype)

    def second_order(self, train: Batch, val: Batch, unrolled: UnrolledStep) -> list[Tensor]:
        """d/dalpha L_val(w'(alpha), alpha), with the Hessian-vector product by a central difference (eqs. 7, 8).

        The three passes of the training loss use the same dropout masks, for they are one function at three points.
        """
        w = self.network.weights()
        dropout = self.network.dropout
        with dropout.record() as masks:
            d_train = gradient(self.pass_loss(w, train, self.dtype), list(w.values()))
        w = detach(w)
        w_unrolled = {name: unrolled.apply(name, w[name], d) for name, d in zip(w, d_train, strict=True)}
        d_alpha, d_w = self.gradients_at_unrolled(w_unrolled, val)
        del d_train, w_unrolled  # frees the memory for the passes below

        norm = torch.linalg.vector_norm(torch.stack([d.norm() for d in d_w.values()]))
        eps = EPSILON / norm.clamp(min=TINY)
        # w+ is written into the memory of d_w, and later w- into that of w+
        w_plus = {name: d.mul_(eps).add_(w[name]) for name, d in d_w.items()}
        with dropout.replay(masks), ieee_float32():
            d_plus = self.alpha_gradient(w_plus, train, None)
        w_minus = {name: plus.neg_().add_(w[name], alpha=2) for name, plus in w_plus.items()}
        with dropout.replay(masks), ieee_float32():
            d_minus = self.alpha_gradient(w_minus, train, None)
        hessian_terms = [unrolled.xi * (p - m) / (2 * eps) for p, m in zip(d_plus, d_minus, strict=True)]
        return [d - term for d, term in zip(d_alpha, hessian_terms, strict=True)]

    def gradients_at_unrolled(
        self, w_unrolled: Weights, val: Batch
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """d/dalpha and d/dw' of L_val(w', alpha), at the unrolled weights w'."""
        alphas = self.network.architecture_parameters()
        w_unrolled = {name: w.requires_grad_() for name, w in w_unrolled.items()}
        gradients = gradient(self.pass_loss(w_unrolled, val, self.dtype), [*alphas, *w_unrolled.values()])
        d_alpha, d_w = gradients[: len(alphas)], gradients[len(alphas) :]
        return d_alpha, dict(zip(w_unrolled, d_w, strict=True))

    def alpha_gradient(self, weights: Weights, batch: Batch, dtype: torch.dtype | None) -> list[Tensor]:
        """d/dalpha L(weights, alpha). The weights require no gradient, so that none is computed for them.

        The passes at w+ and w- take no `dtype` and are always IEEE float32: w+ and w- are so close that in bf16 or TF32
        their difference would be rounding noise (figures in docs/performance.md, "Precision").
        """
        return gradient(self.pass_loss(weights, batch, dtype), self.network.architecture_parameters())

    def pass_loss(self, weights: Weights, batch: Batch, dtype: torch.dtype | None) -> Tensor:
        """L(weights, alpha) on a batch. BatchNorm updates copies of its running statistics, which are dropped."""
        x, y = batch
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        return self.loss(passes.forward_with(self.network, x, {**weights, **buffers}, dtype), y)


def detach(weights: Weights) -> dict[str, Tensor]:
    """The same values, which require no gradient."""
    return {name: w.detach() for name, w in weights.items()}
