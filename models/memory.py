"""The memory that the cells of a supernet hold, measured in a forward pass of a few utterances.

autograd reports every tensor that it stores for the backward pass. Their size is proportional to
the batch. The gradients of the weights, which replace the stored tensors one by one, are not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from genotypes import Genotype
from models import passes
from models.cells import Cell
from models.fused import recomputes_edge_by_edge, stacked_gates, stacked_share
from models.mixed_ops import MixedOp
from models.one_shot_network import OneShotNetwork
from models.search_network import SearchNetwork

UTTERANCES = 4
"""Utterances in the pass. The workspace of an LSTM is rounded up; with fewer utterances, that would count for more."""

# Fitted to measured peaks (benchmarks/memory.py):
WORKING_STATES = 12
"""States of a cell that its backward pass works on at a time: the gradients of an edge's maps, and their sums."""
RECOMPUTED_EDGE = {"ops": 1.3, "cells": 1.9}
"""The memory of recomputing an edge in the backward pass, relative to the maps inside the edge."""
RECOMPUTED_EDGE_WITHOUT_WEIGHTS = 0.6
"""The same in a pass without weight gradients."""
STACKED_GATES = 2
"""The memory of the backward pass of a stacked scan, relative to what the scan reads."""


@dataclass(frozen=True)
class CellMemory:
    """The memory of a cell in bytes. All but `weights` is per utterance."""

    weights: int
    stored: Mapping[str, float]
    """What the forward pass stores, by the value of --recompute."""
    working: float
    """What the backward pass works on."""
    stack: float = 0.0
    """What recomputing the largest stack of recurrent ops holds, if they run stacked (see `models.fused.rnn`)."""
    edge: float = 0.0
    """The maps inside an edge of a fused CNN cell, which are recomputed edge by edge."""
    unused: int = 0
    """The part of `weights` that the pass does not use, and of which it computes no gradient."""

    @property
    def gradients(self) -> int:
        """The gradients of the weights."""
        return self.weights - self.unused

    def recomputed(self, recompute: str, weight_gradients: bool = True) -> float:
        """What the backward pass holds besides `stored` and `working`."""
        if self.edge and recompute != "none":
            factor = RECOMPUTED_EDGE[recompute] if weight_gradients else RECOMPUTED_EDGE_WITHOUT_WEIGHTS
            inputs = self.stored["ops"] if recompute == "cells" else 0.0
            return factor * self.edge + inputs
        everything = self.stored["none"]
        return {
            "none": max(self.stack - everything, 0.0),
            "ops": self.stack,
            "cells": max(self.stack, everything),
        }[recompute]


class StorageCounter:
    """Adds up the memory of tensors, each storage once; the storages of `ignored` are not counted."""

    def __init__(self, ignored: Iterable[Tensor]):
        self.bytes = 0
        self.seen = {tensor.untyped_storage().data_ptr() for tensor in ignored}

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def measure_genotype(
    network: OneShotNetwork, genotype: Genotype, shape: tuple[int, int], dtype: torch.dtype | None = None
) -> list[CellMemory]:
    """The memory of each cell of a one-shot supernet, in a pass that trains a genotype; see `measure_cells`."""
    network.genotype = genotype
    used = set(network.weights_in_use())
    memory = measure_cells(network, shape, dtype)
    cells = [*network.network.cnn_cells, *network.network.rnn_cells]
    return [
        replace(each, unused=sum(w.nbytes for w in cell.parameters() if w not in used))
        for cell, each in zip(cells, memory, strict=True)
    ]


def measure_cells(
    network: SearchNetwork | OneShotNetwork, shape: tuple[int, int], dtype: torch.dtype | None = None
) -> list[CellMemory]:
    """The memory of each cell of a supernet that recomputes nothing, for inputs (F, T) and passes in `dtype`.

    What the stem stores is added to the first cell. The pass changes the network's running statistics.
    """
    cells = [*network.network.cnn_cells, *network.network.rnn_cells]
    set_recompute(network, False)
    everything, outputs = measure_pass(network, cells, shape, dtype)
    set_recompute(network, True)
    without_insides, _ = measure_pass(network, cells, shape, dtype)
    # its output, and a mask of one byte per number
    kept_by_dropout = 1 + 1 / (dtype or torch.float32).itemsize
    device = next(network.parameters()).device
    memory = []
    for cell, whole, part, output in zip(cells, everything, without_insides, outputs, strict=True):
        state = output / len(cell.concat)
        edges = sum(len(node.edges) for node in cell.nodes)
        memory.append(
            CellMemory(
                weights=sum(w.nbytes for w in cell.parameters()),
                stored={"none": whole, "ops": part, "cells": kept_by_dropout * output},
                working=WORKING_STATES * state,
                stack=stacked_share(cell, device) * whole
                + STACKED_GATES * stacked_gates(cell, device) * state,
                edge=(whole - part) / edges if recomputes_edge_by_edge(cell) else 0.0,
            )
        )
    return memory


def set_recompute(network: SearchNetwork | OneShotNetwork, recompute: bool) -> None:
    """Let all edges store only the inputs and outputs of their ops, or everything."""
    for module in network.modules():
        if isinstance(module, MixedOp):
            module.recompute = recompute


def measure_pass(
    network: SearchNetwork | OneShotNetwork,
    cells: list[Cell],
    shape: tuple[int, int],
    dtype: torch.dtype | None,
) -> tuple[list[float], list[float]]:
    """(bytes stored, bytes of the output) of each cell in a forward pass, per utterance."""
    weights = passes.cast_weights(network, dict(network.named_parameters()), dtype)
    counter = StorageCounter([*network.parameters(), *network.buffers(), *weights.values()])
    stored = [0.0]  # after each cell
    outputs = []

    def note(cell: Cell, inputs: tuple, output: Tensor) -> None:
        stored.append(counter.bytes / UTTERANCES)
        outputs.append(output.nbytes / UTTERANCES)

    handles = [cell.register_forward_hook(note) for cell in cells]
    x = torch.zeros(UTTERANCES, 1, *shape, device=next(network.parameters()).device)
    with saved_tensors_hooks(counter.add, lambda tensor: tensor):
        kept = passes.forward_with(network, x, weights, dtype)  # noqa: F841  kept alive, so that no memory is reused
    for handle in handles:
        handle.remove()
    return [after - before for before, after in pairwise(stored)], outputs
