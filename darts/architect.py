"""The gradient of alpha: how the validation loss changes with the architecture (Liu et al. 2019, section 2.3).

    w' = w - xi (momentum v + dL_train(w, alpha)/dw + decay w)                                    the unrolled step
    first order:   d/dalpha L_val(w, alpha)
    second order:  d/dalpha L_val(w', alpha) - xi [d/dalpha L_train(w+, alpha) - d/dalpha L_train(w-, alpha)] / (2 eps)
                   with w± = w ± eps d/dw' L_val(w', alpha) and eps = 0.01 / ||d/dw' L_val(w', alpha)||   (eqs. 7 and 8)

The passes at w+ and w- are of true float32 whatever --precision says: w+ and w- are closer than 16 bits, or TF32, tell
apart, and rounding noise over 2 eps would be what is left (figures in docs/performance.md, "Precision").

The network is called with the weights of each pass as arguments: its own weights, optimiser state and BatchNorm
statistics are only ever read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from models.bf16 import lowered
from models.search_network import SearchNetwork
from training.devices import Gradient, local_gradient
from training.precision import true_float32

Weights = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]

EPSILON = 0.01  # over the gradient's norm: the finite difference's step (footnote 2 of the paper)

TINY = 1e-12  # below this norm there is no direction to look along: w+ = w- = w


@dataclass(frozen=True)
class Unrolled:
    """The step of SGD that the second order looks ahead by."""

    xi: float
    momentum: float
    decay: float
    buffers: Weights
    """The optimiser's momentum buffers by weight; one that is missing is zero."""

    def __call__(self, name: str, w: Tensor, gradient: Tensor) -> Tensor:
        """w' of one weight, in the memory of its gradient."""
        step = gradient.add_(w, alpha=self.decay)
        if name in self.buffers:
            step.add_(self.buffers[name], alpha=self.momentum)
        return step.mul_(-self.xi).add_(w)


@dataclass(frozen=True)
class Architect:
    """The alpha gradients of a supernet, in the order of `network.architecture_parameters()`."""

    network: SearchNetwork
    criterion: Criterion
    gradient: Gradient = local_gradient
    """(loss, inputs) -> d loss / d inputs; with several processes their mean."""
    dtype: torch.dtype | None = None
    """What all passes but those at w+ and w- are cast to; None: nothing is cast."""

    def first_order(self, val: Batch) -> list[Tensor]:
        """d/dalpha L_val(w, alpha), w held fixed."""
        return self._alpha_gradient(frozen(self.network.weights()), val, self.dtype)

    def second_order(self, train: Batch, val: Batch, step: Unrolled) -> list[Tensor]:
        """d/dalpha L_val(w'(alpha), alpha), the Hessian-vector product by a central difference."""
        w, dropout = self.network.weights(), self.network.network.dropout
        with dropout.kept() as masks:
            g = self.gradient(self._loss(w, train, self.dtype), list(w.values()))
        w = frozen(w)
        d_alpha, d_w = self._gradients_ahead(
            {name: step(name, w[name], d) for name, d in zip(w, g, strict=True)}, val
        )
        del g  # w' lay in its memory; w+ and w- will lie in that of d_w
        norm = torch.linalg.vector_norm(torch.stack([d.norm() for d in d_w.values()]))
        eps = EPSILON / norm.clamp(min=TINY)
        with dropout.repeated(masks):
            plus = self._exact({name: d.mul_(eps).add_(w[name]) for name, d in d_w.items()}, train)
        with dropout.repeated(masks):
            minus = self._exact({name: d.neg_().add_(w[name], alpha=2) for name, d in d_w.items()}, train)
        return [d - step.xi * (p - m) / (2 * eps) for d, p, m in zip(d_alpha, plus, minus, strict=True)]

    def _gradients_ahead(self, ahead: Weights, val: Batch) -> tuple[list[Tensor], dict[str, Tensor]]:
        """d/dalpha and d/dw' of L_val(w', alpha)."""
        alphas = self.network.architecture_parameters()
        ahead = {name: w.requires_grad_() for name, w in ahead.items()}
        grads = self.gradient(self._loss(ahead, val, self.dtype), [*alphas, *ahead.values()])
        return grads[: len(alphas)], dict(zip(ahead, grads[len(alphas) :], strict=True))

    def _exact(self, weights: Weights, batch: Batch) -> list[Tensor]:
        """d/dalpha L(weights, alpha), in true float32."""
        with true_float32():
            return self._alpha_gradient(weights, batch, None)

    def _alpha_gradient(self, weights: Weights, batch: Batch, dtype: torch.dtype | None) -> list[Tensor]:
        """d/dalpha L(weights, alpha). These weights ask for no gradient, so backward computes none for them."""
        return self.gradient(self._loss(weights, batch, dtype), self.network.architecture_parameters())

    def _loss(self, weights: Weights, batch: Batch, dtype: torch.dtype | None) -> Tensor:
        """L(weights, alpha) on a batch. BatchNorm writes its running statistics into copies, which are dropped."""
        x, y = batch
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        lent = lowered(self.network, weights, dtype)
        return self.criterion(functional_call(self.network, {**lent, **buffers}, (x.to(dtype),)), y)


def frozen(weights: Weights) -> dict[str, Tensor]:
    """The same values, asking for no gradient."""
    return {name: w.detach() for name, w in weights.items()}
