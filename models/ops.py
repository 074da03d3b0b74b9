"""The candidate operations of both search spaces: functions of feature maps (CNN) and of sequences (SeqNN).

Shapes: N utterances, C channels, F coefficients, T frames or time steps, k layers.
Feature maps are (N, C, F, T), sequences (N, T, C). Every op keeps C; stride 2 halves F and T, rounding up.
The table of each space maps an op's name to `make(channels, stride, affine)`; `none` is no module: its output is zero.
Sources: Liu et al., DARTS (ICLR 2019), section 3.1; Rajapakshe et al., emoDARTS (IEEE Access 2024), section III.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fused.rnn.tanh_scan import recur

MakeOp = Callable[[int, int, bool], nn.Module]


class Pool(nn.Module):
    """3 x 3 pooling, then BatchNorm, so that pools and convolutions compete at one scale."""

    def __init__(self, kind: str, channels: int, stride: int, affine: bool):
        super().__init__()
        self.pooling = {
            "max": nn.MaxPool2d(3, stride, padding=1),
            "avg": nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
        }[kind]
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pooling(x))


class ConvUnit(nn.Module):
    """ReLU, depthwise convolution, pointwise convolution, BatchNorm."""

    def __init__(self, kernel: int, dilation: int, channels: int, stride: int, affine: bool):
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(F.relu(x))))


def separable_conv(kernel: int, channels: int, stride: int, affine: bool) -> nn.Module:
    """Two undilated depthwise-separable convolutions; the first one carries the stride."""
    return nn.Sequential(
        ConvUnit(kernel, 1, channels, stride, affine),
        ConvUnit(kernel, 1, channels, 1, affine),
    )


def skip_maps(channels: int, stride: int, affine: bool) -> nn.Module:
    """Identity, or with stride 2 a factorised reduction."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


class FactorizedReduce(nn.Module):
    """Halve F and T, rounding up, by two pointwise convolutions on grids one step apart: each sees what one skips.

    The grids are taken before: oneDNN 3.10 computes the weights' gradient of a pointwise convolution of stride 2 beyond
    the memory that it has taken, where the maps are channels_last and have fewer channels than fit a register (its
    issue 6035). That ends in `free(): invalid size`, if it is noticed at all.
    """

    def __init__(self, channels_in: int, channels_out: int, affine: bool):
        super().__init__()
        half = channels_out // 2
        self.even = nn.Conv2d(channels_in, half, 1, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - half, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)  # (N, C_in, F, T)
        even = x[:, :, ::2, ::2]
        odd = F.pad(x, (0, 1, 0, 1))[
            :, :, 1::2, 1::2
        ]  # the padding lets odd sizes round up like the even grid
        return self.norm(torch.cat([self.even(even), self.odd(odd)], dim=1))  # (N, C_out, F/2, T/2)


class Recurrent(nn.Module):
    """A unidirectional k-layer LSTM or RNN over time: (N, T, C) -> (N, T, C)."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, channels: int):
        super().__init__()
        self.rnn = kind(channels, channels, layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return recur(self.rnn, x)


Linear = Callable[[Tensor], Tensor]


def attended(h: Tensor, key: Linear, score: Linear) -> Tensor:
    """The steps weighed by additive attention: (N, T, C) -> (N, C).

    With U the `key` and v the `score`: e_t = v . tanh(U h_t), a = softmax_t(e), sum_t a_t h_t
    (Bahdanau et al., ICLR 2015, eq. 6).
    """
    attention = score(torch.tanh(key(h))).softmax(dim=1)  # (N, T, 1)
    return (attention * h).sum(dim=1)


def joined(h: Tensor, key: Linear, score: Linear, project: Linear, project_context: Linear) -> Tensor:
    """Every step joined by what attention makes of all of them: (N, T, 2C) -> (N, T, C), y_t = W h_t + V c + b."""
    context = attended(h, key, score)  # (N, 2C)
    return project(h) + project_context(context).unsqueeze(1)


class Context(nn.Module):
    """`joined` with weights of its own: (N, T, 2C) -> (N, T, C)."""

    parts = ("key", "score", "project", "project_context")

    def __init__(self, channels: int):
        super().__init__()
        self.key = nn.Linear(2 * channels, channels)
        self.score = nn.Linear(channels, 1, bias=False)
        self.project = nn.Linear(2 * channels, channels)
        self.project_context = nn.Linear(2 * channels, channels, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return joined(h, *(getattr(self, part) for part in self.parts))


class RecurrentAttention(nn.Module):
    """A bidirectional k-layer LSTM or RNN, then additive attention over time: (N, T, C) -> (N, T, C)."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, channels: int):
        super().__init__()
        self.rnn = kind(channels, channels, layers, batch_first=True, bidirectional=True)
        self.context = Context(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.context(recur(self.rnn, x))


def sequence_op(
    block: type[nn.Module], kind: type[nn.RNNBase], layers: int, channels: int, *_: int
) -> nn.Module:
    """A recurrent op; sequences know neither stride nor affine normalisation."""
    return block(kind, layers, channels)


def skip_sequence(channels: int, stride: int, affine: bool) -> nn.Module:
    """The sequence as it is."""
    return nn.Identity()


MAP_OPS: Mapping[str, MakeOp] = {
    "max_pool_3x3": partial(Pool, "max"),
    "avg_pool_3x3": partial(Pool, "avg"),
    "skip_connect": skip_maps,
    "sep_conv_3x3": partial(separable_conv, 3),
    "sep_conv_5x5": partial(separable_conv, 5),
    "dil_conv_3x3": partial(ConvUnit, 3, 2),
    "dil_conv_5x5": partial(ConvUnit, 5, 2),
}

FAMILIES: Mapping[str, tuple[type[nn.Module], type[nn.RNNBase], int]] = {
    "lstm": (Recurrent, nn.LSTM, 4),
    "rnn": (Recurrent, nn.RNN, 4),
    "lstm_att": (RecurrentAttention, nn.LSTM, 2),
    "rnn_att": (RecurrentAttention, nn.RNN, 2),
}
"""The recurrent ops FAMILY_1 to FAMILY_K, which differ in their number of layers: block, kind, K."""

SEQUENCE_OPS: Mapping[str, MakeOp] = {
    **{
        f"{family}_{k}": partial(sequence_op, block, kind, k)
        for family, (block, kind, deepest) in FAMILIES.items()
        for k in range(1, deepest + 1)
    },
    "skip_connect": skip_sequence,
}
