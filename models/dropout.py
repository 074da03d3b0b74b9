"""Dropout with replayable masks.

The second-order alpha gradient takes the difference of one function at two points, so its passes
must drop the same units. The masks of one pass are recorded and replayed in the others. Resetting a
random generator instead would not work in a CUDA graph.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """`nn.Dropout` whose masks can be recorded in one pass and replayed in another."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.recorded: list[Tensor] | None = None
        self.replayed: Iterator[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mask = self.draw_mask(x) if self.replayed is None else next(self.replayed)
        if self.recorded is not None:
            self.recorded.append(mask)
        return x * mask * (1 / (1 - self.p))

    def draw_mask(self, x: Tensor) -> Tensor:
        """1 for units that are kept, 0 for units that are dropped. On a CPU three times as fast as torch's dropout."""
        return (torch.rand_like(x, dtype=torch.float32) >= self.p).view(torch.uint8)

    @contextmanager
    def record(self) -> Iterator[list[Tensor]]:
        """Within this context, append the masks that are drawn to the list that it yields."""
        self.recorded = []
        try:
            yield self.recorded
        finally:
            self.recorded = None

    @contextmanager
    def replay(self, masks: Sequence[Tensor]) -> Iterator[None]:
        """Within this context, use these masks in their order and draw none."""
        self.replayed = iter(masks)
        try:
            yield
        finally:
            self.replayed = None
