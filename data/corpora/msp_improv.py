"""MSP-IMPROV: six sessions of a woman and a man whose dialogs lead to twenty target sentences.

The root is the folder with the ratings, `Evaluation.txt`, and `session1` to `session6` or a folder of them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data.corpora.folders import find_parts
from data.corpora.formats import in_any_format
from data.corpora.label_files import look_up, read_lines, unique
from data.corpora.utterance import IMPROVISED, Utterance, parse_sex
from utils import UserError

LABELS = {
    "A": "angry",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "O": "other",
    "X": "unknown",  # no agreement of the raters
}

# Keys: the options `scenarios` and `label`.
COMPLETE_COUNTS: dict[str, dict[str, int]] = {
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
TARGET = "RS"  # scenarios in which the target sentence is spoken; in the others the words are free
RATINGS = ("Evaluation.txt", "Evalution.txt")  # the second is the older name
SESSIONS = tuple(f"{folder}session[1-6]" for folder in ("Audio/", "", "all_sessions/", "Audio/all_sessions/"))

# Sentence, intended emotion, speaker, session, scenario.
NAME = re.compile(r"MSP-IMPROV-(S\d\d)([AHSN])-([FM]0([1-6]))-([PRST])-[FM][FM]\d{2,3}", re.ASCII)
RATED = re.compile(r"UTD-(IMPROV-[^\s;]+)\.avi\s*;\s*([^\s;]*)\s*;.*")  # name and consensus


def read(root: Path, *, scenarios: str = SCENARIOS, label: str = "consensus") -> list[Utterance]:
    """Return the rated utterances below `root` whose scenario is one of the letters in `scenarios`.

    The emotion is the `consensus` of the raters, or the one `intended` for the sentence. `text` is the
    target sentence (`S01`) if it is spoken, otherwise the scenario that leads to it (`improvised S01`).
    Raises `UserError` if the folder is not the corpus, or, with file and line, if a line or a label is
    unknown.
    """
    if not scenarios or set(scenarios) - set(SCENARIOS):
        raise UserError(f"MSP-IMPROV: unknown scenarios {scenarios!r}: give some of the letters {SCENARIOS}")
    if label not in ("consensus", "intended"):
        raise UserError(f"MSP-IMPROV: unknown label {label!r}: known are consensus, intended")
    ratings, first_session = find_parts(root, "MSP-IMPROV", ratings=RATINGS, audio=SESSIONS)
    utterances = unique(_utterances(ratings, first_session.parent, label))
    return in_any_format([each for each in utterances if NAME.fullmatch(each.utterance)[5] in scenarios])


def _utterances(ratings: Path, audio: Path, label: str) -> Iterator[tuple[str, Utterance]]:
    """Yield the place and the utterance of each consensus in the file of ratings."""
    for where, name, consensus in _consensuses(ratings):
        parts = NAME.fullmatch(name)
        if not parts:
            raise UserError(
                f"{where}: {name!r} is not an utterance of MSP-IMPROV, like MSP-IMPROV-S01A-F01-P-FM01"
            )
        sentence, intended, speaker, session, scenario = parts.groups()
        file = audio / f"session{session}" / f"{sentence}{intended}" / scenario / f"{name}.wav"
        emotion = look_up(LABELS, consensus, f"{where}: unknown label")
        if label == "intended":
            emotion = LABELS[intended]
        text = sentence if scenario in TARGET else f"{IMPROVISED}{sentence}"
        sex = parse_sex(speaker[0])
        yield where, Utterance(name, file, speaker, emotion, session=session, text=text, sex=sex)


def _consensuses(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and consensus of each utterance. The lines of its single raters follow each."""
    for where, line in read_lines(path):
        if rated := RATED.fullmatch(line):
            yield where, f"MSP-{rated[1]}", rated[2]
        elif line and ("IMPROV-" in line or ";" not in line):
            raise UserError(f"{where}: neither an utterance's ratings nor a rater's: {line[:60]!r}")
