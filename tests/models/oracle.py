"""What the networks' tests compare with: the relaxed search written out plainly, one op at a time, nothing shared."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.cells import Cell, ProjectSequence, project_maps
from models.fused.cnn.cell import FusedCnnCell, MixedMaps
from models.fused.rnn.stacked_cell import StackedRnnCell
from models.mixed_ops import MixedNode
from models.ops import MAP_OPS, SEQUENCE_OPS
from models.search_network import SearchNetwork


def plain_softmax(row: Tensor) -> Tensor:
    return row.exp() / row.exp().sum()


class PlainCell(nn.Module):
    """A relaxed cell: two projections, then for each node, each edge and each op one product and one sum."""

    def __init__(self, kind, nodes, ops, inputs, channels, reduction_prev):
        super().__init__()
        table = SEQUENCE_OPS if kind == "rnn" else MAP_OPS
        project = ProjectSequence if kind == "rnn" else project_maps
        self.kind, self.names = kind, ops
        self.project0 = project(inputs[0], channels, 2 if reduction_prev else 1, False)
        self.project1 = project(inputs[1], channels, 1, False)
        self.nodes = nn.ModuleList()
        for node in range(nodes):
            edges = nn.ModuleList()
            for source in range(node + 2):
                stride = 2 if kind == "reduce" and source in (0, 1) else 1
                modules = nn.ModuleList(table[op](channels, stride, False) for op in ops if op != "none")
                edges.append(nn.ModuleDict({"ops": modules}))
            self.nodes.append(nn.ModuleDict({"edges": edges}))

    def forward(self, s0: Tensor, s1: Tensor, alphas: Sequence[Tensor]) -> Tensor:
        states = [self.project0(s0), self.project1(s1)]
        for node, alpha in zip(self.nodes, alphas, strict=True):
            total = None
            for source, edge in enumerate(node["edges"]):
                row, modules = plain_softmax(alpha[source]), iter(edge["ops"])
                for k, name in enumerate(self.names):
                    if name == "none":
                        continue
                    term = row[k] * next(modules)(states[source])
                    total = term if total is None else total + term
                if "none" in self.names:
                    total = total + row[self.names.index("none")] * torch.zeros_like(total)
            states.append(total)
        return torch.cat(states[2:], dim=2 if self.kind == "rnn" else 1)


class PlainNetwork(nn.Module):
    """The joint supernet around plain cells, with the weights and alphas of a `SearchNetwork`; no dropout."""

    def __init__(
        self, network: SearchNetwork, layers: int, init_channels: int, rnn_layers: int, rnn_channels: int
    ):
        super().__init__()
        joint, space = network.network, network.space
        self.stem, self.head = copy.deepcopy(joint.stem), copy.deepcopy(joint.head)
        self.alphas = copy.deepcopy(network.alphas)
        self.cnn_cells, self.rnn_cells = nn.ModuleList(), nn.ModuleList()
        inputs, channels, before = (3 * init_channels, 3 * init_channels), init_channels, "normal"
        for i in range(layers):
            kind = "reduce" if i in (layers // 3, 2 * layers // 3) else "normal"
            channels = 2 * channels if kind == "reduce" else channels
            cell = PlainCell(kind, space.cnn_nodes, space.cnn_ops, inputs, channels, before == "reduce")
            self.cnn_cells.append(cell)
            inputs, before = (inputs[1], space.cnn_nodes * channels), kind
        for _ in range(rnn_layers):
            cell = PlainCell("rnn", space.rnn_nodes, space.rnn_ops, inputs, rnn_channels, before == "reduce")
            self.rnn_cells.append(cell)
            inputs, before = (inputs[1], space.rnn_nodes * rnn_channels), "rnn"
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


def compute_plainly(monkeypatch) -> None:
    """Let the relaxed cells themselves run one op at a time, by autograd: any function for ReLU, any derivative."""
    monkeypatch.setattr(FusedCnnCell, "forward", Cell.forward)
    monkeypatch.setattr(StackedRnnCell, "forward", Cell.forward)
    monkeypatch.setattr(MixedMaps, "forward", MixedNode.forward)
    monkeypatch.setattr("models.ops.recur", lambda rnn, x: rnn(x)[0])


def relative_error(found: Tensor, truth: Tensor) -> float:
    return ((found - truth).norm() / truth.norm()).item()
