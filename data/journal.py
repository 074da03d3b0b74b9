"""The journal of a feature store in the making: what is done stays done after a kill.

For every file, the features are appended to `features.npy` first, then a line to `journal.jsonl`.
Features without a line do not count. The next attempt starts after the last line that is still
valid.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic.dataclasses
from pydantic import BaseModel, Field, TypeAdapter

from config import FrontEnd
from data.arrays import RowWriter, rows_written
from data.corpora.utterance import Utterance
from data.store import Row
from utils import read_text, write_json, write_text

JOURNAL_FILES = ("journal.jsonl", "settings.json")
"""Files that only a store in the making has."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Settings:
    """How a store is made."""

    corpus: str
    front_end: FrontEnd
    copies: tuple[str, ...] = ()  # perturbations; each makes one copy of every utterance
    workers: int = 1
    strict: bool = False  # stop at an unreadable file
    overwrite: bool = False  # replace a store of another corpus, and compute everything again


@dataclass(frozen=True)
class Job:
    """One file to read: an utterance, or a perturbed copy of it."""

    utterance: Utterance
    copy: str = ""


@pydantic.dataclasses.dataclass(frozen=True, config={"strict": True, "extra": "forbid"})
class Entry:
    """The result of a job: where its clips start and end, or the reason why there are none."""

    utterance: str
    file: str
    copy: str
    stamp: str
    duration: Seconds = 0.0
    clips: tuple[tuple[Seconds, Seconds], ...] = ()  # start and end
    audio: str = ""
    lost: Share = 0.0
    reason: str = ""

    @classmethod
    def of(cls, job: Job, **result: object) -> "Entry":
        """The entry of a job, with the stamp that its file has now and the part that is read."""
        u = job.utterance
        return cls(u.utterance, str(u.file), job.copy, stamp(u.file) + u.part, **result)

    def belongs_to(self, job: Job) -> bool:
        """Whether this is the result of this job, and its file has not changed since."""
        return Entry(self.utterance, self.file, self.copy, self.stamp) == Entry.of(job)

    def rows(self, u: Utterance) -> list[Row]:
        """The rows of the manifest, one per clip, with the present labels of the utterance."""
        labels = u.utterance, self.file, u.speaker, u.session, u.emotion, u.split
        sound = self.audio, self.lost, u.sex
        return [
            Row(*labels, self.duration, u.text, self.copy, start, self.stamp, end, *sound)
            for start, end in self.clips
        ]


ENTRY = TypeAdapter(Entry)


class Attempt(BaseModel):
    """The content of `settings.json`: the settings that the features depend on."""

    front_end: FrontEnd
    overwrite: bool


def stamp(file: Path) -> str:
    """Size and modification time, which show whether a file has changed; empty without a file."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


class Journal:
    """The folder in which a store is made: `journal.jsonl`, `features.npy` and `settings.json`."""

    def __init__(self, folder: Path, settings: Settings, jobs: Sequence[Job]):
        """Open `folder` and keep what an earlier attempt has done; see `read_entries`."""
        self.entries = read_entries(folder, settings, jobs)
        rows = sum(len(entry.clips) for entry in self.entries)
        attempt = Attempt(front_end=settings.front_end, overwrite=settings.overwrite)
        folder.mkdir(exist_ok=True)
        write_text(folder / "journal.jsonl", "".join(map(_line, self.entries)))
        write_json(folder / "settings.json", attempt.model_dump())
        self.features = RowWriter(folder / "features.npy", settings.front_end.shape, keep=rows)
        self.file = (folder / "journal.jsonl").open("a", encoding="utf-8", newline="\n")

    def add(self, entry: Entry, features: np.ndarray | None) -> None:
        """Write the result of the next job."""
        if features is not None:
            self.features.append(features)
        self.file.write(_line(entry))
        self.file.flush()
        self.entries.append(entry)

    def close(self) -> None:
        """Close the files; another attempt can open them again."""
        self.features.close()
        self.file.close()


def read_entries(folder: Path, settings: Settings, jobs: Sequence[Job]) -> list[Entry]:
    """Return the entries of an earlier attempt that are still valid, from the first job on.

    They end before the first job whose file has changed or whose features are incomplete, and if
    `strict`, before the first unreadable file. There are none if the front-end differs, or if
    `overwrite` is set now but was not set then.
    """
    try:
        attempt = Attempt.model_validate_json(read_text(folder / "settings.json"))
        rows_left = rows_written(folder / "features.npy", settings.front_end.shape)
        lines = read_text(folder / "journal.jsonl").splitlines()
    except (OSError, ValueError):  # no earlier attempt, or damaged files
        return []
    if attempt.front_end != settings.front_end or (settings.overwrite and not attempt.overwrite):
        return []
    entries = []
    for line, job in zip(lines, jobs, strict=False):
        try:
            entry = ENTRY.validate_json(line)
        except ValueError:  # cut short by a kill, or damaged
            break
        rows_left -= len(entry.clips)
        is_complete = rows_left >= 0 and bool(entry.reason) != bool(entry.clips)
        if not is_complete or not entry.belongs_to(job) or (settings.strict and entry.reason):
            break
        entries.append(entry)
    return entries


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"
