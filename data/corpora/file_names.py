"""Read corpora whose file names contain speaker, emotion and text."""

import filecmp
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from data.audio_files import FOREIGN, READABLE, describe_foreign, files_below
from data.corpora.formats import choose_formats
from data.corpora.utterance import Utterance
from utils import UserError

NamedFiles = dict[str, tuple[Path, re.Match]]
"""Name of an utterance -> its file, and the match of the pattern."""
MAX_PAIRS = 3  # of files that differ, in an error


def read_by_name(
    root: Path,
    pattern: str,
    labels: Mapping[str, str],
    example: str,
    sex_of: Callable[[str], str] = lambda speaker: "",
) -> list[Utterance]:
    """Return the recordings below `root` whose name matches `pattern`, sorted by utterance.

    `pattern` has the groups `speaker`, `emotion` and `text`; `labels` maps the publisher's emotion to the
    common vocabulary, and `sex_of` a speaker to FEMALE, MALE or an empty string. `find_named_files` describes
    the names and the errors.
    """
    utterances = []
    for name, (file, match) in sorted(find_named_files(root, pattern, example).items()):
        speaker, label, text = match.group("speaker", "emotion", "text")
        utterances.append(Utterance(name, file, speaker, labels[label], text=text, sex=sex_of(speaker)))
    return utterances


def find_named_files(root: Path, pattern: str, example: str, suffix: str = "") -> NamedFiles:
    """Return the files in `root` and below that match `pattern`, by name: recordings, or files with `suffix`.

    `pattern` must match the end of the path without its suffix, starting with a whole folder or file name.
    The name is the matched text with `_` in place of `/`. `choose_formats` says which format of a recording
    is taken; if files with the same name and format have the same bytes, the topmost is taken. `example` is
    a path for error messages.

    Raises `UserError` if the folder is missing or unreadable, no file matches, or files with the same name
    and format differ.
    """
    suffixes = (suffix,) if suffix else (*READABLE, *FOREIGN)
    path_end = re.compile(rf"(?<=/)(?:{pattern})\Z")
    files = [file for file in _all_files(root, example) if file.suffix.lower() in suffixes]
    matches: dict[Path, re.Match] = {}
    copies: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda file: (len(file.parts), file)):
        if match := path_end.search(file.absolute().with_suffix("").as_posix()):
            matches[file] = match
            copies.setdefault(match[0].replace("/", "_"), []).append(file)
    if not copies:
        hint = "--root must be the folder of the unpacked corpus"
        kind = f"{suffix} files" if suffix else "recordings"
        raise UserError(f"none of {len(files):,} {kind} at {root} has a name like {example}: {hint}")
    chosen = copies if suffix else choose_formats(copies)
    if not chosen:
        raise UserError(f"nothing at {root} can be read: {describe_foreign(list(matches))}")
    _check_equal(chosen.values())
    return {name: (first, matches[first]) for name, (first, *_) in chosen.items()}


def _check_equal(copies: Iterable[Sequence[Path]]) -> None:
    """Raise `UserError` if the files of one name differ; it gives the number of such names and the first few."""
    pairs = []
    for first, *others in copies:
        pairs += [(first, other) for other in others if not _same_bytes(first, other)][:1]
    if pairs:
        names = "; ".join(f"{first} and {other}" for first, other in pairs[:MAX_PAIRS])
        more = f"; and {len(pairs) - MAX_PAIRS:,} more pairs" if len(pairs) > MAX_PAIRS else ""
        raise UserError(f"{names}{more}: they have the same name and different bytes; keep only one")


def _all_files(root: Path, example: str) -> list[Path]:
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        hint = f"--root must be the folder of the unpacked corpus, with files such as {example}"
        raise UserError(f"{root} {problem}: {hint}")
    return files_below(root)


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # a broken link
        return False
