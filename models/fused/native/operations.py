"""The operations in C++: depthwise convolutions, sums and weighted sums of feature maps, BatchNorm, a recurrence.

Tensors are float32 or float64, on a CPU, with a multiple of 8 channels, if nothing else is said.

Shapes: N utterances, C channels, F coefficients, T frames, k the side of a kernel (3 or 5); maps
(N, C, F, T) in channels_last memory format, depthwise kernels (C, 1, k, k); sequences (T, N, C).
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.fused.native import compiler

TYPES = {torch.float32: "float", torch.float64: "double"}

# The C++ code returns one sum for each strip of rows, or for each part of the pixels (see lanes.h).
STRIP = 8  # rows
PART = 1024  # pixels


def supports(*tensors: Tensor, side: int = 3) -> bool:
    """Whether the compiled code can process these maps or sequences, with kernels of this side."""
    for x in tensors:
        channels = x.shape[1] if x.dim() == 4 else x.shape[-1]
        if x.device.type != "cpu" or x.dtype not in TYPES or channels % 8:
            return False
    return side in (3, 5) and compiler.library() is not None


def has_units(x: Tensor) -> bool:
    """Whether the compiled code can process maps of any number of channels by `pointwise_norm`."""
    return x.device.type == "cpu" and x.dtype in TYPES and compiler.library() is not None


def has_depthwise(channels: int, kernel: tuple[int, int]) -> bool:
    """Whether `depthwise` can process this number of channels, with kernels of these sides."""
    return kernel in ((3, 3), (5, 5)) and (channels % 8 == 0 or channels % 12 == 0)


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Convolve each channel of relu(x) with its kernel. The channels may also be a multiple of 12."""
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
    at_once = next(v for v in (16, 8, 12) if c % v == 0)  # channels
    d_x = torch.empty_like(x) if needs_x else None
    sums = None
    if needs_weight:
        sums = torch.zeros(n * -(-f // STRIP), c // at_once, side**2, at_once, dtype=torch.float64)
    size = n, f, t, c, side
    call("depthwise_gradients", x.dtype, g, x, weight.contiguous(), d_x, sums, *size, stride, dilation)
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


def pool(x: Tensor, stride: int, is_max: bool) -> Tensor:
    """The maxima or averages of windows of 3 x 3 pixels around each pixel, or every other row and column."""
    x, (n, c, f, t) = channels_last(x), x.shape
    size = n, c, -(-f // stride), -(-t // stride)
    out = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    call("pool", x.dtype, x, out, n, f, t, c, stride, is_max)
    return out


def pool_gradient(g: Tensor, x: Tensor, out: Tensor, stride: int, is_max: bool) -> Tensor:
    """The gradient of `pool` with respect to x; `out` is its output."""
    g, x, (n, c, f, t) = channels_last(g), channels_last(x), x.shape
    d_x = torch.empty_like(x)
    call("pool_gradient", x.dtype, g, x, out, d_x, n, f, t, c, stride, is_max)
    return d_x


class Normed(NamedTuple):
    """What `pointwise_norm` keeps for its gradients."""

    z: Tensor
    weight: Tensor | None
    y: Tensor
    """W z."""
    gamma: Tensor
    mean: Tensor
    variance: Tensor
    scale: Tensor
    """1 / sqrt(variance + eps)."""


def pointwise_norm(
    z: Tensor, weight: Tensor | None, gamma: Tensor, beta: Tensor, norm: nn.BatchNorm2d, relu: bool
) -> tuple[Tensor, Normed]:
    """gamma (y - mean) / sqrt(variance + eps) + beta, y = W z or W relu(z), for any numbers of channels.

    The weight is (C, C'); without one, y = z. In training, mean and variance are those of y, else the running ones.
    The running statistics are not updated.
    """
    z, (n, width, f, t), channels = channels_last(z), z.shape, len(gamma)
    out = torch.empty(n, channels, f, t, dtype=z.dtype, memory_format=torch.channels_last)
    y = z if weight is None else torch.empty_like(out)
    scale = torch.empty_like(gamma)
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = torch.empty_like(gamma), torch.empty_like(gamma)
    saved = Normed(z, None if weight is None else weight.contiguous(), y, gamma, mean, variance, scale)
    size = n * f * t, width, channels
    call("pointwise_norm", z.dtype, *saved, beta, out, *size, relu, norm.training, norm.eps)
    return out, saved


def pointwise_norm_gradients(
    g: Tensor, saved: Normed, relu: bool, training: bool, needs_z: bool
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    """The gradients of `pointwise_norm` with respect to z (None if not needed), W, gamma and beta."""
    g, (n, width, f, t), channels = channels_last(g), saved.z.shape, len(saved.gamma)
    d_z = torch.empty_like(saved.z) if needs_z else None
    d_weight = None if saved.weight is None else torch.empty_like(saved.weight)
    d_gamma, d_beta = torch.empty_like(saved.gamma), torch.empty_like(saved.gamma)
    gradients = d_z, d_weight, d_gamma, d_beta
    size = n * f * t, width, channels
    call("pointwise_norm_gradients", g.dtype, g, *saved, *gradients, *size, relu, training)
    return gradients


def channels_last(x: Tensor) -> Tensor:
    """The same maps, in memory as (N, F, T, C)."""
    return x.contiguous(memory_format=torch.channels_last)


def tanh_scan(z: Tensor, u: Tensor) -> Tensor:
    """h_t = tanh(z_t + U h_{t-1}), h_{-1} = 0: z (T, N, C), U (C, C) -> (T, N, C)."""
    h = torch.empty(z.shape, dtype=z.dtype)
    call("tanh_scan", z.dtype, z.contiguous(), u.T.contiguous(), h, *z.shape)
    return h


def tanh_scan_backward(g: Tensor, h: Tensor, u: Tensor) -> Tensor:
    """The gradient with respect to z, from the gradient g with respect to h."""
    d = torch.empty(h.shape, dtype=h.dtype)
    call("tanh_scan_backward", h.dtype, g.contiguous(), h, u.contiguous(), d, *h.shape)
    return d


def call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Call a C++ function for numbers of `dtype`. The number of threads is added as the last argument."""
    function = getattr(compiler.library(), f"{name}_{TYPES[dtype]}")
    function(*map(to_c, arguments), ctypes.c_int(torch.get_num_threads()))


def to_c(argument: Tensor | list[Tensor] | list[int] | int | float | None) -> Any:
    """An argument as C takes it: a number, an array of numbers, or an array of arrays."""
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    if isinstance(argument, list):
        is_numbers = argument and isinstance(argument[0], int)
        kind = ctypes.c_int64 if is_numbers else ctypes.c_void_p
        return (kind * len(argument))(*(argument if is_numbers else [x.data_ptr() for x in argument]))
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())
