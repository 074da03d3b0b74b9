"""CREMA-D: 91 actors say twelve sentences in six emotions; 7,442 files.

    AudioWAV/1001_IEO_NEU_XX.wav

The name is actor, sentence, intended emotion and its level: low, middle, high or unspecified (XX; in one file,
1040_ITH_SAD_X, a single X). 1076_MTI_SAD_XX holds no sound. A clone made without Git LFS has texts of some 130 bytes
in place of the sound; they are listed like the rest, and unreadable.
"""

from pathlib import Path

from data.corpora.names import read_by_name
from data.corpora.utterance import Utterance

NAME = r"(?P<speaker>\d{4})_(?P<text>[A-Z]{3})_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(?:LO|MD|HI|XX?)"
EXAMPLE = "AudioWAV/1001_IEO_NEU_XX.wav"
LABELS = {
    "ANG": "angry",
    "DIS": "disgusted",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
COMPLETE = {"": {"angry": 1271, "happy": 1271, "neutral": 1087, "sad": 1271}}


def read(root: Path) -> list[Utterance]:
    """List the utterances in the folder `root`. Raises `UserError` where there is none."""
    return read_by_name(root, NAME, LABELS, EXAMPLE)
