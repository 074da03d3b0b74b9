"""The feature store: one memory-mapped array and its manifest in a folder, computed once for all folds.

`manifest.csv`  one row an utterance, in the order of the array
`features.npy`  float32, (N utterances, F coefficients, T frames)
`config.json`   the front-end, the corpus, the classes, the version of this layout
`skipped.csv`   the files that gave no features, and why
"""

import csv
import fcntl
import glob
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from data.corpora import Utterance
from data.features import MFCC, FrontEnd, UnreadableAudio, load_audio
from data.folds import Fold, natural
from utils import UserError, progress, write_json

VERSION = 1
FILES = {"manifest.csv", "features.npy", "config.json", "skipped.csv"}
BATCH = 8  # clips transformed at a time: larger batches fall out of the processor's cache and are slower
CHUNK = 64  # rows of features held in float64 at a time


@dataclass(frozen=True)
class Row:
    """One utterance of a manifest; the fields are the columns of `manifest.csv`."""

    utterance: str
    file: str
    speaker: str
    session: str
    emotion: str
    split: str
    duration: float  # seconds, of the whole file


COLUMNS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """A store that has been opened. `features` stays on disk: rows are read as they are indexed."""

    folder: Path
    corpus: str
    front_end: FrontEnd
    classes: tuple[str, ...]  # sorted, of the whole manifest: a class that a split lacks shifts no id
    manifest: list[Row]
    features: np.ndarray  # (N, F, T) float32
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
            raise UserError(f"features at {folder} are damaged, make them anew with prepare.py: {reason}") from None

    @classmethod
    def _read(cls, folder: Path) -> "FeatureStore":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["version"] != VERSION:
            raise ValueError(f"config.json has version {config['version']}, this program reads {VERSION}")
        front_end = FrontEnd(**config["front_end"])
        manifest = [Row(*row[:-1], duration=float(row[-1])) for row in _read_csv(folder / "manifest.csv", COLUMNS)]
        skipped = [(file, reason) for file, reason in _read_csv(folder / "skipped.csv", ("file", "reason"))]
        classes = tuple(sorted({row.emotion for row in manifest}))
        if list(classes) != config["classes"]:
            raise ValueError("config.json and manifest.csv disagree about the classes")
        features = np.lib.format.open_memmap(folder / "features.npy", mode="r")  # never unpickles
        shape = len(manifest), front_end.n_mfcc, front_end.frames
        if features.dtype != np.float32 or features.shape != shape:
            raise ValueError(f"features.npy holds {features.dtype} {features.shape} where float32 {shape} is due")
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

    def __len__(self) -> int:
        return len(self.manifest)


def prepare(
    utterances: Sequence[Utterance],
    front_end: FrontEnd,
    folder: Path,
    *,
    corpus: str,
    workers: int,
    overwrite: bool = False,
) -> FeatureStore:
    """Make the store in `folder`: it appears whole or not at all.

    `workers` threads decode while this one transforms; memory does not grow with the corpus. Unreadable files are
    left out and listed in `skipped.csv`. Raises `UserError` where the folder is taken (a store is replaced where
    `overwrite` says so, anything else never), names repeat, or no file is readable.
    """
    folder = Path(folder).resolve()
    _check_free(folder, overwrite)
    utterances = sorted(utterances, key=lambda utterance: utterance.utterance)  # whatever the order on disk
    if twice := [name for name, count in Counter(u.utterance for u in utterances).items() if count > 1]:
        raise UserError(f"corpus {corpus!r} has {len(twice)} utterance names more than once, {twice[0]!r} for one")
    with _attempt(folder) as partial:
        _fill(partial, utterances, front_end, corpus, workers)
        _check_free(folder, overwrite)  # again: another process may have been faster
        if folder.exists():
            folder.rename(old := partial.with_name(partial.name + ".old"))
            partial.rename(folder)
            shutil.rmtree(old)
        else:
            partial.rename(folder)
    return FeatureStore.open(folder)


def _check_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - FILES:
        raise UserError(f"{folder} holds something other than features: choose another place for them")
    if not overwrite and any(folder.iterdir()):
        raise UserError(f"{folder} exists already: pass --overwrite to make it anew, or --out to keep both")


