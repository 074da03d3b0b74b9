"""MSP-Podcast: turns cut from podcasts, with the publisher's partition.

The root is the folder that holds `Audios` (or `Audio`) and the labels, `labels_consensus.csv`, or `Labels` with them.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from data.corpora.folders import find_parts
from data.corpora.utterance import Utterance
from utils import UserError

LABELS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprised",
    "F": "fearful",
    "D": "disgusted",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": "unknown",  # the raters did not agree
}

SPLITS = {split: split for split in ("Train", "Development", "Test", "Test1", "Test2", "Test3")}
SPLITS["Validation"] = "Development"  # its older name
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Split_Set")
CSVS = tuple(
    f"{folder}labels_{word}.csv" for word in ("consensus", "concensus") for folder in ("Labels/", "")
)
AUDIO = ("Audios", "Audio")
NAME = re.compile(r"(MSP-PODCAST_\w+)\.wav", re.ASCII)


def read(root: Path) -> list[Utterance]:
    """List the labelled utterances under `root`: all splits, but for rows of Test3 that come without a label.

    Speakers are numbers as text, or `Unknown`, who may be anyone. Raises `UserError` for a folder that is not the
    corpus, a column that is missing, and, naming file and line, a value that is none of the publisher's.
    """
    labels, audio = find_parts(root, "MSP-Podcast", labels=CSVS, audio=AUDIO)
    listed: dict[str, Utterance] = {}
    for where, row in _rows(labels):
        if row["Split_Set"] == "Test3" and row["EmoClass"].lower() in ("", "nan"):
            continue
        name = NAME.fullmatch(row["FileName"])
        if not name:
            raise UserError(f"{where}: {row['FileName']!r} is not a file name like MSP-PODCAST_0001_0008.wav")
        if name[1] in listed:
            raise UserError(f"{where}: {name[0]} is listed already, further up: remove one")
        if not row["SpkrID"]:
            raise UserError(f"{where}: SpkrID is empty: it should be a number or Unknown")
        emotion = _known(LABELS, row, "EmoClass", where)
        split = _known(SPLITS, row, "Split_Set", where)
        listed[name[1]] = Utterance(name[1], audio / name[0], row["SpkrID"], emotion, split=split)
    return [listed[name] for name in sorted(listed)]


def _known(table: dict[str, str], row: dict[str, str], column: str, where: str) -> str:
    if row[column] not in table:
        raise UserError(f"{where}: unknown {column} {row[column]!r}: known are {', '.join(table)}")
    return table[row[column]]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row of the labels stands, and its values in COLUMNS."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, restval="")
            reader.fieldnames = [column.strip() for column in reader.fieldnames or []]
            for column in COLUMNS:
                if column not in reader.fieldnames:
                    found = ",".join(reader.fieldnames)
                    raise UserError(f"{path}, line 1: column {column!r} is missing, found: {found}")
            for row in reader:
                yield f"{path}, line {reader.line_num}", {column: row[column].strip() for column in COLUMNS}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}") from None
