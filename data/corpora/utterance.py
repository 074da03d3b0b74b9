"""What every corpus is read into."""

from dataclasses import dataclass
from pathlib import Path

IMPROVISED = "improvised "
"""A text that starts so is an improvisation of the scenario that follows; any other names words that were fixed."""


@dataclass(frozen=True)
class Utterance:
    """One labelled audio file."""

    utterance: str  # its name, unique in the corpus
    file: Path
    speaker: str
    emotion: str
    session: str = ""
    split: str = ""  # the publisher's own partition, where there is one
    text: str = (
        ""  # the sentence or script that was spoken, or IMPROVISED and the scenario; empty where unknown
    )
