"""The continuous relaxation: edges that compute every candidate op at once (Liu et al. 2019, section 2.2).

`none` is the last of the ops if it is a candidate. Its output is zero: it takes its share of the softmax and is not
computed.

Shapes: K ops; E = i + 2 edges into node i.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from models.cells import CellType
from models.recompute import recompute_in_backward


class MixedOp(nn.Module):
    """A relaxed edge (eq. 2): o(x) = sum_k softmax(alpha)_k o_k(x).

    With `recompute`, only the input and the output of each op are stored for the backward pass. With `norm`, for
    sequences only, LayerNorm over the channels follows each op: o_k(x) becomes LN(o_k(x)), without weights.
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
        super().__init__()
        self.ops = nn.ModuleList(cell_type.ops[op](channels, stride, False) for op in ops if op != "none")
        self.recompute = recompute
        self.norm = nn.LayerNorm(channels, elementwise_affine=False) if norm else None

    def forward(self, x: Tensor, op_weights: Tensor) -> Tensor:
        """`op_weights` (K,): the weights of its ops."""
        outputs = [self.run(self.with_norm(op), x) for op in self.ops]
        pairs = zip(op_weights, outputs, strict=False)  # without the last weight if it is that of `none`
        return sum(weight * output for weight, output in pairs)

    def with_norm(self, op: nn.Module) -> nn.Module:
        """The op and its LayerNorm, if it has one, as one module, so that both are recomputed together."""
        return nn.Sequential(op, self.norm) if self.norm else op

    def run(self, op: nn.Module, x: Tensor) -> Tensor:
        """op(x)."""
        return recompute_in_backward(op, x) if self.recompute else op(x)


class MixedNode(nn.Module):
    """A node with a relaxed edge from every earlier state (eq. 1): x_j = sum_{i<j} o_ij(x_i)."""

    def __init__(self, edges: Iterable[MixedOp]):
        super().__init__()
        self.edges = nn.ModuleList(edges)

    def forward(self, states: Sequence[Tensor], op_weights: Tensor) -> Tensor:
        """`op_weights` (E, K): the weights of the ops on its edges."""
        return sum(edge(x, w) for edge, x, w in zip(self.edges, states, op_weights, strict=True))
