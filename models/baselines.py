"""Baselines: the networks designed by hand with which emoDARTS compares (Rajapakshe et al., IEEE Access 2024).

Layers and widths are the published ones, down to the convolution of one channel and the heads without activations.
Mended is what kept them from being what their names say, and would have made the comparison too easy to win:

- Time is the axis of a sequence: a step is a frame. As published, a whole picture was one step, and the utterances of a
  batch made up the sequence.
- What the steps have put out is averaged over time, as in a searched network, or weighed by the attention: clips are
  padded at their end, and a last state would have heard mostly silence.
- Attention weighs steps; as published, it weighed the units of each.
- Float32Linear come out; as published, a softmax over the utterances of a batch.

Shapes: N utterances, C channels, F coefficients, T frames, H units; input (N, 1, F, T), output (N, classes).
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from models.bf16 import Float32Linear
from models.ops import attend

Shape = tuple[int, int]
"""(F, T) of the input."""

DROPOUT = 0.3
HIDDEN = 32  # units between what is heard and the classes


def cnn(classes: int, shape: Shape) -> nn.Module:
    """A convolution, max-pooling, two linear layers."""
    coefficients, frames = pooled_shape(shape)
    return nn.Sequential(*front(), nn.Flatten(), *head(coefficients * frames, classes, DROPOUT))


def rnn(classes: int, shape: Shape) -> nn.Module:
    """Three recurrent layers of width 512 over the frames, two linear layers."""
    recurrent = Recurrence(nn.RNN(shape[0], 512, num_layers=3, batch_first=True))
    return nn.Sequential(recurrent, MeanOverTime(), *head(512, classes))


def lstm(classes: int, shape: Shape) -> nn.Module:
    """An LSTM of width 512 over the frames, two linear layers."""
    recurrent = Recurrence(nn.LSTM(shape[0], 512, batch_first=True))
    return nn.Sequential(recurrent, MeanOverTime(), *head(512, classes))


def cnn_lstm(classes: int, shape: Shape) -> nn.Module:
    """A convolution, max-pooling, an LSTM of width 128 in both directions, two linear layers."""
    return nn.Sequential(*front(), both_ways(shape), MeanOverTime(), *head(256, classes, DROPOUT))


def cnn_lstm_att(classes: int, shape: Shape) -> nn.Module:
    """A convolution, max-pooling, an LSTM of width 128 in both directions, attention over time, a linear layer."""
    return nn.Sequential(*front(), both_ways(shape), Attention(256), Float32Linear(256, classes))


BASELINES: Mapping[str, Callable[[int, Shape], nn.Module]] = {
    "cnn": cnn,
    "rnn": rnn,
    "lstm": lstm,
    "cnn_lstm": cnn_lstm,
    "cnn_lstm_att": cnn_lstm_att,
}


def front() -> list[nn.Module]:
    """(N, 1, F, T) -> (N, 1, F', T') of `pooled_shape`."""
    return [nn.Conv2d(1, 1, kernel_size=2, stride=2, padding=2), nn.MaxPool2d(2)]


def pooled_shape(shape: Shape) -> Shape:
    """(F', T') behind the `front`: a quarter each, and one for the padding."""
    coefficients, frames = shape
    return coefficients // 4 + 1, frames // 4 + 1


def both_ways(shape: Shape) -> nn.Module:
    """The LSTM behind the `front`: (N, 1, F', T') -> (N, T', 256)."""
    return Recurrence(nn.LSTM(pooled_shape(shape)[0], 128, batch_first=True, bidirectional=True))


def head(width: int, classes: int, dropout: float = 0.0) -> list[nn.Module]:
    """(N, width) -> (N, classes)."""
    return [nn.Linear(width, HIDDEN), nn.Dropout(dropout), Float32Linear(HIDDEN, classes)]


class Recurrence(nn.Module):
    """A recurrent network whose steps are the frames of a picture: (N, C, F, T) -> (N, T, H)."""

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
    """The steps weighed by additive attention, half as many units wide: (N, T, H) -> (N, H)."""

    def __init__(self, width: int):
        super().__init__()
        self.key = nn.Linear(width, width // 2)
        self.score = nn.Linear(width // 2, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return attend(h, self.key, self.score)
