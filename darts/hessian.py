"""The loss of a search as a function of the alphas, and the largest eigenvalue of its Hessian.

The relaxed edges of `models.fused` cannot be differentiated twice, so that products with the Hessian H are central
differences of the gradient g, as the second-order term of `darts.architect` is:

    H v = (g(alpha + r v) - g(alpha - r v)) / 2r        with ||v|| = 1

Shapes: D alphas of all edges, in one vector; K ops of an edge.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darts.architect import Architect, detach
from models.search_network import SearchNetwork
from training import distributed
from training.precision import ieee_float32
from training.steps import Batch

RADIUS = 0.5
"""r: so long that the jumps of g at the kinks of ReLU and max-pooling average out, and short beside the distance of
about 1 on which a softmax changes (docs/searching.md, "The guard", has the figures)."""


class AlphaLoss:
    """The loss on batches as a function of the alphas, which are one vector (D,); the weights are those of the network.

    The passes are in IEEE float32 and in training mode, as those of the alphas' steps, but without dropout.
    """

    def __init__(self, architect: Architect):
        self.architect = architect
        self.network: SearchNetwork = architect.network

    def alphas(self) -> Tensor:
        """The alphas of the network, (D,)."""
        return flatten(alpha.detach() for alpha in self.network.architecture_parameters())

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Within this context, the loss is a function: no dropout, and no rounding below float32."""
        self.network.dropout.eval()
        try:
            with ieee_float32():
                yield
        finally:
            self.network.dropout.train(self.network.training)

    def value(self, batches: Sequence[Batch]) -> float:
        """The mean loss over the utterances of the batches at the present weights of the ops."""
        weights = self.network.weights()
        losses = [self.architect.pass_loss(weights, batch, None) * len(batch[1]) for batch in batches]
        return float(sum(losses)) / sum(len(y) for _, y in batches)

    def gradient(self, alphas: Tensor, batches: Sequence[Batch]) -> Tensor:
        """g (D,), the gradient of the mean loss over the batches and the ranks."""
        values = self.split(alphas)
        total = torch.zeros_like(alphas)
        for batch in batches:
            named = {name: value.detach().requires_grad_() for name, value in values.items()}
            weights = {**detach(self.network.weights()), **named}
            loss = self.architect.pass_loss(weights, batch, None)
            total += flatten(distributed.gradient(loss, list(named.values())))
        return total / len(batches)

    def hessian_product(self, v: Tensor, alphas: Tensor, batches: Sequence[Batch]) -> Tensor:
        """H v (D,) of a vector of length 1."""
        plus = self.gradient(alphas + RADIUS * v, batches)
        minus = self.gradient(alphas - RADIUS * v, batches)
        return (plus - minus) / (2 * RADIUS)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """By the name of a parameter of the network: its part of a vector (D,), as (edges, K)."""
        named = {name: p for name, p in self.network.named_parameters() if name.startswith("alphas.")}
        parts = vector.split([p.numel() for p in named.values()])
        return {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}

    def by_kind(self, vector: Tensor) -> dict[str, list[Tensor]]:
        """By kind of cell: the part (K,) of each edge."""
        parts = self.split(vector)
        return {
            kind: [
                edge for name, part in parts.items() if name.startswith(f"alphas.{kind}.") for edge in part
            ]
            for kind in self.network.alphas
        }

    def without_shifts(self, vector: Tensor) -> Tensor:
        """The vector (D,) without shifts of all alphas of an edge by one number, along which the loss is constant."""
        return flatten(part - part.mean(dim=1, keepdim=True) for part in self.split(vector).values())


def flatten(tensors: Any) -> Tensor:
    """The tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def random_vector(like: Tensor) -> Tensor:
    """A vector that is the same in every run; the random generators of the training are left alone."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(like), generator=generator).to(like)


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, products: int
) -> tuple[float, Tensor]:
    """The largest eigenvalue of a symmetric map, and its vector (D,), from below.

    It is the largest on the space of start, H start, H^2 start, ... (Lanczos 1950). Power iteration computes the same
    products and uses the last alone, so it is farther from the eigenvalue.
    """
    basis: list[Tensor] = []
    images: list[Tensor] = []
    rest = start
    for _ in range(products):
        basis.append(rest / rest.norm().clamp(min=1e-30))
        images.append(product(basis[-1]))
        rest = images[-1]
        q = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors
            rest = rest - q.T @ (q @ rest)
        if rest.norm() <= 1e-6 * images[-1].norm():  # the space is complete
            break
    matrix = (q @ torch.stack(images).T).cpu().numpy()
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return float(values[-1]), torch.from_numpy(vectors[:, -1]).to(q.device) @ q
