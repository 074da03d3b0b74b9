"""The supernet: a joint network whose every edge is relaxed, and the alphas that weigh its ops."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from darts.search_space import SearchSpace
from genotypes import Genotype, discretise
from models.cells import CELL_TYPES, Cell
from models.fused.cnn.cell import MixedMaps, RelaxedMapsCell
from models.fused.rnn.stacked_cell import RelaxedSequenceCell
from models.joint_network import JointNetwork, Size
from models.mixed_ops import MixedNode
from models.nested_ops import NestedNode

ALPHA_SCALE = 1e-3  # the standard deviation of the alphas at the start, as in DARTS


class SearchNetwork(nn.Module):
    """(N, 1, F, T) -> logits (N, classes), relaxed over `space`. Cells of one kind share their alphas.

    `recompute` says what backward computes again rather than store what is inside it: "none", the "ops", whose inputs
    and outputs are stored, or the "cells", of which only the inputs are. With `nested_depth`, recurrent ops of a family
    share their layers (see `nested`).
    """

    def __init__(
        self,
        space: SearchSpace,
        size: Size,
        classes: int,
        dropout: float = 0.0,
        recompute: str = "none",
        nested_depth: bool = False,
    ):
        super().__init__()
        self.space, self.recompute = space, recompute
        self.sequence_parts = (Cell, NestedNode) if nested_depth else (RelaxedSequenceCell, MixedNode)
        self.network = JointNetwork(
            size, classes, self._relaxed_cell, dropout, recompute_cells=recompute == "cells"
        )
        kinds = ["normal", "reduce"] + ["rnn"] * (size.rnn_layers > 0)
        self.alphas = nn.ModuleDict({kind: self._initial_alphas(kind) for kind in kinds})

    def _initial_alphas(self, kind: str) -> nn.ParameterList:
        nodes, ops = self.space.of(kind)
        return nn.ParameterList(ALPHA_SCALE * torch.randn(node + 2, len(ops)) for node in range(nodes))

    def _relaxed_cell(self, kind: str, inputs: tuple[int, int], channels: int, reduction_prev: bool) -> Cell:
        cell_type, (count, ops) = CELL_TYPES[kind], self.space.of(kind)
        make_cell, make_node = self.sequence_parts if kind == "rnn" else (RelaxedMapsCell, MixedMaps)
        again = self.recompute == "ops" or (
            self.recompute == "cells" and kind != "rnn"
        )  # of maps it costs little
        strides = [2 if kind == "reduce" and source < 2 else 1 for source in range(count + 1)]
        nodes = [make_node(cell_type, ops, channels, strides[: node + 2], again) for node in range(count)]
        return make_cell(
            cell_type, nodes, range(2, count + 2), inputs, channels, reduction_prev, affine=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, self.softmaxed())

    def softmaxed(self) -> dict[str, list[Tensor]]:
        """Per kind of cell and node: softmax(alpha) over the ops, (edges, ops)."""
        return {kind: [alpha.softmax(dim=-1) for alpha in nodes] for kind, nodes in self.alphas.items()}

    def architecture_parameters(self) -> list[nn.Parameter]:
        """The alphas."""
        return list(self.alphas.parameters())

    def weights(self) -> dict[str, nn.Parameter]:
        """All that the weight optimiser trains, by name: every parameter but the alphas."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("alphas.")}

    @torch.no_grad()
    def genotype(self) -> Genotype:
        """The strongest discrete cells of the present alphas."""
        return Genotype.of_nodes(
            **{kind: self._discretised(kind, nodes) for kind, nodes in self.softmaxed().items()}
        )

    def _discretised(self, kind: str, weights: Sequence[Tensor]) -> tuple:
        return discretise([w.cpu().numpy() for w in weights], self.space.of(kind)[1])
