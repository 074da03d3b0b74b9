"""The relaxed SeqNN cell for a GPU: the recurrent ops out of a state run together, layer by layer.

Layer l of every lstm_k with k > l, and of both directions of every lstm_att_k with k > l, is a recurrence of
the same form on every edge. They differ in weights and inputs only, so one stacked scan replaces one library
call for each op (see `stacked_scan`); likewise for RNNs. States 0 and 1 exist from the start: the edges out
of both are one stack.

Shapes: S states, E edges out of each, M = S E; K ops, A of them in one group, D directions; N utterances,
T time steps, C channels; sequences (T, N, C).
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from models.cells import Cell
from models.fused.rnn.stacked_scan import StackedLinear, StackedLstmScan, StackedTanhScan
from models.mixed_ops import MixedOp
from models.ops import Recurrent, RecurrentAttention, attend
from models.recompute import recompute_in_backward

SCANS = {nn.LSTM: StackedLstmScan, nn.RNN: StackedTanhScan}
Ops = Mapping[int, Sequence[nn.Module]]
"""By the number k of an op, its module on each of the M edges."""


def use_stacked(device: torch.device) -> bool:
    """Whether to stack recurrences: not on a CPU, which has no kernel launches to save (see README.md)."""
    return device.type != "cpu"


def stacked_share(cell: Cell, device: torch.device) -> float:
    """The share of a cell's edges in the largest stack, those out of states 0 and 1; 0 without stacks."""
    if not (isinstance(cell, StackedRnnCell) and use_stacked(device)):
        return 0.0
    return 2 * len(cell.nodes) / sum(len(node.edges) for node in cell.nodes)


def stacked_gates(cell: Cell, device: torch.device) -> int:
    """The size of the input of the largest stacked scan, in sequences of C channels; 0 if nothing is stacked.

    For each direction, the input of an LSTM is four sequences, its gates; the input of an RNN is one.
    """
    if not (isinstance(cell, StackedRnnCell) and use_stacked(device)):
        return 0
    rnns = [op.rnn for op in cell.nodes[0].edges[0].ops if not isinstance(op, nn.Identity)]
    directions = {kind: sum(1 + rnn.bidirectional for rnn in rnns if isinstance(rnn, kind)) for kind in SCANS}
    return 2 * len(cell.nodes) * max(4 * directions[nn.LSTM], directions[nn.RNN])


