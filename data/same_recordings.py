"""Whether a feature store was made from the recordings of a corpus, or from those of another one."""

import os
from collections import defaultdict
from collections.abc import Iterable
from filecmp import cmp
from pathlib import Path

from data.journal import stamp
from data.store import Row

LEAST_SHARE = 0.5
"""A store and a corpus that share fewer recordings, as a share of the smaller of the two, are different corpora."""


def are_of_one_corpus(manifest: Iterable[Row], listed: Iterable[Path]) -> bool:
    """Whether at least half of the recordings in a manifest are also listed, or half of those listed are in it.

    So files may have been added and left out, labels and the names of utterances do not matter, and the corpus may
    have been moved. A recording is found again under its path, apart from the suffix, or as a file of the same name
    and size elsewhere. If the file at its old path still exists, the two must also have the same bytes.
    """
    stored = {_stem(row.file): row for row in manifest}
    files = {_stem(file): file for file in listed}
    needed = LEAST_SHARE * min(len(stored), len(files))
    found = len(stored.keys() & files.keys())
    moved = defaultdict(list)
    for stem in files.keys() - stored.keys():
        moved[files[stem].name].append(files[stem])
    for stem in sorted(stored.keys() - files.keys()):
        if found >= needed:
            break
        row = stored[stem]
        found += any(_is_copy(file, row) for file in moved[os.path.basename(row.file)])
    return found >= needed


def _stem(file: str | Path) -> str:
    """The absolute path of a file without its suffix, so that a corpus may be converted in its place."""
    return os.path.splitext(os.path.abspath(file))[0]


def _is_copy(file: Path, row: Row) -> bool:
    """Whether a file has the size of the recording in a row, and its bytes, if the recording is still there."""
    size = stamp(file).partition("-")[0]
    if size != row.stamp.partition("-")[0]:
        return False
    whole_stamp = row.stamp.partition("#")[0]  # without the part of the recording
    return stamp(Path(row.file)) != whole_stamp or cmp(file, row.file, shallow=False)
