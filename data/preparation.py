"""Make a feature store: read and transform every file of a corpus once, for all folds.

Features of files that have not changed are taken from the earlier store, and a run that was killed
continues where it stopped. The result is the same, to the byte, as that of a single run without an
earlier store.
"""

import json
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from config import FrontEnd
from data.corpora.utterance import Utterance
from data.features import Transform, UnreadableAudio, one_thread, read_clips
from data.journal import JOURNAL_FILES, Entry, Job, Journal, Settings
from data.same_recordings import are_of_one_corpus
from data.store import COLUMNS, SKIPPED_COLUMNS, VERSION, FeatureStore, write_csv
from utils import UserError, progress, read_text, sync, write_json

PICTURES = ("balance.png", "spectrograms.png")
STORE_FILES = {"manifest.csv", "features.npy", "config.json", "skipped.csv", *PICTURES, *JOURNAL_FILES}
"""Files that a store may hold; a folder with any other file is not replaced."""
UNFINISHED = re.compile(r"^\.(.+)\.\d+$")  # name of a file that `utils.whole_file` had not finished
KEEP_OR_REPLACE = "pass --overwrite to replace them, or --out to keep both"
JOBS_AHEAD = 4  # results, per thread, that may wait for an earlier one


def prepare(
    utterances: Sequence[Utterance], settings: Settings, folder: Path, listed: Sequence[Utterance] = ()
) -> tuple[FeatureStore, int]:
    """Make the store in `folder`, or bring it up to date.

    `listed` are all utterances of the corpus, if `utterances` are those of some classes.

    The store changes as a whole or not at all. `settings.workers` threads read one file each;
    memory does not grow with the corpus. Unreadable files are left out and listed in `skipped.csv`.

    Returns the store, and the number of files whose features were already there.
    Raises `UserError` if the folder holds something else or another corpus, if two utterances have
    the same name, if no file is readable, or if `settings.strict` is set and one file is not.
    """
    folder = Path(folder).resolve()
    check_replaceable(folder, settings)
    check_same_corpus(folder, settings, listed or utterances)
    jobs = _list_jobs(utterances, settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if old.exists() and not folder.exists():  # an earlier process was killed between two renames
            old.rename(folder)
        check_replaceable(folder, settings)  # again, because another process may have held the lock
        check_same_corpus(folder, settings, listed or utterances)
        earlier = EarlierStore(folder, settings)
        journal = Journal(partial, settings, jobs)
        kept = len(journal.entries)
        try:
            kept += _do_jobs(jobs[kept:], settings, earlier, journal)
        finally:
            journal.close()
            earlier.close()
        _write_tables(partial, journal.entries, jobs, settings)
        _replace(folder, partial, old)
    return FeatureStore.open(folder), kept


def check_replaceable(folder: Path, settings: Settings) -> None:
    """Raise `UserError` if `folder` holds something that must not be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir() or {UNFINISHED.sub(r"\1", path.name) for path in folder.iterdir()} - STORE_FILES:
        raise UserError(f"{folder} holds something other than features: choose another place for them")
    try:
        corpus = json.loads(read_text(folder / "config.json"))["corpus"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # no store, or a damaged one
        return
    if corpus != settings.corpus and not settings.overwrite:
        raise UserError(f"{folder} holds features of {corpus}: {KEEP_OR_REPLACE}")


def check_same_corpus(folder: Path, settings: Settings, listed: Sequence[Utterance]) -> None:
    """Raise `UserError` if `folder` holds the features of other recordings, unless `settings.overwrite` is set."""
    if settings.overwrite:
        return
    try:
        manifest = FeatureStore.open(folder).manifest
    except UserError:  # no store, or a damaged one
        return
    if not are_of_one_corpus(manifest, [utterance.file for utterance in listed]):
        example = f"such as {manifest[0].file}"
        raise UserError(f"{folder} holds features of other recordings, {example}: {KEEP_OR_REPLACE}")


def _list_jobs(utterances: Sequence[Utterance], settings: Settings) -> list[Job]:
    """List the files to read and the copies to make, sorted by name."""
    for utterance in utterances:
        if not _is_text(utterance):
            raise UserError(f"{utterance.file}: its name is not UTF-8 and cannot be in a manifest; rename it")
    counts = Counter(utterance.utterance for utterance in utterances)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        problem = f"{len(repeated)} utterance names more than once, for example {repeated[0]!r}"
        raise UserError(f"corpus {settings.corpus!r} has {problem}")
    copies = dict.fromkeys(("", *settings.copies))  # the original first; each copy once
    by_name = sorted(utterances, key=lambda utterance: utterance.utterance)
    return [Job(utterance, copy) for utterance in by_name for copy in copies]


def _is_text(utterance: Utterance) -> bool:
    """Whether all fields can be written as UTF-8; a file name on disk may be any bytes."""
    try:
        "".join(map(str, astuple(utterance))).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class EarlierStore:
    """The store that is brought up to date: the features of files that have not changed."""

    def __init__(self, folder: Path, settings: Settings):
        self.rows: dict[tuple[str, str, str, str], list[int]] = {}
        self.store: FeatureStore | None = None
        try:
            self.store = FeatureStore.open(folder)
        except UserError:  # no store, or a damaged one
            return
        if self.store.front_end == settings.front_end and not settings.overwrite:
            for number, row in enumerate(self.store.manifest):
                self.rows.setdefault((row.utterance, row.file, row.copy, row.stamp), []).append(number)

    def close(self) -> None:
        """Close the files of the store, which can then be replaced."""
        if self.store:
            self.store.features.close()

    def find(self, entry: Entry) -> tuple[Entry, np.ndarray] | None:
        """The entry with its result and the features, if the store has them."""
        numbers = self.rows.get((entry.utterance, entry.file, entry.copy, entry.stamp))
        if numbers is None:
            return None
        rows = [self.store.manifest[number] for number in numbers]
        clips = tuple((row.start, row.end) for row in rows)
        known = replace(entry, duration=rows[0].duration, clips=clips, audio=rows[0].audio, lost=rows[0].lost)
        return known, self.store.features[numbers]


def _do_jobs(jobs: Sequence[Job], settings: Settings, earlier: EarlierStore, journal: Journal) -> int:
    """Write the results of the jobs to the journal; return how many the earlier store had."""
    transform = Transform(settings.front_end)
    found = 0

    def do(job: Job) -> tuple[Entry, np.ndarray | None, bool]:
        entry = Entry.of(job)  # takes the stamp before the file is read
        known = earlier.find(entry)
        result = known or _compute(entry, job.utterance, settings.front_end, transform)
        return *result, known is not None

    done = len(journal.entries)
    bar = progress(jobs, "features", unit="file", initial=done, total=done + len(jobs))
    with one_thread():
        for job, (entry, features, was_known) in zip(bar, _in_order(do, jobs, settings.workers), strict=True):
            if settings.strict and entry.reason:
                raise UserError(f"{job.utterance.file}: {entry.reason} (without --strict it is left out)")
            journal.add(entry, features)
            found += was_known
    return found


@torch.inference_mode()
def _compute(
    entry: Entry, utterance: Utterance, front_end: FrontEnd, transform: Transform
) -> tuple[Entry, np.ndarray | None]:
    """Read a file and transform its clips, one at a time: the result depends on no other clip."""
    times, features = [], []
    try:
        part = utterance.start, utterance.end
        for clip in read_clips(utterance.file, front_end, entry.copy, *part):
            times.append((round(clip.start, 3), round(clip.end, 3)))
            features.append(transform(torch.from_numpy(clip.sound)[None]).numpy())
    except UnreadableAudio as error:
        return replace(entry, reason=error.reason), None
    known = {"audio": clip.audio, "lost": round(clip.lost, 4)}
    done = replace(entry, duration=round(clip.recording, 3), clips=tuple(times), **known)
    return done, np.concatenate(features)


def _in_order(function: Callable, items: Sequence, workers: int) -> Iterator[Any]:
    """Yield `function(item)` for each item in order; threads compute a few items ahead."""
    waiting = deque()
    with ThreadPoolExecutor(workers) as pool:  # soundfile, soxr and torch release Python's global lock
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > JOBS_AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write_tables(partial: Path, entries: Sequence[Entry], jobs: Sequence[Job], settings: Settings) -> None:
    """Write `manifest.csv`, `skipped.csv` and `config.json` of a store whose jobs are all done."""
    results = list(zip(entries, jobs, strict=True))
    rows = [row for entry, job in results for row in entry.rows(job.utterance)]
    skipped = {entry.file + job.utterance.part: entry.reason for entry, job in results if entry.reason}
    if not rows:
        shutil.rmtree(partial)
        first = f"the first, {entries[0].file}: {entries[0].reason}" if entries else "the corpus is empty"
        raise UserError(f"corpus {settings.corpus!r}: none of its {len(skipped)} files is readable ({first})")
    write_csv(partial / "manifest.csv", COLUMNS, [astuple(row) for row in rows])
    write_csv(partial / "skipped.csv", SKIPPED_COLUMNS, list(skipped.items()))
    config = {
        "version": VERSION,
        "corpus": settings.corpus,
        "classes": sorted({row.emotion for row in rows}),
        "front_end": settings.front_end.model_dump(),
    }
    write_json(partial / "config.json", config)


def _replace(folder: Path, new: Path, old: Path) -> None:
    """Replace the old store by the new one; it is deleted once the new one is on disk."""
    shutil.rmtree(old, ignore_errors=True)
    for path in (*new.iterdir(), new):
        sync(path)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    for path in folder.iterdir():
        if path.name in JOURNAL_FILES or UNFINISHED.match(path.name):
            path.unlink()
    shutil.rmtree(old, ignore_errors=True)
