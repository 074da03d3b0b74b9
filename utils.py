"""Shared helpers: errors for the user, reading and writing of whole files, progress bars."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

WINDOWS = os.name == "nt"
MAX_TEXT = 2**30
"""Largest text file in bytes. The manifest of a million utterances has a quarter of that."""


class UserError(Exception):
    """An error that the user can fix. The message is one line: what is wrong, where, what would be right."""


class Interrupted(Exception):
    """A signal ended the run after its state was saved. The argument is the number of the signal."""


def printable(text: str) -> str:
    """Escape the characters that would change how a terminal shows the text, such as control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """Read a UTF-8 text file of at most `limit` bytes, which may come from an untrusted source.

    Raises `OSError` if it is larger or no regular file (a pipe may never end), `ValueError` if it
    is not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content.decode("utf-8")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `OSError` or `ValueError` if the file holds something else."""
    try:
        value = json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def delete_folder(folder: Path) -> None:
    """Delete a folder if it exists. If it is a symbolic link, delete the link and leave its target."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, delete it on failure.

    The bytes are flushed to the disk before the rename, so even a power cut leaves no partial file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None:  # from the system: name the file that the user knows
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file's bytes, or the names in a folder, to the disk. On Windows, a folder cannot be opened for that."""
    is_folder = path.is_dir()
    if is_folder and WINDOWS:
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all.

    A lone surrogate, which JSON allows and UTF-8 does not, is written as its JSON escape.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def progress(items: Iterable, title: str, **options: Any) -> tqdm:
    """Return a progress bar over `items`; it shows nothing if stderr is not a terminal."""
    return tqdm(items, desc=title, disable=None, leave=False, dynamic_ncols=True, **options)
