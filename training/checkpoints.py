"""The checkpoints of a run: the newest one, and the one before it in case the newest is damaged.

A checkpoint is a zip file written by `torch.save`, which stores a CRC-32 with every tensor. It is
written to a temporary file and then renamed, so that a run that is killed leaves the earlier
checkpoints whole.
"""

import logging
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils import UserError, whole_file

VERSION = 3
"""Version of the layout of a checkpoint. Raise it when older checkpoints can no longer be resumed."""

FOLDER_FLAG = 0x10
"""Attribute of a folder in a zip file. torch does not read a tensor that has it, and reports no error."""

log = logging.getLogger("emodarts")


class DamagedCheckpoint(Exception):
    """A file is not a complete, unchanged checkpoint. The argument is the reason."""


class Checkpoints:
    """`checkpoint.pt` and `checkpoint.previous.pt` in the folder of a run."""

    def __init__(self, folder: Path):
        self.newest = folder / "checkpoint.pt"
        self.previous = folder / "checkpoint.previous.pt"
        self.newest_is_damaged = False

    def save(self, state: dict[str, Any]) -> None:
        """Write a new checkpoint and keep the one before it, unless that one is damaged."""
        with whole_file(self.newest) as temporary:
            _write({"version": VERSION, **state}, temporary)
            if self.newest.exists() and not self.newest_is_damaged:
                os.replace(self.newest, self.previous)
        self.newest_is_damaged = False

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state in the newest undamaged checkpoint, or None if there is no checkpoint.

        Raises `UserError` if every checkpoint is damaged, or if its layout has another version.
        """
        paths = [path for path in (self.newest, self.previous) if path.is_file()]
        for path in paths:
            try:
                state = _read(path, device)
            except DamagedCheckpoint as damage:
                self.newest_is_damaged |= path == self.newest
                log.warning("warning   %s is damaged (%s)", path, damage)
            else:
                _require_version(state, path)
                return state
        if paths:
            names = " and ".join(map(str, paths))
            raise UserError(
                f"{names}: damaged, or no checkpoint of this program; --overwrite starts the run anew"
            )
        return None

    def remove_temporary_files(self) -> None:
        """Delete the files that a killed process had not finished writing."""
        for path in self.newest.parent.glob(f".{self.newest.name}.*"):
            path.unlink()


class Schedule:
    """Decides when the next checkpoint is due, as --checkpoint_every says.

    `N`: after every N steps of an epoch, and at its end. `0`: only at the end of every epoch.
    `Nmin`: after the first step that ends at least N minutes after the previous checkpoint.
    """

    def __init__(self, every: str):
        self.by_clock = every.endswith("min")
        self.limit = float(every.removesuffix("min"))
        self.saved()

    def saved(self) -> None:
        """Count from now on: a checkpoint was just saved."""
        self.steps = 0
        self.start = time.monotonic()

    def due(self, epoch_ended: bool = False) -> bool:
        """Return whether to save now; the caller counts the steps since the last checkpoint in `steps`."""
        if self.by_clock:
            return time.monotonic() - self.start >= 60 * self.limit
        return epoch_ended or self.steps >= self.limit > 0


def _write(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch raises its own error over the one of the disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """Read tensors and plain types from a checkpoint. Raises `DamagedCheckpoint` if it was changed."""
    try:
        with zipfile.ZipFile(path) as archive:
            _require_whole(archive, path.stat().st_size)
        state = torch.load(path, map_location=device, weights_only=True)
    except (DamagedCheckpoint, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged or hostile file can raise anything
        raise DamagedCheckpoint(type(error).__name__) from None
    if not isinstance(state, dict):
        raise DamagedCheckpoint(f"it holds a {type(state).__name__}")
    return state


def _require_whole(archive: zipfile.ZipFile, size: int) -> None:
    """Check the sizes, folder flags and checksums of a zip file of `size` bytes, as torch does not."""
    records = archive.infolist()
    if sum(record.file_size for record in records) > size:  # checkpoints are not compressed
        raise DamagedCheckpoint("it claims to hold more than it has room for")
    if any(record.external_attr & FOLDER_FLAG for record in records):
        raise DamagedCheckpoint("it claims to hold a folder")
    if record := archive.testzip():
        raise DamagedCheckpoint(f"the checksum of {record} is wrong")


def _require_version(state: dict[str, Any], path: Path) -> None:
    if (version := state.get("version")) != VERSION:
        raise UserError(
            f"{path} has the layout of version {version}, this program reads version {VERSION}: "
            "resume it with the program that started it, or --overwrite the run"
        )
