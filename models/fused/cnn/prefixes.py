"""The prefix of a convolution op: its layers before the last pointwise convolution, forward and backward.

    op(x) = BN(W z),    z = prefix(x)

A convolution op is one or two units of ReLU, depthwise convolution, pointwise convolution and
BatchNorm. The last pointwise convolution W and its BatchNorm are computed together with those of the
other ops of an edge (see `products`). The results are those of the layers one by one, because

- the mean of W z is W mean(z): the mean of a BatchNorm is subtracted as a bias of the convolution;
- relu(r y) = r relu(y) for r > 0: the scale of a BatchNorm goes into the next depthwise kernel;
- the first depthwise convolution and the ReLUs are cheap, and are recomputed instead of stored.

A prefix has the methods

    forward(x, kernels, statistics) -> Intermediates
    backward(g, x, kernels, intermediates, needs) -> [d_x, *d_kernels]

`statistics` are empty, or those of an earlier forward pass, which are then used again. g is the
gradient with respect to z; `needs` says for x and each kernel whether its gradient is needed, and a
gradient that is not needed is None. `kernels` counts the kernels, `maps` the maps to store.

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded with m = `layout.fold` (see
`layout`); depthwise kernels (C, 1, k, k), pointwise kernels (C, C', 1, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from models.fused.cnn.batchnorm import batchnorm_backward, scale_of
from models.fused.cnn.depthwise import depthwise, depthwise_gradients
from models.fused.cnn.layout import Layout, block_diagonal, repeat_channels
from models.fused.cnn.sums import channel_mean, product_sums, weighted_sum

Tensors = Sequence[Tensor]
Gradients = list[Tensor | None]


class Intermediates(NamedTuple):
    """What a prefix computes: maps, the last of which is z, and statistics of BatchNorms, which are small."""

    maps: Tensors
    statistics: Tensors = ()


@dataclass(frozen=True)
class EmptyPrefix:
    """z = x."""

    kernels = 0
    maps = 1

    def forward(self, x: Tensor, kernels: Tensors, statistics: Tensors = ()) -> Intermediates:
        return Intermediates([x])

    def backward(
        self, g: Tensor, x: Tensor, kernels: Tensors, intermediates: Intermediates, needs: Sequence[bool]
    ) -> Gradients:
        return [g]


@dataclass(frozen=True)
class OneUnitPrefix:
    """z = k * relu(x), the prefix of an op of one unit."""

    layout: Layout
    stride: int
    dilation: int

    kernels = 1
    maps = 1

    def forward(self, x: Tensor, kernels: Tensors, statistics: Tensors = ()) -> Intermediates:
        return Intermediates([self.depthwise(x, kernels[0])])

    def backward(
        self, g: Tensor, x: Tensor, kernels: Tensors, intermediates: Intermediates, needs: Sequence[bool]
    ) -> Gradients:
        return self.gradients(g, x, kernels[0], None, needs)

    def depthwise(self, x: Tensor, kernel: Tensor, scale: Tensor | None = None) -> Tensor:
        """The convolution, with a kernel that is multiplied by `scale` (mC,)."""
        return depthwise(x, self._folded(kernel, scale), self.stride, self.dilation)

    def gradients(
        self, g: Tensor, x: Tensor, kernel: Tensor, scale: Tensor | None, needs: Sequence[bool]
    ) -> Gradients:
        """The gradients of `depthwise` with respect to x and the kernel."""
        folded = self._folded(kernel, scale)
        d_x, d_kernel = depthwise_gradients(g, x, folded, self.stride, self.dilation, *needs)
        if d_kernel is not None:
            d_kernel = d_kernel if scale is None else d_kernel * scale.view(-1, 1, 1, 1)
            d_kernel = d_kernel.unflatten(0, (self.layout.fold, -1)).sum(dim=0)
        return [d_x, d_kernel]

    def _folded(self, kernel: Tensor, scale: Tensor | None) -> Tensor:
        """The scaled kernels for folded maps, (mC, 1, k, k)."""
        kernel = repeat_channels(kernel, self.layout.fold)
        return kernel if scale is None else kernel * scale.to(kernel.dtype).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class TwoUnitPrefix:
    """z = k * relu(BN(W (k0 * relu(x)))), the prefix of an op of two units; the first has the stride.

    The maps are y, the centered output of W, and z; the statistics the mean and the scale of the BatchNorm, (mC,).
    """

    layout: Layout
    stride: int
    norm: nn.BatchNorm2d
    """The BatchNorm of the first unit."""

    kernels = 3
    maps = 2

    @property
    def units(self) -> tuple[OneUnitPrefix, OneUnitPrefix]:
        """The two depthwise convolutions."""
        return OneUnitPrefix(self.layout, self.stride, 1), OneUnitPrefix(self.layout, 1, 1)

    def forward(self, x: Tensor, kernels: Tensors, statistics: Tensors = ()) -> Intermediates:
        first, second = self.units
        kernel0, pointwise, kernel = kernels
        z0 = first.depthwise(x, kernel0)
        mean = statistics[0] if statistics else self._mean(z0, pointwise)
        y = weighted_sum(-mean, [(z0, as_matrix(pointwise).T)], self.layout)
        scale = statistics[1] if statistics else scale_of(y, mean, self.norm, self.layout)
        return Intermediates([y, second.depthwise(y, kernel, scale)], [mean, scale])

    def backward(
        self, g: Tensor, x: Tensor, kernels: Tensors, intermediates: Intermediates, needs: Sequence[bool]
    ) -> Gradients:
        first, second = self.units
        kernel0, pointwise, kernel = kernels
        needs_x, needs_kernel0, needs_pointwise, needs_kernel = needs
        y, scale = intermediates.maps[0], intermediates.statistics[1]
        g, d_kernel = second.gradients(g, y, kernel, scale, [True, needs_kernel])
        if self.norm.training:
            g = batchnorm_backward(g, y, scale, self.layout)
        d_pointwise = None
        if needs_pointwise:
            z0 = first.depthwise(x, kernel0)
            d_pointwise = product_sums([g], [z0], self.layout)[0][:, :, None, None]
        no_constant = g.new_zeros(self.layout.fold * pointwise.shape[1])
        g = weighted_sum(no_constant, [(g, as_matrix(pointwise))], self.layout)
        d_x, d_kernel0 = first.gradients(g, x, kernel0, None, [needs_x, needs_kernel0])
        return [d_x, d_kernel0, d_pointwise, d_kernel]

    def _mean(self, z0: Tensor, pointwise: Tensor) -> Tensor:
        """The mean that the BatchNorm subtracts from W z0, (mC,)."""
        if not self.norm.training:
            return repeat_channels(self.norm.running_mean, self.layout.fold)
        mean_z0 = channel_mean(z0, self.layout)
        return block_diagonal(as_matrix(pointwise), self.layout.fold).to(mean_z0.dtype) @ mean_z0


Prefix = EmptyPrefix | OneUnitPrefix | TwoUnitPrefix


def as_matrix(kernel: Tensor) -> Tensor:
    """A pointwise kernel (C, C', 1, 1) as (C, C')."""
    return kernel[:, :, 0, 0]
