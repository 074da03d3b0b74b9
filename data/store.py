"""The feature store: a folder with the features of a corpus, computed once for all folds.

`manifest.csv`  one row per clip, in the order of the array; most utterances have one clip
`features.npy`  float32 (N, F, T): N clips, F coefficients, T frames
`config.json`   the front-end, the corpus, the classes, the version of this layout
`skipped.csv`   the files that gave no features, and why
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from config import FrontEnd
from data.arrays import RowReader
from utils import UserError, read_text

VERSION = 3
"""Version of the layout; a store of another version is refused."""


@dataclass(frozen=True)
class Row:
    """One clip in the manifest; the fields are the columns of `manifest.csv`."""

    utterance: str
    file: str
    speaker: str
    session: str
    emotion: str
    split: str
    duration: float  # seconds, length of the utterance: of the whole file, or of the part that is labelled
    text: str  # the words spoken, if the corpus states them
    copy: str  # the perturbation; empty for an original
    start: float  # seconds, where the clip begins in the recording
    stamp: str  # size and modification time of the file when it was read, and the part if it is not all of it
    end: float = 0.0  # seconds, where the sound of the clip ends in the recording; padding is not counted
    audio: str = ""  # digest of the utterance's samples, the same for every front-end and for its copies
    lost: float = 0.0  # share of the utterance's energy that is in none of its clips, 0 to 1
    sex: str = ""  # of the speaker: female, male, or empty if not known


COLUMNS = tuple(field.name for field in fields(Row))
NUMBERS = ("duration", "start", "end", "lost")
SKIPPED_COLUMNS = ("file", "reason")


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """An open feature store. The features stay on disk and are read as they are indexed."""

    folder: Path
    corpus: str
    front_end: FrontEnd
    classes: tuple[str, ...]  # sorted, of the whole manifest: class ids do not depend on the fold
    manifest: list[Row]
    features: RowReader  # (N, F, T) float32
    skipped: list[tuple[str, str]]  # file, reason

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """Open the store in `folder`. Raises `UserError` if it does not exist or is damaged."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            others = sorted(path.parent.name for path in folder.parent.glob("[!.]*/config.json"))
            found = ", ".join(others) or "no stores"
            raise UserError(f"no features at {folder}: prepare.py makes them; {folder.parent} has {found}")
        try:
            return cls._read(folder)
        except Exception as error:  # parsers raise many types of exception on damaged input
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
            message = f"features at {folder} are damaged, make them again with prepare.py: {reason}"
            raise UserError(message) from None

    @classmethod
    def _read(cls, folder: Path) -> "FeatureStore":
        config = json.loads(read_text(folder / "config.json"))
        if config["version"] != VERSION:
            raise ValueError(f"config.json has version {config['version']}, this program reads {VERSION}")
        if not isinstance(config["corpus"], str):
            raise TypeError(f"config.json has the corpus {config['corpus']!r}")
        front_end = FrontEnd(**config["front_end"])
        manifest = [_row(values) for values in read_csv(folder / "manifest.csv", COLUMNS)]
        check_order(manifest)
        skipped = [(file, reason) for file, reason in read_csv(folder / "skipped.csv", SKIPPED_COLUMNS)]
        classes = tuple(sorted({row.emotion for row in manifest}))
        if list(classes) != config["classes"]:
            raise ValueError("config.json and manifest.csv have different classes")
        features = RowReader(folder / "features.npy")
        shape = (len(manifest), *front_end.shape)
        if features.shape != shape:
            raise ValueError(f"features.npy has the shape {features.shape}, not {shape}")
        return cls(folder, config["corpus"], front_end, classes, manifest, features, skipped)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class ids (N,) int64: indices into `classes`."""
        ids = {emotion: number for number, emotion in enumerate(self.classes)}
        return np.array([ids[row.emotion] for row in self.manifest], dtype=np.int64)

    @cached_property
    def copies(self) -> tuple[str, ...]:
        """The perturbations of which the store has copies."""
        return tuple(sorted({row.copy for row in self.manifest if row.copy}))

    def with_copies(self, rows: np.ndarray, copies: Collection[str]) -> np.ndarray:
        """These rows, of which none is a copy, and the copies of their utterances by these perturbations, ascending."""
        if not copies:
            return rows
        utterances = {self.manifest[row].utterance for row in rows}
        added = [
            i for i, row in enumerate(self.manifest) if row.copy in copies and row.utterance in utterances
        ]
        return np.sort(np.concatenate([rows, np.array(added, np.int64)]))

    def check_copies(self, copies: Collection[str], wanted_by: str) -> None:
        """Raise `UserError` if the store lacks any of these copies, which `wanted_by` predicts."""
        if missing := [copy for copy in copies if copy not in self.copies]:
            every = " ".join(sorted({*self.copies, *copies}))
            raise UserError(
                f"{wanted_by} predicts copies that {self.folder} lacks ({', '.join(missing)}): prepare it again, with "
                f"--perturb {every} and its other flags as before"
            )

    @property
    def title(self) -> str:
        """The corpus, or for a user's own CSV, the name of the dataset."""
        return self.folder.resolve().name if self.corpus == "manifest" else self.corpus

    @cached_property
    def speakers(self) -> list[str]:
        """The speaker of each row."""
        return [row.speaker for row in self.manifest]

    def fingerprint(self) -> str:
        """The SHA-256 of the front-end, the manifest and the features."""
        digest = hashlib.sha256()
        for name in ("config.json", "manifest.csv", "features.npy"):
            with (self.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.manifest)


def read_csv(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """Read a CSV file. Raises `ValueError` unless it has exactly these columns in every line."""
    header, *rows = list(csv.reader(io.StringIO(read_text(path), newline=""))) or [[]]
    if header != list(columns):
        raise ValueError(f"{path.name} must have the columns {','.join(columns)}")
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"a line of {path.name} does not have {len(columns)} values")
    return rows


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Write a CSV file that `read_csv` reads back as it was."""
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in [columns, *rows]:
            # csv reads a carriage return as the end of a line unless it is quoted, but does not quote it
            quoting = csv.QUOTE_ALL if any("\r" in str(value) for value in row) else csv.QUOTE_MINIMAL
            csv.writer(file, lineterminator="\n", quoting=quoting).writerow(row)


def check_order(manifest: Sequence[Row]) -> None:
    """Raise `ValueError` unless the rows of each utterance, and in them those of each copy, follow each other."""
    clips = [key for key, _ in groupby((row.utterance, row.copy) for row in manifest)]
    utterances = [utterance for utterance, _ in groupby(utterance for utterance, _ in clips)]
    if len(set(clips)) < len(clips) or len(set(utterances)) < len(utterances):
        raise ValueError("manifest.csv has the rows of an utterance in several places")


def _row(values: Sequence[str]) -> Row:
    by_column = dict(zip(COLUMNS, values, strict=True))
    return Row(**by_column | {column: _number(by_column[column]) for column in NUMBERS})


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(f"manifest.csv has {number} where a number from 0 on should be")
    return number
