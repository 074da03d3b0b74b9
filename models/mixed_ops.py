"""The continuous relaxation: an edge that carries every candidate op at once (Liu et al. 2019, section 2.2).

K ops, E = i + 2 edges into node i. `none` is the last of the ops where it is present; its output is zero, so it takes
its share of the softmax and is never computed.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.cells import CellType
from models.recompute import recomputed


class MixedOp(nn.Module):
    """A relaxed edge: o(x) = sum_o softmax(alpha)_o o(x) (eq. 2). With `recompute`, of an op only o(x) is stored."""

    def __init__(
        self, cell_type: CellType, ops: Sequence[str], channels: int, stride: int, recompute: bool = False
    ):
        super().__init__()
        self.ops = nn.ModuleList(cell_type.ops[op](channels, stride, False) for op in ops if op != "none")
        self.recompute = recompute

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """`weights` (K,): the softmaxed alphas of this edge."""
        return sum(weight * self._run(op, x) for weight, op in zip(weights, self.ops, strict=False))

    def _run(self, op: nn.Module, x: Tensor) -> Tensor:
        return recomputed(op, x) if self.recompute else op(x)


class MixedNode(nn.Module):
    """A node fed by every earlier state through a relaxed edge: x_j = sum_{i<j} o_ij(x_i) (eq. 1)."""

    edge: type[MixedOp] = MixedOp

    def __init__(
        self,
        cell_type: CellType,
        ops: Sequence[str],
        channels: int,
        strides: Sequence[int],
        recompute: bool = False,
    ):
        super().__init__()
        self.edges = nn.ModuleList(
            self.edge(cell_type, ops, channels, stride, recompute) for stride in strides
        )

    def forward(self, states: Sequence[Tensor], weights: Tensor) -> Tensor:
        """`weights` (E, K): the softmaxed alphas of this node's edges."""
        return sum(edge(x, w) for edge, x, w in zip(self.edges, states, weights, strict=True))
