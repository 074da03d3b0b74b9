"""IEMOCAP: five sessions of a woman and a man, with improvised scenarios and scripts.

The root is the folder with `Session1` to `Session5`. Each scenario is recorded twice, with motion capture
on the woman or on the man. Each recording is a dialog, named after that person, in which both speak.
"""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from data.corpora.folders import find_parts
from data.corpora.formats import in_any_format
from data.corpora.label_files import look_up, read_lines, unique
from data.corpora.utterance import IMPROVISED, Utterance, parse_sex
from utils import UserError

LABELS = {
    "ang": "angry",
    "hap": "happy",
    "exc": "excited",
    "sad": "sad",
    "neu": "neutral",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgusted",
    "oth": "other",
    "xxx": "unknown",  # no agreement of the raters
}

# Keys: the option `utterances`.
COMPLETE_COUNTS: dict[str, dict[str, int]] = {
    "all": {
        "angry": 1103,
        "happy": 595,
        "excited": 1041,
        "sad": 1084,
        "neutral": 1708,
        "frustrated": 1849,
        "surprised": 107,
        "fearful": 40,
        "disgusted": 2,
        "other": 3,
        "unknown": 2507,
    },
    "improvised": {"angry": 289, "happy": 284, "neutral": 1099, "sad": 608},
}

TEXT_PREFIXES = {"improvised": IMPROVISED, "scripted": "script", "all": ""}

# Dialog, session, text, and the speaker: the second [FM]. The first is the person with motion capture.
NAME = re.compile(r"(Ses0([1-5])[FM]_(impro0[1-8]|script0[1-3]_[1-9])[ab]?)_([FM])\d{3}", re.ASCII)
TURN = re.compile(r"\[[\d. -]+\]\s+(\S+)\s+(\S+)\s+\[.*\]")  # [start - end], name, label, [valence, ...]
TURN_START = re.compile(r"\[\s*\d")  # other lines are headers, ratings of single raters, or blank


def read(root: Path, *, utterances: str = "improvised") -> list[Utterance]:
    """Return the labelled utterances below `root`.

    `utterances` selects `improvised` (as in the emoDARTS paper), `scripted` or `all`. `text` is the scenario
    or script (`improvised impro04`, `script01_1`); the dialogs `a` and `b` are parts of the same one.
    Raises `UserError` if the folder is not the corpus, or, with file and line, if a line or a label is
    unknown.
    """
    prefix = look_up(TEXT_PREFIXES, utterances, "IEMOCAP: unknown utterances")
    turns = unique(chain.from_iterable(map(_turns, _label_files(root))))
    return in_any_format([turn for turn in turns if turn.text.startswith(prefix)])


def _label_files(root: Path) -> list[Path]:
    """Return the label files of all dialogs. The pattern excludes the `._Ses*` files of macOS."""
    find_parts(root, "IEMOCAP", labels=["Session[1-5]/dialog/EmoEvaluation"])
    files = []
    for session in sorted(root.glob("Session[1-5]")):
        folder = session / "dialog" / "EmoEvaluation"
        found = sorted(folder.glob("Ses*.txt"))
        if not found:
            raise UserError(f"no label files in {folder}: each dialog should have one (Ses01F_impro01.txt)")
        files += found
    return files


def _turns(path: Path) -> Iterator[tuple[str, Utterance]]:
    """Yield the place and the utterance of each labelled turn in a label file."""
    for where, line in read_lines(path):
        if turn := TURN.fullmatch(line):
            yield where, _utterance(path.parents[2], *turn.groups(), where)
        elif TURN_START.match(line):
            raise UserError(f"{where}: not a whole line [start - end] name label [V, A, D]: {line[:60]!r}")


def _utterance(session_folder: Path, name: str, label: str, where: str) -> Utterance:
    parts = NAME.fullmatch(name)
    if not parts:
        raise UserError(f"{where}: {name!r} is not an utterance of IEMOCAP, like Ses01F_impro01_F000")
    dialog, session, text, sex = parts.groups()
    file = session_folder / "sentences" / "wav" / dialog / f"{name}.wav"
    emotion = look_up(LABELS, label, f"{where}: unknown label")
    text = f"{IMPROVISED}{text}" if text.startswith("impro") else text
    speaker = f"0{session}{sex}"
    return Utterance(name, file, speaker, emotion, session=session, text=text, sex=parse_sex(sex))
