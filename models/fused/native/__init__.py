"""The hottest loops of a supernet on a CPU as C++ code: fewer passes over the memory than torch's operations.

The code is compiled when it is first needed (see `compiler`). `supports` says whether it applies;
otherwise the callers compute the same with torch's operations. Neither autograd nor torch's modes and
profilers see these calls: autograd functions make them.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.fused.native import compiler

TYPES = {torch.float32: "float", torch.float64: "double"}


def supports(channels: int, *tensors: Tensor) -> bool:
    """Whether the compiled code can process these tensors: float32 or float64, 8, 16, 24 ... channels, on a CPU."""
    known = all(x.device.type == "cpu" and x.dtype in TYPES for x in tensors)
    return known and channels % 8 == 0 and compiler.library() is not None


def library_name() -> str | None:
    """A name that depends on the sources, the compiler and the processor; None if nothing is compiled."""
    library = compiler.library()
    return library and Path(library._name).stem


def compiler_missing(device: torch.device) -> bool:
    """Whether the compiled code could run on this device, but no compiler works."""
    return device.type == "cpu" and sys.platform == "linux" and compiler.library() is None


def call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Call a C++ function for numbers of `dtype`. The number of threads is added as the last argument."""
    function = getattr(compiler.library(), f"{name}_{TYPES[dtype]}")
    function(*map(to_c, arguments), ctypes.c_int(torch.get_num_threads()))


def to_c(argument: Tensor | list[Tensor] | list[int] | int | None) -> Any:
    """An argument as C takes it: a number, an array of numbers, or an array of arrays."""
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, list):
        is_numbers = argument and isinstance(argument[0], int)
        kind = ctypes.c_int64 if is_numbers else ctypes.c_void_p
        return (kind * len(argument))(*(argument if is_numbers else [x.data_ptr() for x in argument]))
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())
