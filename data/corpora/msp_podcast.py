"""MSP-Podcast: turns cut from podcasts, with the publisher's split.

The root is the folder with `Audios` (or `Audio`) and the labels, `labels_consensus.csv`, or a folder `Labels`
with them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data.corpora.folders import find_parts
from data.corpora.formats import in_any_format
from data.corpora.label_files import look_up, unique
from data.corpora.tables import read_csv
from data.corpora.utterance import Utterance, parse_sex
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
    "X": "unknown",  # no agreement of the raters
}

SPLITS = {split: split for split in ("Train", "Development", "Test", "Test1", "Test2", "Test3")}
SPLITS["Validation"] = "Development"  # its older name
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Split_Set")
LABEL_FILES = (
    "Labels/labels_consensus.csv",
    "labels_consensus.csv",
    "Labels/labels_concensus.csv",
    "labels_concensus.csv",
)
AUDIO = ("Audios", "Audio")
NAME = re.compile(r"(MSP-PODCAST_\w+)\.wav", re.ASCII)


def read(root: Path) -> list[Utterance]:
    """Return the labelled utterances of all splits below `root`; unlabelled rows of Test3 are left out.

    Speakers are numbers as text, or `Unknown`, which may be anyone. The column Gender may be missing.
    Raises `UserError` if the folder is not the corpus or another column is missing, or, with file and line, if a
    value is invalid.
    """
    label_file, audio = find_parts(root, "MSP-Podcast", labels=LABEL_FILES, audio=AUDIO)
    return in_any_format(unique(_utterances(label_file, audio)))


def _utterances(label_file: Path, audio: Path) -> Iterator[tuple[str, Utterance]]:
    """Yield the place and the utterance of each labelled row."""
    for number, row in read_csv(label_file, COLUMNS, ("Gender",)).rows:
        where = f"{label_file}, line {number}"
        file, label, speaker, split = (row[column] for column in COLUMNS)
        if split == "Test3" and label.lower() in ("", "nan"):
            continue
        name = NAME.fullmatch(file)
        if not name:
            raise UserError(f"{where}: {file!r} is not a file name like MSP-PODCAST_0001_0008.wav")
        if not speaker:
            raise UserError(f"{where}: SpkrID is empty: it should be a number or Unknown")
        emotion = look_up(LABELS, label, f"{where}: unknown EmoClass")
        split = look_up(SPLITS, split, f"{where}: unknown Split_Set")
        sex = parse_sex(row.get("Gender", ""))
        yield where, Utterance(name[1], audio / file, speaker, emotion, split=split, sex=sex)
