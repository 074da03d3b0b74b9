"""Operations on feature maps in C++: depthwise convolutions, sums over pixels, weighted sums of maps.

Shapes: N utterances, C channels, a multiple of 8, F coefficients, T frames, k the side of a kernel (3
or 5); maps (N, C, F, T) in channels_last memory format, float32 or float64; depthwise kernels
(C, 1, k, k).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.fused import native
from models.fused.native import call

# The C++ code returns one sum for each strip of rows, or for each part of the pixels (see lanes.h).
STRIP = 8  # rows
PART = 1024  # pixels


def supports(*maps: Tensor, side: int = 3) -> bool:
    """Whether the compiled code can process these maps, and kernels of this side."""
    return side in (3, 5) and all(native.supports(x.shape[1], x) for x in maps)


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Convolve each channel of relu(x) with its kernel."""
    x, (n, c, f, t) = channels_last(x), x.shape
    size = n, c, -(-f // stride), -(-t // stride)
    z = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    call("depthwise", x.dtype, x, weight.contiguous(), z, n, f, t, c, weight.shape[-1], stride, dilation)
    return z


def depthwise_gradients(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, needs_x: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `depthwise` with respect to x and the weights; None if not needed."""
    g, x, (n, c, f, t), side = channels_last(g), channels_last(x), x.shape, weight.shape[-1]
    at_once = 16 if c % 16 == 0 else 8  # channels
    d_x = torch.empty_like(x) if needs_x else None
    sums = None
    if needs_weight:
        sums = torch.zeros(n * -(-f // STRIP), c // at_once, side**2, at_once, dtype=torch.float64)
    call(
        "depthwise_gradients",
        x.dtype,
        g,
        x,
        weight.contiguous(),
        d_x,
        sums,
        n,
        f,
        t,
        c,
        side,
        stride,
        dilation,
    )
    if not needs_weight:
        return d_x, None
    return d_x, sums.sum(dim=0).transpose(1, 2).reshape(weight.shape).to(x.dtype)


def product_sums(xs: Sequence[Tensor], ys: Sequence[Tensor], m: int) -> Tensor:
    """The sums of x y' over all pixels for K pairs of maps, and in the last row of y: (K, C + 1, C').

    Only the m blocks on the diagonal of x y' are defined.
    """
    xs, ys = [channels_last(x) for x in xs], [channels_last(y) for y in ys]
    channels_x, channels_y = xs[0].shape[1], ys[0].shape[1]
    pixels = xs[0].numel() // channels_x
    sums = torch.empty(-(-pixels // PART), len(xs), channels_x + 1, channels_y, dtype=torch.float64)
    call("product_sums", xs[0].dtype, xs, ys, len(xs), m, sums, pixels, channels_x, channels_y)
    return sums.sum(dim=0).to(xs[0].dtype)


def channel_sums(x: Tensor, ys: Sequence[Tensor]) -> Tensor:
    """The sums over all pixels of x, and of x times each of K maps: (1 + K, C)."""
    x, ys, channels = channels_last(x), [channels_last(y) for y in ys], x.shape[1]
    pixels = x.numel() // channels
    sums = torch.empty(-(-pixels // PART), 1 + len(ys), channels, dtype=torch.float64)
    call("channel_sums", x.dtype, x, ys, len(ys), sums, pixels, channels)
    return sums.sum(dim=0).to(x.dtype)


def weighted_sum(constant: Tensor, terms: Sequence[tuple[Tensor, Tensor]], m: int) -> Tensor:
    """constant (C,), plus each map times a matrix (C', C) on its channels or one factor per channel (C,).

    Matrices are block-diagonal, with m blocks.
    """
    maps = [channels_last(x) for x, _ in terms]
    factors = [factor.contiguous() for _, factor in terms]
    widths = [len(factor) if factor.dim() == 2 else 0 for factor in factors]
    (n, _, f, t), c, dtype = maps[0].shape, len(constant), maps[0].dtype
    out = torch.empty(n, c, f, t, dtype=dtype, memory_format=torch.channels_last)
    call("weighted_sum", dtype, maps, factors, widths, len(maps), constant.contiguous(), m, out, n * f * t, c)
    return out


def channels_last(x: Tensor) -> Tensor:
    """The same maps, in memory as (N, F, T, C)."""
    return x.contiguous(memory_format=torch.channels_last)
