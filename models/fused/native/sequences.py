"""A tanh RNN's recurrence in C++: all time steps at once, each thread with sequences of its own.

Shapes: T time steps, N utterances, H channels, a multiple of 8; sequences (T, N, H), weights (H, H).
"""

import torch
from torch import Tensor

from models.fused import native
from models.fused.native import call


def usable(x: Tensor) -> bool:
    """Whether such sequences are computed here."""
    return native.usable(x.shape[2], x)


def recurred(z: Tensor, u: Tensor) -> Tensor:
    """h_t = tanh(z_t + U h_{t-1}), h_{-1} = 0."""
    h = torch.empty(z.shape, dtype=z.dtype)
    call("recur", z.dtype, z.contiguous(), u.T.contiguous(), h, *z.shape)
    return h


def back(g: Tensor, h: Tensor, u: Tensor) -> Tensor:
    """The gradient by z, from that by h."""
    d = torch.empty(h.shape, dtype=h.dtype)
    call("recur_back", h.dtype, g.contiguous(), h, u.contiguous(), d, *h.shape)
    return d
