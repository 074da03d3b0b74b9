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
        if self.given is not None:
            return x * next(self.given) * (1 / (1 - self.p))
        x, mask = torch.native_dropout(x, self.p, True)
        if self.drawn is not None:
            self.drawn.append(mask)
        return x

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
