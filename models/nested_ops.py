"""The relaxed edge with nested depth: the ops of a family are the outputs of one stack after each of its layers.

lstm_k is what the k-th layer of the edge's one LSTM stack puts out (likewise rnn_k, lstm_att_k, rnn_att_k), so that the
1 + 2 + 3 + 4 layers of lstm_1 to lstm_4 become 4. This is another relaxation than the paper's, in which every op has
weights of its own: here a layer learns for all ops that pass through it, as weights are shared in one-shot search
(Bender et al., ICML 2018). Where a family has one op only, both are the same function.

Shapes: N utterances, T time steps, C channels, K ops, k layers; sequences (N, T, C).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.cells import CellType
from models.fused.rnn.tanh_scan import recur
from models.mixed_ops import MixedNode, MixedOp
from models.ops import FAMILIES, Context, RecurrentAttention


class Stack(nn.Module):
    """The ops of one family at `depths`: o_k(x) = read_k(h_k), where h_k = layer_k(h_{k-1}) and h_0 = x.

    Without attention, read_k is the identity; with it, layers are bidirectional and every depth attends by itself.
    """

    def __init__(self, family: str, depths: Sequence[int], channels: int):
        super().__init__()
        block, kind, _ = FAMILIES[family]
        attention = block is RecurrentAttention
        inner = 2 * channels if attention else channels
        self.layers = nn.ModuleList(
            kind(inner if layer else channels, channels, batch_first=True, bidirectional=attention)
            for layer in range(max(depths))
        )
        self.reads = nn.ModuleDict(
            {str(k): Context(channels) if attention else nn.Identity() for k in depths}
        )
        self.names = tuple(f"{family}_{k}" for k in depths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The output of each of the ops `names`, (N, T, C)."""
        states = [x]
        for layer in self.layers:
            states.append(recur(layer, states[-1]))
        return tuple(read(states[int(k)]) for k, read in self.reads.items())


class NestedOp(MixedOp):
    """A relaxed edge, o(x) = sum_o softmax(alpha)_o o(x) (eq. 2), with one stack a family.

    With `recompute`, of a stack only x and the o(x) are stored.
    """

    def __init__(
        self, cell_type: CellType, ops: Sequence[str], channels: int, stride: int, recompute: bool = False
    ):
        depths = {
            family: [k for k in range(1, deepest + 1) if f"{family}_{k}" in ops]
            for family, (_, _, deepest) in FAMILIES.items()
        }
        stacks = [Stack(family, given, channels) for family, given in depths.items() if given]
        nested = [op for stack in stacks for op in stack.names]
        others = [op for op in ops if op not in (*nested, "none")]
        super().__init__(cell_type, others, channels, stride, recompute)
        self.stacks, self.names, self.others = nn.ModuleList(stacks), ops, others

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """`weights` (K,): the softmaxed alphas of this edge."""
        outputs = {}
        for stack in self.stacks:
            outputs |= zip(stack.names, self._run(stack, x), strict=True)
        outputs |= zip(self.others, (self._run(op, x) for op in self.ops), strict=True)
        shares = zip(self.names, weights, strict=True)
        return sum(weight * outputs[op] for op, weight in shares if op != "none")


class NestedNode(MixedNode):
    """A node fed by every earlier state through such an edge."""

    edge = NestedOp
