"""Read corpora whose file names contain speaker, emotion and text."""

import filecmp
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from data.corpora.utterance import Utterance
from utils import UserError

NamedFiles = dict[str, tuple[Path, re.Match]]
"""Name of an utterance -> its file, and the match of the pattern."""


def read_by_name(
    root: Path,
    pattern: str,
    labels: Mapping[str, str],
    example: str,
    sex_of: Callable[[str], str] = lambda speaker: "",
) -> list[Utterance]:
    """Return the `.wav` files below `root` whose name matches `pattern`, sorted by utterance.

    `pattern` has the groups `speaker`, `emotion` and `text`; `labels` maps the publisher's emotion to the
    common vocabulary, and `sex_of` a speaker to FEMALE, MALE or an empty string. `find_named_files` describes
    the names and the errors.
    """
    utterances = []
    for name, (file, match) in sorted(find_named_files(root, pattern, example).items()):
        speaker, label, text = match.group("speaker", "emotion", "text")
        utterances.append(Utterance(name, file, speaker, labels[label], text=text, sex=sex_of(speaker)))
    return utterances


def find_named_files(root: Path, pattern: str, example: str, suffix: str = ".wav") -> NamedFiles:
    """Return the files in `root` and below that match `pattern`, by name.

    `pattern` must match the end of the path without its suffix, starting with a whole folder or file name;
    this excludes the `._*` files of macOS. The name is the matched text with `_` in place of `/`. If files
    with the same name have the same bytes, the topmost is taken. `example` is a path for error messages.

    Raises `UserError` if the folder is missing or unreadable, no file matches, or files with the same name
    differ.
    """
    path_end = re.compile(rf"(?<=/)(?:{pattern})\Z")
    files = [file for file in _all_files(root, example) if file.suffix.lower() == suffix]
    found: NamedFiles = {}
    for file in sorted(files, key=lambda file: (len(file.parts), file)):
        if match := path_end.search(file.absolute().with_suffix("").as_posix()):
            name = match[0].replace("/", "_")
            first, _ = found.setdefault(name, (file, match))
            if first != file and not _same_bytes(first, file):
                raise UserError(f"{first} and {file} have the same name and different bytes: keep only one")
    if not found:
        hint = "--root must be the folder of the unpacked corpus"
        raise UserError(f"none of {len(files)} {suffix} files at {root} has a name like {example}: {hint}")
    return found


def _all_files(root: Path, example: str) -> list[Path]:
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        hint = f"--root must be the folder of the unpacked corpus, with files such as {example}"
        raise UserError(f"{root} {problem}: {hint}")

    def stop(error: OSError) -> None:
        raise UserError(f"folder {error.filename} cannot be read: {error.strerror}")

    walk = os.walk(root, onerror=stop)
    return [Path(folder, name) for folder, _, names in walk for name in names]


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # a broken link
        return False
