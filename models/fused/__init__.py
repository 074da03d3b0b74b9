"""The cells of `models.cells` and the ops of `models.ops`, computed faster (see README.md).

`cell_types` and `stem_type` are the only ways in: with `fused=False` they return the plain modules, with
`fused=True` subclasses that have the same parameters and, up to rounding, the same outputs and gradients.
The other names are what the rest of the program needs to know about these subclasses.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from models.cells import CELL_TYPES, CNN, SEQ, Cell, CellType, project_maps
from models.fused.cnn.cell import FusedCnnCell
from models.fused.cnn.sync_batchnorm import synchronise
from models.fused.cnn.units import FusedConvUnit, FusedFactorizedReduce, FusedPool, FusedProjection, FusedStem
from models.fused.native.compiler import compiler_missing, library_name
from models.fused.rnn.stacked_cell import StackedRnnCell, stacked_gates, stacked_share
from models.fused.rnn.tanh_rnn import TanhRNN
from models.joint_network import Stem
from models.ops import RNN_CLASSES, map_ops, sequence_ops

__all__ = [
    "cell_types",
    "compiler_missing",
    "library_name",
    "recomputes_edge_by_edge",
    "stacked_gates",
    "stacked_share",
    "stem_type",
    "synchronise",
]

FUSED_RNN_CLASSES = {**RNN_CLASSES, "rnn": TanhRNN}
FUSED_CNN = replace(
    CNN,
    ops=map_ops(FusedConvUnit, FusedPool, FusedFactorizedReduce),
    project=partial(project_maps, projection=FusedProjection, reduce=FusedFactorizedReduce),
    relaxed_cell=FusedCnnCell,
)
FUSED_SEQ = replace(
    SEQ, ops=sequence_ops(FUSED_RNN_CLASSES), rnn_classes=FUSED_RNN_CLASSES, relaxed_cell=StackedRnnCell
)
FUSED_CELL_TYPES: Mapping[str, CellType] = {"normal": FUSED_CNN, "reduce": FUSED_CNN, "rnn": FUSED_SEQ}


def cell_types(fused: bool) -> Mapping[str, CellType]:
    """The cell types, by kind of cell: "normal", "reduce" and "rnn"."""
    return FUSED_CELL_TYPES if fused else CELL_TYPES


def stem_type(fused: bool) -> type[Stem]:
    """The class of the layers before the first cell of a derived network."""
    return FusedStem if fused else Stem


def recomputes_edge_by_edge(cell: Cell) -> bool:
    """Whether the backward pass of a cell with `recompute` recomputes one edge at a time."""
    return isinstance(cell, FusedCnnCell)
