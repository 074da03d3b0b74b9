"""EMO-DB: ten actors say ten German sentences in seven emotions; 535 files.

    wav/03a01Wa.wav

A file name consists of speaker, text (a or b and a number), emotion and version, without separators. The
emotion is the first letter of its German word.
"""

from pathlib import Path

from data.corpora.file_names import read_by_name
from data.corpora.utterance import FEMALE, MALE, Utterance

NAME = r"(?P<speaker>03|08|09|1[0-6])(?P<text>[ab]\d\d)(?P<emotion>[WLEAFTN])[a-f]"
EXAMPLE = "wav/03a01Wa.wav"
LABELS = {
    "W": "angry",  # Wut
    "L": "bored",  # Langeweile
    "E": "disgusted",  # Ekel
    "A": "fearful",  # Angst
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "N": "neutral",
}
MEN = ("03", "10", "11", "12", "15")
COMPLETE_COUNTS = {
    "": {
        "angry": 127,
        "bored": 81,
        "disgusted": 46,
        "fearful": 69,
        "happy": 71,
        "neutral": 79,
        "sad": 62,
    }
}
# Measured on the publisher's files: total, shortest, median and longest.
COMPLETE_SECONDS = {
    "angry": (335.4, 1.466, 2.610, 5.213),
    "bored": (225.1, 1.520, 2.691, 4.526),
    "disgusted": (154.2, 1.524, 3.117, 5.964),
    "fearful": (154.1, 1.226, 2.081, 4.101),
    "happy": (180.6, 1.481, 2.464, 3.931),
    "neutral": (186.4, 1.431, 2.236, 3.899),
    "sad": (251.3, 1.736, 3.863, 8.978),
}


def read(root: Path) -> list[Utterance]:
    """Return the utterances below the folder `root`. Raises `UserError` if there are none."""
    return read_by_name(root, NAME, LABELS, EXAMPLE, lambda speaker: MALE if speaker in MEN else FEMALE)
