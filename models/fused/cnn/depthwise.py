"""Depthwise convolutions after a ReLU, and their gradients, in forms that are fast on a CPU.

Compiled code computes them if a compiler works (see `native`). Otherwise this module calls the library. On a
CPU, the library (oneDNN) computes a depthwise convolution fast whatever its shape, but the gradients only
with dilation 1 and, for the weights, a kernel at most 3 wide with 'same' padding; other shapes take 5 to 50
times as long. So gradients are rewritten as sums of the same products:

- with respect to the input: the convolution of the output gradient with the mirrored kernel;
- stride 2: stride 1, with zeros in the output gradient where the stride skipped;
- with respect to the weights, dilation 2: dilation 1 on the four grids of every other row and column;
- with respect to the weights, kernel 5: the three middle columns at once, the outer two one by one.

Shapes: N utterances, C channels, F coefficients, T frames, k the side of the kernel (3 or 5); maps
(N, C, F, T) in channels_last memory format, weights (C, 1, k, k).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused.native import operations as native


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Convolve each channel of relu(x) with its kernel; stride 2 halves F and T, rounding up."""
    if native.supports(x, side=weight.shape[-1]):
        return native.depthwise(x, weight, stride, dilation)
    return convolve(F.relu(x), weight, stride, dilation)


def depthwise_gradients(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, needs_x: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `depthwise` with respect to x and the weights, from the output gradient g.

    A gradient that is not needed is None.
    """
    if native.supports(x, side=weight.shape[-1]):
        return native.depthwise_gradients(g, x, weight, stride, dilation, needs_x, needs_weight)
    if stride == 2:
        g = insert_zeros(g, x.shape)
    d_x = d_weight = None
    if needs_x:
        d_relu = convolve(g, weight.flip(2, 3), 1, dilation)
        d_x = torch.ops.aten.threshold_backward(d_relu, x, 0)
    if needs_weight:
        d_weight = weight_gradient(g, F.relu(x), weight.shape[-1], dilation)
    return d_x, d_weight


def convolve(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """A depthwise convolution of x itself, with 'same' padding."""
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


def weight_gradient(g: Tensor, x: Tensor, side: int, dilation: int) -> Tensor:
    """The gradient of `convolve` with stride 1 with respect to its weights, (C, 1, k, k)."""
    if dilation == 2:
        return weight_gradient(split_grids(g), split_grids(x), side, 1).unflatten(0, (2, -1)).sum(dim=0)
    if side == 3:
        return middle_columns_gradient(g, x, 3, 3)
    left = middle_columns_gradient(g, shift_frames(x, 2), side, 1)
    middle = middle_columns_gradient(g, x, side, 3)
    right = middle_columns_gradient(g, shift_frames(x, -2), side, 1)
    return torch.cat([left, middle, right], dim=3)


def middle_columns_gradient(g: Tensor, x: Tensor, rows: int, columns: int) -> Tensor:
    """The gradient with respect to the middle columns of kernels with `rows` rows."""
    channels, padding = x.shape[1], [rows // 2, columns // 2]
    like = x.new_empty(channels, 1, rows, columns)
    return torch.ops.aten.convolution_backward(
        g, x, like, None, [1, 1], padding, [1, 1], False, [0, 0], channels, [False, True, False]
    )[1]


def shift_frames(x: Tensor, by: int) -> Tensor:
    """Shift maps along T and fill with zeros."""
    return F.pad(x, (by, -by)) if x.shape[3] > abs(by) else torch.zeros_like(x)


def split_grids(x: Tensor) -> Tensor:
    """(N, C, F, T) -> (2N, 2C, F/2, T/2), rounding up: even and odd rows along N, columns along C.

    In channels_last memory format the columns are a view; the rows need one copy.
    """
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)).permute(0, 2, 3, 1)  # (N, F, T, C), F and T even
    n, f, t, c = x.shape
    rows = x.reshape(n, f // 2, 2, t * c).transpose(1, 2)
    return rows.reshape(2 * n, f // 2, t // 2, 2 * c).permute(0, 3, 1, 2)


def insert_zeros(g: Tensor, size: torch.Size) -> Tensor:
    """An output gradient for stride 2 as one for stride 1: zeros between its values."""
    full = torch.empty(size, dtype=g.dtype, device=g.device, memory_format=torch.channels_last).zero_()
    full[:, :, ::2, ::2] = g
    return full
