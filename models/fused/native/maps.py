"""Feature maps in C++: depthwise convolutions past a ReLU and their gradients, sums over pixels, weighted sums of maps.

Shapes: N utterances, C channels, F coefficients, T frames, k the kernel's side (3 or 5); maps (N, C, F, T) in
channels_last memory format, of 32 or 64 bits and a multiple of 8 channels; depthwise kernels (C, 1, k, k).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.fused import native
from models.fused.native import call

STRIP, PART = 8, 1024  # rows, pixels: whose sums the C++ code leaves apart


def usable(*maps: Tensor, side: int = 3) -> bool:
    """Whether such maps, and kernels of this side, are computed here."""
    return side in (3, 5) and all(native.usable(x.shape[1], x) for x in maps)


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """z = k * relu(x)."""
    x, (n, c, f, t), side = dense(x), x.shape, weight.shape[-1]
    z = torch.empty(n, c, -(-f // stride), -(-t // stride), dtype=x.dtype, memory_format=torch.channels_last)
    call("depthwise", x.dtype, x, weight.contiguous(), z, n, f, t, c, side, stride, dilation)
    return z


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, by_x: bool, by_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of z = k * relu(x) from that by z: by x and by k; None where nobody asks."""
    g, x, (n, c, f, t), side = dense(g), dense(x), x.shape, weight.shape[-1]
    at_once = 16 if c % 16 == 0 else 8
    d_x = torch.empty_like(x) if by_x else None
    d_k = (
        torch.zeros(n * -(-f // STRIP), c // at_once, side**2, at_once, dtype=torch.float64)
        if by_weight
        else None
    )
    call("gradients", x.dtype, g, x, weight.contiguous(), d_x, d_k, n, f, t, c, side, stride, dilation)
    return d_x, d_k.sum(dim=0).transpose(1, 2).reshape(weight.shape).to(x.dtype) if by_weight else None


def moments(xs: Sequence[Tensor], ys: Sequence[Tensor], m: int) -> Tensor:
    """Of K pairs of maps of C and C' channels the sums over all pixels of x y', and below of y: (K, C + 1, C').

    Of x y' only the m blocks on the diagonal mean anything.
    """
    xs, ys, of_x, of_y = [*map(dense, xs)], [*map(dense, ys)], xs[0].shape[1], ys[0].shape[1]
    pixels = xs[0].numel() // of_x
    out = torch.empty(-(-pixels // PART), len(xs), of_x + 1, of_y, dtype=torch.float64)
    call("moments", xs[0].dtype, xs, ys, len(xs), m, out, pixels, of_x, of_y)
    return out.sum(dim=0).to(xs[0].dtype)


def dots(x: Tensor, ys: Sequence[Tensor]) -> Tensor:
    """The sums over all pixels of x, and of x times each of K maps: (1 + K, C)."""
    x, ys, c = dense(x), [*map(dense, ys)], x.shape[1]
    pixels = x.numel() // c
    out = torch.empty(-(-pixels // PART), 1 + len(ys), c, dtype=torch.float64)
    call("dots", x.dtype, x, ys, len(ys), out, pixels, c)
    return out.sum(dim=0).to(x.dtype)


def affine(constant: Tensor, terms: Sequence[tuple[Tensor, Tensor]], m: int) -> Tensor:
    """constant (C,) + a sum of maps, each times a matrix (C', C) on its channels or a factor (C,) for each.

    Matrices are block-diagonal, of m blocks.
    """
    maps, factors = [dense(x) for x, _ in terms], [factor.contiguous() for _, factor in terms]
    widths = [len(factor) if factor.dim() == 2 else 0 for factor in factors]
    (n, _, f, t), c, dtype = maps[0].shape, len(constant), maps[0].dtype
    out = torch.empty(n, c, f, t, dtype=dtype, memory_format=torch.channels_last)
    call("affine", dtype, maps, factors, widths, len(maps), constant.contiguous(), m, out, n * f * t, c)
    return out


def dense(x: Tensor) -> Tensor:
    """(N, C, F, T) that lies in memory as (N, F, T, C)."""
    return x.contiguous(memory_format=torch.channels_last)
