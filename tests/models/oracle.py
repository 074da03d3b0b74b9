"""An independent implementation of the supernet to compare with: one op at a time, nothing shared, nothing fused."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.cells import ProjectSequence, project_maps
from models.joint_network import Size
from models.ops import MAP_OPS, SEQUENCE_OPS
from models.search_network import SearchNetwork


class PlainCell(nn.Module):
    """A relaxed cell: two projections, then a product and a sum for each op of each edge of each node."""

    def __init__(self, kind, nodes, ops, inputs, channels, reduction_prev, op_norm=False):
        super().__init__()
        self.op_norm = op_norm
        table = SEQUENCE_OPS if kind == "rnn" else MAP_OPS
        project = ProjectSequence if kind == "rnn" else project_maps
        self.kind = kind
        self.names = [op for op in ops if op != "none"]
        self.has_none = "none" in ops
        self.project0 = project(inputs[0], channels, 2 if reduction_prev else 1, False)
        self.project1 = project(inputs[1], channels, 1, False)
        self.nodes = nn.ModuleList()
        for node in range(nodes):
            edges = nn.ModuleList()
            for source in range(node + 2):
                stride = 2 if kind == "reduce" and source in (0, 1) else 1
                modules = nn.ModuleList(table[op](channels, stride, False) for op in self.names)
                edges.append(nn.ModuleDict({"ops": modules}))
            self.nodes.append(nn.ModuleDict({"edges": edges}))

    def forward(self, s0: Tensor, s1: Tensor, alphas: Sequence[Tensor]) -> Tensor:
        states = [self.project0(s0), self.project1(s1)]
        for node, alpha in zip(self.nodes, alphas, strict=True):
            terms = []
            for source, edge in enumerate(node["edges"]):
                exponentials = alpha[source].exp()
                *shares, last = exponentials / exponentials.sum()
                if not self.has_none:
                    shares.append(last)
                outputs = [op(states[source]) for op in edge["ops"]]
                if self.op_norm:
                    outputs = [F.layer_norm(output, output.shape[2:]) for output in outputs]
                terms += [share * output for share, output in zip(shares, outputs, strict=True)]
            states.append(sum(terms))
        return torch.cat(states[2:], dim=2 if self.kind == "rnn" else 1)


class PlainNetwork(nn.Module):
    """The joint supernet with plain cells, and copies of the weights and alphas of a `SearchNetwork`; no dropout."""

    def __init__(self, network: SearchNetwork, size: Size):
        super().__init__()
        joint = network.network
        space = network.space
        self.stem = copy.deepcopy(joint.stem)
        self.head = copy.deepcopy(joint.head)
        self.alphas = copy.deepcopy(network.alphas)
        self.cnn_cells = nn.ModuleList()
        self.rnn_cells = nn.ModuleList()
        channels = size.init_channels
        inputs = (3 * channels, 3 * channels)
        before = "normal"
        for i in range(size.layers):
            kind = "reduce" if i in (size.layers // 3, 2 * size.layers // 3) else "normal"
            channels = 2 * channels if kind == "reduce" else channels
            cell = PlainCell(kind, space.cnn_nodes, space.cnn_ops, inputs, channels, before == "reduce")
            self.cnn_cells.append(cell)
            inputs = (inputs[1], space.cnn_nodes * channels)
            before = kind
        for _ in range(size.rnn_layers):
            channels = size.rnn_channels
            reduced = before == "reduce"
            cell = PlainCell(
                "rnn", space.rnn_nodes, space.rnn_ops, inputs, channels, reduced, network.op_norm
            )
            self.rnn_cells.append(cell)
            inputs = (inputs[1], space.rnn_nodes * channels)
            before = "rnn"
        self.to(next(network.parameters()).dtype)
        self.cnn_cells.load_state_dict(joint.cnn_cells.state_dict())
        self.rnn_cells.load_state_dict(joint.rnn_cells.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        older = newer = self.stem(x)
        for cell in self.cnn_cells:
            older, newer = newer, cell(older, newer, self.alphas[cell.kind])
        older, newer = (maps.mean(dim=2).permute(0, 2, 1) for maps in (older, newer))
        for cell in self.rnn_cells:
            older, newer = newer, cell(older, newer, self.alphas["rnn"])
        return self.head(newer.sum(dim=1) / newer.shape[1])


def relative_error(found: Tensor, truth: Tensor) -> float:
    """The norm of the difference, relative to that of the truth."""
    return ((found - truth).norm() / truth.norm()).item()
