"""The derived network: the discrete cells of a genotype, trained from scratch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genotypes import Genotype
from models.cells import CELL_TYPES, Cell, CellType
from models.joint_network import JointNetwork, Size


class DropPath(nn.Module):
    """Drop an op's whole output for some utterances of the batch and scale up the rest (Larsson et al., ICLR 2017)."""

    probability = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        mask = torch.empty((x.shape[0],) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(
            keep
        )
        return x * mask / keep


class DerivedNode(nn.Module):
    """A node of a discrete cell: the sum of its chosen edges."""

    def __init__(self, cell_type: CellType, edges: Sequence[tuple[str, int]], channels: int, reduction: bool):
        super().__init__()
        self.sources = [source for _, source in edges]
        self.ops = nn.ModuleList(
            self._op(cell_type, op, channels, reduction and source < 2) for op, source in edges
        )

    @staticmethod
    def _op(cell_type: CellType, op: str, channels: int, reduced: bool) -> nn.Module:
        module = cell_type.ops[op](channels, 2 if reduced else 1, True)
        return module if isinstance(module, nn.Identity) else nn.Sequential(module, DropPath())

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        return sum(op(states[source]) for source, op in zip(self.sources, self.ops, strict=True))


class AugmentNetwork(nn.Module):
    """(N, 1, F, T) -> logits (N, classes); with `auxiliary`, training mode returns (logits, auxiliary logits)."""

    def __init__(
        self, genotype: Genotype, size: Size, classes: int, dropout: float = 0.0, auxiliary: bool = False
    ):
        super().__init__()
        self.genotype = genotype
        self.network = JointNetwork(size, classes, self._derived_cell, dropout, auxiliary)

    def _derived_cell(self, kind: str, inputs: tuple[int, int], channels: int, reduction_prev: bool) -> Cell:
        cell_type = CELL_TYPES[kind]
        nodes = [
            DerivedNode(cell_type, edges, channels, kind == "reduce")
            for edges in getattr(self.genotype, kind)
        ]
        concat = getattr(self.genotype, f"{kind}_concat")
        return Cell(cell_type, nodes, concat, inputs, channels, reduction_prev, affine=True)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.network(x)


def drop_paths_of(network: nn.Module) -> list[DropPath]:
    """The drop paths in a network; one designed by hand has none."""
    return [module for module in network.modules() if isinstance(module, DropPath)]
