"""TESS: an older (OAF) and a younger (YAF) woman say 200 words in seven emotions.

    OAF_angry/OAF_back_angry.wav

A file name consists of speaker, word (the text) and emotion; `ps` is pleasant surprise. In OA_bite_neutral
the speaker OAF is misspelt. Sample rates differ between files.
"""

from dataclasses import replace
from pathlib import Path

from data.corpora.file_names import read_by_name
from data.corpora.utterance import FEMALE, Utterance

NAME = r"(?P<speaker>OAF?|YAF)_(?P<text>[A-Za-z]+)_(?P<emotion>angry|disgust|fear|happy|neutral|ps|sad)"
EXAMPLE = "OAF_angry/OAF_back_angry.wav"
LABELS = {
    "angry": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprised",
    "sad": "sad",
}
COMPLETE_COUNTS = {"": dict.fromkeys(LABELS.values(), 400)}


def read(root: Path) -> list[Utterance]:
    """Return the utterances below the folder `root`. Raises `UserError` if there are none."""
    utterances = read_by_name(root, NAME, LABELS, EXAMPLE, lambda speaker: FEMALE)
    return [replace(each, speaker="OAF") if each.speaker == "OA" else each for each in utterances]
