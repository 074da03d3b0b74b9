"""Locate the parts of a corpus, such as labels and audio, below its root folder."""

from collections.abc import Collection
from pathlib import Path

from utils import UserError


def find_parts(root: Path, corpus: str, **places: Collection[str]) -> list[Path]:
    """Return the path of each part of a corpus in `root`.

    `places` gives the glob patterns of each part, as in `audio=("Audios", "Audio")`; the first match
    counts. Raises `UserError` if a part is missing. If a folder near `root` has all parts, the message
    names it.
    """
    found = [_first_match(root, patterns) for patterns in places.values()]
    if all(found):
        return found
    if nearby := _nearby_root(root, places):
        raise UserError(f"{root} is not the folder of {corpus}: give {nearby}")
    if not root.is_dir():
        content = " and ".join(next(iter(patterns)) for patterns in places.values())
        raise UserError(f"no folder at {root}: it should be the {corpus} folder that holds {content}")
    part = list(places)[found.index(None)]
    raise UserError(f"no {part} in {root}: the {corpus} folder should hold {' or '.join(places[part])}")


def _first_match(folder: Path, patterns: Collection[str]) -> Path | None:
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern))), None)


def _nearby_root(root: Path, places: dict[str, Collection[str]]) -> Path | None:
    """Return the folder up to two levels below `root`, or four above it, that has all parts."""
    for folder in (*sorted(root.glob("*/")), *sorted(root.glob("*/*/")), *root.resolve().parents[:4]):
        if all(_first_match(folder, patterns) for patterns in places.values()):
            return folder
    return None
