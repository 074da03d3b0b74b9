"""A convolution op of a relaxed edge up to its last pointwise convolution, forward and backward, by hand.

An op is one unit or two of ReLU, depthwise convolution (z), pointwise convolution (y) and BatchNorm; its last y, and
what follows, are the edge's (see `edge_ops`). What is done otherwise than it is written, with equal results:

- The mean of W z is W times the mean of z, so the pointwise convolution subtracts it as a bias.
- relu(r y) = r relu(y): the scale of a BatchNorm goes into the next depthwise kernel.
- What is cheap is not stored but computed again: the first depthwise convolution's output, a ReLU's.

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded (see `folded`); kernels (C, 1, k, k), (C, C', 1, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from models.fused.cnn.batchnorm import scale_of, through_norm
from models.fused.cnn.folded import blocks, copies
from models.fused.cnn.kernels import depthwise, gradients
from models.fused.cnn.sums import affine, mean, of_products

Tensors = Sequence[Tensor]
Wanted = Sequence[bool]
"""Whether anybody wants the gradient by x, and by each kernel."""
Gradients = tuple[Tensor | None, list[Tensor | None]]
"""By x, and by each kernel."""


class Made(NamedTuple):
    """The input z of the last pointwise convolution, and what was found on the way: statistics, small, and maps."""

    z: Tensor
    statistics: Tensors = ()
    maps: Tensors = ()


@dataclass(frozen=True)
class Given:
    """z = x."""

    kernels = 0

    def forward(self, x: Tensor, kernels: Tensors) -> Made:
        return Made(x)

    def again(self, x: Tensor, kernels: Tensors, statistics: Tensors) -> Made:
        return Made(x)

    def backward(self, g: Tensor, x: Tensor, kernels: Tensors, made: Made, wanted: Wanted) -> Gradients:
        return g, []


@dataclass(frozen=True)
class Depthwise:
    """z = k * relu(x): an op of one unit."""

    m: int
    stride: int
    dilation: int

    kernels = 1

    def forward(self, x: Tensor, kernels: Tensors) -> Made:
        return Made(depthwise(x, copies(kernels[0], self.m), self.stride, self.dilation))

    def again(self, x: Tensor, kernels: Tensors, statistics: Tensors) -> Made:
        """With the statistics found before."""
        return self.forward(x, kernels)

    def backward(self, g: Tensor, x: Tensor, kernels: Tensors, made: Made, wanted: Wanted) -> Gradients:
        """From the gradient by z."""
        d_x, d_kernel = self.gradients(g, x, kernels[0], None, *wanted)
        return d_x, [d_kernel]

    def gradients(
        self, g: Tensor, x: Tensor, kernel: Tensor, scale: Tensor | None, by_x: bool, by_kernel: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """By x, and by the kernel, which was multiplied by a `scale` (mC,)."""
        d_x, d_kernel = gradients(
            g, x, scaled(kernel, scale, self.m), self.stride, self.dilation, by_x, by_kernel
        )
        if not by_kernel:
            return d_x, None
        d_kernel = d_kernel if scale is None else d_kernel * scale.view(-1, 1, 1, 1)
        return d_x, d_kernel.unflatten(0, (self.m, -1)).sum(dim=0)


@dataclass(frozen=True)
class Separable:
    """z = k * relu(BN(W (k0 * relu(x)))): an op of two units. The first carries the stride."""

    m: int
    stride: int
    norm: nn.BatchNorm2d
    """Of the first unit."""

    kernels = 3

    @property
    def units(self) -> tuple[Depthwise, Depthwise]:
        return Depthwise(self.m, self.stride, 1), Depthwise(self.m, 1, 1)

    def forward(self, x: Tensor, kernels: Tensors) -> Made:
        """The statistics are the center and the scale of the BatchNorm, (mC,); the map is y, before its scale."""
        deep, point, _ = kernels
        z = self.units[0].forward(x, [deep]).z
        center = self._center(z, point)
        y = self._pointwise(z, point, center)
        return self._made(y, kernels, center, scale_of(y, center, self.norm, self.m))

    def again(self, x: Tensor, kernels: Tensors, statistics: Tensors) -> Made:
        """With the statistics found before."""
        (deep, point, _), (center, scale) = kernels, statistics
        return self._made(
            self._pointwise(self.units[0].forward(x, [deep]).z, point, center), kernels, center, scale
        )

    def backward(self, g: Tensor, x: Tensor, kernels: Tensors, made: Made, wanted: Wanted) -> Gradients:
        """From the gradient by z."""
        (first, second), (deep0, point, deep), (_, scale), (y,) = (
            self.units,
            kernels,
            made.statistics,
            made.maps,
        )
        g, d_deep = second.gradients(g, y, deep, scale, True, wanted[3])
        g = through_norm(g, y, scale, self.m) if self.norm.training else g
        d_point = None
        if wanted[2]:
            z = first.forward(x, [deep0]).z
            d_point = of_products([g], [z], self.m)[0][:, :, None, None]
        g = affine(g.new_zeros(self.m * point.shape[1]), [(g, matrix(point))], self.m)
        d_x, d_deep0 = first.gradients(g, x, deep0, None, *wanted[:2])
        return d_x, [d_deep0, d_point, d_deep]

    def _center(self, z: Tensor, point: Tensor) -> Tensor:
        if not self.norm.training:
            return copies(self.norm.running_mean, self.m)
        of_z = mean(z, self.m)
        return blocks(matrix(point), self.m).to(of_z.dtype) @ of_z

    def _pointwise(self, z: Tensor, point: Tensor, center: Tensor) -> Tensor:
        return affine(-center, [(z, matrix(point).T)], self.m)

    def _made(self, y: Tensor, kernels: Tensors, center: Tensor, scale: Tensor) -> Made:
        return Made(depthwise(y, scaled(kernels[2], scale, self.m), 1, 1), (center, scale), (y,))


Before = Given | Depthwise | Separable
"""All of an op but its last pointwise convolution and BatchNorm."""


def scaled(kernel: Tensor, scale: Tensor | None, m: int) -> Tensor:
    """A depthwise kernel for folded maps, with the scale of the BatchNorm before it."""
    kernel = copies(kernel, m)
    return kernel if scale is None else kernel * scale.to(kernel.dtype).view(-1, 1, 1, 1)


def matrix(kernel: Tensor) -> Tensor:
    """A pointwise kernel (C, C', 1, 1) as (C, C')."""
    return kernel[:, :, 0, 0]
