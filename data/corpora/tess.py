"""TESS: two women, an older (OAF) and a younger one (YAF), say 200 words in seven emotions.

    OAF_angry/OAF_back_angry.wav

The name is speaker, word and emotion, of which `ps` is a pleasant surprise. OA_bite_neutral is a slip for OAF.
The word is the text. Sample rates differ from file to file.
"""

from dataclasses import replace
from pathlib import Path

from data.corpora.names import read_by_name
from data.corpora.utterance import Utterance

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


def read(root: Path) -> list[Utterance]:
    """List the utterances in the folder `root`. Raises `UserError` where there is none."""
    utterances = read_by_name(root, NAME, LABELS, EXAMPLE)
    return [replace(each, speaker="OAF") if each.speaker == "OA" else each for each in utterances]
