"""The convolutions and the weighted sum of a relaxed CNN edge, as two functions with gradients of their own.

An edge is o(x) = sum_k w_k BN(y_k) over its ops; w are its softmaxed alphas, y_k the maps before their BatchNorm
(without affine). What is done otherwise than it is written, with equal results:

- A map is centred as it is made: the mean of W z is W times the mean of z, so the pointwise convolution subtracts it as
  a bias, and BatchNorm is left with a scale, r = 1 / sqrt(mean(y^2) + eps).
- Inside an op, relu(r y) = r relu(y): the scale goes into the next depthwise kernel.
- In the sum, w r scales the map on its way into the sum. Its normalised form is never stored.
- Backward through BatchNorm is r (g - mean(g) - r^2 y mean(g y)); with g the sum's gradient, the last mean also gives
  d/dw_k = sum over channels of r sum(g y_k).
- What is cheap is not stored but computed again: a depthwise convolution's output, a ReLU's.

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded (see `folded`); statistics (mC,).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models import folded
from models.depthwise import CHANNELS_LAST, depthwise, input_gradient, spread, weight_gradient
from models.folded import block_diagonal, block_gradient, mean, over_copies, repeated


def centred(y: Tensor, norm: nn.BatchNorm2d, m: int) -> tuple[Tensor, Tensor]:
    """BatchNorm of a map, but for its scale: (centred map, scale). The running statistics are tracked.

    The mean is held fixed in backward: the gradient of what BatchNorm centres has no mean itself.
    """
    center = mean(y.detach(), m) if norm.training else norm.running_mean.repeat(m)
    y = y - column(center)
    return y, scale_of(y, center, norm, m)


def convolved(z: Tensor, kernel: Tensor, norm: nn.BatchNorm2d, m: int) -> tuple[Tensor, Tensor]:
    """`centred` of a pointwise convolution: the bias that centres it costs nothing."""
    center = center_of(z, kernel, norm, m)
    y = F.conv2d(z, kernel, -center)
    return y, scale_of(y, center, norm, m)


@torch.no_grad()
def center_of(z: Tensor, kernel: Tensor, norm: nn.BatchNorm2d, m: int) -> Tensor:
    """What BatchNorm subtracts from a pointwise convolution of z, (mC,)."""
    return over_copies(matrix(kernel) @ z.mean(dim=(0, 2, 3)), m) if norm.training else norm.running_mean.repeat(m)


@torch.no_grad()
def scale_of(y: Tensor, center: Tensor, norm: nn.BatchNorm2d, m: int) -> Tensor:
    """BatchNorm's scale of a centred map, (mC,)."""
    if not norm.training:
        return torch.rsqrt(norm.running_var.repeat(m) + norm.eps)
    variance = mean(y.square(), m)
    track(norm, center, variance, y.numel() // len(center) * m * folded.processes)
    return torch.rsqrt(variance + norm.eps)


def track(norm: nn.BatchNorm2d, center: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics as `nn.BatchNorm2d` does; `count` values stand behind each."""
    c = norm.num_features
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(center[:c], norm.momentum)
    norm.running_var.lerp_(variance[:c] * (count / max(count - 1, 1)), norm.momentum)


def through_norm(g: Tensor, y: Tensor, scale: Tensor, m: int) -> Tensor:
    """g - mean(g) - r^2 y mean(g y), in place of g."""
    correction = -scale.square() * mean(g * y, m)
    return g.sub_(column(mean(g, m))).addcmul_(y, column(correction))


def column(statistic: Tensor) -> Tensor:
    """(mC,) for maps."""
    return statistic.view(1, -1, 1, 1)


@dataclass(frozen=True)
class Convolutions:
    """The fixed parts of a convolution op: one unit, or two of a separable convolution; only the first has a stride."""

    norms: Sequence[nn.BatchNorm2d]
    stride: int
    dilation: int
    m: int
    recompute: bool
    """Whether backward computes the map between the two units again."""

    def stride_of(self, unit: int) -> int:
        return self.stride if unit == 0 else 1


class ConvOp(torch.autograd.Function):
    """(relu(x), depthwise and pointwise kernels of each unit) -> (centred map, scale of its BatchNorm)."""

    @staticmethod
    def forward(ctx, x: Tensor, op: Convolutions, *kernels: Tensor) -> tuple[Tensor, Tensor]:
        h, maps, scales = x, [], [torch.ones_like(x[0, :, 0, 0])]
        for unit, norm in enumerate(op.norms):
            deep, point = kernels[2 * unit : 2 * unit + 2]
            z = depthwise(h, scaled(deep, scales[-1], op.m), op.stride_of(unit), op.dilation)
            y, scale = convolved(z, block_diagonal(point, op.m), norm, op.m)
            h = F.relu(y) if unit + 1 < len(op.norms) else None
            maps.append(y)
            scales.append(scale)
        ctx.op, ctx.units, ctx.training = op, len(op.norms), op.norms[0].training
        ctx.save_for_backward(x, *scales[:-1], *kernels, *([] if op.recompute else maps[:-1]))
        ctx.mark_non_differentiable(scales[-1])
        return maps[-1], scales[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        op, n, saved = ctx.op, ctx.units, ctx.saved_tensors
        scales, kernels = saved[1 : n + 1], saved[n + 1 : 3 * n + 1]
        inputs = [saved[0], *(between(op, saved[0], *kernels[:2]) if op.recompute else saved[3 * n + 1 :])]
        wanted = ctx.needs_input_grad[2:]
        gradients: list[Tensor | None] = [None] * (2 * n)
        for unit in reversed(range(n)):
            deep, point = kernels[2 * unit : 2 * unit + 2]
            h = inputs[unit] if unit == 0 else F.relu(inputs[unit])
            kernel = scaled(deep, scales[unit], op.m)
            if wanted[2 * unit + 1]:
                z = depthwise(h, kernel, op.stride_of(unit), op.dilation)
                gradients[2 * unit + 1] = block_gradient(rows(g).T @ rows(z), op.m)[:, :, None, None]
            g = F.conv2d(g, block_diagonal(point, op.m).transpose(0, 1))
            if op.stride_of(unit) == 2:
                g = spread(g, h.shape)
            if wanted[2 * unit]:
                d = weight_gradient(g, h, deep.shape[-1], op.dilation) * scales[unit].view(-1, 1, 1, 1)
                gradients[2 * unit] = d.unflatten(0, (op.m, -1)).sum(dim=0)
            if unit == 0 and not ctx.needs_input_grad[0]:
                return None, None, *gradients
            g = input_gradient(g, kernel, op.dilation)
            if unit > 0:
                g = torch.ops.aten.threshold_backward(g, inputs[unit], 0)
                g = through_norm(g, inputs[unit], scales[unit], op.m) if ctx.training else g
        return g, None, *gradients


def between(op: Convolutions, x: Tensor, deep: Tensor, point: Tensor) -> list[Tensor]:
    """The centred maps between the units of an op, as they were made."""
    if len(op.norms) == 1:
        return []
    z, kernel = depthwise(x, repeated(deep, op.m), op.stride, op.dilation), block_diagonal(point, op.m)
    return [F.conv2d(z, kernel, -center_of(z, kernel, op.norms[0], op.m))]


def scaled(deep: Tensor, scale: Tensor, m: int) -> Tensor:
    """Depthwise kernels with the scale of the BatchNorm before them, folded."""
    return repeated(deep, m) * scale.view(-1, 1, 1, 1)


def matrix(kernel: Tensor) -> Tensor:
    """A pointwise kernel (C, C', 1, 1) as (C, C')."""
    return kernel[:, :, 0, 0]


def rows(x: Tensor) -> Tensor:
    """(N, C, F, T) -> (N F T, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class WeightedSum(torch.autograd.Function):
    """sum_k w_k r_k y_k: an edge from its maps, each with its weight, and the scale of its BatchNorm if one is due."""

    @staticmethod
    def forward(ctx, weights: Tensor, scales: Sequence[Tensor | None], normed: bool, m: int, *maps: Tensor) -> Tensor:
        out = torch.zeros_like(maps[0], memory_format=CHANNELS_LAST)
        for w, scale, y in zip(weights, scales, maps, strict=True):
            out.addcmul_(y, w.view(1, 1, 1, 1) if scale is None else column(w * scale))
        ctx.scales, ctx.normed, ctx.m = scales, normed, m
        ctx.save_for_backward(weights, *maps)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, *maps = ctx.saved_tensors
        g = g.contiguous(memory_format=CHANNELS_LAST)
        flat, centred_g = rows(g).flatten(), g - column(mean(g, ctx.m)) if ctx.normed else g
        d_weights, d_maps = [], []
        for w, scale, y, wanted in zip(weights, ctx.scales, maps, ctx.needs_input_grad[4:], strict=True):
            if scale is None:
                d_weights.append(torch.dot(flat, rows(y).flatten()))
                d_maps.append(g * w if wanted else None)
                continue
            shared = mean(g * y, ctx.m)
            d_weights.append((scale * shared).sum() * (y.numel() // len(shared)))
            d = centred_g * column(w * scale) if wanted else None
            if wanted and ctx.normed:
                d.addcmul_(y, column(-w * scale**3 * shared))
            d_maps.append(d)
        return torch.stack(d_weights), None, None, None, *d_maps
