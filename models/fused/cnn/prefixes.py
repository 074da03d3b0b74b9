"""The prefix of a convolution op: its layers before the last pointwise convolution, forward and backward.

    op(x) = BN(W z),    z = prefix(x)

The last pointwise convolution W and its BatchNorm are computed together with those of the other ops of an
edge (see `products`). The results are those of the layers one by one, because

- the mean of W z is W mean(z): the mean of a BatchNorm is subtracted as a bias of the convolution;
- relu(r y) = r relu(y) for r > 0: the scale of a BatchNorm goes into the next depthwise kernel;
- the first depthwise convolution and the ReLUs, which are cheap, are recomputed instead of stored.

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded with m = `layout.fold` (see `layout`);
depthwise kernels (C, 1, k, k), pointwise kernels (C, C', 1, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from models.fused.cnn.batchnorm import batchnorm_backward, scale_of
from models.fused.cnn.depthwise import depthwise, depthwise_gradients
from models.fused.cnn.layout import Layout, block_diagonal, repeat_channels
from models.fused.cnn.sums import channel_mean, product_sums, weighted_sum

Tensors = Sequence[Tensor]
Gradients = list[Tensor | None]
"""A gradient that is not needed is None."""


@dataclass(frozen=True)
class Prefix:
    """The prefix of an op with 0, 1 or 2 units of ReLU, depthwise and pointwise convolution, and BatchNorm.

    0 units, no kernels (factorized reduction):  z = x
    1 unit, kernel k:                            z = k * relu(x)
    2 units, kernels k, V, k2:                   z = k2 * relu(BN(V (k * relu(x))))
    """

    layout: Layout
    units: int
    stride: int = 1
    dilation: int = 1
    norm: nn.BatchNorm2d | None = None
    """The BatchNorm of the first of two units."""

    @property
    def kernels(self) -> int:
        return (0, 1, 3)[self.units]

    @property
    def maps(self) -> int:
        """The number of maps that `forward` returns."""
        return 2 if self.units == 2 else 1

    def forward(self, x: Tensor, kernels: Tensors, statistics: Tensors = ()) -> tuple[Tensors, Tensors]:
        """Return (maps, statistics). The last map is z; of two units, the first is V's centered output y.

        The statistics are the mean and the scale of the BatchNorm, (mC,). If they are passed, from an earlier
        call, they are not computed again.
        """
        if self.units == 0:
            return [x], []
        z = depthwise(x, self._folded(kernels[0]), self.stride, self.dilation)
        if self.units == 1:
            return [z], []
        _, pointwise, kernel2 = kernels
        mean = statistics[0] if statistics else self._mean(z, pointwise)
        y = weighted_sum(-mean, [(z, as_matrix(pointwise).T)], self.layout)
        scale = statistics[1] if statistics else scale_of(y, mean, self.norm, self.layout)
        return [y, depthwise(y, self._folded(kernel2, scale), 1, 1)], [mean, scale]

    def backward(
        self,
        g: Tensor,
        x: Tensor,
        kernels: Tensors,
        maps: Tensors,
        statistics: Tensors,
        needs: Sequence[bool],
    ) -> Gradients:
        """The gradients of x and the kernels, from the gradient g of z; `needs` says which are needed."""
        if self.units == 0:
            return [g]
        d_second = []
        if self.units == 2:
            g, *d_second = self._second_unit_backward(g, x, kernels, maps[0], statistics[1], needs[2:])
        return [*self._gradients(g, x, kernels[0], None, self.stride, self.dilation, *needs[:2]), *d_second]

    def _second_unit_backward(
        self, g: Tensor, x: Tensor, kernels: Tensors, y: Tensor, scale: Tensor, needs: Sequence[bool]
    ) -> Gradients:
        """The gradients of k * relu(x), V and k2."""
        kernel, pointwise, kernel2 = kernels
        needs_pointwise, needs_kernel2 = needs
        g, d_kernel2 = self._gradients(g, y, kernel2, scale, 1, 1, True, needs_kernel2)
        if self.norm.training:
            g = batchnorm_backward(g, y, scale, self.layout)
        d_pointwise = None
        if needs_pointwise:
            z = depthwise(x, self._folded(kernel), self.stride, self.dilation)
            d_pointwise = product_sums([g], [z], self.layout)[0][:, :, None, None]
        zero = g.new_zeros(self.layout.fold * pointwise.shape[1])
        return [weighted_sum(zero, [(g, as_matrix(pointwise))], self.layout), d_pointwise, d_kernel2]

    def _gradients(
        self, g: Tensor, x: Tensor, kernel: Tensor, scale: Tensor | None, *options: int | bool
    ) -> Gradients:
        """The gradients of x and of a kernel that was multiplied by `scale`; see `depthwise_gradients`."""
        d_x, d_kernel = depthwise_gradients(g, x, self._folded(kernel, scale), *options)
        if d_kernel is not None:
            d_kernel = d_kernel if scale is None else d_kernel * scale.view(-1, 1, 1, 1)
            d_kernel = d_kernel.unflatten(0, (self.layout.fold, -1)).sum(dim=0)
        return [d_x, d_kernel]

    def _folded(self, kernel: Tensor, scale: Tensor | None = None) -> Tensor:
        """A depthwise kernel for folded maps, multiplied by `scale` (mC,): (mC, 1, k, k)."""
        kernel = repeat_channels(kernel, self.layout.fold)
        return kernel if scale is None else kernel * scale.to(kernel.dtype).view(-1, 1, 1, 1)

    def _mean(self, z: Tensor, pointwise: Tensor) -> Tensor:
        """The mean that the BatchNorm subtracts from V z, (mC,)."""
        if not self.norm.training:
            return repeat_channels(self.norm.running_mean, self.layout.fold)
        mean_z = channel_mean(z, self.layout)
        return block_diagonal(as_matrix(pointwise), self.layout.fold).to(mean_z.dtype) @ mean_z


def as_matrix(kernel: Tensor) -> Tensor:
    """A pointwise kernel (C, C', 1, 1) as (C, C')."""
    return kernel[:, :, 0, 0]
