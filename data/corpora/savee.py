"""SAVEE: four men read sentences in seven emotions.

    AudioData/DC/a01.wav        as published
    DC_a01.wav                  in some copies

A file name consists of speaker, emotion and the number of the sentence within the emotion; both forms are
listed as `DC_a01`. A number is the same sentence for all speakers. 87 sentences are spoken: 3 in every emotion,
12 in one emotion and as neutral, the others in one emotion alone. A text is the name of the sentence without
the speaker; a sentence of several names has the neutral one of them, and of two neutral ones the first.
"""

from dataclasses import replace
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
COMPLETE_COUNTS = {"": dict.fromkeys(LABELS.values(), 60) | {"neutral": 120}}
IN_EVERY_EMOTION = {f"{emotion}0{n}": f"n0{n}" for emotion in LABELS for n in (1, 2, 3)}
NEUTRAL_AGAIN = {f"n{n + 15}": f"n0{n}" for n in (1, 2, 3)}
IN_ONE_EMOTION = {
    f"{emotion}0{4 + n}": f"n{19 + 2 * place + n}"
    for place, emotion in enumerate(("a", "d", "f", "su", "sa", "h"))
    for n in (0, 1)
}
SAME_TEXT = IN_EVERY_EMOTION | NEUTRAL_AGAIN | IN_ONE_EMOTION
"""Names of the sentences that have several names: the name -> the text."""


def read(root: Path) -> list[Utterance]:
    """Return the utterances below the folder `root`. Raises `UserError` if there are none."""
    utterances = read_by_name(root, NAME, LABELS, EXAMPLE, lambda speaker: MALE)
    return [replace(each, text=SAME_TEXT.get(each.text, each.text)) for each in utterances]
