"""Parts of recordings: from a start to an end, as lists of labels state them."""

import re
from dataclasses import dataclass
from pathlib import Path

from data.names import is_unknown

MAX_SECONDS = 1e7  # more than a hundred days
SECONDS = r"((?:\d+[.,]?\d*|[.,]\d+)(?:e[+-]?\d+)?)"
TIME = re.compile(rf"(?=.)(?:(\d+) days?\s*)?(?:(?:(?:(\d+):)?(\d+):)?{SECONDS} ?s?)?", re.ASCII)


@dataclass(frozen=True)
class Segment:
    """The samples of a recording from `start` up to `end`, in seconds; by default all of it."""

    file: Path
    start: float = 0.0
    end: float | None = None  # None: the end of the file
    speaker: str = ""  # as a list of recordings names it; empty if it does not

    @property
    def part(self) -> str:
        """What tells it from other parts of the file; empty for all of it."""
        return fragment(self.start, self.end)

    def __str__(self) -> str:
        return f"{self.file}{self.part}"


def fragment(start: float, end: float | None) -> str:
    """Return what follows the name of the file: `#t=1.5,3`, as in W3C Media Fragments; nothing for all of it."""
    if not start and end is None:
        return ""
    return "#t=" + ",".join(format_seconds(time) for time in (start, end) if time is not None)


def format_seconds(time: float) -> str:
    """Return a time with as many decimals as it has, up to microseconds."""
    return f"{time:.6f}".rstrip("0").rstrip(".")


def parse_seconds(text: str) -> float | None:
    """Return a time in seconds, rounded to microseconds; None if it is empty or `NaT`.

    The forms are `1.5`, with a decimal comma if need be, `1:02.5`, `00:01:02.5` and `0 days 00:01:02.5`.
    Raises `ValueError` for anything else.
    """
    if is_unknown(text):
        return None
    if time := TIME.fullmatch(text.strip().lower()):
        days, hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in time.groups())
        total = 86_400 * days + 3600 * hours + 60 * minutes + seconds
        if total <= MAX_SECONDS:
            return round(total, 6)
    raise ValueError(f"{text[:40]!r} is not a time: give seconds, such as 1.5, or 00:00:01.5")
