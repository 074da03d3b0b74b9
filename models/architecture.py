"""Architectures: what a network is built from, as plain data that a file can hold."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import nn

from genotypes import Genotype
from models.augment_network import AugmentNetwork
from models.baselines import BASELINES, Shape
from models.joint_network import Size


class Architecture(Protocol):
    """What training, saving and loading know of a network before it is there."""

    genotype: Genotype | None
    """The found cells, where there are some."""
    shape: Shape | None
    """(F, T) of the inputs it is built for; None: any."""
    cells: int
    """How many cells it stacks. Each holds tensors."""

    def build(self, classes: int) -> nn.Module:
        """The network: (N, 1, F, T) -> logits (N, classes), or in training a pair of these and the auxiliary logits."""

    def to_json(self) -> dict[str, Any]:
        """Its part of a model file's header."""


@dataclass(frozen=True)
class Searched:
    """The network derived from a genotype. `dropout` and the auxiliary head serve the training and are not stored."""

    genotype: Genotype
    size: Size
    dropout: float = 0.0
    auxiliary: bool = False
    fused: bool = True

    shape = None

    @property
    def cells(self) -> int:
        return self.size.layers + self.size.rnn_layers

    def build(self, classes: int) -> nn.Module:
        return AugmentNetwork(self.genotype, self.size, classes, self.dropout, self.auxiliary, self.fused)

    def to_json(self) -> dict[str, Any]:
        return {"genotype": self.genotype.to_json(), "size": asdict(self.size)}


@dataclass(frozen=True)
class Designed:
    """A baseline, designed by hand for inputs of one shape."""

    name: str
    shape: Shape

    genotype = None
    cells = 0

    def build(self, classes: int) -> nn.Module:
        return BASELINES[self.name](classes, self.shape)

    def to_json(self) -> dict[str, Any]:
        return {"baseline": self.name, "shape": list(self.shape)}
