"""Power cuts: a file is synced to the disk before it is renamed, and before an older file is deleted.

The tests cannot cut the power. They record what the program syncs, and when it renames and deletes.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from config import FrontEnd
from data.corpora.utterance import Utterance
from data.preparation import Settings, prepare
from training.checkpoints import Checkpoints
from utils import write_text

SMALL = FrontEnd(sample_rate=8000, n_fft=256, hop_length=128, n_mels=8, n_mfcc=8, duration=0.5, frames=8)


class Disk:
    """Records what was synced, and every rename or deletion that came before the sync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.synced: dict[int, tuple[int, int]] = {}
        self.too_early: list[str] = []
        fsync = os.fsync

        def recording_fsync(descriptor: int) -> None:
            fsync(descriptor)
            status = os.fstat(descriptor)
            self.synced[status.st_ino] = status.st_size, status.st_mtime_ns

        monkeypatch.setattr(os, "fsync", recording_fsync)
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self.checking(getattr(os, name), self.has_all))
        rmtree = self.checking(shutil.rmtree, lambda path: not path.exists() or self.has(path.parent))
        monkeypatch.setattr(shutil, "rmtree", rmtree)

    def checking(self, function: Callable, safe: Callable[[Path], bool]) -> Callable:
        """Let a function that renames or deletes a path first check whether that is safe."""

        def checked(path: Path, *arguments: object, **options: object) -> None:
            if not safe(Path(path)):
                self.too_early.append(f"{function.__name__} {path}")
            function(path, *arguments, **options)

        return checked

    def has(self, path: Path) -> bool:
        """Whether a file, or the names in a folder, were synced and have not changed since."""
        status = path.stat()
        return self.synced.get(status.st_ino) == (status.st_size, status.st_mtime_ns)

    def has_all(self, path: Path) -> bool:
        """Whether a file, or a folder and all files in it, were synced. Files may have been deleted since."""
        if path.is_dir():
            return path.stat().st_ino in self.synced and all(map(self.has_all, path.iterdir()))
        return self.has(path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    assert disk.synced, "nothing was synced"
    assert not disk.too_early


def test_the_recorder_reports_a_rename_before_the_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk, path = Disk(monkeypatch), tmp_path / "a"
    path.write_text("text")
    path.rename(tmp_path / "b")
    assert disk.too_early == [f"rename {path}"]


def test_a_text_file_is_synced_before_it_is_renamed(tmp_path: Path, disk: Disk):
    for text in ("one", "two"):
        write_text(tmp_path / "file", text)
    assert disk.has(tmp_path / "file")


def test_a_checkpoint_is_synced_before_the_previous_one_is_replaced(tmp_path: Path, disk: Disk):
    checkpoints = Checkpoints(tmp_path)
    for number in range(3):
        checkpoints.save({"number": number, "weights": torch.zeros(1000)})
    assert disk.has_all(checkpoints.newest)
    assert disk.has_all(checkpoints.previous)


def write_sound(path: Path, seed: int) -> None:
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 4000), 8000)


def test_a_store_is_synced_before_it_replaces_the_old_one(tmp_path: Path, disk: Disk):
    sound = tmp_path / "a.wav"
    corpus = [Utterance(file=sound, utterance="a", speaker="s", emotion="calm")]
    for seed in range(2):
        write_sound(sound, seed)
        prepare(corpus, Settings("tones", SMALL, overwrite=True), tmp_path / "store")
    assert len(list((tmp_path / "store").iterdir())) == 4
    for path in (tmp_path / "store").iterdir():
        assert disk.has(path), path
