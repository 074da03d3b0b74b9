"""What the cells of a supernet hold in memory, found by a forward pass of a few utterances.

Whatever backward will need, autograd stores, and tells of every tensor as it does so. That grows in proportion to the
batch; the gradients of the weights, which come to be as the stored tensors go, do not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from models.bf16 import lowered
from models.cells import Cell
from models.fused.cnn.cell import RelaxedMapsCell
from models.fused.rnn.stacked_cell import at_once, gates_at_once
from models.mixed_ops import MixedOp
from models.search_network import SearchNetwork

UTTERANCES = 4  # in the pass: the workspace of an LSTM is rounded up, for fewer by more
WORKING = 12  # states of a cell that its backward works on at a time: the gradients of an edge's maps, and their sums
EDGES = {
    "ops": 1.3,
    "cells": 1.9,
}  # times the maps inside an edge: what backward holds as it computes edges again
FROZEN = 0.6  # the same where nobody asks for the gradients of weights
GATES = (
    2  # times what the largest stacked scan reads: its backward works on slopes and gradients of that size
)


@dataclass(frozen=True)
class Footprint:
    """Bytes of a cell: its weights; per utterance, what it stores under each --recompute and what backward works on."""

    weights: int
    stored: Mapping[str, float]
    working: float
    stack: float = 0.0
    """What backward holds of the largest stack that runs as one, where there are such, and works on for it."""
    edge: float = 0.0
    """What the maps inside an edge of feature maps take; such an edge is computed again with its cell, too."""

    def again(self, recompute: str, of_weights: bool = True) -> float:
        """What backward holds, per utterance, beside `stored` and `working`."""
        whole = self.stored["none"]
        if self.edge and recompute != "none":
            times = EDGES[recompute] if of_weights else FROZEN
            return times * self.edge + (self.stored["ops"] if recompute == "cells" else 0.0)
        return {"none": max(self.stack - whole, 0.0), "ops": self.stack, "cells": max(self.stack, whole)}[
            recompute
        ]


class Stored:
    """Sums up the memory of tensors, each once, but for that of some `others`."""

    def __init__(self, others: Iterable[Tensor]):
        self.bytes, self.seen = 0, {tensor.untyped_storage().data_ptr() for tensor in others}

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def footprints(
    network: SearchNetwork, shape: tuple[int, int], dtype: torch.dtype | None = None
) -> list[Footprint]:
    """Those of each cell of a network that recomputes nothing, for inputs (F, T), with passes in `dtype`.

    What the stem stores is the first's. The network's running statistics are moved.
    """
    cells, device = (
        [*network.network.cnn_cells, *network.network.rnn_cells],
        next(network.parameters()).device,
    )
    found = []
    for recompute in (False, True):
        for module in network.modules():
            if isinstance(module, MixedOp):
                module.recompute = recompute
        found.append(_pass(network, cells, shape, dtype))
    (everything, outputs), (but_ops, _) = found
    dropped_out = 1 + 1 / (dtype or torch.float32).itemsize  # dropout stores its output, and a byte a number
    return [
        Footprint(
            sum(w.nbytes for w in cell.parameters()),
            {"none": whole, "ops": part, "cells": dropped_out * output},
            WORKING * output / len(cell.concat),
            at_once(cell, device) * whole + GATES * gates_at_once(cell, device) * output / len(cell.concat),
            isinstance(cell, RelaxedMapsCell) * (whole - part) / sum(len(node.edges) for node in cell.nodes),
        )
        for cell, whole, part, output in zip(cells, everything, but_ops, outputs, strict=True)
    ]


def _pass(
    network: SearchNetwork, cells: list[Cell], shape: tuple[int, int], dtype: torch.dtype | None
) -> tuple[list[float], list[float]]:
    """(bytes stored, bytes of the output) of each cell in a forward pass, per utterance."""
    lent = lowered(network, dict(network.named_parameters()), dtype)
    stored, totals, outputs = Stored([*network.parameters(), *network.buffers(), *lent.values()]), [0.0], []

    def note(cell: Cell, inputs: tuple, output: Tensor) -> None:
        totals.append(stored.bytes / UTTERANCES)
        outputs.append(output.nbytes / UTTERANCES)

    handles = [cell.register_forward_hook(note) for cell in cells]
    x = torch.zeros(UTTERANCES, 1, *shape, device=next(network.parameters()).device)
    with saved_tensors_hooks(stored.add, lambda tensor: tensor):
        kept = functional_call(network, lent, (x.to(dtype),))  # noqa: F841  so that no memory is used twice
    for handle in handles:
        handle.remove()
    return [after - before for before, after in pairwise(totals)], outputs
