"""Networks in formats that other programs run: ONNX, and torch.export. Both take batches of any size.

Shapes: N utterances, C channels, F coefficients, T frames or time steps, H units, D directions (2 if bidirectional).
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxscript import ir
from onnxscript import opset20 as op
from torch import Tensor, nn

INPUT = "features"
OUTPUT = "logits"
BATCH = "N"
Shape = tuple[int, int]
"""(F, T) of the input."""
Run = Callable[[Tensor], Tensor]
"""(N, F, T) features -> logits (N, classes)."""


def write_onnx(network: nn.Module, shape: Shape, metadata: Mapping[str, str], path: Path) -> None:
    """Write an ONNX model, with `metadata` in its `metadata_props`."""
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            dynamic_shapes=_any_batch(),
            input_names=[INPUT],
            output_names=[OUTPUT],
            custom_translation_table={torch.ops.aten.rnn_tanh.input: rnn_tanh},
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def open_onnx(path: Path) -> Run:
    """Open an ONNX model with ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda features: torch.from_numpy(session.run([OUTPUT], {INPUT: features.numpy()})[0])


def write_torch_export(network: nn.Module, shape: Shape, metadata: Mapping[str, str], path: Path) -> None:
    """Write a torch.export program, with `metadata` in its extra files."""
    with _quiet():
        program = torch.export.export(network, (torch.zeros(2, *shape),), dynamic_shapes=_any_batch())
        held = io.BytesIO()
        torch.export.save(program, held, extra_files=dict(metadata))
    path.write_bytes(held.getvalue())


def open_torch_export(path: Path) -> Run:
    """Open a torch.export program. Loading one runs code in the file: open only what this process has written."""
    with _quiet():
        return torch.export.load(io.BytesIO(path.read_bytes())).module()


FORMATS: Mapping[
    str, tuple[Callable[[nn.Module, Shape, Mapping[str, str], Path], None], Callable[[Path], Run]]
] = {
    "onnx": (write_onnx, open_onnx),
    "torch_export": (write_torch_export, open_torch_export),
}
"""By format: the function that writes it and the one that opens it."""


def batches(features: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
    """Split all features into batches of each of these sizes in turn."""
    for size in sizes:
        yield from features.split(size)


@torch.no_grad()
def largest_difference(one: Run, other: Run, features: Tensor, sizes: Sequence[int]) -> float:
    """The largest difference of any logit, over batches of each of these sizes; NaN if a logit is NaN."""
    gaps = [(one(batch) - other(batch)).abs().max() for batch in batches(features, sizes)]
    return float(torch.stack(gaps).max())


def rnn_tanh(
    x: ir.Value,
    hx: ir.Value,
    params: Sequence[ir.Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[ir.Value, ir.Value]:
    """Translate torch's tanh RNN, batch first and starting from zeros, into ONNX's operator.

    Without this translation the exporter unrolls all time steps.
    """
    directions = 2 if bidirectional else 1
    h = op.Transpose(x, perm=[1, 0, 2])  # (T, N, C)
    final_states = []
    for first in range(0, len(params), 4 * directions):  # the parameters of a layer
        own = [params[first + 4 * d : first + 4 * d + 4] for d in range(directions)]
        w, u, b, c = (_stack(values) for values in zip(*own, strict=True))  # w, u (D, H, C); b, c (D, H)
        steps, end = op.RNN(
            h,
            w,
            u,
            op.Concat(b, c, axis=1),
            hidden_size=int(own[0][1].shape[1]),
            direction="bidirectional" if bidirectional else "forward",
        )  # (T, D, N, H), (D, N, H)
        h = op.Reshape(
            op.Transpose(steps, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1])
        )  # (T, N, DH)
        final_states.append(end)
    return op.Transpose(h, perm=[1, 0, 2]), op.Concat(*final_states, axis=0)


def _stack(values: Sequence[ir.Value]) -> ir.Value:
    """Stack values along a new first axis."""
    rows = [op.Unsqueeze(value, op.Constant(value_ints=[0])) for value in values]
    return rows[0] if len(rows) == 1 else op.Concat(*rows, axis=0)


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim(BATCH)},)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings about optional packages."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
