"""The relaxed SeqNN cell for a GPU: all recurrent ops that leave a state run together, a layer at a time.

Layer l of every lstm_k with k > l, and of both directions of every lstm_att_k with k > l, is a recurrence of the same
form, whatever edge it lies on: one stacked scan takes the place of a library call an op (see `stacked_scan`). Likewise
for RNNs. States 0 and 1 are there from the start: what leaves them is one stack.

Shapes: S states, E edges that leave each of them, M = S E; K ops, A of them of one family, D directions of each;
N utterances, T time steps, C channels; sequences (T, N, C).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from models.cells import Cell
from models.fused.rnn.stacked_scan import Linears, LstmScan, TanhScan
from models.mixed_ops import MixedOp
from models.ops import Recurrent, RecurrentAttention, attend
from models.recompute import recompute_in_backward

SCANS = {nn.LSTM: LstmScan, nn.RNN: TanhScan}


def pays(device: torch.device) -> bool:
    """Whether a stack is faster than the ops one by one: not on a CPU, where no launch has to be paid for.

    Forward and backward for all weights, one thread, two runs beside other programs: at the paper's size (N 16, T 32,
    C 128, four nodes, all ops) it takes 1.3 and 1.5 times as long, at the demo's (24, 16, 32, two nodes, four recurrent
    ops) 0.98 and 1.06 times. On a GPU it has not been measured.
    """
    return device.type != "cpu"


def stacked_share(cell: Cell, device: torch.device) -> float:
    """The share of a cell's edges that run, and with `recompute` run again, as one: those that leave states 0 and 1."""
    if not (isinstance(cell, StackedRnnCell) and pays(device)):
        return 0.0
    return 2 * len(cell.nodes) / sum(len(node.edges) for node in cell.nodes)


def stacked_gates(cell: Cell, device: torch.device) -> int:
    """What the largest scan reads, in sequences of C channels: four an LSTM and direction."""
    if not (isinstance(cell, StackedRnnCell) and pays(device)):
        return 0
    rnns = [op.rnn for op in cell.nodes[0].edges[0].ops if not isinstance(op, nn.Identity)]
    widths = {kind: sum(1 + rnn.bidirectional for rnn in rnns if isinstance(rnn, kind)) for kind in SCANS}
    return 2 * len(cell.nodes) * max(4 * widths[nn.LSTM], widths[nn.RNN])


class StackedRnnCell(Cell):
    """A relaxed SeqNN cell of `MixedNode`s. With `recompute`, what leaves a state is computed again as a whole."""

    def forward(self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor]) -> Tensor:
        if not pays(s1.device):
            return super().forward(s0, s1, weights)
        first = torch.stack([self.project0(s0), self.project1(s1)]).transpose(1, 2)  # (2, T, N, C)
        rows, states = [w.unbind() for w in weights], [*first]
        sums = self._leaving(first, 0, rows)  # of each node, what earlier states have brought
        while True:
            states.append(sums[0])
            if len(sums) == 1:
                return torch.cat([states[i] for i in self.concat], dim=2).transpose(0, 1)
            sums = sums[1:] + self._leaving(sums[:1], len(states) - 1, rows)

    def _leaving(self, x: Tensor, number: int, rows: Sequence[Sequence[Tensor]]) -> Tensor:
        """What the states x (S, T, N, C), from `number` on, bring to every node that they lead to: (E, T, N, C)."""
        states, nodes = range(number, number + len(x)), range(number + len(x) - 2, len(self.nodes))
        edges = Edges([self.nodes[node].edges[state] for state in states for node in nodes])
        weights = torch.stack([rows[node][state] for state in states for node in nodes])
        return recompute_in_backward(edges, x, weights) if edges.edges[0].recompute else edges(x, weights)


