"""A `.npy` file of float32 rows: written row by row, and read by row number.

It is read with plain reads instead of a memory map. The pages of a memory map count as memory of
the process, and if the file is truncated while it is mapped, the process is killed.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

DTYPE = np.dtype("<f4")


class RowWriter:
    """Append float32 rows to a `.npy` file, whose header is correct once it is closed."""

    def __init__(self, path: Path, shape: Sequence[int], keep: int = 0):
        """Open `path` for rows of this shape. Its first `keep` rows stay, the rest is deleted."""
        self.shape = tuple(shape)
        self.rows = keep
        self.file = path.open("r+b" if keep else "w+b")
        self.start = self._write_header()
        self.file.truncate(self.start + keep * bytes_per_row(self.shape))
        self.file.seek(0, os.SEEK_END)

    def append(self, rows: np.ndarray) -> None:
        """Write rows (n, *shape) and hand them to the operating system, so that they survive a kill."""
        self.file.write(np.ascontiguousarray(rows, DTYPE).data)
        self.file.flush()
        self.rows += len(rows)

    def close(self) -> None:
        """Write the number of rows into the header and close the file."""
        if not self.file.closed:
            if self._write_header() != self.start:
                raise RuntimeError("the .npy header has changed its length")
            self.file.close()

    def _write_header(self) -> int:
        """Write the header and return its length, which does not depend on the number of rows."""
        self.file.seek(0)
        header = {"descr": DTYPE.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        npy.write_array_header_1_0(self.file, header)
        return self.file.tell()


class RowReader:
    """A `.npy` file of float32 rows on disk: `reader[rows]` reads these rows into a new array."""

    def __init__(self, path: Path):
        """Raises `OSError` if the file cannot be opened, `ValueError` if it is not a whole array."""
        if path.exists() and not path.is_file():
            raise ValueError(f"{path.name} is not a regular file")
        self.file = path.open("rb", buffering=0)
        self.lock = Lock()
        self.shape, fortran_order, dtype = _read_header(self.file)
        is_rows = self.shape and self.shape[0] >= 0 and min(self.shape[1:], default=1) >= 1
        if fortran_order or dtype != DTYPE or not is_rows:
            raise ValueError(f"{path.name} holds {dtype} {self.shape}, not rows of float32")
        self.start = self.file.tell()
        self.row_bytes = bytes_per_row(self.shape[1:])
        self.nbytes = self.shape[0] * self.row_bytes
        if path.stat().st_size < self.start + self.nbytes:
            raise ValueError(f"{path.name} is cut short: its header states {self.shape[0]} rows")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray | Sequence[int]) -> np.ndarray:
        """Read rows, indexed as a NumPy array is. Several threads may read at the same time."""
        numbers = np.arange(len(self))[rows]
        array = np.empty((numbers.size, *self.shape[1:]), DTYPE)
        for place, row in enumerate(numbers.flat):
            # the ellipsis makes it a view even if a row is one number
            self._read(int(row), array[place, ...])
        return array if np.ndim(numbers) else array[0]

    def close(self) -> None:
        """Close the file; no row can be read any more. Windows renames no folder with an open file in it."""
        self.file.close()

    def _read(self, row: int, into: np.ndarray) -> None:
        if self._read_at(self.start + row * self.row_bytes, into.data.cast("B")) != into.nbytes:
            raise OSError(f"{self.file.name} was cut short while it was in use")

    def _read_at(self, offset: int, buffer: memoryview) -> int:
        """Read bytes at an offset into a buffer; return how many were read."""
        if hasattr(os, "preadv"):
            return os.preadv(self.file.fileno(), [buffer], offset)
        with self.lock:  # Windows reads at the position of the file, which threads share
            self.file.seek(offset)
            return self.file.readinto(buffer)


def bytes_per_row(shape: Sequence[int]) -> int:
    """Bytes of a row of this shape."""
    return DTYPE.itemsize * math.prod(shape)


def rows_written(path: Path, shape: Sequence[int]) -> int:
    """The number of whole rows of this shape in a file that a `RowWriter` has not closed."""
    with path.open("rb") as file:
        _read_header(file)
        return (path.stat().st_size - file.tell()) // bytes_per_row(shape)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape, the order and the type of an array. Nothing is unpickled."""
    version = npy.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"{file.name} has .npy version {version}, not (1, 0)")
    try:
        return npy.read_array_header_1_0(file)
    except Exception as error:  # NumPy's parser raises many types of exception on damaged input
        raise ValueError(f"the header of {file.name} is damaged: {error!r}") from None
