"""One array of many rows in a `.npy` file: written row by row, and read by row without holding the rest.

A plain read takes the place of a memory map: pages that a map has touched count as the process's own memory, and one
whose file is cut short meanwhile kills the process.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

DTYPE = np.dtype("<f4")


class RowWriter:
    """Appends float32 rows to a `.npy` file whose length is not known beforehand; the header is right after `close`."""

    def __init__(self, path: Path, shape: Sequence[int], keep: int = 0):
        """Rows have the shape `shape`. Of a file that is there, the first `keep` rows stay."""
        self.shape, self.rows = tuple(shape), keep
        self.file = path.open("r+b" if keep else "w+b")
        self.start = self._write_header()
        self.file.truncate(self.start + keep * DTYPE.itemsize * math.prod(self.shape))
        self.file.seek(0, os.SEEK_END)

    def append(self, rows: np.ndarray) -> None:
        """Write rows (n, *shape), through to the operating system."""
        self.file.write(np.ascontiguousarray(rows, DTYPE).data)
        self.file.flush()
        self.rows += len(rows)

    def close(self) -> None:
        """Write how many rows there are."""
        if not self.file.closed:
            if self._write_header() != self.start:
                raise RuntimeError("the .npy header has changed its length")
            self.file.close()

    def _write_header(self) -> int:
        """The header's length; NumPy pads it so that the first axis can grow in place."""
        self.file.seek(0)
        header = {"descr": DTYPE.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        npy.write_array_header_1_0(self.file, header)
        return self.file.tell()


def rows_written(path: Path, shape: Sequence[int]) -> int:
    """The whole rows in a file that a `RowWriter` of this shape has not closed."""
    with path.open("rb") as file:
        _read_header(file)
        return (path.stat().st_size - file.tell()) // (DTYPE.itemsize * math.prod(shape))


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array; a literal is parsed, nothing is ever unpickled."""
    if (version := npy.read_magic(file)) != (1, 0):
        raise ValueError(f"{file.name} has .npy version {version}, (1, 0) is due")
    try:
        return npy.read_array_header_1_0(file)
    except Exception as error:  # spoilt bytes make the parser raise all sorts of things
        raise ValueError(f"the header of {file.name} is damaged: {error!r}") from None


class RowReader:
    """A `.npy` file of float32 rows, read as they are indexed: `reader[rows]` is an array of its own."""

    def __init__(self, path: Path):
        """Raises `OSError` where there is no file, `ValueError` where it holds no such array, or not all of it."""
        if path.exists() and not path.is_file():
            raise ValueError(f"{path.name} is not a regular file")
        self.file = path.open("rb", buffering=0)
        self.shape, fortran, dtype = _read_header(self.file)
        if (
            fortran
            or dtype != DTYPE
            or not self.shape
            or self.shape[0] < 0
            or min(self.shape[1:], default=1) < 1
        ):
            raise ValueError(f"{path.name} holds {dtype} {self.shape}, float32 rows are due")
        self.start = self.file.tell()
        if path.stat().st_size < self.start + self.nbytes:
            raise ValueError(f"{path.name} is cut short: {self.shape[0]} rows are due")

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return DTYPE.itemsize * math.prod(self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray | Sequence[int]) -> np.ndarray:
        """One row, or those of a slice or of an array of row numbers. Safe from several threads."""
        numbers = np.arange(len(self))[rows]  # NumPy's rules for what is out of range, negative, or a slice
        array = np.empty((numbers.size, *self.shape[1:]), DTYPE)
        for place, row in enumerate(numbers.flat):
            self._read(row, array[place, ...])  # a view, even of a single number
        return array if np.ndim(numbers) else array[0]

    def _read(self, row: int, into: np.ndarray) -> None:
        if (
            os.preadv(self.file.fileno(), [into.data.cast("B")], self.start + int(row) * self.row_bytes)
            != into.nbytes
        ):
            raise OSError(f"{self.file.name} was cut short while it was in use")
