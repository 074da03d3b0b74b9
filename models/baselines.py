"""Baselines: networks designed by hand, with which a searched network is compared.

All but acrnn are those of emoDARTS (Rajapakshe et al., IEEE Access 2024). The layers and widths are the published ones,
including the convolution with one channel and the heads without activations. Four defects of the published code are
corrected, which would make the baselines too weak:

- A time step is a frame. In the published code, a whole input was one step, and the utterances of a batch formed the
  sequence.
- The outputs of all steps are averaged, as in a searched network, or weighted by attention. Clips are padded at the
  end, so that a last state would mostly depend on silence.
- Attention weights the steps. In the published code, it weighted the units of each step.
- The output is logits. In the published code, it was a softmax over the utterances of the batch.

Shapes: N utterances, C channels, F coefficients, T frames, H units; input (N, 1, F, T), output (N, classes).
"""

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from models.deltas import AppendDeltas
from models.ops import attend
from models.passes import Float32Linear

Shape = tuple[int, int]
"""(F, T) of the input."""

DROPOUT = 0.3
HEAD_UNITS = 32


def cnn(classes: int, shape: Shape) -> nn.Module:
    """A convolution, max-pooling, two linear layers."""
    coefficients, frames = pooled_shape(shape)
    return nn.Sequential(*conv_and_pool(), nn.Flatten(), *head(coefficients * frames, classes, DROPOUT))


def rnn(classes: int, shape: Shape) -> nn.Module:
    """Three recurrent layers of width 512 over the frames, two linear layers."""
    recurrent = OverFrames(nn.RNN(shape[0], 512, num_layers=3, batch_first=True))
    return nn.Sequential(recurrent, MeanOverTime(), *head(512, classes))


def lstm(classes: int, shape: Shape) -> nn.Module:
    """An LSTM of width 512 over the frames, two linear layers."""
    recurrent = OverFrames(nn.LSTM(shape[0], 512, batch_first=True))
    return nn.Sequential(recurrent, MeanOverTime(), *head(512, classes))


def cnn_lstm(classes: int, shape: Shape) -> nn.Module:
    """A convolution, max-pooling, a bidirectional LSTM of width 128, two linear layers."""
    return nn.Sequential(
        *conv_and_pool(), bidirectional_lstm(shape), MeanOverTime(), *head(256, classes, DROPOUT)
    )


def cnn_lstm_att(classes: int, shape: Shape) -> nn.Module:
    """A convolution, max-pooling, a bidirectional LSTM of width 128, attention over time, a linear layer."""
    return nn.Sequential(
        *conv_and_pool(), bidirectional_lstm(shape), Attention(256), Float32Linear(256, classes)
    )


def acrnn(classes: int, shape: Shape, deltas: int = 0) -> nn.Module:
    """Three convolutions of 32, 64 and 64 channels, a bidirectional LSTM of width 64, attention, a linear layer.

    A small form of the network of Chen et al., IEEE SPL 25 (2018), doi 10.1109/LSP.2018.2860246, which is not among the
    baselines of the emoDARTS paper. BatchNorm, ReLU and max-pooling follow each convolution; all three halve the
    coefficients, the first two the frames. `deltas` is the number of channels that are made from the input (see
    `models.deltas`); the network of the paper has 2.
    """
    coefficients = math.ceil(shape[0] / 8)
    return nn.Sequential(
        *([AppendDeltas(deltas)] if deltas else []),
        *conv_block(1 + deltas, 32, pool=(2, 2)),
        *conv_block(32, 64, pool=(2, 2)),
        *conv_block(64, 64, pool=(2, 1)),
        nn.Dropout(DROPOUT),
        OverFrames(nn.LSTM(64 * coefficients, 64, batch_first=True, bidirectional=True)),
        Attention(128),
        nn.Dropout(DROPOUT),
        Float32Linear(128, classes),
    )


BASELINES: Mapping[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "rnn": rnn,
    "lstm": lstm,
    "cnn_lstm": cnn_lstm,
    "cnn_lstm_att": cnn_lstm_att,
    "acrnn": acrnn,
}


def conv_block(channels_in: int, channels_out: int, pool: tuple[int, int]) -> list[nn.Module]:
    """(N, C, F, T) -> (N, C', F / pool[0], T / pool[1]), rounded up."""
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(pool, ceil_mode=True),
    ]


def conv_and_pool() -> list[nn.Module]:
    """(N, 1, F, T) -> (N, 1, F', T'); see `pooled_shape`."""
    return [nn.Conv2d(1, 1, kernel_size=2, stride=2, padding=2), nn.MaxPool2d(2)]


def pooled_shape(shape: Shape) -> Shape:
    """(F', T') behind `conv_and_pool`: a quarter of each, and one more for the padding."""
    coefficients, frames = shape
    return coefficients // 4 + 1, frames // 4 + 1


def bidirectional_lstm(shape: Shape) -> nn.Module:
    """The LSTM behind `conv_and_pool`: (N, 1, F', T') -> (N, T', 256)."""
    coefficients, _ = pooled_shape(shape)
    return OverFrames(nn.LSTM(coefficients, 128, batch_first=True, bidirectional=True))


def head(width: int, classes: int, dropout: float = 0.0) -> list[nn.Module]:
    """(N, width) -> (N, classes)."""
    return [nn.Linear(width, HEAD_UNITS), nn.Dropout(dropout), Float32Linear(HEAD_UNITS, classes)]


class OverFrames(nn.Module):
    """A recurrent module whose steps are the frames of its input: (N, C, F, T) -> (N, T, H)."""

    def __init__(self, rnn: nn.RNNBase):
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Tensor:
        steps = x.flatten(1, 2).transpose(1, 2)  # (N, T, C F)
        return self.rnn(steps)[0]


class MeanOverTime(nn.Module):
    """(N, T, H) -> (N, H)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class Attention(nn.Module):
    """Additive attention over time with H / 2 units: (N, T, H) -> (N, H)."""

    def __init__(self, width: int):
        super().__init__()
        self.key = nn.Linear(width, width // 2)
        self.score = nn.Linear(width // 2, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return attend(h, self.key, self.score)
