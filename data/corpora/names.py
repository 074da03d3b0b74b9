"""Labels that stand in the names of the files."""

import filecmp
import os
import re
from collections.abc import Mapping
from pathlib import Path

from data.corpora.utterance import Utterance
from utils import UserError

Found = dict[str, tuple[Path, re.Match]]


def read_by_name(root: Path, pattern: str, labels: Mapping[str, str], example: str) -> list[Utterance]:
    """List the `.wav` files under `root` whose name fits `pattern`, sorted by utterance.

    The groups `speaker`, `emotion` and `text` of `pattern` give the fields of those names; `labels` turns the
    publisher's label into the common vocabulary. Names and errors are those of `find`.
    """
    return [
        Utterance(name, file, match["speaker"], labels[match["emotion"]], text=match["text"])
        for name, (file, match) in sorted(find(root, pattern, example).items())
    ]


def find(root: Path, pattern: str, example: str, suffix: str = ".wav") -> Found:
    """Search `root` and the folders below for files that `pattern` fits; returns name -> file, match.

    `pattern` must fit the end of the path without its suffix, from a folder's or the file's first letter on, so that
    the `._*` files of macOS never do. What it matches is the name, where `_` takes the place of `/`. Of copies with the
    same bytes the topmost counts.
    Raises `UserError` where the folder is missing or unreadable, nothing fits, or files of one name differ.
    """
    fits = re.compile(rf"(?<=/)(?:{pattern})\Z")
    files = [file for file in _walk(root, example) if file.suffix.lower() == suffix]
    found: Found = {}
    for file in sorted(files, key=lambda file: (len(file.parts), file)):
        if match := fits.search(file.absolute().with_suffix("").as_posix()):
            first, _ = found.setdefault(match[0].replace("/", "_"), (file, match))
            if first != file and not _same(first, file):
                raise UserError(
                    f"{first} and {file} have one name and different bytes: keep only the right one"
                )
    if not found:
        hint = "--root must be the folder of the unpacked corpus"
        raise UserError(f"none of {len(files)} {suffix} files at {root} has a name like {example}: {hint}")
    return found


def _walk(root: Path, example: str) -> list[Path]:
    """All files under `root`."""
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise UserError(
            f"{root} {what}: --root must be the folder of the unpacked corpus, with files such as {example}"
        )

    def stop(error: OSError) -> None:
        raise UserError(f"folder {error.filename} cannot be read: {error.strerror}")

    walk = os.walk(root, onerror=stop)
    return [Path(folder, name) for folder, _, names in walk for name in names]


def _same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # a link that leads nowhere
        return False
