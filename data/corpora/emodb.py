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
COMPLETE_COUNTS = {"": {"angry": 127, "happy": 71, "neutral": 79, "sad": 62}}


def read(root: Path) -> list[Utterance]:
    """Return the utterances below the folder `root`. Raises `UserError` if there are none."""
    return read_by_name(root, NAME, LABELS, EXAMPLE, lambda speaker: MALE if speaker in MEN else FEMALE)
