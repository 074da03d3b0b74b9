"""Depthwise convolutions past a ReLU, and their gradients, in C++ for a CPU (`depthwise.cpp`): faster than by library.

The system's C++ compiler compiles the code when it is first needed, in two seconds, and it is kept in the user's cache
under the hash of all that it depends on. Without a compiler, without Linux, and on other devices, `kernels` calls the
library.

Shapes: maps (N, C, F, T) in channels_last memory format, weights (C, 1, k, k) with k 3 or 5.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("depthwise.cpp")
TYPES = {torch.float32: "float", torch.float64: "double"}
STRIP = 8  # rows, as in the source
FLAGS = ["-std=c++17", "-O3", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]
VECTORS = {  # what torch found that this processor can do, as the compiler calls it
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}


def usable(x: Tensor, side: int) -> bool:
    """Whether maps like x, and kernels of this side, are computed here."""
    known = x.device.type == "cpu" and x.dtype in TYPES and side in (3, 5)
    return known and x.shape[1] % 8 == 0 and library() is not None


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """z = k * relu(x)."""
    x, (n, c, f, t), side = dense(x), x.shape, weight.shape[-1]
    z = torch.empty(n, c, -(-f // stride), -(-t // stride), dtype=x.dtype, memory_format=torch.channels_last)
    call("depthwise", [x, weight.contiguous(), z], n, f, t, c, side, stride, dilation)
    return z


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, by_x: bool, by_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of z = k * relu(x) from that by z: by x and by k; None where nobody asks."""
    g, x, (n, c, f, t), side, width = dense(g), dense(x), x.shape, weight.shape[-1], vector(x.shape[1])
    d_x = torch.empty_like(x) if by_x else None
    d_k = torch.zeros(n * -(-f // STRIP), c // width, side**2, width, dtype=torch.float64) if by_weight else None
    call("gradients", [g, x, weight.contiguous(), d_x, d_k], n, f, t, c, side, stride, dilation)
    return d_x, d_k.sum(dim=0).transpose(1, 2).reshape(weight.shape).to(x.dtype) if by_weight else None


def dense(x: Tensor) -> Tensor:
    """(N, C, F, T) that lies in memory as (N, F, T, C)."""
    return x.contiguous(memory_format=torch.channels_last)


def vector(channels: int) -> int:
    """How many channels the code takes at a time."""
    return 16 if channels % 16 == 0 else 8


def call(
    name: str, arrays: Sequence[Tensor | None], images: int, rows: int, columns: int, channels: int, *how: int
) -> None:
    """A function of the library, for arrays of the first one's type; `how`: the kernel's side, stride, dilation."""
    function = getattr(library(), f"{name}_{TYPES[arrays[0].dtype]}")
    pointers = (ctypes.c_void_p(None if a is None else a.data_ptr()) for a in arrays)
    sizes = map(ctypes.c_int64, (images, rows, columns, channels, *how))
    function(*pointers, *sizes, ctypes.c_int(vector(channels)), ctypes.c_int(torch.get_num_threads()))


@cache
def library() -> ctypes.CDLL | None:
    """The compiled code, or None where it can't be had."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or sys.platform != "linux":
        return None
    flags = [*FLAGS, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), [])]
    try:
        return ctypes.CDLL(str(compiled([compiler, *flags])))
    except (OSError, subprocess.CalledProcessError):
        return None


def compiled(command: list[str]) -> Path:
    """The shared library that a compiler's command makes of the source; made if it is not there yet."""
    version = subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(b"\0".join([SOURCE.read_bytes(), version, *map(os.fsencode, command)])).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emodarts"
    path = folder / f"depthwise-{key}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            made = Path(work) / path.name
            subprocess.run([*command, str(SOURCE), "-o", str(made)], capture_output=True, check=True)
            os.replace(made, path)  # whoever else compiles it now makes the same file
    return path
