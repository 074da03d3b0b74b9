"""Making a feature store: every file of a corpus is read, transformed and written once, for all folds."""

import csv
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from data.corpora import Utterance
from data.features import MFCC, UnreadableAudio, load_audio
from data.front_end import FrontEnd
from data.store import COLUMNS, VERSION, FeatureStore, Row
from utils import UserError, progress, write_json

FILES = {"manifest.csv", "features.npy", "config.json", "skipped.csv"}
BATCH = 8  # clips transformed at a time: their spectrograms stay in the cache; as many again wait, decoded


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
    check_free(folder, overwrite)
    utterances = sorted(utterances, key=lambda utterance: utterance.utterance)  # whatever the order on disk
    if twice := [name for name, count in Counter(u.utterance for u in utterances).items() if count > 1]:
        raise UserError(f"corpus {corpus!r} has {len(twice)} utterance names more than once, {twice[0]!r} for one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside, old = (folder.with_name(f".{folder.name}.{part}") for part in ("partial", "old"))
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        check_free(folder, overwrite)  # again: another process may have been faster
        shutil.rmtree(beside, ignore_errors=True)  # what a killed attempt left
        beside.mkdir()
        try:
            _fill(beside, utterances, front_end, corpus, workers)
            if folder.exists():
                folder.rename(old)
            beside.rename(folder)
        finally:
            for rest in (beside, old):
                shutil.rmtree(rest, ignore_errors=True)
    return FeatureStore.open(folder)


def check_free(folder: Path, overwrite: bool) -> None:
    """`UserError` where `folder` holds something that must not be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - FILES:
        raise UserError(f"{folder} holds something other than features: choose another place for them")
    if not overwrite and any(folder.iterdir()):
        raise UserError(f"{folder} exists already: pass --overwrite to make it anew, or --out to keep both")


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
        who = {name: getattr(utterance, name) for name in ("utterance", "speaker", "session", "emotion", "split")}
        yield Row(file=str(utterance.file), duration=round(seconds, 3), **who), clip


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
