"""A corpus listed in a CSV file with the columns `file,speaker,emotion` and optional `session,split,text,sex`.

`text` is any name of the spoken words, or `improvised` and the scenario if the words were free. `sex`, or `gender`, is
the speaker's (see `parse_sex`).
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from data.corpora.label_files import read_csv
from data.corpora.utterance import Utterance, parse_sex
from utils import UserError

REQUIRED = ("file", "speaker", "emotion")
OPTIONAL = ("session", "split", "text")


def read(root: Path) -> list[Utterance]:
    """Return the utterances of the CSV file `root`. Their names are the listed paths without the suffix.

    Relative paths start at the folder of the CSV file. Raises `UserError`, with file and line, if the CSV
    file is missing or invalid, a column is missing, a value is empty, or an audio file is listed twice.
    """
    utterances = []
    first_line: dict[str, int] = {}
    for line, values in _rows(root, REQUIRED):
        listed = values.pop("file")
        file = root.parent / listed
        first = first_line.setdefault(os.path.splitext(os.path.abspath(file))[0], line)
        if first != line:
            raise UserError(
                f"{root}, line {line}: {listed} is already listed (apart from the suffix) on line {first}"
            )
        name = PurePath(os.path.splitext(listed)[0]).as_posix()
        utterances.append(Utterance(name, file, **values))
    return utterances


def files_of(path: Path) -> list[Path]:
    """Return the audio files in the column `file` of a CSV file. Raises `UserError` as `read` does."""
    return [path.parent / values["file"] for _, values in _rows(path, required=("file",))]


def _rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the checked values of each row."""
    if not path.is_file():
        columns = ",".join(REQUIRED)
        raise UserError(f"no manifest at {path}: --root must be a CSV file with the columns {columns}")
    for line, row in read_csv(path, required):
        where = f"{path}, line {line}"
        if None in row:
            raise UserError(f"{where}: more values than columns; a value with a comma must be quoted")
        values = {column: row.get(column, "").strip() for column in (*REQUIRED, *OPTIONAL)}
        for column in required:
            if not values[column]:
                raise UserError(f"{where}: {column} is empty")
        values["sex"] = parse_sex(row.get("sex") or row.get("gender") or "")
        yield line, values
