"""The joint CNN + SeqNN network around the cells: what the supernet and the derived network have in common.

    x -> stem -> CNN cells -> mean over frequency -> SeqNN cells -> mean over time -> linear -> logits
                    '-> auxiliary head at 2/3 of the depth (training only)

Shapes: N utterances, C channels, F coefficients, T frames; x (N, 1, F, T), logits (N, classes).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bf16 import Float32Linear
from models.cells import Cell
from models.dropout import Dropout
from models.recompute import recomputed


@dataclass(frozen=True)
class Size:
    """Depth and width. Reductions stand at 1/3 and 2/3 of the CNN's depth and double its channels."""

    layers: int
    init_channels: int
    rnn_layers: int
    rnn_channels: int
    stem_multiplier: int = 3

    @property
    def reductions(self) -> set[int]:
        return {self.layers // 3, 2 * self.layers // 3}


MakeCell = Callable[[str, tuple[int, int], int, bool], Cell]
"""(kind, input channels, channels, reduction_prev) -> the cell; kind is "normal", "reduce" or "rnn"."""


class JointNetwork(nn.Module):
    """CNN cells feeding SeqNN cells feeding a classifier; `make_cell` says what the cells are made of.

    `dropout` acts after each cell. With `auxiliary`, training mode returns (logits, auxiliary logits).
    With `recompute_cells`, only the inputs of cells are stored for backward.
    """

    def __init__(
        self,
        size: Size,
        classes: int,
        make_cell: MakeCell,
        dropout: float = 0.0,
        auxiliary: bool = False,
        recompute_cells: bool = False,
    ):
        super().__init__()
        channels = size.init_channels
        c0 = c1 = size.stem_multiplier * channels
        self.stem = nn.Sequential(nn.Conv2d(1, c1, 3, padding=1, bias=False), nn.BatchNorm2d(c1))
        self.cnn_cells, self.rnn_cells = nn.ModuleList(), nn.ModuleList()
        self.kinds = ["reduce" if i in size.reductions else "normal" for i in range(size.layers)]
        self.auxiliary_at = 2 * size.layers // 3 if auxiliary else None
        reduction_prev = False
        for i, kind in enumerate(self.kinds):
            channels *= 2 if kind == "reduce" else 1
            cell = make_cell(kind, (c0, c1), channels, reduction_prev)
            self.cnn_cells.append(cell)
            reduction_prev = kind == "reduce"
            c0, c1 = c1, cell.out_channels
            if i == self.auxiliary_at:
                self.auxiliary = AuxiliaryHead(c1, classes)
        for _ in range(size.rnn_layers):
            cell = make_cell("rnn", (c0, c1), size.rnn_channels, reduction_prev)
            self.rnn_cells.append(cell)
            reduction_prev = False
            c0, c1 = c1, cell.out_channels
        self.dropout = Dropout(dropout)
        self.recompute_cells = recompute_cells
        self.head = Float32Linear(c1, classes)

    def forward(
        self, x: Tensor, weights: Mapping[str, Sequence[Tensor]] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """`weights`, for relaxed cells only: per kind of cell and node the softmaxed alphas (edges, ops)."""
        weights = weights or {}
        s0 = s1 = self.stem(x).contiguous(
            memory_format=torch.channels_last
        )  # (N, C, F, T); the faster layout
        auxiliary_logits = None
        for i, (kind, cell) in enumerate(zip(self.kinds, self.cnn_cells, strict=True)):
            s0, s1 = s1, self.dropout(self._run(cell, s0, s1, weights.get(kind)))
            if i == self.auxiliary_at and self.training:
                auxiliary_logits = self.auxiliary(s1)
        s0, s1 = as_sequence(s0), as_sequence(s1)
        for cell in self.rnn_cells:
            s0, s1 = s1, self.dropout(self._run(cell, s0, s1, weights.get("rnn")))
        logits = self.head(s1.mean(dim=1))
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)

    def _run(self, cell: Cell, s0: Tensor, s1: Tensor, weights: Sequence[Tensor] | None) -> Tensor:
        return recomputed(cell, s0, s1, weights) if self.recompute_cells else cell(s0, s1, weights)


def as_sequence(maps: Tensor) -> Tensor:
    """The seam: feature maps (N, C, F, T) averaged over frequency into sequences (N, T, C). Time stays time."""
    return maps.mean(dim=2).transpose(1, 2)


class Quarters(nn.Module):
    """(N, C, F, T) -> (N, C, 2, 2): the mean of each quarter; those of odd maps share a row or a column.

    So does `nn.AdaptiveAvgPool2d(2)`, but on Apple's GPUs not with odd maps.
    """

    def forward(self, x: Tensor) -> Tensor:
        f, t = (max(n, 2) for n in x.shape[2:])
        return F.avg_pool2d(x.expand(-1, -1, f, t), ((f + 1) // 2, (t + 1) // 2), (f // 2, t // 2))


class AuxiliaryHead(nn.Module):
    """A small classifier on the maps at 2/3 of the depth; pooled to 2 x 2 first, so that any input size will do."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            Quarters(),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.classifier = Float32Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
