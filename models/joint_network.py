"""The joint CNN + SeqNN network around the cells, which the supernet and the derived network have in common.

    x -> deltas -> stem -> CNN cells -> means over bands -> SeqNN cells -> mean over time -> linear -> logits
                              '-> auxiliary head at 2/3 of the depth (training only)

Shapes: N utterances, C channels, F coefficients, T frames; x (N, 1, F, T), logits (N, classes).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from config import RunConfig
from models.auxiliary_head import AuxiliaryHead
from models.cells import Cell
from models.deltas import AppendDeltas
from models.dropout import Dropout
from models.passes import Float32Linear
from models.recompute import recompute_in_backward
from utils import UserError


@dataclass(frozen=True)
class Size:
    """Depth and width. The reduction cells are at 1/3 and 2/3 of the CNN's depth; each doubles the channels.

    With `stem_stride` 2, the stem halves F and T, which makes the CNN cells four times faster. `deltas` is the number
    of channels that are made from the input in front of the stem (see `models.deltas`). The SeqNN sees the means of the
    maps over each of `rnn_bands` bands of frequency.
    """

    layers: int
    init_channels: int
    rnn_layers: int
    rnn_channels: int
    stem_multiplier: int = 3
    stem_stride: int = 1
    deltas: int = 0
    rnn_bands: int = 1

    @property
    def kinds(self) -> list[str]:
        """The kind of each CNN cell: "normal" or "reduce"."""
        reductions = (self.layers // 3, 2 * self.layers // 3)
        return ["reduce" if i in reductions else "normal" for i in range(self.layers)]

    @property
    def stem_twice(self) -> tuple[str, ...]:
        """The kind of the first cell, if no other cell is of it: both its inputs are the output of the stem."""
        first, *others = self.kinds
        return () if first in others else (first,)

    def check_bands(self, coefficients: int) -> None:
        """Raise `UserError` if the last maps have fewer rows than there are bands, for features of F coefficients."""
        rows = -(-coefficients // (self.stem_stride * 2 ** self.kinds.count("reduce")))
        if self.rnn_bands > rows:
            raise UserError(
                f"--rnn_bands {self.rnn_bands}: the CNN's last map has {rows} rows for {coefficients} coefficients"
            )

    @classmethod
    def of(cls, config: RunConfig) -> "Size":
        """The size that the flags ask for."""
        return cls(
            config.layers,
            config.init_channels,
            config.rnn_layers,
            config.rnn_channels,
            stem_stride=config.stem_stride,
            deltas=config.deltas,
            rnn_bands=config.rnn_bands,
        )


MakeCell = Callable[[str, tuple[int, int], int, bool], Cell]
"""(kind, input channels, channels, reduction_prev) -> the cell; kind is "normal", "reduce" or "rnn"."""


class Stem(nn.Sequential):
    """A 3 x 3 convolution and BatchNorm; stride 2 halves F and T, rounding up."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1):
        conv = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels))


class JointNetwork(nn.Module):
    """CNN cells, SeqNN cells and a classifier; `make_cell` builds the cells.

    `dropout` is applied after each cell. With `auxiliary`, the network returns (logits, auxiliary logits) in training
    mode. With `recompute_cells`, only the inputs of the cells are stored for the backward pass.
    """

    def __init__(
        self,
        size: Size,
        classes: int,
        make_cell: MakeCell,
        dropout: float = 0.0,
        auxiliary: bool = False,
        recompute_cells: bool = False,
        stem: type[Stem] = Stem,
    ):
        super().__init__()
        self.kinds = size.kinds
        self.auxiliary_at = 2 * size.layers // 3 if auxiliary else None
        self.recompute_cells = recompute_cells
        channels = size.init_channels
        c0 = c1 = size.stem_multiplier * channels  # channels of the two previous outputs
        self.deltas = AppendDeltas(size.deltas) if size.deltas else nn.Identity()
        self.stem = stem(1 + size.deltas, c1, size.stem_stride)
        self.cnn_cells = nn.ModuleList()
        self.rnn_cells = nn.ModuleList()
        reduction_prev = False
        for i, kind in enumerate(self.kinds):
            channels *= 2 if kind == "reduce" else 1
            cell = make_cell(kind, (c0, c1), channels, reduction_prev)
            self.cnn_cells.append(cell)
            reduction_prev = kind == "reduce"
            c0, c1 = c1, cell.out_channels
            if i == self.auxiliary_at:
                self.auxiliary = AuxiliaryHead(c1, classes)
        self.rnn_bands = size.rnn_bands
        c0, c1 = c0 * size.rnn_bands, c1 * size.rnn_bands
        for _ in range(size.rnn_layers):
            cell = make_cell("rnn", (c0, c1), size.rnn_channels, reduction_prev)
            self.rnn_cells.append(cell)
            reduction_prev = False
            c0, c1 = c1, cell.out_channels
        self.dropout = Dropout(dropout)
        self.head = Float32Linear(c1, classes)

    def forward(
        self, x: Tensor, op_weights: Mapping[str, Sequence[Tensor]] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """`op_weights`, for relaxed cells only: by kind of cell, the weights of the ops of each node, (edges, ops)."""
        op_weights = op_weights or {}
        auxiliary_logits = None
        # (N, C, F, T), in the faster layout
        s0 = s1 = self.stem(self.deltas(x)).contiguous(memory_format=torch.channels_last)
        for i, (kind, cell) in enumerate(zip(self.kinds, self.cnn_cells, strict=True)):
            s0, s1 = s1, self.run(cell, s0, s1, op_weights.get(kind))
            if i == self.auxiliary_at and self.training:
                auxiliary_logits = self.auxiliary(s1)
        s0, s1 = (to_sequence(s, self.rnn_bands) for s in (s0, s1))  # (N, T, C)
        for cell in self.rnn_cells:
            s0, s1 = s1, self.run(cell, s0, s1, op_weights.get("rnn"))
        logits = self.head(s1.mean(dim=1))
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)

    def run(self, cell: Cell, s0: Tensor, s1: Tensor, op_weights: Sequence[Tensor] | None) -> Tensor:
        """The output of a cell, after dropout."""
        if self.recompute_cells:
            return self.dropout(recompute_in_backward(cell, s0, s1, op_weights))
        return self.dropout(cell(s0, s1, op_weights))


def to_sequence(maps: Tensor, bands: int = 1) -> Tensor:
    """Average feature maps (N, C, F, T) over each of B bands of frequency: a sequence (N, T, B C).

    Band b holds the rows from b F / B, rounded down, to (b + 1) F / B, rounded up, so that none is empty.
    """
    rows = maps.shape[2]
    parts = [maps[:, :, b * rows // bands : -(-(b + 1) * rows // bands)] for b in range(bands)]
    means = [part.mean(dim=2) for part in parts]
    return torch.cat(means, dim=1).transpose(1, 2)
