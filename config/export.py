"""The flags of export.py."""

from pathlib import Path
from typing import Literal

from config.flags import Flags


class ExportConfig(Flags):
    """Write the network of a run for other programs, and check it there."""

    model: Path
    """The run that holds the model, runs/NAME or its augment folder, or a model file."""
    format: Literal["onnx", "torch_export"] = "onnx"
    """onnx: for ONNX Runtime and others; torch_export: a program of torch.export, which needs no code of this one."""
    out: Path
    """The file to write; FILE.json beside it says how to make its input, and what its output means."""
    audio: tuple[Path, ...] = ()
    """Recordings on which the file is compared with the model, besides noise."""
    overwrite: bool = False
    """Replace the file that is there."""
