"""Tables of functionals: rows find their utterances, and a table that is not complete is refused in one line."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.functional_tables import path_end, read_table
from data.store import Row
from utils import UserError

FILES = {
    "DC_a01": "/corpora/savee/DC/a01.wav",
    "JE_a01": "/corpora/savee/JE/a01.wav",
    "JE_a02": "/corpora/savee/JE/a02.wav",
}
UTTERANCES = {"DC_a01": [0], "JE_a01": [1, 2], "JE_a02": [3]}
VALUES = np.array([[1.5, -2e-7], [3.0, 4.0], [0.0, 1e9]])


@pytest.fixture
def store() -> SimpleNamespace:
    """What `read_table` takes from a store: where it is, and its manifest, with an utterance of two clips."""
    names = [name for name, rows in UTTERANCES.items() for _ in rows]
    rows = [Row(name, FILES[name], name[:2], "", "sad", "", 1.0, "", "", 0.0, "") for name in names]
    return SimpleNamespace(folder=Path("features/savee"), manifest=rows)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows_are_found_by_the_utterance(store: SimpleNamespace, tmp_path: Path):
    lines = ["\ufeffF0,utterance,F1", "0,JE_a02,1e9", "7,other,none", "1.5,DC_a01,-2e-7", "", "3,JE_a01,4"]
    table = write(tmp_path / "t.csv", *lines)
    np.testing.assert_array_equal(read_table(table, store, UTTERANCES), VALUES)
    some = {"JE_a01": [1, 2]}
    np.testing.assert_array_equal(read_table(table, store, some), VALUES[1:2])


@pytest.mark.parametrize("root", ["/corpora/savee/", "elsewhere/", "C:\\flac\\", ""])
def test_rows_as_opensmile_writes_them_are_found_by_the_end_of_the_path(
    root: str, store: SimpleNamespace, tmp_path: Path
):
    lines = ["file,start,end,F0,F1"]
    for name, values in zip(FILES, VALUES, strict=True):
        folder, file = name.split("_")
        path = f"{root}{folder}/{file}.flac".replace("/", "\\" if "\\" in root else "/")
        lines.append(f"{path},0 days,0 days 00:00:01.898250,{values[0]},{values[1]}")
    table = write(tmp_path / "smile.csv", *reversed(lines[1:]))
    table.write_text(lines[0] + "\n" + table.read_text())
    np.testing.assert_array_equal(read_table(table, store, UTTERANCES), VALUES)


GOOD = ("DC_a01,1,2", "JE_a01,3,4", "JE_a02,5,6")
WRONG = {
    "a missing utterance": (
        ("utterance,F0,F1", *GOOD[:1]),
        "2 of 3 utterances of features/savee have no row: JE_a01, JE_a02",
    ),
    "a second row": (("utterance,F0,F1", *GOOD, "JE_a01,3,4"), "1 utterances have a second row: JE_a01"),
    "values that are no finite numbers": (
        ("utterance,F0,F1", "DC_a01,1,nan", "JE_a01,-inf,", "JE_a02,5,high"),
        "4 values are not finite numbers: F1 of DC_a01 ('nan'), F0 of JE_a01 ('-inf'), F1 of JE_a01 ('')"
        " and 1 more",
    ),
    "no column that names the utterance": (("name,F0,F1", *GOOD), "a column utterance or file"),
    "no functionals": (("utterance,start,end", *GOOD), "found: utterance, start, end"),
    "labels": (("utterance,F0,Emotion", *GOOD), "1 columns are labels: Emotion"),
    "a column twice": (("utterance,F0,F0", *GOOD), "1 columns are there twice: F0"),
    "a short line": (("utterance,F0,F1", *GOOD, "x,1"), "line 5: 2 values in 3 columns"),
    "nothing": ((), "found: none"),
}


@pytest.mark.parametrize("case", WRONG)
def test_table_that_is_wrong_is_refused_in_one_line(case: str, store: SimpleNamespace, tmp_path: Path):
    lines, message = WRONG[case]
    table = write(tmp_path / "t.csv", *lines)
    with pytest.raises(UserError) as error:
        read_table(table, store, UTTERANCES)
    assert str(error.value).startswith(str(table))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"utterance,F0\n\xff,1\n", b"\0\0\0", b'utterance,"F0\n' + b"x" * 200_000]
)
def test_file_that_is_no_csv_is_refused(content: bytes, store: SimpleNamespace, tmp_path: Path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError):
        read_table(tmp_path / "t.csv", store, UTTERANCES)
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path, store, UTTERANCES)


PATHS = st.tuples(*[st.sampled_from("abc")] * 3).map("/".join)


@given(st.lists(PATHS, min_size=1, max_size=8, unique=True), st.sampled_from(["", "/", "moved/to/"]))
def test_path_end_distinguishes_the_files_of_a_corpus_that_has_moved(files: list[str], root: str):
    shorten = path_end([f"/corpus/{file}.wav" for file in files])
    ends = [shorten(f"{root}{file}.flac") for file in files]
    assert ends == [shorten(f"/corpus/{file}.wav") for file in files]
    assert len(set(ends)) == len(files)


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_numbers_are_read_exactly(values: list[float], tmp_path_factory: pytest.TempPathFactory):
    table = tmp_path_factory.getbasetemp() / "exact.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["utterance", "F0", "F1"])
        writer.writerows([name, *values[2 * i : 2 * i + 2]] for i, name in enumerate(UTTERANCES))
    store = SimpleNamespace(folder=Path("x"), manifest=[])
    assert read_table(table, store, UTTERANCES).ravel().tolist() == values