class Edges(nn.Module):
    """M relaxed edges, E of each of S states, the first state's first: the sum of what they bring."""

    def __init__(self, edges: Sequence[MixedOp]):
        super().__init__()
        self.edges = nn.ModuleList(edges)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x (S, T, N, C), the softmaxed alphas (M, K) -> (E, T, N, C)."""
        ops = dict(enumerate(zip(*(edge.ops for edge in self.edges), strict=True)))  # op k of every edge
        x = x.unsqueeze(1).expand(
            -1, len(self.edges) // len(x), *x.shape[1:]
        )  # (S, E, T, N, C), one x for all E
        outputs = {k: x for k, members in ops.items() if isinstance(members[0], nn.Identity)}
        for kind, scan in SCANS.items():
            families = [Family(block, kind, ops, x) for block in (Recurrent, RecurrentAttention)]
            outputs |= recurred([family for family in families if family.ops], scan)
        with_attention = {
            k: members for k, members in ops.items() if isinstance(members[0], RecurrentAttention)
        }
        outputs |= attended_to(with_attention, outputs)
        out = torch.stack([outputs[k].reshape(x.shape) for k in ops])  # (K, S, E, T, N, C), without `none`
        return torch.einsum("ksetnc,sek->etnc", out, weights[:, : len(ops)].unflatten(0, x.shape[:2]))


class Family:
    """The recurrent ops of one block and kind that still have layers to run, the deepest first; their input."""

    def __init__(
        self,
        block: type[nn.Module],
        kind: type[nn.RNNBase],
        ops: Mapping[int, Sequence[nn.Module]],
        x: Tensor,
    ):
        rnns = {k: [op.rnn for op in members] for k, members in ops.items() if isinstance(members[0], block)}
        rnns = {k: members for k, members in rnns.items() if isinstance(members[0], kind)}
        self.ops = dict(sorted(rnns.items(), key=lambda item: -item[1][0].num_layers))
        self.directions = ("", "_reverse") if block is RecurrentAttention else ("",)
        read = self._both_ways(x[:, :1]).unsqueeze(1)  # (D, 1, S, 1, T, N, C)
        self.x = read.expand(-1, len(self.ops), -1, x.shape[1], -1, -1, -1)  # (D, A, S, E, T, N, C)

    def _both_ways(self, x: Tensor) -> Tensor:
        """The sequence, and where there are two directions its reverse: (..., T, N, C) -> (D, ..., T, N, C)."""
        return torch.stack([x, x.flip(-3)]) if len(self.directions) == 2 else x.unsqueeze(0)

    def __len__(self) -> int:
        """The recurrences of a layer, D A M."""
        return self.x.shape[:-3].numel()

    def weights(self, name: str, layer: int) -> list[Tensor]:
        """Those of a layer, (D A M) of them."""
        suffixes = [f"{name}_l{layer}{direction}" for direction in self.directions]
        return [
            getattr(rnn, suffix) for suffix in suffixes for members in self.ops.values() for rnn in members
        ]

    def projected(self, layer: int) -> Tensor:
        """What a layer adds up of its input and its biases: (D A M, T, N, C or 4C)."""
        weights = [self.weights(name, layer) for name in ("weight_ih", "bias_ih", "bias_hh")]
        return Linears.apply(self.x, len(weights[0]), *chain(*weights)).flatten(0, -4)

    def take(self, h: Tensor, layer: int) -> dict[int, Tensor]:
        """Of a layer's output (D A M, T, N, C), that of the ops that end with it, (M, T, N, D C); the rest read on."""
        forward, *backward = h.unflatten(0, (len(self.directions), len(self.ops), -1))
        h = torch.cat([forward, backward[0].flip(-3)], dim=-1) if backward else forward  # (A, M, T, N, D C)
        ending = {k: h[i] for i, (k, rnns) in enumerate(self.ops.items()) if rnns[0].num_layers == layer + 1}
        self.ops = {k: rnns for k, rnns in self.ops.items() if k not in ending}
        self.x = self._both_ways(h[: len(self.ops)]) if self.ops else None
        return ending


def recurred(families: Sequence[Family], scan: type[torch.autograd.Function]) -> dict[int, Tensor]:
    """What the recurrent modules of one kind put out, by op: (M, T, N, C), with two directions 2C."""
    outputs, layer = {}, 0
    while families:
        recurrent = chain(*(family.weights("weight_hh", layer) for family in families))
        h = scan.apply(torch.cat([family.projected(layer) for family in families]), *recurrent)
        for family, part in zip(families, h.split([len(family) for family in families]), strict=True):
            outputs |= family.take(part, layer)
        families, layer = [family for family in families if family.ops], layer + 1
    return outputs


def attended_to(
    ops: Mapping[int, Sequence[RecurrentAttention]], h: Mapping[int, Tensor]
) -> dict[int, Tensor]:
    """The attention of ops with it, over what their recurrent modules have put out: (M, T, N, 2C) -> (M, T, N, C)."""
    if not ops:
        return {}
    contexts = [op.context for members in ops.values() for op in members]
    key, score, project, project_context = (
        linears([getattr(context, name) for context in contexts])
        for name in ("key", "score", "project", "project_context")
    )
    steps = torch.cat([h[k] for k in ops])
    out = project(steps) + project_context(attend(steps, key, score)).unsqueeze(1)
    return dict(zip(ops, out.unflatten(0, (len(ops), -1)), strict=True))


def linears(modules: Sequence[nn.Linear]) -> Callable[[Tensor], Tensor]:
    """G linear maps as one: (G, ..., I) -> (G, ..., O)."""
    biases = [module.bias for module in modules if module.bias is not None]
    return lambda x: Linears.apply(x, len(modules), *(module.weight for module in modules), *biases)
