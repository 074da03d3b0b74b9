"""Compile the C++ sources in this folder and load them.

Compiling takes some seconds. The library is kept in the user's cache folder, under a hash of
everything that it depends on.
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
VECTOR_FLAGS = {
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}
"""The compiler's flags for what torch reports that this processor can do."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled code; None if no compiler works, or the system is not Linux."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or sys.platform != "linux":
        return None
    vector_flags = VECTOR_FLAGS.get(torch.backends.cpu.get_cpu_capability(), [])
    try:
        return ctypes.CDLL(str(compile_sources([compiler, *FLAGS, *vector_flags])))
    except (OSError, subprocess.CalledProcessError):
        return None


def compile_sources(command: list[str]) -> Path:
    """Compile the sources with a compiler's command, unless the cache holds the result; return its path."""
    sources = sorted(FOLDER.glob("*.cpp"))
    headers = sorted(FOLDER.glob("*.h"))
    contents = [path.read_bytes() for path in (*sources, *headers)]
    version = subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout
    parts = [*contents, version, *map(os.fsencode, (platform.machine(), *command))]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emodarts"
    path = folder / f"native-{key}.so"
    if not path.exists():
        with whole_file(path) as unfinished:
            command = [*command, *map(str, sources), "-o", str(unfinished)]
            subprocess.run(command, capture_output=True, check=True)
    return path


def library_name() -> str | None:
    """A name that depends on the sources, the compiler and the processor; None if nothing is compiled."""
    compiled = library()
    return compiled and Path(compiled._name).stem


def compiler_missing(device: torch.device) -> bool:
    """Whether the compiled code could run on this device, but no compiler works."""
    return device.type == "cpu" and sys.platform == "linux" and library() is None
