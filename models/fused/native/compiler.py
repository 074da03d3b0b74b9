"""The C++ sources beside this file, compiled when they are first needed and loaded.

It takes the system's compiler some seconds, and is kept in the user's cache under the hash of all that it depends on.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

from utils import whole_file

FOLDER = Path(__file__).parent
FLAGS = ["-std=c++17", "-O3", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]
VECTORS = {  # what torch has found that this processor can do, as compilers call it
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled code; None where there is no compiler, or no Linux."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(
            str(compiled([compiler, *FLAGS, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), [])]))
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def compiled(command: list[str]) -> Path:
    """The shared library that a compiler's command makes of the sources; made if it is not there yet."""
    sources, headers = (sorted(FOLDER.glob(pattern)) for pattern in ("*.cpp", "*.h"))
    version = subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout
    contents = [path.read_bytes() for path in (*sources, *headers)]
    parts = [*contents, version, *map(os.fsencode, (platform.machine(), *command))]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emodarts"
    path = folder / f"native-{key}.so"
    if not path.exists():
        with whole_file(path) as made:
            subprocess.run([*command, *map(str, sources), "-o", str(made)], capture_output=True, check=True)
    return path
