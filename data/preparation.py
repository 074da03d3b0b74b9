"""Making a feature store: every file of a corpus is read and transformed once, for all folds.

What has not changed since the last time is taken over, and what a killed attempt has done is gone on with; the result
is the same, to the byte, as that of one run from nothing.
"""

import csv
import json
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from config import FrontEnd
from data.corpora.utterance import Utterance
from data.features import Transform, UnreadableAudio, one_thread, read_clips
from data.journal import MAKING, Entry, Job, Journal
from data.store import COLUMNS, VERSION, FeatureStore
from utils import UserError, progress, read_text, sync, write_json

FILES = {"manifest.csv", "features.npy", "config.json", "skipped.csv", "balance.png", *MAKING}
HALF_WRITTEN = re.compile(r"^\.(.+)\.\d+$")  # as `whole_file` names what it has not finished
AHEAD = 4  # files a thread may be ahead of the one that is due


@dataclass(frozen=True)
class Settings:
    """How a store is made."""

    corpus: str
    front_end: FrontEnd
    copies: tuple[str, ...] = ()  # perturbations, each of which makes a copy of every utterance
    workers: int = 1
    strict: bool = False  # an unreadable file is an error
    overwrite: bool = False  # replace a store of another corpus, and take over nothing


def prepare(utterances: Sequence[Utterance], settings: Settings, folder: Path) -> tuple[FeatureStore, int]:
    """Make the store in `folder`, or bring it up to date; return it, and how many files were taken over as they were.

    It changes as a whole or not at all. `settings.workers` threads work side by side, each at a file; memory does not
    grow with the corpus. Unreadable files are left out and listed in `skipped.csv`. Raises `UserError` where the folder
    holds something else or another corpus, names repeat, or no file is readable (or, if `strict`, one is not).
    """
    folder = Path(folder).resolve()
    check_free(folder, settings)
    jobs = _list_jobs(utterances, settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (folder.with_name(f".{folder.name}.{part}") for part in ("partial", "old"))
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if old.exists() and not folder.exists():  # killed between two renames
            old.rename(folder)
        check_free(folder, settings)  # again: another process may have been faster
        earlier = Earlier(folder, settings)
        journal = Journal(partial, settings.front_end, jobs, settings.strict, settings.overwrite)
        taken_over = len(journal.entries)
        try:
            taken_over += _work_off(journal, jobs[taken_over:], settings, earlier)
        finally:
            journal.close()
        _finish(partial, journal, jobs, settings.corpus)
        _replace(folder, partial, old)
    return FeatureStore.open(folder), taken_over


def check_free(folder: Path, settings: Settings) -> None:
    """`UserError` where `folder` holds something that must not be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir() or {HALF_WRITTEN.sub(r"\1", path.name) for path in folder.iterdir()} - FILES:
        raise UserError(f"{folder} holds something other than features: choose another place for them")
    corpus = _corpus_of(folder)
    if corpus not in (None, settings.corpus) and not settings.overwrite:
        raise UserError(
            f"{folder} holds features of {corpus}: pass --overwrite to replace them, or --out to keep both"
        )


def _corpus_of(folder: Path) -> str | None:
    try:
        return str(json.loads(read_text(folder / "config.json"))["corpus"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # nothing there, or nothing of use
        return None


def _list_jobs(utterances: Sequence[Utterance], settings: Settings) -> list[Job]:
    """Every file to read and every copy to make of it, by name: whatever the order on disk."""
    for utterance in utterances:
        if not _is_text(utterance):
            raise UserError(
                f"{utterance.file}: its name is not UTF-8 and cannot stand in a manifest; rename it"
            )
    names = Counter(utterance.utterance for utterance in utterances)
    if twice := [name for name, count in names.items() if count > 1]:
        corpus = settings.corpus
        raise UserError(
            f"corpus {corpus!r} has {len(twice)} utterance names more than once, {twice[0]!r} for one"
        )
    ordered = sorted(utterances, key=lambda utterance: utterance.utterance)
    return [Job(utterance, copy) for utterance in ordered for copy in dict.fromkeys(("", *settings.copies))]


def _is_text(utterance: Utterance) -> bool:
    """Whether all that is said of an utterance can be written; a file's name on disk may be any bytes."""
    try:
        return bool("".join(map(str, astuple(utterance))).encode("utf-8"))
    except UnicodeEncodeError:
        return False


class Earlier:
    """The store that is to be brought up to date: what came of a file that has not changed since."""

    def __init__(self, folder: Path, settings: Settings):
        self.rows: dict[tuple[str, str, str], list[int]] = {}
        try:
            self.store = FeatureStore.open(folder)
        except UserError:  # none, or a damaged one
            return
        if self.store.front_end == settings.front_end and not settings.overwrite:
            for number, row in enumerate(self.store.manifest):
                self.rows.setdefault((row.utterance, row.file, row.copy, row.stamp), []).append(number)

    def find(self, entry: Entry) -> tuple[Entry, np.ndarray] | None:
        """The clips of a file, and what they gave."""
        numbers = self.rows.get((entry.utterance, entry.file, entry.copy, entry.stamp))
        if numbers is None:
            return None
        rows = [self.store.manifest[number] for number in numbers]
        entry = replace(entry, duration=rows[0].duration, starts=tuple(row.start for row in rows))
        return entry, self.store.features[numbers]


def _work_off(journal: Journal, jobs: Sequence[Job], settings: Settings, earlier: Earlier) -> int:
    """Do the jobs, in order; return how many were taken over from the earlier store."""
    transform, taken_over, done = Transform(settings.front_end), 0, len(journal.entries)

    def work(job: Job) -> tuple[Entry, np.ndarray | None, bool]:
        entry = Entry.of(job)
        if found := earlier.find(entry):
            return *found, True
        return *_compute(entry, job, settings.front_end, transform), False

    bar = progress(jobs, "features", unit="file", initial=done, total=done + len(jobs))
    with one_thread():
        for job, result in zip(bar, _ahead(work, jobs, settings.workers), strict=True):
            entry, features, found = result()
            if settings.strict and entry.reason:
                raise UserError(f"{job.utterance.file}: {entry.reason} (without --strict it is left out)")
            journal.add(entry, features)
            taken_over += found
    return taken_over


@torch.inference_mode()
def _compute(
    entry: Entry, job: Job, front_end: FrontEnd, transform: Transform
) -> tuple[Entry, np.ndarray | None]:
    """Read a file and transform its clips, one at a time: what a clip gives must not depend on its company."""
    starts, features = [], []
    try:
        for clip in read_clips(job.utterance.file, front_end, job.copy, entry.utterance):
            starts.append(round(clip.start, 3))
            features.append(transform(torch.from_numpy(clip.sound)[None]).numpy())
    except UnreadableAudio as error:
        return replace(entry, reason=error.reason), None
    return replace(entry, duration=round(clip.recording, 3), starts=tuple(starts)), np.concatenate(features)


def _ahead(work: Callable, items: Sequence, workers: int) -> Iterator[Callable]:
    """The results of `work` in order, as calls that return or raise; threads run a bounded way ahead."""
    waiting = deque()
    with ThreadPoolExecutor(workers) as pool:  # soundfile, soxr and torch work outside Python's lock
        for item in items:
            waiting.append(pool.submit(work, item).result)
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


def _finish(partial: Path, journal: Journal, jobs: Sequence[Job], corpus: str) -> None:
    """Make a whole store of a journal whose jobs are all done."""
    entries = journal.entries
    rows = [row for entry, job in zip(entries, jobs, strict=True) for row in entry.rows(job.utterance)]
    skipped = {entry.file: entry.reason for entry in entries if entry.reason}
    if not rows:
        shutil.rmtree(partial)
        first = f"the first, {entries[0].file}: {entries[0].reason}" if entries else "there are none"
        raise UserError(f"corpus {corpus!r}: none of its {len(skipped)} files is readable ({first})")
    _write_csv(partial / "manifest.csv", COLUMNS, [astuple(row) for row in rows])
    _write_csv(partial / "skipped.csv", ("file", "reason"), list(skipped.items()))
    classes = sorted({row.emotion for row in rows})
    front_end = journal.front_end.model_dump()
    write_json(
        partial / "config.json",
        {"version": VERSION, "corpus": corpus, "classes": classes, "front_end": front_end},
    )


def _replace(folder: Path, new: Path, old: Path) -> None:
    """Put the new store in the place of the old one, which is deleted once the new one is on the disk."""
    shutil.rmtree(old, ignore_errors=True)
    for path in (*new.iterdir(), new):
        sync(path)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    for path in folder.iterdir():
        if path.name in MAKING or HALF_WRITTEN.match(path.name):
            path.unlink()
    shutil.rmtree(old, ignore_errors=True)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in [columns, *rows]:  # a lone \r is not quoted unless all is
            quoting = csv.QUOTE_ALL if any("\r" in str(value) for value in row) else csv.QUOTE_MINIMAL
            csv.writer(file, lineterminator="\n", quoting=quoting).writerow(row)
