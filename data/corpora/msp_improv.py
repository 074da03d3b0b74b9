"""MSP-IMPROV: six sessions of a woman and a man who lead each other to twenty target sentences.

The root is the folder that holds the ratings, `Evaluation.txt`, and `session1` to `session6` or a folder of them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data.corpora.folders import find_parts
from data.corpora.utterance import IMPROVISED, Utterance
from utils import UserError

LABELS = {
    "A": "angry",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "O": "other",
    "X": "unknown",
}  # X: no agreement

# Utterances in a complete copy, by the options `scenarios` and `label`; `a+b` counts the emotions a and b together.
COMPLETE: dict[str, dict[str, int]] = {
    "PRST consensus": {
        "angry": 792,
        "happy": 2644,
        "neutral": 3477,
        "sad": 885,
        "+".join(LABELS.values()): 8438,
    },
    "P consensus": {"angry": 38, "happy": 1372, "neutral": 1164, "sad": 66},
    "R consensus": {"angry": 169, "happy": 88, "neutral": 241, "sad": 80},
    "S consensus": {"angry": 115, "happy": 136, "neutral": 283, "sad": 106},
    "T consensus": {"angry": 470, "happy": 1048, "neutral": 1789, "sad": 633},
}

SCENARIOS = "PRST"  # natural, target read, target improvised, other improvised
TARGET = "RS"  # where the target sentence is spoken; elsewhere the words are free
RATINGS = ("Evaluation.txt", "Evalution.txt")  # the second is the older
SESSIONS = tuple(f"{folder}session[1-6]" for folder in ("Audio/", "", "all_sessions/", "Audio/all_sessions/"))

# Sentence, intended emotion, speaker, session, scenario.
NAME = re.compile(r"MSP-IMPROV-(S\d\d)([AHSN])-([FM]0([1-6]))-([PRST])-[FM][FM]\d{2,3}", re.ASCII)
RATED = re.compile(r"UTD-(IMPROV-[^\s;]+)\.avi\s*;\s*([^\s;]*)\s*;.*")  # name and consensus


def read(root: Path, *, scenarios: str = SCENARIOS, label: str = "consensus") -> list[Utterance]:
    """List the rated utterances under `root` whose scenario is one of the letters `scenarios`.

    The emotion is the raters' `consensus` or the one `intended` for the sentence. `text` is the target sentence, `S01`,
    where it is spoken, else the scenario that leads to it, `improvised S01`. Raises `UserError` for a folder that is
    not the corpus, and, naming file and line, for a line or a label that is unknown.
    """
    if not scenarios or set(scenarios) - set(SCENARIOS):
        raise UserError(
            f"unknown scenarios {scenarios!r} of MSP-IMPROV: give some of the letters {SCENARIOS}"
        )
    if label not in ("consensus", "intended"):
        raise UserError(f"unknown label {label!r} of MSP-IMPROV: known are consensus, intended")
    ratings, first = find_parts(root, "MSP-IMPROV", ratings=RATINGS, audio=SESSIONS)
    listed: dict[str, Utterance] = {}
    for where, name, consensus in _rated(ratings):
        parts = NAME.fullmatch(name)
        if not parts:
            raise UserError(
                f"{where}: {name!r} is not an utterance of MSP-IMPROV, like MSP-IMPROV-S01A-F01-P-FM01"
            )
        if consensus not in LABELS:
            raise UserError(f"{where}: unknown label {consensus!r}: known are {', '.join(LABELS)}")
        if name in listed:
            raise UserError(f"{where}: {name} is rated already, further up: remove one")
        sentence, intended, speaker, session, scenario = parts.groups()
        file = first.with_name(f"session{session}") / f"{sentence}{intended}" / scenario / f"{name}.wav"
        text = sentence if scenario in TARGET else f"{IMPROVISED}{sentence}"
        emotion = LABELS[consensus if label == "consensus" else intended]
        if scenario in scenarios:
            listed[name] = Utterance(name, file, speaker, emotion, session=session, text=text)
    return [listed[name] for name in sorted(listed)]


def _rated(path: Path) -> Iterator[tuple[str, str, str]]:
    """Where each utterance is rated, its name and the consensus; the raters of each follow on lines of their own."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:  # raters' comments are in any encoding
        for number, line in enumerate(map(str.strip, lines), start=1):
            where = f"{path}, line {number}"
            if rated := RATED.fullmatch(line):
                yield where, f"MSP-{rated[1]}", rated[2]
            elif line and ("IMPROV-" in line or ";" not in line):
                raise UserError(f"{where}: neither an utterance's ratings nor a rater's: {line[:60]!r}")
