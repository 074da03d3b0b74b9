"""Memory for time: a cell that stores only its inputs, and in backward computes itself again."""

from collections.abc import Sequence

from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from models.cells import Cell


def recomputed(cell: Cell, s0: Tensor, s1: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
    """`cell(s0, s1, weights)`. The cell must draw no random numbers.

    The second time it runs with the parameters of the first, whatever the module then holds (the passes of the
    architect lend it other weights), and on copies of the buffers, so that running statistics move only once.
    """
    parameters = dict(cell.named_parameters())
    tries = []

    def run(s0: Tensor, s1: Tensor) -> Tensor:
        tries.append(None)
        buffers = {name: buffer.clone() for name, buffer in cell.named_buffers()} if len(tries) > 1 else {}
        return functional_call(cell, {**parameters, **buffers}, (s0, s1, weights))

    return checkpoint(run, s0, s1, use_reentrant=False, preserve_rng_state=False)
