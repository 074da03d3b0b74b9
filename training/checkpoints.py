"""The checkpoints of a run: the newest and the one before it, so that no fault of a disk costs more than one interval.

A checkpoint is a zip file, which carries a CRC-32 of every tensor within it: there is no second file that could be torn
from the first. It is written beside and renamed, and says by which layout it was written.
"""

import logging
import os
import pickletools
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils import UserError, whole_file

VERSION = 2
"""Of the layout of a checkpoint; raise it when an older one can no longer be gone on with."""

PLAIN = re.compile(r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_tensor_v2")
"""All that the pickle of a real state names. `weights_only` lets more pass: `bytearray`, for one, of any size."""

log = logging.getLogger("emodarts")


class Damaged(Exception):
    """A file that is no whole checkpoint; the argument says how that was seen."""


class Checkpoints:
    """`checkpoint.pt` and `checkpoint.previous.pt` of a run's folder."""

    def __init__(self, folder: Path):
        self.newest, self.previous = folder / "checkpoint.pt", folder / "checkpoint.previous.pt"
        self.damaged = (
            False  # whether the newest was found damaged: then it must not take the place of the previous
        )

    def save(self, state: dict[str, Any]) -> None:
        """Write a new checkpoint beside, keep the one before, and rename the new one into place."""
        with whole_file(self.newest) as beside:
            _write({"version": VERSION, **state}, beside)
            if self.newest.exists() and not self.damaged:
                os.replace(self.newest, self.previous)
        self.damaged = False

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest whole checkpoint's plain state, or None where there never was one.

        `UserError` where none is whole, or where the layout is of another version.
        """
        there = [path for path in (self.newest, self.previous) if path.is_file()]
        for path in there:
            try:
                return _checked_version(_read(path, device), path)
            except Damaged as damage:
                self.damaged = self.damaged or path == self.newest
                log.warning("warning   %s is damaged (%s)", path, damage)
        if there:
            which = " and ".join(map(str, there))
            raise UserError(
                f"{which}: damaged, or no checkpoint of this program; --overwrite starts the run anew"
            )
        return None

    def clear_up(self) -> None:
        """Delete what a process that was killed while it wrote has left behind."""
        for half in self.newest.parent.glob(f".{self.newest.name}.*"):
            half.unlink()


class Schedule:
    """When a checkpoint is due, as --checkpoint_every says; counted from the one before.

    N steps: after so many within an epoch, and at the end of every epoch; 0: at the end of epochs only.
    Nmin: after so many minutes, with whatever step comes then; so the cost is bounded, however short epochs are.
    """

    def __init__(self, every: str):
        self.limit, self.by_clock = float(every.removesuffix("min")), every.endswith("min")
        self.saved()

    def saved(self) -> None:
        """Count from now on."""
        self.steps, self.start = 0, time.monotonic()

    def due(self, epoch_ended: bool = False) -> bool:
        """Whether it is time, `steps` after the checkpoint before."""
        if self.by_clock:
            return time.monotonic() - self.start >= 60 * self.limit
        return epoch_ended or self.steps >= self.limit > 0


def _write(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own complaint hides what the disk said
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint whose every byte is as it was written. Nothing but tensors and plain types is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_whole(archive, path.stat().st_size)
        state = torch.load(path, map_location=device, weights_only=True)
    except (Damaged, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged or hostile file makes the unpickler fail in any way
        raise Damaged(type(error).__name__) from None
    if not isinstance(state, dict):
        raise Damaged(f"it holds a {type(state).__name__}")
    return state


def _check_whole(archive: zipfile.ZipFile, size: int) -> None:
    """`Damaged` where a byte is not as it was written, or a few bytes stand for many."""
    if sum(record.file_size for record in archive.infolist()) > size:  # torch does not compress
        raise Damaged("it claims to hold more than it has room for")
    if wrong := archive.testzip():
        raise Damaged(f"the checksum of {wrong} is wrong")
    for pickled in (name for name in archive.namelist() if name.endswith(".pkl")):
        for code, argument, _ in pickletools.genops(archive.read(pickled)):
            if code.name == "GLOBAL" and not PLAIN.fullmatch(argument):
                raise Damaged(f"it holds a {argument.replace(' ', '.')}")


def _checked_version(state: dict[str, Any], path: Path) -> dict[str, Any]:
    version = state.get("version")
    if version is not None and not (type(version) is int and abs(version) < 2**31):
        raise Damaged("its version is no number")
    if version != VERSION:
        raise UserError(
            f"{path} has the layout of version {version}, this program goes on from version {VERSION}: "
            "resume it with the program that began it, or --overwrite the run"
        )
    return state
