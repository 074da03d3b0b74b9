"""The relaxed edge with nested depth: recurrent ops of one family are the outputs of one stack after each layer.

lstm_k is the output of layer k of the edge's one LSTM stack (likewise rnn_k, lstm_att_k,
rnn_att_k), so that the 1 + 2 + 3 + 4 layers of lstm_1 to lstm_4 become 4. This is another
relaxation than the paper's, in which every op has its own weights: here a layer is trained by all
ops that pass through it, as weights are shared in one-shot search (Bender et al., ICML 2018). For a
family with a single op, both are the same function.

Shapes: N utterances, T time steps, C channels, K ops, k layers; sequences (N, T, C).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.cells import CellType
from models.mixed_ops import MixedOp
from models.ops import MAX_LAYERS, Context


class Stack(nn.Module):
    """The ops of one family at `depths`: o_k(x) = read_k(h_k), where h_k = layer_k(h_{k-1}) and h_0 = x.

    Without attention, read_k is the identity. With attention, the layers are bidirectional and every depth has its own
    attention. With `norm`, LayerNorm follows read_k; the next layer reads h_k as it is.
    """

    def __init__(
        self, cell_type: CellType, family: str, depths: Sequence[int], channels: int, norm: bool = False
    ):
        super().__init__()
        rnn, _, attention = family.partition("_")
        rnn_class = cell_type.rnn_classes[rnn]
        bidirectional = bool(attention)
        inner = 2 * channels if bidirectional else channels
        self.layers = nn.ModuleList(
            rnn_class(inner if layer else channels, channels, batch_first=True, bidirectional=bidirectional)
            for layer in range(max(depths))
        )
        self.reads = nn.ModuleDict(
            {str(k): Context(channels) if attention else nn.Identity() for k in depths}
        )
        self.norm = nn.LayerNorm(channels, elementwise_affine=False) if norm else nn.Identity()
        self.names = tuple(f"{family}_{k}" for k in depths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The output (N, T, C) of each op in `names`."""
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1])[0])
        return tuple(self.norm(read(states[int(k)])) for k, read in self.reads.items())


class NestedOp(MixedOp):
    """A relaxed edge (eq. 2), o(x) = sum_k softmax(alpha)_k o_k(x), with one stack for each family of recurrent ops.

    With `recompute`, only the input and the outputs of each stack are stored for the backward pass.
    """

    def __init__(
        self,
        cell_type: CellType,
        ops: Sequence[str],
        channels: int,
        stride: int,
        recompute: bool = False,
        norm: bool = False,
    ):
        stacks = []
        for family, most in MAX_LAYERS.items():
            depths = [k for k in range(1, most + 1) if f"{family}_{k}" in ops]
            if depths:
                stacks.append(Stack(cell_type, family, depths, channels, norm))
        in_stacks = {name for stack in stacks for name in stack.names}
        others = [op for op in ops if op not in in_stacks and op != "none"]
        super().__init__(cell_type, others, channels, stride, recompute, norm)
        self.stacks = nn.ModuleList(stacks)
        self.names = ops
        self.others = others

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """`weights` (K,): the weights of its ops."""
        outputs = {}
        for stack in self.stacks:
            outputs.update(zip(stack.names, self.run(stack, x), strict=True))
        for name, op in zip(self.others, self.ops, strict=True):
            outputs[name] = self.run(self.with_norm(op), x)
        weighted = zip(self.names, weights, strict=True)
        return sum(weight * outputs[op] for op, weight in weighted if op != "none")
