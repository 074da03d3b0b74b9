"""A corpus listed in a CSV file with the columns `file,speaker,emotion` and, if they are known,
`session,split,text,sex,start,end`.

`text` is any name of the spoken words, or `improvised` and the scenario if the words were free. `sex`, or `gender`, is
the speaker's (see `parse_sex`). `start` and `end` make a row a part of its file; an empty `end` is the end of the file.
"""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath

from cli import note
from data.corpora.tables import Table, looks_like, read_csv
from data.corpora.utterance import Utterance, parse_sex
from data.segments import Segment, fragment, parse_seconds
from utils import UserError

REQUIRED = ("file", "speaker", "emotion")
LABELS = ("session", "split", "text")
SEX = ("sex", "gender")
TIMES = ("start", "end")


def read(root: Path) -> list[Utterance]:
    """Return the utterances of the CSV file `root`.

    Their names are the listed paths without the suffix, followed by the times if the row is a part of its file.
    Relative paths start at the folder of the CSV file. A row may lack the speaker or the emotion. Prints a note
    of the columns that are not used.

    Raises `UserError`, with file and line, if the CSV file is missing or invalid, a column is missing, a row has no
    file or an invalid time, or the same part of a file is listed twice.
    """
    optional = (*LABELS, *SEX, *TIMES)
    table = _read_table(root, REQUIRED, optional)
    _note_unused(root, table.unused, optional)
    utterances = []
    first_line: dict[tuple, int] = {}
    for line, values, part in _parts(root, table):
        listed = values["file"]
        path = os.path.splitext(os.path.abspath(part.file))[0]
        first = first_line.setdefault((path, part.start, part.end), line)
        if first != line:
            problem = f"{listed} is already listed (apart from the suffix) on line {first}"
            raise UserError(f"{root}, line {line}: {problem}")
        name = PurePath(os.path.splitext(_with_slashes(listed))[0]).as_posix()
        name += fragment(part.start, part.end)
        labels = {column: values.get(column, "") for column in ("speaker", "emotion", *LABELS)}
        sex = parse_sex(next(filter(None, map(values.get, SEX)), ""))
        utterances.append(Utterance(name, part.file, **labels, start=part.start, end=part.end, sex=sex))
    return utterances


def segments_of(path: Path) -> list[Segment]:
    """Return the recordings in the column `file` of a CSV file, or their parts from `start` to `end`.

    They have the speakers in the column `speaker`, if there is one. Raises `UserError` as `read` does.
    """
    columns = ("speaker", *TIMES)
    table = _read_table(path, ("file",), columns)
    named_otherwise = [name for name in table.unused if any(looks_like(name, each) for each in columns)]
    _note_unused(path, named_otherwise, columns)
    return [part for _, _, part in _parts(path, table)]


def find_file(path: Path) -> Path:
    """Return the file that is meant by a path, or the path itself if there is none.

    A path may have backslashes, and its letters may be composed in another Unicode form than those on disk.
    """
    for text in (str(path), _with_slashes(str(path))):
        for form in (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))):
            if os.path.exists(form):
                return Path(form)
    return path


def _read_table(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> Table:
    if not path.is_file():
        columns = ",".join(REQUIRED)
        raise UserError(f"no manifest at {path}: --root must be a CSV file with the columns {columns}")
    return read_csv(path, required, optional)


def _note_unused(path: Path, unused: list[str], columns: tuple[str, ...]) -> None:
    """Print which columns are not used, and which of them seem to be one of `columns` under another name."""
    words = []
    for name in unused:
        meant = next((column for column in columns if looks_like(name, column)), None)
        words.append(f"{name} (rename it if it is the {meant})" if meant else name)
    if words:
        note(f"{path}: columns that are not used: {', '.join(words)}")


def _parts(path: Path, table: Table) -> Iterator[tuple[int, dict[str, str], Segment]]:
    """Yield the line number, the values and the part of a recording of each row."""
    for line, values in table.rows:
        where = f"{path}, line {line}"
        if not values["file"]:
            raise UserError(f"{where}: file is empty")
        try:
            start, end = (parse_seconds(values.get(time, "")) for time in TIMES)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if end is not None and end <= (start or 0.0):
            raise UserError(f"{where}: the end, {values['end']}, is not after the start")
        file = find_file(path.parent / values["file"])
        yield line, values, Segment(file, start or 0.0, end, values.get("speaker", ""))


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/")
