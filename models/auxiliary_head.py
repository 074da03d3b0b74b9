"""The auxiliary head: a small classifier in the middle of the CNN, which helps the training of deep networks.

Shapes: N utterances, C channels, F coefficients, T frames.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.passes import Float32Linear


class AuxiliaryHead(nn.Module):
    """(N, C, F, T) -> logits (N, classes). The maps are pooled to 2 x 2 first, so that any input size works."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            PoolToQuarters(),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            WholeConv(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.classifier = Float32Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class WholeConv(nn.Conv2d):
    """A convolution of maps as large as its kernel, (N, C, 2, 2) -> (N, C', 1, 1), by one matrix product.

    For so few pixels, the library's convolution spends most of its time on reordering the kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight.flatten(1))[:, :, None, None]


class PoolToQuarters(nn.Module):
    """(N, C, F, T) -> (N, C, 2, 2): the mean of each quarter. The quarters of odd maps share a row or a column.

    Equal to `nn.AdaptiveAvgPool2d(2)`, which Apple's GPUs do not support for odd maps.
    """

    def forward(self, x: Tensor) -> Tensor:
        f, t = (max(size, 2) for size in x.shape[2:])
        x = x.expand(-1, -1, f, t)
        return F.avg_pool2d(x, ((f + 1) // 2, (t + 1) // 2), stride=(f // 2, t // 2))
