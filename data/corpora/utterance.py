"""The record that every corpus reader returns."""

from dataclasses import dataclass
from pathlib import Path

from data.segments import fragment

IMPROVISED = "improvised "
"""Prefix of the text of an improvised utterance; a scenario follows. Any other text names fixed words."""
UNKNOWN_SPEAKER = "Unknown"
"""The speaker of an utterance that anyone may have spoken."""
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
    """One labelled audio file, or a labelled part of one."""

    utterance: str  # name, unique in the corpus
    file: Path
    speaker: str
    emotion: str
    session: str = ""
    split: str = ""  # the publisher's own partition; empty if there is none
    text: str = ""  # the spoken sentence or script, or IMPROVISED and the scenario; empty if unknown
    start: float = 0.0  # seconds, where the utterance begins in the file
    end: float | None = None  # seconds, where it ends; None: at the end of the file
    sex: str = ""  # of the speaker: FEMALE, MALE, or empty if not known

    @property
    def part(self) -> str:
        """What tells this part of a file from others, see `data.segments.fragment`; empty for a whole file."""
        return fragment(self.start, self.end)


def is_improvised(text: str) -> bool:
    """Return whether the words of an utterance with this text were free."""
    return text.casefold().startswith(IMPROVISED)
