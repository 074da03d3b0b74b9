"""A power cut, which spares only what is on the disk: no file gets its name, and no old one is deleted, before that.

What the disk would keep cannot be seen from here; what the program has asked it to keep can.
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
    """What has been synced, and every rename and deletion that came before its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.kept: dict[int, tuple[int, int]] = {}
        self.too_early: list[str] = []
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            fsync(descriptor)
            found = os.fstat(descriptor)
            self.kept[found.st_ino] = found.st_size, found.st_mtime_ns

        monkeypatch.setattr(os, "fsync", synced)
        for module, name in ((os, "rename"), (os, "replace")):
            monkeypatch.setattr(module, name, self.checking(getattr(module, name), self.whole))
        rmtree = self.checking(shutil.rmtree, lambda path: not path.exists() or self.has(path.parent))
        monkeypatch.setattr(shutil, "rmtree", rmtree)

    def checking(self, function: Callable, safe: Callable[[Path], bool]) -> Callable:
        def checked(path: Path, *arguments: object, **options: object) -> None:
            if not safe(Path(path)):
                self.too_early.append(f"{function.__name__} {path}")
            function(path, *arguments, **options)

        return checked

    def has(self, path: Path) -> bool:
        """Whether a file, or the names in a folder, are as they were when last synced."""
        found = path.stat()
        return self.kept.get(found.st_ino) == (found.st_size, found.st_mtime_ns)

    def whole(self, path: Path) -> bool:
        """Whether a file, or all in a folder, is kept; a name that was deleted since then may come back."""
        if path.is_dir():
            return path.stat().st_ino in self.kept and all(map(self.whole, path.iterdir()))
        return self.has(path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    assert disk.kept, "nothing was synced"
    assert not disk.too_early


def test_the_witness_sees_what_is_renamed_too_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk, path = Disk(monkeypatch), tmp_path / "a"
    path.write_text("text")
    path.rename(tmp_path / "b")
    assert disk.too_early == [f"rename {path}"]


def test_a_small_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, disk: Disk):
    for text in ("one", "two"):
        write_text(tmp_path / "file", text)
    assert disk.has(tmp_path / "file")


def test_a_checkpoint_is_on_the_disk_before_the_one_before_it_is_put_aside(tmp_path: Path, disk: Disk):
    checkpoints = Checkpoints(tmp_path)
    for number in range(3):
        checkpoints.save({"number": number, "weights": torch.zeros(1000)})
    assert disk.whole(checkpoints.newest)
    assert disk.whole(checkpoints.previous)


def write_sound(path: Path, seed: int) -> None:
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 4000), 8000)


def test_a_store_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path: Path, disk: Disk):
    sound = tmp_path / "a.wav"
    corpus = [Utterance(file=sound, utterance="a", speaker="s", emotion="calm")]
    for seed in range(2):
        write_sound(sound, seed)
        prepare(corpus, Settings("tones", SMALL, overwrite=True), tmp_path / "store")
    assert len(list((tmp_path / "store").iterdir())) == 4
    for path in (tmp_path / "store").iterdir():
        assert disk.has(path), path
