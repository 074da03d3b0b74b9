"""The units that a derived CNN is built from, each with a BatchNorm at its end, computed by compiled code.

    ConvUnit          BN(W z), z = k * relu(x)
    Projection        BN(W relu(x))
    FactorizedReduce  BN(W z), z = relu(both grids of x)
    Stem              BN(W z), z = the 3 x 3 neighbourhoods of x
    Pool              BN(z), z = pool(x)

The library computes a BatchNorm or a pool of few channels several times as slowly as the memory allows, and needs one
more pass over the memory for each ReLU.

A unit has the parameters and the state-dict names of the plain module that it extends. It computes as that module
where `applies` is false: on other devices, in bf16, for export, over several processes, and in a supernet, whose
BatchNorms are not affine.

Shapes: N utterances, C' and C channels in and out, F coefficients, T frames; maps (N, C, F, T), W (C, C').
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.cells import Projection
from models.fused.cnn.batchnorm import update_running_statistics
from models.fused.cnn.prefixes import as_matrix
from models.fused.native import operations as native
from models.joint_network import Stem
from models.ops import ConvUnit, FactorizedReduce, Pool


class FusedConvUnit(ConvUnit):
    """`ConvUnit`."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(x, self.norm):
            return super().forward(x)
        conv = self.depthwise
        if native.has_depthwise(conv.in_channels, conv.kernel_size):
            z = ReluDepthwise.apply(x, conv.weight, conv.stride[0], conv.dilation[0])
        else:
            z = conv(F.relu(x))
        return pointwise_norm(z, as_matrix(self.pointwise.weight), self.norm)


class FusedPool(Pool):
    """`Pool`."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(x, self.norm):
            return super().forward(x)
        is_max, stride = isinstance(self.pooling, nn.MaxPool2d), self.pooling.stride
        return pointwise_norm(Pooling.apply(x, stride, is_max), None, self.norm)


class FusedFactorizedReduce(FactorizedReduce):
    """`FactorizedReduce`. Both of its convolutions are one, whose matrix is block-diagonal."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(x, self.norm):
            return super().forward(x)
        weight = torch.block_diag(as_matrix(self.even.weight), as_matrix(self.odd.weight))
        return pointwise_norm(BothGrids.apply(x), weight, self.norm, relu=True)


class FusedProjection(Projection):
    """`Projection`."""

    def forward(self, x: Tensor) -> Tensor:
        _, conv, norm = self
        if not applies(x, norm):
            return super().forward(x)
        return pointwise_norm(x, as_matrix(conv.weight), norm, relu=True)


class FusedStem(Stem):
    """`Stem`."""

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self
        if not applies(x, norm):
            return super().forward(x)
        f, t = (-(-size // stride) for size, stride in zip(x.shape[2:], conv.stride, strict=True))
        taps = F.unfold(x, 3, padding=1, stride=conv.stride).unflatten(2, (f, t))  # (N, 9 C', F', T')
        return pointwise_norm(taps, conv.weight.flatten(1), norm)


def applies(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    """Whether compiled code can compute a unit with this BatchNorm from the maps x."""
    is_plain = type(norm) is nn.BatchNorm2d and norm.affine and norm.weight.dtype == x.dtype
    return is_plain and x.numel() > 0 and not torch.compiler.is_exporting() and native.has_units(x)


def pointwise_norm(z: Tensor, weight: Tensor | None, norm: nn.BatchNorm2d, relu: bool = False) -> Tensor:
    """BN(W z), or with `relu` BN(W relu(z)): (N, C', F, T) -> (N, C, F, T). Without a weight, W is the identity."""
    return PointwiseNorm.apply(z, weight, norm.weight, norm.bias, norm, relu)


class PointwiseNorm(torch.autograd.Function):
    """`pointwise_norm`, which also updates the running statistics; gamma and beta are the affine parameters."""

    @staticmethod
    def forward(
        ctx, z: Tensor, weight: Tensor | None, gamma: Tensor, beta: Tensor, norm: nn.BatchNorm2d, relu: bool
    ) -> Tensor:
        out, saved = native.pointwise_norm(z, weight, gamma, beta, norm, relu)
        if norm.training:
            count = out.numel() // len(gamma)
            update_running_statistics([norm], saved.mean[None], saved.variance[None], count)
        ctx.save_for_backward(*saved)
        ctx.options = relu, norm.training
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = native.Normed(*ctx.saved_tensors)
        return *native.pointwise_norm_gradients(g, saved, *ctx.options, ctx.needs_input_grad[0]), None, None


class ReluDepthwise(torch.autograd.Function):
    """A depthwise convolution of relu(x), (x, weight, stride, dilation) -> (N, C, F, T); see `depthwise`."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = stride, dilation
        return native.depthwise(x, weight, stride, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return *native.depthwise_gradients(g, x, weight, *ctx.options, *ctx.needs_input_grad[:2]), None, None


class Pooling(torch.autograd.Function):
    """A pool of 3 x 3 pixels, (x, stride, is_max) -> (N, C, F, T)."""

    @staticmethod
    def forward(ctx, x: Tensor, stride: int, is_max: bool) -> Tensor:
        out = native.pool(x, stride, is_max)
        ctx.save_for_backward(x, out)
        ctx.options = stride, is_max
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        return native.pool_gradient(g, *ctx.saved_tensors, *ctx.options), None, None


class BothGrids(torch.autograd.Function):
    """The even and the odd grid of maps, one after the other: (N, C, F, T) -> (N, 2C, F/2, T/2), rounding up.

    Autograd would sum up two maps of zeros for the gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        n, c, f, t = ctx.size = x.shape
        grids = x.new_empty(n, -(-f // 2), -(-t // 2), 2 * c).permute(0, 3, 1, 2)
        even, odd = grids.split(c, dim=1)
        even.copy_(x[:, :, ::2, ::2])
        odd[:, :, : f // 2, : t // 2] = x[:, :, 1::2, 1::2]
        odd[:, :, f // 2 :] = 0
        odd[:, :, :, t // 2 :] = 0
        return grids

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> Tensor:
        n, c, f, t = ctx.size
        even, odd = g.split(c, dim=1)
        d_x = g.new_zeros(n, f, t, c).permute(0, 3, 1, 2)
        d_x[:, :, ::2, ::2] = even
        d_x[:, :, 1::2, 1::2] = odd[:, :, : f // 2, : t // 2]
        return d_x
