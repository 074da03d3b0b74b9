"""Helpers to read the label files of a corpus: lines, and checked values."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from data.corpora.utterance import Utterance
from utils import UserError


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place of each line, for error messages, and the line without surrounding spaces.

    Bytes that are not UTF-8 are replaced: comments of raters come in any encoding.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            yield f"{path}, line {number}", line.strip()


def look_up(table: Mapping[str, str], key: str, what: str) -> str:
    """Return `table[key]`. Raises `UserError` if there is no such key; `what` begins the message."""
    if key not in table:
        raise UserError(f"{what} {key!r}: known are {', '.join(table)}")
    return table[key]


def unique(labelled: Iterable[tuple[str, Utterance]]) -> list[Utterance]:
    """Return the utterances sorted by name; each comes with the place of its label.

    Raises `UserError` if two have the same name.
    """
    by_name: dict[str, Utterance] = {}
    for place, utterance in labelled:
        if utterance.utterance in by_name:
            raise UserError(f"{place}: {utterance.utterance} already has a label: remove one of the two")
        by_name[utterance.utterance] = utterance
    return [by_name[name] for name in sorted(by_name)]
