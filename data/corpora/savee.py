"""SAVEE: four men read sentences in seven emotions.

    AudioData/DC/a01.wav        as published
    DC_a01.wav                  in some copies

The name is speaker, emotion and the number of the sentence within that emotion; both forms are listed as `DC_a01`.
A text such as `a01` is the same for all speakers. Sentences that several emotions share have a text in each of them.
"""

from pathlib import Path

from data.corpora.names import read_by_name
from data.corpora.utterance import Utterance

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
    """List the utterances in the folder `root`. Raises `UserError` where there is none."""
    return read_by_name(root, NAME, LABELS, EXAMPLE)
