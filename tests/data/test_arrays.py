"""Rows of a `.npy` file are read and written as NumPy does; a damaged or malicious file is refused."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data.arrays import RowReader, RowWriter, rows_written

SHAPE = (3, 5)


def random(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, *SHAPE)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An array of 40 rows, saved by NumPy."""
    np.save(tmp_path / "rows.npy", random(40))
    return tmp_path / "rows.npy"


INDICES = {
    "the first": 0,
    "the last": -1,
    "a NumPy number": np.int64(7),
    "all": slice(None),
    "every third, backwards": slice(30, 2, -3),
    "beyond the end": slice(38, 99),
    "a list": [3, 1, 2],
    "an array": np.array([39, -40, 5]),
    "repeated": np.array([4, 4, 4, 0, 4]),
    "a mask": np.arange(40) % 7 == 0,
    "none of a list": [],
    "none of a slice": slice(5, 5),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_a_reader_returns_what_numpy_returns(path: Path, index) -> None:
    got, want = RowReader(path)[index], np.load(path)[index]
    assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes())
    assert got.flags.writeable, "not a new array"


@pytest.mark.parametrize("index", [40, -41, [0, 40], "a", 1.5, (0, 0)], ids=repr)
def test_a_reader_refuses_what_numpy_refuses(path: Path, index) -> None:
    with pytest.raises(IndexError):
        RowReader(path)[index]


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 2, 3, 4), (0, 3, 5)], ids=str)
def test_rows_may_have_any_number_of_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "x.npy", array)
    reader = RowReader(tmp_path / "x.npy")
    assert (len(reader), reader.shape, reader.nbytes) == (len(array), shape, array.nbytes)
    np.testing.assert_array_equal(reader[:], array)
    for got, want in zip(reader, array, strict=True):
        np.testing.assert_array_equal(got, want)


def test_eight_threads_share_a_reader(path: Path) -> None:
    reader, array = RowReader(path), np.load(path)
    wanted = [np.random.default_rng(seed).integers(0, 40, 300) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for rows, got in zip(wanted, pool.map(reader.__getitem__, wanted), strict=True):
            np.testing.assert_array_equal(got, array[rows])


def test_a_file_that_is_cut_short_while_it_is_open_raises_an_error(path: Path) -> None:
    reader = RowReader(path)
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(reader[:39], random(40)[:39])
    with pytest.raises(OSError, match=r"rows\.npy was cut short while it was in use"):
        reader[39]


def header(shape: str, dtype: str = "'<f4'", fortran: str = "False", version: bytes = b"\x01\x00") -> bytes:
    """A header with these values, followed by the bytes of 40 rows."""
    text = f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + bytes(40 * 4 * 15)


def pickled(folder: Path) -> bytes:
    """An array of objects that would create a file if they were unpickled."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (folder / "sprung",)

    return header("(1,)", "'|O'").rstrip(b"\0") + pickle.dumps(Trap())


DAMAGED = {
    "nothing": b"",
    "no array": b"PK\x03\x04 hello",
    "half a header": header("(40, 3, 5)")[:30],
    "half a magic": b"\x93NUM",
    "version 2": header("(40, 3, 5)", version=b"\x02\x00"),
    "one row too many": header("(41, 3, 5)"),
    "doubles": header("(40, 3, 5)", "'<f8'"),
    "big-endian": header("(40, 3, 5)", "'>f4'"),
    "no such type": header("(40, 3, 5)", "'<zz'"),
    "fields": header("(40, 3, 5)", "[('a', '<f4')]"),
    "columns first": header("(40, 3, 5)", fortran="True"),
    "no axis": header("()"),
    "negative rows": header("(-40, 3, 5)"),
    "negative rows of negative size": header("(40, -3, -5)"),
    "rows of no size": header("(40, 0, 5)"),
    "more rows than a number holds": header(f"({10**30}, 3, 5)"),
    "as many rows of no size": header(f"({10**30}, 0)"),
    "a shape of words": header("('a', 3, 5)"),
    "a call": header("__import__('os').getcwd()"),
    "no dictionary": header("{").replace(b"{'descr'", b"['descr'"),
    "a huge header": header("(" + " " * 20_000 + "40, 3, 5)"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_raises_a_value_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        RowReader(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(header("(40, 3, 5)"))
    assert RowReader(tmp_path / "x.npy").shape == (40, 3, 5)
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r".npy|magic"):
        RowReader(tmp_path / "x.npy")


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(pickled(tmp_path))
    with pytest.raises(ValueError, match="not rows of float32"):
        RowReader(tmp_path / "x.npy")
    assert not (tmp_path / "sprung").exists()


def write(path: Path, parts: list[np.ndarray], keep: int = 0) -> None:
    writer = RowWriter(path, SHAPE, keep)
    for part in parts:
        writer.append(part)
    writer.close()
    writer.close()  # a second time, which changes nothing


@pytest.mark.parametrize("rows", [1, 9, 10, 12345])
def test_a_writer_writes_the_bytes_that_numpy_saves(tmp_path: Path, rows: int) -> None:
    array = random(rows)
    write(tmp_path / "x.npy", [array[:1], array[1:]])
    np.save(tmp_path / "numpy.npy", array)
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_rows_of_any_type_and_memory_order_are_written_as_float32(tmp_path: Path) -> None:
    array = random(6)
    write(tmp_path / "x.npy", [array[:3].astype(np.float64), np.asfortranarray(array[3:])])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), array)


@pytest.mark.parametrize("keep", [0, 1, 5, 8])
def test_a_writer_continues_after_the_rows_it_keeps(tmp_path: Path, keep: int) -> None:
    array = random(12)
    first = RowWriter(tmp_path / "x.npy", SHAPE)
    first.append(array[:8])  # not closed, as after a kill: the header still states no rows
    with (tmp_path / "x.npy").open("ab") as file:
        file.write(b"half a row")
    assert rows_written(tmp_path / "x.npy", SHAPE) == 8
    write(tmp_path / "x.npy", [array[keep:10], array[10:]], keep)
    write(tmp_path / "whole.npy", [array])
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), array)


def test_appended_rows_are_in_the_file_at_once(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "x.npy", SHAPE)
    assert rows_written(tmp_path / "x.npy", SHAPE) == 0
    writer.append(random(1))
    assert rows_written(tmp_path / "x.npy", SHAPE) == 1
