"""The recurrence of a tanh RNN in C++, over all time steps in one call.

Shapes: T time steps, N utterances, H channels, a multiple of 8; sequences (T, N, H), weights (H, H).
"""

import torch
from torch import Tensor

from models.fused import native
from models.fused.native import call


def supports(x: Tensor) -> bool:
    """Whether the compiled code can process these sequences."""
    return native.supports(x.shape[2], x)


def tanh_scan(z: Tensor, u: Tensor) -> Tensor:
    """h_t = tanh(z_t + U h_{t-1}), h_{-1} = 0."""
    h = torch.empty(z.shape, dtype=z.dtype)
    call("tanh_scan", z.dtype, z.contiguous(), u.T.contiguous(), h, *z.shape)
    return h


def tanh_scan_backward(g: Tensor, h: Tensor, u: Tensor) -> Tensor:
    """The gradient with respect to z, from the gradient g with respect to h."""
    d = torch.empty(h.shape, dtype=h.dtype)
    call("tanh_scan_backward", h.dtype, g.contiguous(), h, u.contiguous(), d, *h.shape)
    return d
