"""Architectures: the plain data that a network is built from and that a model file holds."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import nn

from genotypes import Genotype
from models.augment_network import AugmentNetwork
from models.baselines import BASELINES, Shape
from models.joint_network import Size


class Architecture(Protocol):
    """What training, saving and loading need to know of a network before it is built."""

    genotype: Genotype | None
    """The searched cells; None for a network designed by hand."""
    shape: Shape | None
    """(F, T) of the inputs, if the network is built for one shape."""
    cells: int
    """The number of its cells, each of which has tensors."""

    def build(self, classes: int) -> nn.Module:
        """The network: (N, 1, F, T) -> logits (N, classes); in training mode perhaps with auxiliary logits."""

    def to_json(self) -> dict[str, Any]:
        """Its part of the header of a model file."""


@dataclass(frozen=True)
class SearchedArchitecture:
    """The network derived from a genotype. `dropout`, `auxiliary` and `fused` are not stored in the model file."""

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
class BaselineArchitecture:
    """A baseline, designed by hand, for inputs of one shape. Only acrnn takes `deltas` above 0."""

    name: str
    shape: Shape
    deltas: int = 0

    genotype = None
    cells = 0

    def build(self, classes: int) -> nn.Module:
        options = {"deltas": self.deltas} if self.deltas else {}
        return BASELINES[self.name](classes, self.shape, **options)

    def to_json(self) -> dict[str, Any]:
        return {"baseline": self.name, "shape": list(self.shape), "deltas": self.deltas}
