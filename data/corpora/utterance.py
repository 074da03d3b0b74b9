"""What every corpus is read into."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Utterance:
    """One labelled audio file."""

    utterance: str  # its name, unique in the corpus
    file: Path
    speaker: str
    emotion: str
    session: str = ""
    split: str = ""  # the publisher's own partition, where there is one
    text: str = ""  # the script text or scenario that was spoken, where the corpus has such a thing
