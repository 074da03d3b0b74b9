"""IEMOCAP: five sessions of a woman and a man, in improvised scenarios and scripts.

The root is the folder that holds `Session1` to `Session5`. A scenario is recorded once with motion capture on the
woman and once on the man: two dialogs, named by that side, in each of which both speak.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data.corpora.folders import find_parts
from data.corpora.utterance import IMPROVISED, Utterance
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
    "xxx": "unknown",  # the raters did not agree
}

# Utterances in a complete copy, by the option `utterances`; `a+b` counts the emotions a and b together.
COMPLETE: dict[str, dict[str, int]] = {
    "all": {
        "angry": 1103,
        "happy+excited": 1636,
        "neutral": 1708,
        "sad": 1084,
        "+".join(LABELS.values()): 10_039,
    },
    "improvised": {"angry": 289, "happy": 284, "neutral": 1099, "sad": 608},
}

TEXTS = {"improvised": IMPROVISED, "scripted": "script", "all": ""}  # how they start

# Dialog, session, text, and the speaker: the second [FM]. The first is the side of the motion capture.
NAME = re.compile(r"(Ses0([1-5])[FM]_(impro0[1-8]|script0[1-3]_[1-9])[ab]?)_([FM])\d{3}", re.ASCII)
TURN = re.compile(r"\[[\d. -]+\]\s+(\S+)\s+(\S+)\s+\[.*\]")  # [start - end], name, label, [valence, ...]
LIKE_TURN = re.compile(r"\[\s*\d")  # other lines are headers, single raters', or blank


def read(root: Path, *, utterances: str = "improvised") -> list[Utterance]:
    """List the labelled utterances under `root`: the `improvised` (as in the emoDARTS paper), the `scripted` or `all`.

    `text` is the scenario or script (`improvised impro04`, `script01_1`): dialogs `a` and `b` are parts of one. Raises
    `UserError` for a folder that is not the corpus, and, naming file and line, for a line or a label that is unknown.
    """
    if utterances not in TEXTS:
        raise UserError(f"unknown utterances {utterances!r} of IEMOCAP: known are {', '.join(TEXTS)}")
    listed: dict[str, Utterance] = {}
    for path in _label_files(root):
        for where, turn in _turns(path):
            if listed.setdefault(turn.utterance, turn) is not turn:
                raise UserError(
                    f"{where}: {turn.utterance} is labelled already, here or in another file: remove one"
                )
    return sorted(
        (u for u in listed.values() if u.text.startswith(TEXTS[utterances])), key=lambda u: u.utterance
    )


def _label_files(root: Path) -> list[Path]:
    """The dialogs' label files, at least one a session; the pattern leaves out AppleDouble's `._Ses*`."""
    find_parts(root, "IEMOCAP", labels=["Session[1-5]/dialog/EmoEvaluation"])
    files = []
    for session in sorted(root.glob("Session[1-5]")):
        folder = session / "dialog" / "EmoEvaluation"
        found = sorted(folder.glob("Ses*.txt"))
        if not found:
            raise UserError(
                f"no label files in {folder}: there should be one a dialog, like Ses01F_impro01.txt"
            )
        files += found
    return files


def _turns(path: Path) -> Iterator[tuple[str, Utterance]]:
    """Where each labelled turn of a label file stands, and the turn."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:  # raters' comments are in any encoding
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            if turn := TURN.fullmatch(line.strip()):
                yield where, _utterance(path.parents[2], *turn.groups(), where)
            elif LIKE_TURN.match(line.strip()):
                raise UserError(
                    f"{where}: not a whole line [start - end] turn label [V, A, D]: {line.strip()[:60]!r}"
                )


def _utterance(folder: Path, name: str, label: str, where: str) -> Utterance:
    """The utterance `name` of the session in `folder`."""
    parts = NAME.fullmatch(name)
    if not parts:
        raise UserError(f"{where}: {name!r} is not an utterance of IEMOCAP, like Ses01F_impro01_F000")
    if label not in LABELS:
        raise UserError(f"{where}: unknown label {label!r}: known are {', '.join(LABELS)}")
    dialog, session, text, side = parts.groups()
    file = folder / "sentences" / "wav" / dialog / f"{name}.wav"
    text = f"{IMPROVISED}{text}" if text.startswith("impro") else text
    return Utterance(name, file, f"0{session}{side}", LABELS[label], session=session, text=text)
