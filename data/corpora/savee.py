"""SAVEE: four men read sentences in seven emotions.

    AudioData/DC/a01.wav        as published
    DC_a01.wav                  in some copies

A file name consists of speaker, emotion and the number of the sentence within the emotion; both forms are
listed as `DC_a01`. The text, such as `a01`, is the same sentence for all speakers. A sentence that occurs in
several emotions has a different text in each.
"""

from pathlib import Path

from data.corpora.file_names import read_by_name
from data.corpora.utterance import MALE, Utterance

NAME = r"(?P<speaker>DC|JE|JK|KL)[/_](?P<text>(?P<emotion>sa|su|[adfhn])\d\d)"
EXAMPLE = "AudioData/DC/a01.wav"
LABELS = {
    "a": "angry",
    "d": "disgusted",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}


def read(root: Path) -> list[Utterance]:
    """Return the utterances below the folder `root`. Raises `UserError` if there are none."""
    return read_by_name(root, NAME, LABELS, EXAMPLE, lambda speaker: MALE)
