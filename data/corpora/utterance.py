"""The record that every corpus reader returns."""

from dataclasses import dataclass
from pathlib import Path

IMPROVISED = "improvised "
"""Prefix of the text of an improvised utterance; a scenario follows. Any other text names fixed words."""
FEMALE = "female"
MALE = "male"
SEXES = {
    FEMALE: ("female", "f", "woman", "w", "girl", "weiblich", "frau"),
    MALE: ("male", "m", "man", "boy", "männlich", "mann"),
}
"""The names that `parse_sex` knows, in lower case."""


def parse_sex(text: str) -> str:
    """Return FEMALE or MALE if the text names one of them, in any case; otherwise an empty string."""
    name = text.strip().casefold()
    return next((sex for sex, names in SEXES.items() if name in names), "")


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
    sex: str = ""  # of the speaker: FEMALE, MALE, or empty if not known
