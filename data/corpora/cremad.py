"""CREMA-D: 91 actors say twelve sentences in six emotions; 7,442 files.

    AudioWAV/1001_IEO_NEU_XX.wav

A file name consists of actor, sentence, intended emotion and its level: low, middle, high or unspecified (XX).
In older copies 1040_ITH_SAD_XX is called 1040_ITH_SAD_X; it is listed as XX. 1076_MTI_SAD_XX is silent. In a
clone made without Git LFS, the files are text of about 130 bytes instead of audio; they are listed but cannot
be read.
"""

import re
from dataclasses import replace
from pathlib import Path

from data.corpora.file_names import read_by_name
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
COMPLETE_COUNTS = {"": dict.fromkeys(LABELS.values(), 1271) | {"neutral": 1087}}


def read(root: Path) -> list[Utterance]:
    """Return the utterances below the folder `root`. Raises `UserError` if there are none."""
    utterances = read_by_name(root, NAME, LABELS, EXAMPLE)
    return [replace(each, utterance=re.sub("_X$", "_XX", each.utterance)) for each in utterances]
