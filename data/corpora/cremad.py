"""CREMA-D: 91 actors say twelve sentences in six emotions; 7,442 files.

    AudioWAV/1001_IEO_NEU_XX.wav
    VideoDemographics.csv           the table of the actors, from which their sex is taken

A file name consists of actor, sentence, intended emotion and its level: low, middle, high or unspecified (XX).
In older copies 1040_ITH_SAD_XX is called 1040_ITH_SAD_X; it is listed as XX. 1076_MTI_SAD_XX is silent. In a
clone made without Git LFS, the files are text of about 130 bytes instead of audio; they are listed but cannot
be read.
"""

import re
from dataclasses import replace
from pathlib import Path

from data.corpora.file_names import read_by_name
from data.corpora.tables import read_csv
from data.corpora.utterance import Utterance, parse_sex

NAME = r"(?P<speaker>\d{4})_(?P<text>[A-Z]{3})_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(?:LO|MD|HI|XX?)"
ACTORS = "VideoDemographics.csv"
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
    """Return the utterances below the folder `root`. Raises `UserError` if there are none.

    The table of the actors is looked for in `root` and in the folder above it. Without it, their sex is not known.
    """
    sexes = _sexes_of_actors(root)
    utterances = read_by_name(root, NAME, LABELS, EXAMPLE, lambda actor: sexes.get(actor, ""))
    return [replace(each, utterance=re.sub("_X$", "_XX", each.utterance)) for each in utterances]


def _sexes_of_actors(root: Path) -> dict[str, str]:
    tables = [folder / ACTORS for folder in (root, root.absolute().parent)]
    table = next(filter(Path.is_file, tables), None)
    rows = read_csv(table, ("ActorID", "Sex")).rows if table else ()
    return {values["ActorID"]: parse_sex(values["Sex"]) for _, values in rows}
