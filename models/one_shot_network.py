"""The one-shot supernet: every edge holds all candidate ops, and a pass computes the two edges of each node that a
genotype names. All genotypes of a space share its weights (Guo et al., Single Path One-Shot, ECCV 2020).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genotypes import Genotype, Node
from models.cells import Cell, CellType
from models.fused import cell_types, stem_type
from models.joint_network import JointNetwork, Size
from models.search_space import KINDS, SearchSpace, without_none


class SharedNode(nn.Module):
    """A node with all candidate ops on every earlier state; `kind` of cell and number say which node it is."""

    def __init__(self, cell_type: CellType, ops: Sequence[str], channels: int, kind: str, number: int):
        super().__init__()
        self.kind = kind
        self.number = number
        self.edges = nn.ModuleList()
        for source in range(number + 2):
            stride = 2 if kind == "reduce" and source < 2 else 1
            self.edges.append(nn.ModuleDict({op: cell_type.ops[op](channels, stride, True) for op in ops}))

    def forward(self, states: Sequence[Tensor], node: Node) -> Tensor:
        """The sum of the two edges of `node`."""
        return sum(self.edges[source][op](states[source]) for op, source in node)

    def unused_ops(self, node: Node) -> Iterator[nn.Module]:
        """The ops that are not in `node`."""
        for source, ops in enumerate(self.edges):
            yield from (module for op, module in ops.items() if (op, source) not in node)


class OneShotNetwork(nn.Module):
    """(N, 1, F, T) -> logits (N, classes), as the network of `genotype` computes them. Set it before a pass."""

    genotype: Genotype

    def __init__(
        self, space: SearchSpace, size: Size, classes: int, dropout: float = 0.0, fused: bool = True
    ):
        super().__init__()
        self.space = space
        self.cell_types = cell_types(fused)
        self.network = JointNetwork(size, classes, self.make_cell, dropout, stem=stem_type(fused))

    def make_cell(self, kind: str, inputs: tuple[int, int], channels: int, reduction_prev: bool) -> Cell:
        """A cell of shared nodes."""
        cell_type = self.cell_types[kind]
        node_count, ops = self.space.of(kind)
        nodes = [SharedNode(cell_type, without_none(ops), channels, kind, i) for i in range(node_count)]
        concat = range(2, node_count + 2)
        return Cell(cell_type, nodes, concat, inputs, channels, reduction_prev, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, {kind: getattr(self.genotype, kind) for kind in KINDS})

    def weights_in_use(self) -> list[nn.Parameter]:
        """The parameters of the ops in `genotype`, and all that are not in an op."""
        nodes = [module for module in self.modules() if isinstance(module, SharedNode)]
        unused_ops = [
            op for node in nodes for op in node.unused_ops(getattr(self.genotype, node.kind)[node.number])
        ]
        unused = {w for op in unused_ops for w in op.parameters()}
        return [w for w in self.parameters() if w not in unused]

    @torch.no_grad()
    def log_probabilities(self, x: Tensor) -> Tensor:
        """The log-probabilities (N, classes) of a batch, without dropout and with the batch's own BatchNorm statistics.

        The running statistics are those of all genotypes together, and fit none of them.
        """
        self.train()
        self.network.dropout.eval()
        logits = self(x)
        self.network.dropout.train()
        return logits.log_softmax(dim=1)