class StackedRnnCell(Cell):
    """A relaxed SeqNN cell. With `recompute`, the edges out of a state are recomputed together."""

    def forward(self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """`weights`: the weights of the ops of each node, (edges, ops)."""
        if not use_stacked(s1.device):
            return super().forward(s0, s1, weights)
        inputs = torch.stack([self.project0(s0), self.project1(s1)]).transpose(1, 2)  # (2, T, N, C)
        weights = [w.unbind() for w in weights]
        states = [*inputs]
        sums = self.edge_outputs(inputs, 0, weights)  # for each node not yet complete, its sum so far
        for number in range(2, 2 + len(self.nodes)):
            states.append(sums[0])
            if len(sums) > 1:
                sums = sums[1:] + self.edge_outputs(sums[:1], number, weights)
        return torch.cat([states[i] for i in self.concat], dim=2).transpose(0, 1)

    def edge_outputs(self, x: Tensor, first: int, weights: Sequence[Sequence[Tensor]]) -> Tensor:
        """Run the edges out of the states x (S, T, N, C); `first` is the number of the first state.

        Returns for each later node the sum of their outputs, (E, T, N, C).
        """
        states = range(first, first + len(x))
        nodes = range(first + len(x) - 2, len(self.nodes))
        pairs = [(state, node) for state in states for node in nodes]
        edges = StackedEdges([self.nodes[node].edges[state] for state, node in pairs])
        w = torch.stack([weights[node][state] for state, node in pairs])
        return recompute_in_backward(edges, x, w) if edges.edges[0].recompute else edges(x, w)


class StackedEdges(nn.Module):
    """M relaxed edges, E out of each of S states, those of the first state first."""

    def __init__(self, edges: Sequence[MixedOp]):
        super().__init__()
        self.edges = nn.ModuleList(edges)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x (S, T, N, C), the weights of the ops (M, K) -> the sums over the states (E, T, N, C)."""
        ops = dict(enumerate(zip(*(edge.ops for edge in self.edges), strict=True)))  # k: op k of every edge
        edges_per_state = len(self.edges) // len(x)
        x = x.unsqueeze(1).expand(-1, edges_per_state, *x.shape[1:])  # (S, E, T, N, C)
        outputs = {k: x for k, members in ops.items() if isinstance(members[0], nn.Identity)}
        for rnn_class, scan in SCANS.items():
            groups = [
                RecurrentGroup(op_class, rnn_class, ops, x) for op_class in (Recurrent, RecurrentAttention)
            ]
            outputs |= run_recurrences([group for group in groups if group.rnns], scan)
        with_attention = {k: own for k, own in ops.items() if isinstance(own[0], RecurrentAttention)}
        outputs |= run_attention(with_attention, outputs)
        out = torch.stack([outputs[k].reshape(x.shape) for k in ops])  # (K, S, E, T, N, C), without `none`
        if norm := self.edges[0].norm:
            out = norm(out)
        return torch.einsum("ksetnc,sek->etnc", out, weights[:, : len(ops)].unflatten(0, x.shape[:2]))


class RecurrentGroup:
    """The ops of one op class and RNN class that have layers left to run, deepest first, and their input.

    `rnns` maps the number k of an op to its recurrent modules, one for each of the M edges.
    """

    def __init__(self, op_class: type[nn.Module], rnn_class: type[nn.RNNBase], ops: Ops, x: Tensor):
        own = {k: members for k, members in ops.items() if isinstance(members[0], op_class)}
        rnns = {k: [op.rnn for op in members] for k, members in own.items()}
        rnns = {k: members for k, members in rnns.items() if isinstance(members[0], rnn_class)}
        self.rnns = dict(sorted(rnns.items(), key=lambda item: -item[1][0].num_layers))
        self.suffixes = ("", "_reverse") if op_class is RecurrentAttention else ("",)
        inputs = self._add_reverse(x[:, :1]).unsqueeze(1)  # (D, 1, S, 1, T, N, C)
        self.x = inputs.expand(-1, len(self.rnns), -1, x.shape[1], -1, -1, -1)  # (D, A, S, E, T, N, C)

    def _add_reverse(self, x: Tensor) -> Tensor:
        """For two directions, add the sequence in reverse: (..., T, N, C) -> (D, ..., T, N, C)."""
        return torch.stack([x, x.flip(-3)]) if len(self.suffixes) == 2 else x.unsqueeze(0)

    def __len__(self) -> int:
        """The number of recurrences in a layer, D A M."""
        return self.x.shape[:-3].numel()

    def weights(self, name: str, layer: int) -> list[Tensor]:
        """The D A M weights of a layer that have this name."""
        found = []
        for suffix in self.suffixes:
            for rnn in chain.from_iterable(self.rnns.values()):
                found.append(getattr(rnn, f"{name}_l{layer}{suffix}"))
        return found

    def project_inputs(self, layer: int) -> Tensor:
        """W x_t and both biases of a layer, for all steps: (D A M, T, N, C or 4C)."""
        weights = [self.weights(name, layer) for name in ("weight_ih", "bias_ih", "bias_hh")]
        return StackedLinear.apply(self.x, len(weights[0]), *chain(*weights)).flatten(0, -4)

    def finish_layer(self, h: Tensor, layer: int) -> dict[int, Tensor]:
        """From a layer's output h (D A M, T, N, C), return those of the ops that end with it, (M, T, N, D C).

        The outputs of the other ops become the input of the next layer.
        """
        forward, *backward = h.unflatten(0, (len(self.suffixes), len(self.rnns), -1))
        h = torch.cat([forward, backward[0].flip(-3)], dim=-1) if backward else forward  # (A, M, T, N, D C)
        finished = {}
        for i, (k, rnns) in enumerate(self.rnns.items()):
            if rnns[0].num_layers == layer + 1:
                finished[k] = h[i]
        self.rnns = {k: rnns for k, rnns in self.rnns.items() if k not in finished}
        self.x = self._add_reverse(h[: len(self.rnns)]) if self.rnns else None
        return finished


def run_recurrences(
    groups: Sequence[RecurrentGroup], scan: type[torch.autograd.Function]
) -> dict[int, Tensor]:
    """Run the recurrent modules of one RNN class; return for each op k their outputs (M, T, N, D C)."""
    outputs, layer = {}, 0
    while groups:
        recurrent = chain(*(group.weights("weight_hh", layer) for group in groups))
        h = scan.apply(torch.cat([group.project_inputs(layer) for group in groups]), *recurrent)
        for group, part in zip(groups, h.split([len(group) for group in groups]), strict=True):
            outputs |= group.finish_layer(part, layer)
        groups = [group for group in groups if group.rnns]
        layer += 1
    return outputs


def run_attention(ops: Ops, h: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Run `Context` of all ops with attention: for each op k, h (M, T, N, 2C) -> (M, T, N, C)."""
    if not ops:
        return {}
    contexts = [op.context for members in ops.values() for op in members]
    steps = torch.cat([h[k] for k in ops])
    key = StackedLinears([context.key for context in contexts])
    score = StackedLinears([context.score for context in contexts])
    project = StackedLinears([context.project for context in contexts])
    project_context = StackedLinears([context.project_context for context in contexts])
    out = project(steps) + project_context(attend(steps, key, score)).unsqueeze(1)
    return dict(zip(ops, out.unflatten(0, (len(ops), -1)), strict=True))


class StackedLinears:
    """G linear maps as one: (G, ..., I) -> (G, ..., O)."""

    def __init__(self, modules: Sequence[nn.Linear]):
        self.weights = [module.weight for module in modules]
        self.biases = [module.bias for module in modules if module.bias is not None]

    def __call__(self, x: Tensor) -> Tensor:
        return StackedLinear.apply(x, len(self.weights), *self.weights, *self.biases)
