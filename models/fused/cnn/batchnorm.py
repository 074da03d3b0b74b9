"""BatchNorm of folded maps in pieces, so that the fused edges can spread it over what comes before and after.

BN(y) = r (y - mean(y)) with r = 1 / sqrt(var(y) + eps), without affine: what it subtracts is its center, r its scale.
In training both are of the batch, and the running statistics are tracked; else they are the running ones.

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded (see `folded`); statistics (C,) or, as m copies of
them, (mC,). Maps may be of 16 bits, statistics are float32 then.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.fused.cnn import sums
from models.fused.cnn.folded import copies
from models.fused.cnn.sums import affine, column, mean, means, pixels


def centred(y: Tensor, norm: nn.BatchNorm2d, m: int) -> tuple[Tensor, Tensor]:
    """BatchNorm of a map, but for its scale: (centred map, scale (mC,)).

    The mean is held fixed in backward: the gradient of what BatchNorm centres has no mean itself.
    """
    center = mean(y.detach(), m) if norm.training else copies(norm.running_mean, m)
    y = y - column(center).to(y.dtype)
    return y, scale_of(y, center, norm, m)


@torch.no_grad()
def scale_of(y: Tensor, center: Tensor, norm: nn.BatchNorm2d, m: int) -> Tensor:
    """BatchNorm's scale of a centred map, (mC,)."""
    if not norm.training:
        return copies(torch.rsqrt(norm.running_var + norm.eps), m)
    c, count = norm.num_features, pixels(y) * m
    variance = means(y, [y], m)[1]
    return copies(tracked([norm], center[None, :c], variance[None, :c], count)[0], m)


def tracked(norms: Sequence[nn.BatchNorm2d], center: Tensor, variance: Tensor, count: int) -> Tensor:
    """The scales of P BatchNorms, alike but for their statistics, (P, C); their running statistics are moved.

    Of `count` values a channel in this process, as `nn.BatchNorm2d` does.
    """
    count, momentum, eps = count * sums.processes, norms[0].momentum, norms[0].eps
    unbiased = variance * (count / max(count - 1, 1))
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    torch._foreach_lerp_([norm.running_mean for norm in norms], list(center), momentum)
    torch._foreach_lerp_([norm.running_var for norm in norms], list(unbiased), momentum)
    return torch.rsqrt(variance + eps)


def through_norm(g: Tensor, y: Tensor, scale: Tensor, m: int) -> Tensor:
    """g - mean(g) - r^2 y mean(g y): backward through the BatchNorm of a centred y, r in g already."""
    of_g, of_both = means(g, [y], m)
    return affine(-of_g, [(g, torch.ones_like(of_g)), (y, -scale.square() * of_both)], m)
