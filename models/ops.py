"""The candidate operations of both search spaces, for feature maps (CNN) and for sequences (SeqNN).

`MAP_OPS` and `SEQUENCE_OPS` map the name of an op to a function `make(channels, stride, affine)` that builds it.
`none` has no module: its output is zero, and it is never computed.

Shapes: N utterances, C channels, F coefficients, T frames or time steps. Feature maps are (N, C, F, T), sequences
(N, T, C). Every op keeps C; stride 2 halves F and T, rounding up.
Sources: Liu et al., DARTS (ICLR 2019), section 3.1; Rajapakshe et al., emoDARTS (IEEE Access 2024), section III.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MakeOp = Callable[[int, int, bool], nn.Module]
Kernel = tuple[int, int]
"""The extent of a kernel along F and T."""


# ---------------------------------------------------------------- feature maps


class Pool(nn.Module):
    """3 x 3 pooling, then BatchNorm, so that pools and convolutions compete at the same scale."""

    def __init__(self, kind: str, channels: int, stride: int, affine: bool):
        super().__init__()
        if kind == "max":
            self.pooling = nn.MaxPool2d(3, stride, padding=1)
        else:
            self.pooling = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pooling(x))


class ConvUnit(nn.Module):
    """ReLU, depthwise convolution, pointwise convolution, BatchNorm."""

    def __init__(self, kernel: Kernel, dilation: int, channels: int, stride: int, affine: bool):
        super().__init__()
        padding = tuple(dilation * (side - 1) // 2 for side in kernel)
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(F.relu(x))))


def separable_conv(
    kernel: Kernel, channels: int, stride: int, affine: bool, conv_unit: type[ConvUnit] = ConvUnit
) -> nn.Module:
    """Two depthwise-separable convolutions without dilation; the first one has the stride."""
    return nn.Sequential(
        conv_unit(kernel, 1, channels, stride, affine),
        conv_unit(kernel, 1, channels, 1, affine),
    )


class FactorizedReduce(nn.Module):
    """Halve F and T, rounding up, by two pointwise convolutions on grids that are one step apart.

    The grids are sliced before the convolutions, which then have stride 1. The weight gradient of a strided pointwise
    convolution in oneDNN 3.10 writes outside its memory for channels_last maps of few channels (oneDNN issue 6035).
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
        padded = F.pad(x, (0, 1, 0, 1))  # so that odd sizes round up as in the even grid
        odd = padded[:, :, 1::2, 1::2]
        return self.norm(torch.cat([self.even(even), self.odd(odd)], dim=1))  # (N, C_out, F/2, T/2)


def skip_maps(reduce: type[FactorizedReduce], channels: int, stride: int, affine: bool) -> nn.Module:
    """The identity, or with stride 2 a factorized reduction."""
    return nn.Identity() if stride == 1 else reduce(channels, channels, affine)


def map_ops(
    conv_unit: type[ConvUnit] = ConvUnit,
    pool: type[Pool] = Pool,
    reduce: type[FactorizedReduce] = FactorizedReduce,
) -> dict[str, MakeOp]:
    """The ops of the CNN, built from these modules."""
    return {
        "max_pool_3x3": partial(pool, "max"),
        "avg_pool_3x3": partial(pool, "avg"),
        "skip_connect": partial(skip_maps, reduce),
        "sep_conv_3x3": partial(separable_conv, (3, 3), conv_unit=conv_unit),
        "sep_conv_5x5": partial(separable_conv, (5, 5), conv_unit=conv_unit),
        "dil_conv_3x3": partial(conv_unit, (3, 3), 2),
        "dil_conv_5x5": partial(conv_unit, (5, 5), 2),
        "sep_conv_7x1": partial(separable_conv, (7, 1), conv_unit=conv_unit),
        "sep_conv_1x7": partial(separable_conv, (1, 7), conv_unit=conv_unit),
    }


MAP_OPS: Mapping[str, MakeOp] = map_ops()


# ---------------------------------------------------------------- sequences


class Recurrent(nn.Module):
    """A unidirectional LSTM or RNN of several layers over time: (N, T, C) -> (N, T, C)."""

    def __init__(self, rnn_class: type[nn.RNNBase], layers: int, channels: int):
        super().__init__()
        self.rnn = rnn_class(channels, channels, layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class RecurrentAttention(nn.Module):
    """A bidirectional LSTM or RNN of several layers, then additive attention over time: (N, T, C) -> (N, T, C)."""

    def __init__(self, rnn_class: type[nn.RNNBase], layers: int, channels: int):
        super().__init__()
        self.rnn = rnn_class(channels, channels, layers, batch_first=True, bidirectional=True)
        self.context = Context(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.context(self.rnn(x)[0])


class Context(nn.Module):
    """Add to every step what attention sums up of all steps: (N, T, 2C) -> (N, T, C), y_t = W h_t + V c + b."""

    def __init__(self, channels: int):
        super().__init__()
        self.key = nn.Linear(2 * channels, channels)
        self.score = nn.Linear(channels, 1, bias=False)
        self.project = nn.Linear(2 * channels, channels)
        self.project_context = nn.Linear(2 * channels, channels, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        context = attend(h, self.key, self.score)  # (N, 2C)
        return self.project(h) + self.project_context(context).unsqueeze(1)


def attend(h: Tensor, key: nn.Module, score: nn.Module) -> Tensor:
    """Additive attention over time (Bahdanau et al., ICLR 2015, eq. 6): (N, T, C) -> (N, C).

    e_t = v . tanh(U h_t), a = softmax_t(e), c = sum_t a_t h_t, where U is `key` and v is `score`.
    """
    attention = score(torch.tanh(key(h))).softmax(dim=1)  # (N, T, 1)
    return (attention * h).sum(dim=1)


def skip_sequence(channels: int, stride: int, affine: bool) -> nn.Module:
    """The identity."""
    return nn.Identity()


MAX_LAYERS = {"lstm": 4, "rnn": 4, "lstm_att": 2, "rnn_att": 2}
"""The families of recurrent ops, FAMILY_1 to FAMILY_K, which differ in their number of layers; the values are K."""

RnnClasses = Mapping[str, type[nn.RNNBase]]
RNN_CLASSES: RnnClasses = {"lstm": nn.LSTM, "rnn": nn.RNN}


def recurrent_op(
    family: str, layers: int, rnn_classes: RnnClasses, channels: int, stride: int, affine: bool
) -> nn.Module:
    """The op FAMILY_LAYERS. Sequences have neither stride nor affine normalisation."""
    rnn, _, attention = family.partition("_")
    op_class = RecurrentAttention if attention else Recurrent
    return op_class(rnn_classes[rnn], layers, channels)


def sequence_ops(rnn_classes: RnnClasses) -> dict[str, MakeOp]:
    """The ops of the SeqNN, built from these recurrent modules."""
    recurrent = {
        f"{family}_{layers}": partial(recurrent_op, family, layers, rnn_classes)
        for family, most in MAX_LAYERS.items()
        for layers in range(1, most + 1)
    }
    return {**recurrent, "skip_connect": skip_sequence}


SEQUENCE_OPS: Mapping[str, MakeOp] = sequence_ops(RNN_CLASSES)
