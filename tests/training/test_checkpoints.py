"""Checkpoints: whole or not at all, the one before kept, damage seen and told, nothing but plain state read."""

import errno
import logging
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Checkpoints 1, 2 and 3 were saved."""
    checkpoints = Checkpoints(tmp_path)
    for number in (1, 2, 3):
        checkpoints.save(state(number))
    return checkpoints


def number_of(folder: Path) -> int:
    """Which checkpoint another process would go on from."""
    return Checkpoints(folder).load(CPU)["number"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    """One bit of a weight, which nothing but a checksum can tell."""
    content = bytearray(path.read_bytes())
    content[
        content.index(torch.full((500,), float(path.stem == "checkpoint") + 2).numpy().tobytes()) + 40
    ] ^= 1
    path.write_bytes(content)


def listed(path: Path) -> None:
    torch.save([1, 2, 3], path)


DAMAGE = [cut, half, empty, zeros, flipped, listed]


def test_the_newest_is_loaded_and_the_one_before_is_kept(saved: Checkpoints, tmp_path: Path):
    assert number_of(tmp_path) == 3
    assert torch.load(saved.previous, weights_only=True)["number"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_none_is_none(tmp_path: Path):
    assert Checkpoints(tmp_path).load(CPU) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_is_told_and_the_previous_taken(
    saved: Checkpoints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch,
    damage: Callable[[Path], None],
):
    damage(saved.newest)
    monkeypatch.setattr(logging.getLogger("emodarts"), "propagate", True)
    assert number_of(tmp_path) == 2
    assert [record.message for record in caplog.records if f"{saved.newest} is damaged (" in record.message]


@pytest.mark.parametrize("damage", DAMAGE)
def test_both_damaged_is_a_user_error(saved: Checkpoints, tmp_path: Path, damage: Callable[[Path], None]):
    for path in (saved.newest, saved.previous):
        damage(path)
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    with pytest.raises(
        UserError, match=r"checkpoint\.pt and .*checkpoint\.previous\.pt: damaged.*--overwrite"
    ):
        number_of(tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before


def test_a_damaged_newest_does_not_take_the_place_of_the_previous(saved: Checkpoints, tmp_path: Path):
    cut(saved.newest)
    resumed = Checkpoints(tmp_path)
    resumed.load(CPU)
    resumed.save(state(4))
    assert [torch.load(path, weights_only=True)["number"] for path in (saved.newest, saved.previous)] == [
        4,
        2,
    ]
    resumed.save(state(5))
    assert [torch.load(path, weights_only=True)["number"] for path in (saved.newest, saved.previous)] == [
        5,
        4,
    ]


def test_a_kill_between_the_two_renames_leaves_the_previous(saved: Checkpoints, tmp_path: Path):
    os.replace(saved.newest, saved.previous)
    assert number_of(tmp_path) == 3


def test_any_byte_may_be_spoilt(saved: Checkpoints, tmp_path: Path):
    """Either the damage is seen, or it lies where it means nothing: no other numbers are ever read."""
    saved.previous.unlink()
    content, chance, seen = saved.newest.read_bytes(), random.Random(0), 0
    for _ in range(200):
        spoilt = bytearray(content)
        spoilt[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        saved.newest.write_bytes(spoilt)
        try:
            found = Checkpoints(tmp_path).load(CPU)
        except UserError:
            seen += 1
        else:
            assert torch.equal(found.pop("weights"), state(3)["weights"])
            assert found == {"version": VERSION, "number": 3, "history": [{"epoch": 3}]}
    assert seen > 50


def test_too_little_memory_is_not_taken_for_damage(saved: Checkpoints, tmp_path: Path, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        number_of(tmp_path)


@pytest.mark.parametrize("version", [None, 0, VERSION + 1])
def test_another_layout_is_refused(saved: Checkpoints, tmp_path: Path, version: object):
    torch.save({**state(4), **({} if version is None else {"version": version})}, saved.newest)
    with pytest.raises(
        UserError, match=f"layout of version {version}, this program goes on from version {VERSION}"
    ):
        number_of(tmp_path)


@pytest.mark.parametrize(
    "version", ["2", 2.0, True, -(2**31), 2**2000], ids=["text", "float", "bool", "low", "huge"]
)
def test_a_version_that_is_no_number_to_be_told_is_damage(
    saved: Checkpoints, tmp_path: Path, version: object
):
    torch.save({**state(4), "version": version}, saved.newest)
    assert number_of(tmp_path) == 2


def test_what_a_killed_process_was_writing_is_cleared_away(saved: Checkpoints, tmp_path: Path):
    (tmp_path / ".checkpoint.pt.12345").write_bytes(b"half")
    (tmp_path / "checkpoint.pt.mine").write_bytes(b"a copy of the user's")
    saved.clear_up()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint.previous.pt", "checkpoint.pt", "checkpoint.pt.mine"]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 100, 3000, 20_500])
def test_a_disk_that_is_full_leaves_both_and_is_an_error_of_the_system(
    saved: Checkpoints, tmp_path: Path, room: int
):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with room_for(room), pytest.raises(OSError, match="File too large") as full:
        saved.save({"weights": torch.zeros(5000)})
    assert (full.value.errno, full.value.filename) == (errno.EFBIG, str(saved.newest))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
