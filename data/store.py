"""The feature store: one array and its manifest in a folder, computed once for all folds.

`manifest.csv`  one row a clip, in the order of the array: as a rule one clip an utterance
`features.npy`  float32, (N clips, F coefficients, T frames)
`config.json`   the front-end, the corpus, the classes, the version of this layout
`skipped.csv`   the files that gave no features, and why
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from config import FrontEnd
from data.arrays import RowReader
from utils import UserError, read_text

VERSION = 2
CHUNK = 64  # rows of features held in float64 at a time


@dataclass(frozen=True)
class Row:
    """One clip of a manifest; the fields are the columns of `manifest.csv`."""

    utterance: str
    file: str
    speaker: str
    session: str
    emotion: str
    split: str
    duration: float  # seconds, of the whole file
    text: str  # what was said, as far as the corpus tells
    copy: str  # how a perturbed copy was made; empty for an original
    start: float  # seconds, where in the recording the clip begins
    stamp: str  # size and time of the file when it was read, by which a changed file is known


COLUMNS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """A store that has been opened. The features stay on disk: rows are read as they are indexed."""

    folder: Path
    corpus: str
    front_end: FrontEnd
    classes: tuple[str, ...]  # sorted, of the whole manifest: a class that a split lacks shifts no id
    manifest: list[Row]
    features: RowReader  # (N, F, T) float32
    skipped: list[tuple[str, str]]  # file, reason

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """Open the store in `folder`. Raises `UserError` where there is none or where its files disagree."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            there = sorted(path.parent.name for path in folder.parent.glob("[!.]*/config.json"))
            raise UserError(
                f"no features at {folder}: prepare.py makes them; there are {', '.join(there) or 'none'} beside it"
            )
        try:
            return cls._read(folder)
        except Exception as error:  # spoilt bytes make parsers raise all sorts of things
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
            raise UserError(
                f"features at {folder} are damaged, make them anew with prepare.py: {reason}"
            ) from None

    @classmethod
    def _read(cls, folder: Path) -> "FeatureStore":
        config = json.loads(read_text(folder / "config.json"))
        if config["version"] != VERSION:
            raise ValueError(f"config.json has version {config['version']}, this program reads {VERSION}")
        if not isinstance(config["corpus"], str):
            raise TypeError(f"config.json has the corpus {config['corpus']!r}")
        front_end = FrontEnd(**config["front_end"])
        manifest = [
            Row(*names, _seconds(duration), text, copy, _seconds(start), stamp)
            for *names, duration, text, copy, start, stamp in _read_csv(folder / "manifest.csv", COLUMNS)
        ]
        skipped = [(file, reason) for file, reason in _read_csv(folder / "skipped.csv", ("file", "reason"))]
        classes = tuple(sorted({row.emotion for row in manifest}))
        if list(classes) != config["classes"]:
            raise ValueError("config.json and manifest.csv disagree about the classes")
        features, shape = RowReader(folder / "features.npy"), (len(manifest), *front_end.shape)
        if features.shape != shape:
            raise ValueError(f"features.npy holds {features.shape} where {shape} is due")
        return cls(folder, config["corpus"], front_end, classes, manifest, features, skipped)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class ids, (N,) int64: positions in `classes`."""
        ids = {emotion: number for number, emotion in enumerate(self.classes)}
        return np.array([ids[row.emotion] for row in self.manifest], dtype=np.int64)

    @cached_property
    def speakers(self) -> list[str]:
        """The speaker of each row."""
        return [row.speaker for row in self.manifest]

    def fingerprint(self) -> str:
        """The SHA-256 of the front-end, the manifest and the features: another store has another."""
        digest = hashlib.sha256()
        for name in ("config.json", "manifest.csv", "features.npy"):
            with (self.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.manifest)


def _seconds(text: str) -> float:
    if not 0 <= (seconds := float(text)) < math.inf:
        raise ValueError(f"manifest.csv has a time of {seconds} seconds")
    return seconds


def _read_csv(path: Path, columns: Sequence[str]) -> list[list[str]]:
    header, *rows = list(csv.reader(io.StringIO(read_text(path), newline=""))) or [[]]
    if header != list(columns):
        raise ValueError(f"{path.name} must have the columns {','.join(columns)}")
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"a line of {path.name} has not {len(columns)} values")
    return rows


def statistics(features: RowReader | np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per coefficient over all frames of these rows, each (F,) float32.

    Summed in float64 and in chunks, so that memory stays small; the deviation is at least 1e-6. Order of `rows` is
    of no account. Raises `ValueError` where there are none.
    """
    if not len(rows):
        raise ValueError("statistics of no rows")
    rows = np.sort(rows)  # as they lie on disk
    shift = features[rows[0]].mean(
        axis=1, dtype=np.float64
    )  # (F,) near the mean, so that the squares stay exact
    total, squares = np.zeros_like(shift), np.zeros_like(shift)
    for start in range(0, len(rows), CHUNK):
        centred = features[rows[start : start + CHUNK]] - shift[:, None]  # (n, F, T) float64
        total += centred.sum(axis=(0, 2))
        squares += np.square(centred).sum(axis=(0, 2))
    count = len(rows) * features.shape[2]
    variance = squares / count - np.square(total / count)
    std = np.sqrt(np.maximum(variance, 1e-12))
    return (shift + total / count).astype(np.float32), std.astype(np.float32)
