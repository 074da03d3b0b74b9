"""The cell: a small directed graph of ops, the same for the CNN and for the SeqNN (Liu et al. 2019, section 2.1).

States 0 and 1 are the projected outputs of the two previous cells. Node i is state i + 2: the sum of ops applied to
earlier states. The output of the cell is the concatenation of its nodes.

Shapes: N utterances, C channels, F coefficients, T frames or time steps. Feature maps are (N, C, F, T), sequences
(N, T, C).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ops import MAP_OPS, RNN_CLASSES, SEQUENCE_OPS, FactorizedReduce, MakeOp, RnnClasses


class Cell(nn.Module):
    """A cell over two inputs of `inputs` = (C_prev_prev, C_prev) channels, each projected to `channels`.

    By default, a supernet uses a subclass of `models.fused` that computes the same output faster.

    `nodes` are modules that map the list of earlier states to a new state: relaxed nodes during the search, nodes with
    two ops in the derived network. If the previous cell was a reduction, the older input has twice the resolution of
    the other, and its projection halves it.
    """

    def __init__(
        self,
        cell_type: "CellType",
        nodes: Iterable[nn.Module],
        concat: Sequence[int],
        inputs: tuple[int, int],
        channels: int,
        reduction_prev: bool,
        affine: bool,
    ):
        super().__init__()
        self.project0 = cell_type.project(inputs[0], channels, 2 if reduction_prev else 1, affine)
        self.project1 = cell_type.project(inputs[1], channels, 1, affine)
        self.nodes = nn.ModuleList(nodes)
        self.concat = tuple(concat)
        self.channel_axis = cell_type.channel_axis
        self.out_channels = len(self.concat) * channels

    def forward(self, s0: Tensor, s1: Tensor, op_weights: Sequence[Tensor] | None = None) -> Tensor:
        """`op_weights`, for relaxed nodes only: the weights of the ops of each node, (edges, ops)."""
        states = [self.project0(s0), self.project1(s1)]
        for i, node in enumerate(self.nodes):
            new_state = node(states) if op_weights is None else node(states, op_weights[i])
            states.append(new_state)
        return torch.cat([states[i] for i in self.concat], dim=self.channel_axis)


class Projection(nn.Sequential):
    """ReLU, pointwise convolution, BatchNorm."""

    def __init__(self, channels_in: int, channels_out: int, affine: bool):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out, affine=affine),
        )


def project_maps(
    channels_in: int,
    channels_out: int,
    stride: int,
    affine: bool,
    projection: type[Projection] = Projection,
    reduce: type[FactorizedReduce] = FactorizedReduce,
) -> nn.Module:
    """A projection; with stride 2 a factorized reduction."""
    if stride == 2:
        return reduce(channels_in, channels_out, affine)
    return projection(channels_in, channels_out, affine)


class ProjectSequence(nn.Module):
    """Mean over `stride` steps, a linear map, LayerNorm: adapts any length and width to those of the SeqNN.

    LayerNorm rather than BatchNorm: it normalises each step by itself, so that neither padding nor the other utterances
    of the batch have an influence.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, affine: bool):
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(channels_in, channels_out)
        self.norm = nn.LayerNorm(channels_out, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:  # rounds up, as strided convolutions do
            x = F.avg_pool1d(x.transpose(1, 2), self.stride, ceil_mode=True).transpose(1, 2)
        return self.norm(self.linear(x))


@dataclass(frozen=True)
class CellType:
    """What differs between the cells of the CNN and those of the SeqNN."""

    ops: Mapping[str, MakeOp]
    project: Callable[[int, int, int, bool], nn.Module]
    """(channels_in, channels_out, stride, affine) -> the projection of an input of the cell."""
    channel_axis: int
    relaxed_cell: type[Cell] = Cell
    """The class of the cells of a supernet."""
    rnn_classes: RnnClasses = field(default_factory=lambda: RNN_CLASSES)
    """The recurrent modules that the ops of the SeqNN are built from."""


CNN = CellType(MAP_OPS, project_maps, channel_axis=1)
SEQ = CellType(SEQUENCE_OPS, ProjectSequence, channel_axis=2)
CELL_TYPES: Mapping[str, CellType] = {"normal": CNN, "reduce": CNN, "rnn": SEQ}
