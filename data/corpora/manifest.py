"""A corpus of the user's own: a CSV with the columns `file,speaker,emotion` and, optionally, `session,split,text`.

The text is anything that names the words spoken, or `improvised` and the scenario where they were free.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from data.corpora.utterance import Utterance
from utils import UserError

REQUIRED = ("file", "speaker", "emotion")
OPTIONAL = ("session", "split", "text")


def read(root: Path) -> list[Utterance]:
    """List the utterances of the CSV at `root`, each named by its path in the CSV, without the suffix.

    Relative paths start at the CSV's folder. Raises `UserError`, naming file and line, for a CSV that is missing
    or not one, a missing column, an empty value, or a file listed twice.
    """
    utterances, seen = [], {}
    for line, values in _lines(root):
        listed = values.pop("file")
        file = root.parent / listed
        first = seen.setdefault(os.path.splitext(os.path.abspath(file))[0], line)
        if first != line:
            raise UserError(f"{root}, line {line}: {listed} is listed already (suffix apart) on line {first}")
        utterances.append(Utterance(PurePath(os.path.splitext(listed)[0]).as_posix(), file, **values))
    return utterances


def files_of(path: Path) -> list[Path]:
    """The files of a CSV with a column `file`, whatever its other columns. Raises `UserError` as `read` does."""
    return [path.parent / values["file"] for _, values in _lines(path, required=("file",))]


def _lines(root: Path, required: Sequence[str] = REQUIRED) -> Iterator[tuple[int, dict[str, str]]]:
    """The number and the checked values of each line below the header."""
    if not root.is_file():
        raise UserError(
            f"no manifest at {root}: --root must be a CSV file with the columns {','.join(REQUIRED)}"
        )
    try:
        with root.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in reader.fieldnames or []]
            for column in required:
                if column not in columns:
                    raise UserError(
                        f"{root}, line 1: column {column!r} is missing, found: {','.join(columns)}"
                    )
            reader.fieldnames = columns
            for row in reader:
                yield reader.line_num, _checked(row, required, f"{root}, line {reader.line_num}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{root} is not a CSV file in UTF-8: {error}") from None


def _checked(row: dict, required: Sequence[str], where: str) -> dict[str, str]:
    if None in row:
        raise UserError(f"{where}: more values than columns; a value that holds a comma must be quoted")
    values = {column: (row.get(column) or "").strip() for column in (*REQUIRED, *OPTIONAL)}
    for column in required:
        if not values[column]:
            raise UserError(f"{where}: {column} is empty")
    return values
