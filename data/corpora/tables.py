"""Read CSV files as people have them: from spreadsheets and programs, of publishers and their own."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import whitespace

from data.names import key
from utils import UserError

SEPARATORS = ",;\t|"
OTHER_NAMES = {
    "file": ("path", "wav", "audio", "recording", "clip"),
    "speaker": ("spk", "actor", "subject", "participant", "person"),
    "emotion": ("label", "class", "category", "target"),
    "session": ("dialog", "conversation"),
    "split": ("partition", "subset", "fold", "usage"),
    "text": ("transcript", "sentence", "words", "script"),
    "start": ("begin", "onset", "offset"),
    "end": ("stop",),
}
"""How columns are called elsewhere. They are suggested and not read: a wrong guess would go unseen."""


@dataclass(frozen=True)
class Table:
    """The known columns of a CSV file. A missing value is empty, and no value has outer blanks."""

    rows: list[tuple[int, dict[str, str]]]  # line number; value by column
    unused: list[str]  # the other columns


def read_csv(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Read the columns `required` and `optional` of a CSV file. Rows without any value are passed over.

    Headers are compared by `data.names.key`. The header line alone tells by which of `SEPARATORS` values are
    separated: the first that gives all required columns, or the one in a line `sep=;` before it. The encoding is
    UTF-8, or UTF-16 with a byte order mark or an ASCII header.

    Raises `UserError` if a required column is missing, a column is there twice, a row has more values than the
    header, or the file is not such a CSV file.
    """
    try:
        lines = io.StringIO(_decode(path.read_bytes()), newline="")
        number, columns, separator = _read_header(lines, required)
        known = _places(path, number, columns, required, optional)
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
        rows = []
        for row in reader:
            line = number + reader.line_num
            values = [value.strip() for value in row]
            if any(values[len(columns) :]):
                problem = f"more values than columns; a value with {separator!r} must be quoted"
                raise UserError(f"{path}, line {line}: {problem}")
            if any(values):
                values += [""] * (len(columns) - len(values))
                rows.append((line, {column: values[place] for column, place in known.items()}))
    except (UnicodeError, csv.Error) as error:
        advice = "a spreadsheet saves one as CSV UTF-8"
        raise UserError(f"{path} is not a CSV file in UTF-8 ({advice}): {error}") from None
    used = known.values()
    return Table(rows, [name for place, name in enumerate(columns) if name and place not in used])


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if b"\0" in content[:2]:  # the other half of an ASCII character
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le")
    return content.decode("utf-8-sig")


def _read_header(lines: Iterator[str], required: Sequence[str]) -> tuple[int, list[str], str]:
    """Return the line number of the header, its columns and its separator; `lines` then begins after it."""
    number, separators = 0, SEPARATORS
    for line in lines:
        number += 1
        if stated := re.fullmatch(r'"?sep=([,;\t|])"?\s*', line):
            separators = stated[1]
        elif line.strip(SEPARATORS + whitespace):
            break
    else:
        line = ""
    split = {each: _split(line, each) for each in separators}
    wanted = set(map(key, required))
    best = max(separators, key=lambda each: len(wanted & set(map(key, split[each]))))  # of equals, the first
    return max(number, 1), split[best], best


def _split(line: str, separator: str) -> list[str]:
    values = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return [value.strip() for value in values]


def _places(
    path: Path, number: int, columns: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> dict[str, int]:
    """Return the place of each known column in the header."""
    keys = list(map(key, columns))
    for column in (*required, *optional):
        if keys.count(key(column)) > 1:
            raise UserError(f"{path}, line {number}: column {column!r} is there twice")
        if column in required and key(column) not in keys:
            near = next((f"; rename {name!r}?" for name in columns if looks_like(name, column)), "")
            found = ",".join(columns)
            raise UserError(f"{path}, line {number}: column {column!r} is missing, found: {found}{near}")
    return {column: keys.index(key(column)) for column in (*required, *optional) if key(column) in keys}


def looks_like(name: str, column: str) -> bool:
    """Return whether a header may mean this column: `file_name` and `path` may mean `file`."""
    return key(name).startswith((column, *OTHER_NAMES.get(column, ())))
