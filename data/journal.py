"""A feature store in the making: it grows file by file, and goes on where a killed attempt stopped.

Of each file the features are written first, then a line of the journal: what has no line does not count.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from config import FrontEnd
from data.arrays import RowWriter, rows_written
from data.corpora.utterance import Utterance
from data.store import Row
from utils import read_text, write_json, write_text

MAKING = ("journal.jsonl", "settings.json")
"""What only the making needs."""


@dataclass(frozen=True)
class Job:
    """One file to read: an utterance as it is, or a perturbed copy of it."""

    utterance: Utterance
    copy: str = ""


@dataclass(frozen=True)
class Entry:
    """What came of a job: where the clips start, or the reason why there are none."""

    utterance: str
    file: str
    copy: str
    stamp: str
    duration: float = 0.0
    starts: tuple[float, ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, job: Job, **result: object) -> "Entry":
        """The entry of a job, as its file is now."""
        return cls(
            job.utterance.utterance, str(job.utterance.file), job.copy, stamp(job.utterance.file), **result
        )

    def rows(self, u: Utterance) -> list[Row]:
        """The rows of the manifest, labelled as the corpus labels the utterance."""
        labels = u.utterance, self.file, u.speaker, u.session, u.emotion, u.split
        return [Row(*labels, self.duration, u.text, self.copy, start, self.stamp) for start in self.starts]


def stamp(file: Path) -> str:
    """Size and time of the last change, by which a changed file is known; empty where there is no file."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


class Journal:
    """The folder in which a store is made: `journal.jsonl`, `features.npy`, and the settings that both hold for."""

    def __init__(
        self,
        folder: Path,
        front_end: FrontEnd,
        jobs: Sequence[Job],
        strict: bool = False,
        overwrite: bool = False,
    ):
        """Go on in `folder`: what it has of these jobs, from the first on and with this front-end, is kept.

        If `strict`, only up to a file that gave nothing; if `overwrite`, only of an attempt that overwrote, too.
        """
        self.entries = _kept(folder, front_end, jobs, strict, overwrite)
        folder.mkdir(exist_ok=True)
        write_text(folder / "journal.jsonl", "".join(map(_line, self.entries)))
        write_json(folder / "settings.json", {"overwrite": overwrite, "front_end": front_end.model_dump()})
        kept = sum(len(entry.starts) for entry in self.entries)
        self.features = RowWriter(folder / "features.npy", front_end.shape, kept)
        self.lines = (folder / "journal.jsonl").open("a", encoding="utf-8")
        self.front_end = front_end

    def add(self, entry: Entry, features: np.ndarray | None) -> None:
        """Put down what came of the next job."""
        if features is not None:
            self.features.append(features)
        self.lines.write(_line(entry))
        self.lines.flush()
        self.entries.append(entry)

    def close(self) -> None:
        """Let go of the files; more may be added another time."""
        self.features.close()
        self.lines.close()


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"


def _is_plain(entry: Entry) -> bool:
    """Whether a result is of the right types, and a file gave either clips or a reason."""
    numbers = [entry.duration, *entry.starts]
    sound = all(type(number) is float and 0 <= number < math.inf for number in numbers)
    return sound and type(entry.reason) is str and bool(entry.reason) != bool(entry.starts)


def _kept(
    folder: Path, front_end: FrontEnd, jobs: Sequence[Job], strict: bool, overwrite: bool
) -> list[Entry]:
    """The entries that an earlier attempt left, as far as they are whole and of the same jobs and files."""
    entries: list[Entry] = []
    try:
        settings = json.loads(read_text(folder / "settings.json"))
        if settings["front_end"] != front_end.model_dump() or overwrite > settings["overwrite"]:
            return []
        room = rows_written(folder / "features.npy", front_end.shape)
        lines = read_text(folder / "journal.jsonl").splitlines()
        for line, job in zip(lines, jobs, strict=False):
            values = json.loads(line)
            result = {
                "duration": values["duration"],
                "starts": tuple(values["starts"]),
                "reason": values["reason"],
            }
            entry = Entry.of(job, **result)
            room -= len(entry.starts)
            if (
                room < 0
                or not _is_plain(entry)
                or json.loads(_line(entry)) != values
                or (strict and entry.reason)
            ):
                break
            entries.append(entry)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
    ):  # no earlier attempt, or a line cut short
        pass
    return entries
