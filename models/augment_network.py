"""The derived network: the discrete cells of a genotype, trained from scratch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genotypes import Edge, Genotype
from models.cells import Cell, CellType
from models.fused import cell_types, stem_type
from models.joint_network import JointNetwork, Size


class DropPath(nn.Module):
    """Drop the whole output of an op for some utterances of the batch, and scale the rest (Larsson
    et al., ICLR 2017).
    """

    probability = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        mask = torch.empty((len(x),) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * (mask / keep)


class DerivedNode(nn.Module):
    """A node of a discrete cell: the sum of its two edges."""

    def __init__(self, cell_type: CellType, edges: Sequence[Edge], channels: int, reduction: bool):
        super().__init__()
        self.sources = [source for _, source in edges]
        self.ops = nn.ModuleList()
        for op, source in edges:
            stride = 2 if reduction and source < 2 else 1
            module = cell_type.ops[op](channels, stride, True)
            is_skip = isinstance(module, nn.Identity)
            self.ops.append(module if is_skip else nn.Sequential(module, DropPath()))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        return sum(op(states[source]) for source, op in zip(self.sources, self.ops, strict=True))


class AugmentNetwork(nn.Module):
    """(N, 1, F, T) -> logits (N, classes); with `auxiliary`, (logits, auxiliary logits) in training mode.

    With `fused`, stem, cells and tanh RNNs are computed by the faster functions of `models.fused`.
    """

    def __init__(
        self,
        genotype: Genotype,
        size: Size,
        classes: int,
        dropout: float = 0.0,
        auxiliary: bool = False,
        fused: bool = True,
    ):
        super().__init__()
        self.genotype = genotype
        self.cell_types = cell_types(fused)
        self.network = JointNetwork(size, classes, self.make_cell, dropout, auxiliary, stem=stem_type(fused))

    def make_cell(self, kind: str, inputs: tuple[int, int], channels: int, reduction_prev: bool) -> Cell:
        """A cell of the genotype."""
        cell_type = self.cell_types[kind]
        edges_of_nodes = getattr(self.genotype, kind)
        concat = getattr(self.genotype, f"{kind}_concat")
        nodes = [DerivedNode(cell_type, edges, channels, kind == "reduce") for edges in edges_of_nodes]
        return Cell(cell_type, nodes, concat, inputs, channels, reduction_prev, affine=True)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.network(x)


def set_drop_path(network: nn.Module, probability: float) -> None:
    """Set the probability of dropping the output of an op; networks designed by hand have no drop path."""
    for module in network.modules():
        if isinstance(module, DropPath):
            module.probability = probability
