"""Depthwise convolutions whose gradients are fast: the same sums as autograd's, asked of the library in other words.

On a CPU, oneDNN computes a depthwise convolution forward in much the same time whatever its shape, but its gradients
only with dilation 1 and, for the weights, a kernel at most 3 wide with 'same' padding: all else is 5 to 50 times
slower. So a gradient is brought into a shape that is fast:

- by the input: the convolution of the output's gradient with the mirrored kernel, which is a forward one;
- of stride 2: that of stride 1, whose output's gradient is zero where the stride skipped;
- by the weights, dilation 2: that of dilation 1 on the phases, the grids of every other row and every other column;
- by the weights, kernel 5: its three middle columns at once, the outer two as columns of their own.

Where there is a compiler, code of our own takes the place of all that (see `native`).

Shapes: N utterances, C channels, F coefficients, T frames, k the kernel's side (3 or 5);
maps (N, C, F, T), in channels_last memory format, weights (C, 1, k, k).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused.native import maps as native

CHANNELS_LAST = torch.channels_last


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Of relu(x) each channel with its own kernel; stride 2 halves F and T, rounding up."""
    if native.usable(x, side=weight.shape[-1]):
        return native.depthwise(x, weight, stride, dilation)
    return convolved(F.relu(x), weight, stride, dilation)


def convolved(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Of x itself."""
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, by_x: bool, by_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of `depthwise`, from that by its output: by x, and by the weights; None where nobody asks."""
    if native.usable(x, side=weight.shape[-1]):
        return native.gradients(g, x, weight, stride, dilation, by_x, by_weight)
    if stride == 2:
        g = spread(g, x.shape)
    d_x = torch.ops.aten.threshold_backward(input_gradient(g, weight, dilation), x, 0) if by_x else None
    return d_x, weight_gradient(g, F.relu(x), weight.shape[-1], dilation) if by_weight else None


def input_gradient(g: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """By the input of a convolution of stride 1."""
    return convolved(g, weight.flip(2, 3), 1, dilation)


def weight_gradient(g: Tensor, x: Tensor, kernel: int, dilation: int) -> Tensor:
    """By the weights of a convolution of stride 1."""
    if dilation == 2:
        return weight_gradient(phases(g), phases(x), kernel, 1).unflatten(0, (2, -1)).sum(dim=0)
    if kernel == 3:
        return _columns(g, x, 3, 3)
    left, right = (_columns(g, _shifted(x, by), kernel, 1) for by in (2, -2))
    return torch.cat([left, _columns(g, x, kernel, 3), right], dim=3)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Along T, with zeros coming in."""
    return F.pad(x, (by, -by)) if x.shape[3] > abs(by) else torch.zeros_like(x)


def _columns(g: Tensor, x: Tensor, rows: int, columns: int) -> Tensor:
    """By the middle columns of a kernel of `rows`."""
    channels, padding = x.shape[1], [rows // 2, columns // 2]
    like = x.new_empty(channels, 1, rows, columns)
    return torch.ops.aten.convolution_backward(
        g, x, like, None, [1, 1], padding, [1, 1], False, [0, 0], channels, [False, True, False]
    )[1]


def phases(x: Tensor) -> Tensor:
    """(N, C, F, T) -> (2N, 2C, F/2, T/2), rounding up: even and odd rows along N, even and odd columns along C.

    The columns are a mere view of channels_last memory; the rows take one copy.
    """
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)).permute(0, 2, 3, 1)  # (N, F, T, C), F and T even
    n, f, t, c = x.shape
    rows = x.reshape(n, f // 2, 2, t * c).transpose(1, 2)
    return rows.reshape(2 * n, f // 2, t // 2, 2 * c).permute(0, 3, 1, 2)


def spread(g: Tensor, size: torch.Size) -> Tensor:
    """The gradient at stride 2 as one of stride 1: zeros between its values."""
    full = torch.empty(size, dtype=g.dtype, device=g.device, memory_format=CHANNELS_LAST).zero_()
    full[:, :, ::2, ::2] = g
    return full