@contextmanager
def _attempt(folder: Path) -> Iterator[Path]:
    """A fresh folder beside `folder`, removed in the end unless renamed; so is what killed attempts left there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.partial.*"):
        with _lock(left) as free:
            if free:
                shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.partial.{os.getpid()}")
    partial.mkdir()
    with _lock(partial):
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold a folder while at work in it; yields whether nobody else does. The lock goes with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:  # held, or a file system without locks: leave it alone
            free = False
        yield free
    finally:
        os.close(handle)


def _fill(partial: Path, utterances: Sequence[Utterance], front_end: FrontEnd, corpus: str, workers: int) -> None:
    """Write the four files."""
    rows, skipped = [], []
    mfcc = MFCC(front_end)
    with _growing_array(partial / "features.npy", (front_end.n_mfcc, front_end.frames)) as append:
        sounds = _readable(utterances, front_end, workers, skipped)
        while batch := list(islice(sounds, BATCH)):
            clips = torch.from_numpy(np.stack([clip for _, clip in batch]))
            with torch.inference_mode():
                append(mfcc(clips).numpy())
            rows += [row for row, _ in batch]
    if not rows:
        first = f"the first, {skipped[0][0]}: {skipped[0][1]}" if skipped else "there are none"
        raise UserError(f"corpus {corpus!r}: none of its {len(utterances)} files is readable ({first})")
    _write_csv(partial / "manifest.csv", COLUMNS, [astuple(row) for row in rows])
    _write_csv(partial / "skipped.csv", ("file", "reason"), skipped)
    classes = sorted({row.emotion for row in rows})
    config = {"version": VERSION, "corpus": corpus, "classes": classes, "front_end": front_end.model_dump()}
    write_json(partial / "config.json", config)


def _readable(
    utterances: Sequence[Utterance], front_end: FrontEnd, workers: int, skipped: list[tuple[str, str]]
) -> Iterator[tuple[Row, np.ndarray]]:
    """The manifest row and the clip of each readable utterance, in order; the others go to `skipped`."""
    loads = _ahead(lambda utterance: load_audio(utterance.file, front_end), utterances, workers)
    for utterance, load in zip(progress(utterances, "features", unit="file"), loads, strict=True):
        try:
            clip, seconds = load()
        except UnreadableAudio as error:
            skipped.append((str(utterance.file), error.reason))
            continue
        yield Row(**vars(utterance) | {"file": str(utterance.file), "duration": round(seconds, 3)}), clip


def _ahead(work: Callable, items: Sequence, workers: int) -> Iterator[Callable]:
    """The results of `work` in order, as calls that return or raise; threads run a bounded way ahead."""
    waiting, workers = deque(), max(1, workers)
    with ThreadPoolExecutor(workers) as pool:  # soundfile and soxr work outside Python's lock
        for item in items:
            waiting.append(pool.submit(work, item).result)
            if len(waiting) > BATCH + 2 * workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


@contextmanager
def _growing_array(path: Path, shape: tuple[int, ...]) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends rows of this shape to a float32 `.npy` whose length is not known beforehand."""
    rows = 0

    def append(block: np.ndarray) -> None:
        nonlocal rows
        file.write(np.ascontiguousarray(block, dtype="<f4").data)
        rows += len(block)

    def write_header() -> int:  # NumPy pads it so that the first axis can grow in place
        file.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        return file.tell()

    with path.open("wb") as file:
        start = write_header()
        yield append
        if write_header() != start:
            raise RuntimeError("the .npy header has changed its length")


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def _read_csv(path: Path, columns: Sequence[str]) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header != list(columns):
        raise ValueError(f"{path.name} must have the columns {','.join(columns)}")
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"a line of {path.name} has not {len(columns)} values")
    return rows


def statistics(features: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per coefficient over all frames of these rows, each (F,) float32.

    Summed in float64 and in chunks, so that memory stays small; the deviation is at least 1e-6. Order of `rows` is
    of no account. Raises `ValueError` where there are none.
    """
    if not len(rows):
        raise ValueError("statistics of no rows")
    rows = np.sort(rows)  # as they lie on disk
    shift = features[rows[0]].mean(axis=1, dtype=np.float64)  # (F,) near the mean, so that the squares stay exact
    total, squares = np.zeros_like(shift), np.zeros_like(shift)
    for start in range(0, len(rows), CHUNK):
        centred = features[rows[start : start + CHUNK]] - shift[:, None]  # (n, F, T) float64
        total += centred.sum(axis=(0, 2))
        squares += np.square(centred).sum(axis=(0, 2))
    count = len(rows) * features.shape[2]
    variance = squares / count - np.square(total / count)
    std = np.sqrt(np.maximum(variance, 1e-12))
    return (shift + total / count).astype(np.float32), std.astype(np.float32)


def summary(store: FeatureStore, folds: Sequence[Fold]) -> str:
    """A text that shows a person what is in a store: classes, sessions, speakers, folds."""
    hours = sum(row.duration for row in store.manifest) / 3600
    blocks = [
        f"{store.corpus}: {len(store):,} utterances of {len(set(store.speakers))} speakers, {hours:.2f} hours"
        f" in {store.folder}; {len(store.skipped)} files skipped" + (" (see skipped.csv)" if store.skipped else "")
    ]
    for column in ("emotion", "session", "speaker"):
        counts = Counter(getattr(row, column) for row in store.manifest)
        if set(counts) != {""}:
            blocks.append(_table((column, "utterances"), [(key, counts[key]) for key in sorted(counts, key=natural)]))
    if folds:
        lines = []
        for number, fold in enumerate(folds, 1):
            tested = sorted({store.speakers[row] for row in fold.test}, key=natural)
            sizes = len(fold.train), len(fold.validation), len(fold.test)
            lines.append((number, *sizes, len(tested), _few(tested)))
        blocks.append(_table(("fold", "train", "validation", "test", "test speakers", ""), lines))
    return "\n\n".join(blocks)


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _table(header: Sequence[str], lines: Sequence[Sequence], most: int = 40) -> str:
    """Aligned columns, numbers to the right; of a long table the first lines."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in line] for line in [header, *lines[:most]]]
    columns = []
    for column, kind in zip(zip(*cells, strict=True), lines[0], strict=True):
        align, width = ">" if isinstance(kind, int) else "<", max(map(len, column))
        columns.append([f"{cell:{align}{width}}" for cell in column])
    text = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    return "\n".join(text + ([f"... and {len(lines) - most} more"] if len(lines) > most else []))
