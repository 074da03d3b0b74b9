"""Shared helpers: the error that a user sees, reading and writing whole files, progress bars."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

MAX_TEXT = 2**30  # bytes of a text file; the manifest of a million utterances has a quarter of that


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and what would be right."""


class Interrupted(Exception):
    """A signal ended the run after its state was saved; its argument is the signal's number."""


def printable(text: str) -> str:
    """Text that a terminal only shows: what would move its cursor or turn its letters stands there as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def read_text(path: Path) -> str:
    """A UTF-8 text file within a folder that may be anyone's.

    `OSError` where it is no regular file (a pipe would never end) or larger than `MAX_TEXT`, `ValueError` where it is
    not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content.decode("utf-8")


def delete_folder(folder: Path) -> None:
    """Delete a folder, if it is there; of a link only the link: what it leads to is another's."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it into place on success, remove it on failure.

    Its bytes are on the disk before the rename is, so that not even a power cut leaves half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
    except OSError as error:
        if error.errno is not None:  # from the system: the user knows the file by its own name
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file that appears whole or not at all.

    Half a surrogate pair, which a JSON file may hold and UTF-8 may not, stands there as JSON's escape of it.
    """
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON that appears whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def progress(items: Iterable, what: str, **options: Any) -> tqdm:
    """A progress bar over `items`; silent where stderr is not a terminal."""
    return tqdm(items, desc=what, disable=None, leave=False, dynamic_ncols=True, **options)
