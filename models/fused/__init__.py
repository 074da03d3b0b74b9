"""The cells of `models.cells` and the recurrent ops of `models.ops`, computed faster (see README.md).

`cell_types` is the only way in: `fused=False` gives the plain modules, `fused=True` subclasses of them with the same
parameters and, up to rounding, the same outputs and gradients.
"""

from collections.abc import Mapping
from dataclasses import replace

from models.cells import CELL_TYPES, CNN, SEQ, CellType
from models.fused.cnn.cell import FusedCnnCell
from models.fused.rnn.stacked_cell import StackedRnnCell
from models.fused.rnn.tanh_rnn import TanhRNN
from models.ops import RNN_CLASSES, sequence_ops

FUSED_RNN_CLASSES = {**RNN_CLASSES, "rnn": TanhRNN}
FUSED_CNN = replace(CNN, relaxed_cell=FusedCnnCell)
FUSED_SEQ = replace(
    SEQ, ops=sequence_ops(FUSED_RNN_CLASSES), rnn_classes=FUSED_RNN_CLASSES, relaxed_cell=StackedRnnCell
)
FUSED_CELL_TYPES: Mapping[str, CellType] = {"normal": FUSED_CNN, "reduce": FUSED_CNN, "rnn": FUSED_SEQ}


def cell_types(fused: bool) -> Mapping[str, CellType]:
    """The cell types, by kind of cell: "normal", "reduce" and "rnn"."""
    return FUSED_CELL_TYPES if fused else CELL_TYPES
