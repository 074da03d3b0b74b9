"""What the supernet does most is done in C++ on a CPU, where there is a compiler: in fewer passes over the memory.

Without a compiler, and on other devices, the callers do the same by torch's operations: `usable` says which. Torch's
modes and profilers do not see what is done here, and autograd does not either: it is called from functions that have
gradients of their own.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.fused.native import compiler

TYPES = {torch.float32: "float", torch.float64: "double"}


def usable(channels: int, *tensors: Tensor) -> bool:
    """Whether tensors of so many channels are computed here: multiples of 8, of 32 or 64 bits."""
    known = all(x.device.type == "cpu" and x.dtype in TYPES for x in tensors)
    return known and channels % 8 == 0 and compiler.library() is not None


def name() -> str | None:
    """What tells the code in use from others, by its sources, compiler and processor; None where there is none."""
    library = compiler.library()
    return library and Path(library._name).stem


def compiler_missing(device: torch.device) -> bool:
    """Whether the code could run for this device, but that no compiler works."""
    return device.type == "cpu" and sys.platform == "linux" and compiler.library() is None


def call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """A function of the C++ code, for this type of numbers; it takes the number of threads last."""
    function = getattr(compiler.library(), f"{name}_{TYPES[dtype]}")
    function(*map(passed, arguments), ctypes.c_int(torch.get_num_threads()))


def passed(argument: Tensor | list[Tensor] | list[int] | int | None) -> Any:
    """An argument as C takes it: a number, an array, an array of arrays or of numbers."""
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, list):
        numbers = argument and isinstance(argument[0], int)
        kind = ctypes.c_int64 if numbers else ctypes.c_void_p
        return (kind * len(argument))(*(argument if numbers else [x.data_ptr() for x in argument]))
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())
