"""RAVDESS: 24 actors say two sentences in eight emotions; 1,440 files of speech.

    Audio_Speech_Actors_01-24/Actor_12/03-01-05-02-01-02-12.wav

The numbers are modality (03 is sound alone), channel (01 speech; 02, song, is left out), emotion, intensity,
statement, repetition and actor. Odd actors are men. The text is the statement. Some files are stereo, all have 48 kHz.
The two repetitions 03-01-03-01-02-01-07 and 03-01-03-01-02-02-07 hold the same bytes; both are listed.
"""

from pathlib import Path

from data.corpora.names import read_by_name
from data.corpora.utterance import Utterance

NAME = r"03-01-(?P<emotion>0[1-8])-0[12]-(?P<text>0[12])-0[12]-(?P<speaker>0[1-9]|1\d|2[0-4])"
EXAMPLE = "Actor_12/03-01-05-02-01-02-12.wav"
LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgusted",
    "08": "surprised",
}
COMPLETE = {"": {"angry": 192, "happy": 192, "neutral": 96, "sad": 192, "calm": 192}}


def read(root: Path) -> list[Utterance]:
    """List the utterances of speech in the folder `root`. Raises `UserError` where there is none."""
    return read_by_name(root, NAME, LABELS, EXAMPLE)
