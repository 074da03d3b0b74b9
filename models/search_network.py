"""The supernet: a joint network with relaxed cells, and the alphas that weight their ops."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genotypes import Genotype, discretise
from models.cells import Cell
from models.dropout import Dropout
from models.fused import cell_types
from models.joint_network import JointNetwork, Size
from models.mixed_ops import MixedNode, MixedOp
from models.nested_ops import NestedOp
from models.relaxations import RELAXATIONS, Sample, draw_weights
from models.search_space import SearchSpace

ALPHA_SCALE = 1e-3
"""Standard deviation of the initial alphas, as in DARTS."""

OpWeights = Mapping[str, Sequence[Tensor]]
"""By kind of cell, for each node: the weights of the ops, (edges, ops)."""


class SearchNetwork(nn.Module):
    """(N, 1, F, T) -> logits (N, classes), relaxed over `space`. Cells of one kind share their alphas.

    `recompute` names what the backward pass computes again instead of storing it: "none", "ops" or "cells".
    With `nested_depth`, recurrent ops of one family share their layers (see `nested_ops`).
    With `op_norm`, LayerNorm follows each op of the SeqNN. A derived network has none.
    `relaxation` names what makes weights of the ops from the alphas (see `relaxations`).
    With `fused`, the cells are computed by the faster functions of `models.fused`.
    """

    def __init__(
        self,
        space: SearchSpace,
        size: Size,
        classes: int,
        dropout: float = 0.0,
        recompute: str = "none",
        nested_depth: bool = False,
        fused: bool = True,
        op_norm: bool = False,
        relaxation: str = "softmax",
    ):
        super().__init__()
        self.space = space
        self.relaxation = RELAXATIONS[relaxation]
        self.sample: Sample | None = None
        self.given: OpWeights | None = None
        self.recompute = recompute
        self.nested_depth = nested_depth
        self.op_norm = op_norm
        self.cell_types = cell_types(fused)
        self.network = JointNetwork(
            size, classes, self.make_cell, dropout, recompute_cells=recompute == "cells"
        )
        kinds = ["normal", "reduce"] + ["rnn"] * (size.rnn_layers > 0)
        self.alphas = nn.ModuleDict({kind: self.initial_alphas(kind) for kind in kinds})

    def make_cell(self, kind: str, inputs: tuple[int, int], channels: int, reduction_prev: bool) -> Cell:
        """A relaxed cell."""
        cell_type = self.cell_types[kind]
        node_count, ops = self.space.of(kind)
        nested = self.nested_depth and kind == "rnn"
        edge_class = NestedOp if nested else MixedOp
        cell_class = Cell if nested else cell_type.relaxed_cell
        # with "cells", an edge of a CNN cell is recomputed when its cell is: that saves much memory and little time
        recompute = self.recompute == "ops" or (self.recompute == "cells" and kind != "rnn")
        norm = self.op_norm and kind == "rnn"  # those of the CNN have BatchNorm

        def make_edge(source: int) -> MixedOp:
            stride = 2 if kind == "reduce" and source < 2 else 1
            return edge_class(cell_type, ops, channels, stride, recompute, norm)

        nodes = [MixedNode(make_edge(source) for source in range(i + 2)) for i in range(node_count)]
        concat = range(2, node_count + 2)
        return cell_class(cell_type, nodes, concat, inputs, channels, reduction_prev, affine=False)

    def initial_alphas(self, kind: str) -> nn.ParameterList:
        """The alphas of a kind of cell: (edges, ops) for each node."""
        node_count, ops = self.space.of(kind)
        return nn.ParameterList(ALPHA_SCALE * torch.randn(i + 2, len(ops)) for i in range(node_count))

    def forward(self, x: Tensor) -> Tensor:
        if self.given:
            return self.network(x, self.given)
        return self.network(x, self.sampled_weights() if self.sample else self.op_weights())

    def op_weights(self) -> dict[str, list[Tensor]]:
        """By kind of cell, for each node: the expected weights of the ops, (edges, ops); softmax(alpha) in DARTS."""
        expected = self.relaxation.expected
        return {kind: [expected(alpha) for alpha in nodes] for kind, nodes in self.alphas.items()}

    def sampled_weights(self) -> dict[str, list[Tensor]]:
        """The same, as the present sample draws them."""
        drawn = iter(draw_weights(self.relaxation, self.architecture_parameters(), self.sample))
        return {kind: [next(drawn) for _ in nodes] for kind, nodes in self.alphas.items()}

    @contextmanager
    def sampling(self, sample: Sample | None) -> Iterator[None]:
        """Within this context, passes draw the weights of the ops by a sample; None: they use the expected ones."""
        self.sample = sample
        try:
            yield
        finally:
            self.sample = None

    @contextmanager
    def using(self, op_weights: OpWeights) -> Iterator[None]:
        """Within this context, passes use these weights of the ops instead of those that the alphas give."""
        self.given = op_weights
        try:
            yield
        finally:
            self.given = None

    def architecture_parameters(self) -> list[nn.Parameter]:
        """The alphas."""
        return list(self.alphas.parameters())

    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters that the weight optimizer trains, by name: all but the alphas."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("alphas.")}

    @property
    def dropout(self) -> Dropout:
        """The dropout after each cell."""
        return self.network.dropout

    @torch.no_grad()
    def genotype(self, op_weights: OpWeights | None = None, edges_by: str = "weight") -> Genotype:
        """The discrete cells with the largest op weights; default: the expected ones.

        `edges_by` says what makes an edge strong (see `genotypes.discretise`).
        """
        cells = {}
        for kind, nodes in (op_weights or self.op_weights()).items():
            _, ops = self.space.of(kind)
            cells[kind] = discretise([p.cpu().numpy() for p in nodes], ops, edges_by)
        return Genotype.of_nodes(**cells)
