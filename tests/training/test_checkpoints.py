"""Checkpoints: written whole, the previous one kept, damage detected, only plain state unpickled."""

import errno
import logging
import os
import pickle
import random
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from training.checkpoints import VERSION, Checkpoints
from utils import UserError

CPU = torch.device("cpu")


def state(number: int) -> dict:
    return {"number": number, "weights": torch.full((500,), float(number)), "history": [{"epoch": number}]}


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    """A folder in which the checkpoints 1, 2 and 3 were saved."""
    checkpoints = Checkpoints(tmp_path)
    for number in (1, 2, 3):
        checkpoints.save(state(number))
    return checkpoints


def loaded_number(folder: Path) -> int:
    """The number of the checkpoint that a new process loads."""
    return Checkpoints(folder).load(CPU)["number"]


def stored_numbers(checkpoints: Checkpoints) -> list[int]:
    """The numbers of the newest and the previous checkpoint."""
    paths = (checkpoints.newest, checkpoints.previous)
    return [torch.load(path, weights_only=True)["number"] for path in paths]


class Trap:
    """An object whose unpickling creates a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def text(path: Path) -> None:
    path.write_text("not a checkpoint")


def bit_flip(path: Path) -> None:
    """Flip one bit of a weight, which only a checksum detects."""
    content = bytearray(path.read_bytes())
    weight = torch.full((500,), float(path.stem == "checkpoint") + 2).numpy().tobytes()
    content[content.index(weight) + 40] ^= 1
    path.write_bytes(content)


def folder_flag(path: Path) -> None:
    """Flip the bit of the zip file's directory by which torch would take a tensor for a folder."""
    content = bytearray(path.read_bytes())
    content[content.rindex(b"archive/data/0") - 8] ^= 0x10
    path.write_bytes(content)


def a_list(path: Path) -> None:
    torch.save([1, 2, 3], path)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")


def compressed(path: Path) -> None:
    """A few kB that unpack to a hundred times as much."""
    torch.save({"version": VERSION, "x": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def hostile(path: Path) -> None:
    torch.save({"version": VERSION, "x": Trap(path.parent / "sprung")}, path)


def hostile_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"version": VERSION, "x": Trap(path.parent / "sprung")}, protocol=2))


DAMAGE = [
    cut,
    half,
    empty,
    zeros,
    text,
    bit_flip,
    folder_flag,
    a_list,
    other_zip,
    compressed,
    hostile,
    hostile_pickle,
]


def test_the_newest_checkpoint_is_loaded_and_the_previous_one_kept(saved: Checkpoints, tmp_path: Path):
    loaded = Checkpoints(tmp_path).load(CPU)
    assert torch.equal(loaded.pop("weights"), state(3)["weights"])
    assert loaded == {"version": VERSION, "number": 3, "history": [{"epoch": 3}]}
    assert stored_numbers(saved) == [3, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_without_a_checkpoint_load_returns_none(tmp_path: Path):
    assert Checkpoints(tmp_path).load(CPU) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_if_the_newest_checkpoint_is_damaged_the_previous_one_is_loaded(
    saved: Checkpoints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch,
    damage: Callable[[Path], None],
):
    damage(saved.newest)
    monkeypatch.setattr(logging.getLogger("emodarts"), "propagate", True)
    assert loaded_number(tmp_path) == 2
    assert [record.message for record in caplog.records if f"{saved.newest} is damaged (" in record.message]


@pytest.mark.parametrize("damage", DAMAGE)
def test_two_damaged_checkpoints_are_a_user_error(
    saved: Checkpoints, tmp_path: Path, damage: Callable[[Path], None]
):
    for path in (saved.newest, saved.previous):
        damage(path)
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    with pytest.raises(
        UserError, match=r"checkpoint\.pt and .*checkpoint\.previous\.pt: damaged.*--overwrite"
    ):
        loaded_number(tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before


@pytest.mark.parametrize("make", [hostile, hostile_pickle])
def test_the_hostile_checkpoints_of_these_tests_execute_code_if_unpickled(tmp_path: Path, make: Callable):
    path = tmp_path / "checkpoint.pt"
    make(path)
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert (tmp_path / "sprung").exists()


def test_a_pipe_is_not_read(saved: Checkpoints, tmp_path: Path):
    saved.newest.unlink()
    os.mkfifo(saved.newest)
    assert loaded_number(tmp_path) == 2


def test_a_damaged_newest_checkpoint_does_not_replace_the_previous_one(saved: Checkpoints, tmp_path: Path):
    cut(saved.newest)
    resumed = Checkpoints(tmp_path)
    resumed.load(CPU)
    resumed.save(state(4))
    assert stored_numbers(saved) == [4, 2]
    resumed.save(state(5))
    assert stored_numbers(saved) == [5, 4]


def test_a_kill_between_the_two_renames_leaves_the_previous_checkpoint(saved: Checkpoints, tmp_path: Path):
    os.replace(saved.newest, saved.previous)
    assert loaded_number(tmp_path) == 3


def test_any_flipped_bit_is_detected_or_has_no_effect(saved: Checkpoints, tmp_path: Path):
    saved.previous.unlink()
    content = saved.newest.read_bytes()
    generator = random.Random(0)
    detected = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        saved.newest.write_bytes(damaged)
        try:
            loaded = Checkpoints(tmp_path).load(CPU)
        except UserError:
            detected += 1
        else:
            assert torch.equal(loaded.pop("weights"), state(3)["weights"])
            assert loaded == {"version": VERSION, "number": 3, "history": [{"epoch": 3}]}
    assert detected > 50


def test_too_little_memory_is_not_reported_as_damage(saved: Checkpoints, tmp_path: Path, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        loaded_number(tmp_path)


@pytest.mark.parametrize("version", [None, 0, VERSION + 1])
def test_a_checkpoint_of_another_layout_is_refused(saved: Checkpoints, tmp_path: Path, version: object):
    torch.save({**state(4), **({} if version is None else {"version": version})}, saved.newest)
    with pytest.raises(UserError, match=f"layout of version {version}, this program reads version {VERSION}"):
        loaded_number(tmp_path)


def test_the_temporary_files_of_a_killed_process_are_removed(saved: Checkpoints, tmp_path: Path):
    (tmp_path / ".checkpoint.pt.12345").write_bytes(b"half")
    (tmp_path / "checkpoint.pt.mine").write_bytes(b"a copy of the user's")
    saved.remove_temporary_files()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint.previous.pt", "checkpoint.pt", "checkpoint.pt.mine"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100, 3000, 20_500])
def test_a_full_disk_is_an_os_error_and_leaves_both_checkpoints(
    saved: Checkpoints, tmp_path: Path, size: int
):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with largest_file(size), pytest.raises(OSError, match="File too large") as full:
        saved.save({"weights": torch.zeros(5000)})
    assert (full.value.errno, full.value.filename) == (errno.EFBIG, str(saved.newest))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
