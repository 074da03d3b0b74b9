"""The record that every corpus reader returns."""

from dataclasses import dataclass
from pathlib import Path

from data.segments import fragment

IMPROVISED = "improvised "
"""Prefix of the text of an improvised utterance; a scenario follows. Any other text names fixed words."""
UNKNOWN_SPEAKER = "Unknown"
"""The speaker of an utterance that anyone may have spoken."""


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

    @property
    def part(self) -> str:
        """What tells this part of a file from others, see `data.segments.fragment`; empty for a whole file."""
        return fragment(self.start, self.end)


def is_improvised(text: str) -> bool:
    """Return whether the words of an utterance with this text were free."""
    return text.casefold().startswith(IMPROVISED)
