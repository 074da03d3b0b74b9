"""RAVDESS: 24 actors say two sentences in eight emotions; 1,440 files of speech.

    Audio_Speech_Actors_01-24/Actor_12/03-01-05-02-01-02-12.wav

The numbers of a file name are modality (03: audio only), channel (01: speech; 02, song, is left out),
emotion, intensity, statement, repetition and actor. The statement is the text. Actors with an odd number
are men. All files have 48 kHz; some are stereo. The two repetitions 03-01-03-01-02-01-07 and
03-01-03-01-02-02-07 have the same bytes; both are listed.
"""

from pathlib import Path

from data.corpora.file_names import read_by_name
from data.corpora.utterance import FEMALE, MALE, Utterance

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
COMPLETE_COUNTS = {"": dict.fromkeys(LABELS.values(), 192) | {"neutral": 96}}
# Measured on the publisher's files after resampling to 16 kHz; total, shortest, median and longest.
COMPLETE_SECONDS = {
    "angry": (743.3, 3.237, 3.837, 5.105),
    "calm": (728.8, 2.936, 3.770, 4.771),
    "disgusted": (756.8, 3.136, 3.904, 5.272),
    "fearful": (686.3, 3.070, 3.554, 5.005),
    "happy": (698.5, 3.103, 3.620, 4.404),
    "neutral": (336.3, 3.070, 3.503, 4.137),
    "sad": (709.3, 3.103, 3.670, 4.738),
    "surprised": (669.6, 2.970, 3.503, 4.638),
}


def read(root: Path) -> list[Utterance]:
    """Return the spoken utterances below the folder `root`. Raises `UserError` if there are none."""
    return read_by_name(root, NAME, LABELS, EXAMPLE, lambda actor: MALE if int(actor) % 2 else FEMALE)
