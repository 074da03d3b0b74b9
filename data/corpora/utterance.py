"""The record that every corpus reader returns."""

from dataclasses import dataclass
from pathlib import Path

IMPROVISED = "improvised "
"""Prefix of the text of an improvised utterance; a scenario follows. Any other text names fixed words."""


@dataclass(frozen=True)
class Utterance:
    """One labelled audio file."""

    utterance: str  # name, unique in the corpus
    file: Path
    speaker: str
    emotion: str
    session: str = ""
    split: str = ""  # the publisher's own partition; empty if there is none
    text: str = ""  # the spoken sentence or script, or IMPROVISED and the scenario; empty if unknown
