"""Read a table of functionals that another program has made, such as openSMILE: a CSV file with a row per utterance."""

import csv
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from data.functionals import Utterances
from data.leaks import abbreviate
from data.store import FeatureStore
from utils import UserError

NAME_COLUMNS = ("utterance", "file")
"""Columns that say which utterance a row is; the first of them that the table has is used."""
TIME_COLUMNS = ("start", "end")
"""Columns by openSMILE that are no functionals."""
LABEL_COLUMNS = ("speaker", "session", "emotion", "split", "label")
"""Columns that are refused: numbers in them would pass for functionals and give the answer away."""


def read_table(path: Path, store: FeatureStore, utterances: Utterances) -> np.ndarray:
    """Read the functionals (U, D) of U utterances of a store.

    A column `utterance` has names as in the store's manifest, or a column `file` has paths, which are matched by their
    ends (see `path_end`). `start` and `end` are ignored, and so are rows of other utterances. Every other column is a
    functional.

    Raises `UserError` if the file is no such table, or if an utterance has no row, a second row, or a value that is not
    a finite number.
    """
    lines = _lines(path)
    header = next(lines, [])
    key, columns = _check_header(path, header)
    by_file = header[key] == "file"
    names = {name: store.manifest[rows[0]].file if by_file else name for name, rows in utterances.items()}
    shorten = path_end(names.values()) if by_file else str
    utterance_of = {shorten(name): utterance for utterance, name in names.items()}
    found: dict[str, list[float]] = {}
    repeated, wrong = [], []
    for line in lines:
        utterance = utterance_of.get(shorten(line[key]))
        if utterance is None:
            continue
        if utterance in found:
            repeated.append(utterance)
        found[utterance] = [_number(line[column]) for column in columns]
        for column in np.array(columns)[~np.isfinite(found[utterance])]:
            wrong.append(f"{header[column]} of {utterance} ({line[column][:20]!r})")
    missing = [utterance for utterance in utterances if utterance not in found]
    _refuse(path, missing, f"of {len(utterances)} utterances of {store.folder} have no row")
    _refuse(path, repeated, "utterances have a second row")
    _refuse(path, wrong, "values are not finite numbers")
    return np.array([found[utterance] for utterance in utterances])


def path_end(files: Collection[str]) -> Callable[[str], str]:
    """Return a function that shortens a path to its end: the file name without suffix, and folders above it.

    It keeps as many folders as distinguish `files`, so that a file is recognised after the corpus has moved.
    """
    paths = [_parts(file) for file in files]
    depth = 1
    while depth < max(map(len, paths)) and len({path[-depth:] for path in paths}) < len(paths):
        depth += 1
    return lambda file: "/".join(_parts(file)[-depth:])


def _parts(file: str) -> tuple[str, ...]:
    return tuple(os.path.splitext(file.replace("\\", "/"))[0].split("/"))


def _lines(path: Path) -> Iterator[list[str]]:
    """Yield the header and the rows of a CSV file in UTF-8, all of one length. Raises `UserError` if it is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; --methods svm:FILE.csv takes a table of functionals")
    width = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for line in filter(None, reader):
                width = width or len(line)
                if len(line) != width:
                    raise UserError(f"{path}, line {reader.line_num}: {len(line)} values in {width} columns")
                yield line
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}") from None


def _check_header(path: Path, header: Sequence[str]) -> tuple[int, list[int]]:
    """Return the place of the column that names the utterance, and those of the functionals."""
    key = next((header.index(name) for name in NAME_COLUMNS if name in header), None)
    columns = [i for i, name in enumerate(header) if name not in NAME_COLUMNS + TIME_COLUMNS]
    if key is None or not columns:
        found = abbreviate(header) or "none"
        raise UserError(
            f"{path} must have a column utterance or file, and columns of functionals; found: {found}"
        )
    _refuse(path, [name for name in header if name.lower() in LABEL_COLUMNS], "columns are labels")
    _refuse(path, [name for name, n in Counter(header).items() if n > 1], "columns are there twice")
    return key, columns


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _refuse(path: Path, found: Sequence[str], problem: str) -> None:
    """Raise `UserError` if anything was found that has this problem."""
    if found:
        raise UserError(f"{path}: {len(found)} {problem}: {abbreviate(found, 3)}")
