"""Finding the parts of a corpus, such as labels and sound, and the right folder where the root is a wrong one."""

from collections.abc import Collection
from pathlib import Path

from utils import UserError


def find_parts(root: Path, corpus: str, **places: Collection[str]) -> list[Path]:
    """For each part of a corpus, such as `audio=("Audios", "Audio")`, the first path in `root` that fits its places.

    Raises `UserError` where a part is missing, which names the folder nearby that has them all, if there is one.
    """
    found = [_first(root, patterns) for patterns in places.values()]
    if all(found):
        return found
    if right := _nearby(root, places):
        raise UserError(f"{root} is not the folder of {corpus}: give {right}")
    if not root.is_dir():
        content = " and ".join(next(iter(patterns)) for patterns in places.values())
        raise UserError(f"no folder at {root}: it should be the {corpus} folder that holds {content}")
    part = list(places)[found.index(None)]
    raise UserError(f"no {part} in {root}: the {corpus} folder should hold {' or '.join(places[part])}")


def _first(folder: Path, patterns: Collection[str]) -> Path | None:
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern))), None)


def _nearby(root: Path, places: dict[str, Collection[str]]) -> Path | None:
    """The folder up to two levels below `root`, or four above it, that has all parts."""
    folders = (*sorted(root.glob("*/")), *sorted(root.glob("*/*/")), *root.resolve().parents[:4])
    return next(
        (each for each in folders if all(_first(each, patterns) for patterns in places.values())), None
    )
