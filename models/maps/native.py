"""The gradients of depthwise convolutions in C++ (`depthwise.cpp`), for a CPU: where the library's are slow.

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
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("depthwise.cpp")
FUNCTIONS = {torch.float32: "gradients_float", torch.float64: "gradients_double"}
STRIP = 8  # rows, as in the source
FLAGS = ["-std=c++17", "-O3", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]
VECTORS = {  # what torch found that this processor can do, as the compiler calls it
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}


def usable(x: Tensor, side: int) -> bool:
    """Whether maps like x, and kernels of this side, are computed here."""
    known = x.device.type == "cpu" and x.dtype in FUNCTIONS and side in (3, 5)
    return known and x.shape[1] % 8 == 0 and library() is not None


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, by_x: bool, by_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of z = k * relu(x) from that by z: by x and by k; None where nobody asks."""
    g, x = (maps.contiguous(memory_format=torch.channels_last) for maps in (g, x))
    (n, c, f, t), side = x.shape, weight.shape[-1]
    width = 16 if c % 16 == 0 else 8
    d_x = torch.empty_like(x) if by_x else None
    d_k = torch.zeros(n * -(-f // STRIP), c // width, side**2, width, dtype=torch.float64) if by_weight else None
    arrays = [None if a is None else a.data_ptr() for a in (g, x, weight.contiguous(), d_x, d_k)]
    sizes = n, f, t, c, side, stride, dilation
    getattr(library(), FUNCTIONS[x.dtype])(*arrays, *sizes, width, torch.get_num_threads())
    return d_x, d_k.sum(dim=0).transpose(1, 2).reshape(weight.shape).to(x.dtype) if by_weight else None


@cache
def library() -> ctypes.CDLL | None:
    """The compiled code, or None where it can't be had."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or sys.platform != "linux":
        return None
    flags = [*FLAGS, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), [])]
    try:
        loaded = ctypes.CDLL(str(compiled([compiler, *flags])))
    except (OSError, subprocess.CalledProcessError):
        return None
    for name in FUNCTIONS.values():
        function = getattr(loaded, name)
        function.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 7 + [ctypes.c_int] * 2
        function.restype = None
    return loaded


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
