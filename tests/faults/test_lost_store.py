"""A feature store that is deleted, cut short or replaced, during a run or before it is resumed."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import contents
from harness import checkpoint, disturb, folder, is_one_line, result, run

from data import batches

ORIGINAL = Path("features/demo")
MINE = ("--dataset", "mine")


@pytest.fixture(autouse=True)
def store(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the store to damage, with another name, because a missing demo store is made anew."""
    monkeypatch.chdir(workspace)
    path = Path("features/mine")
    shutil.copytree(ORIGINAL, path, dirs_exist_ok=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def expected(workspace: Path) -> dict[str, bytes]:
    """The result of a run without any fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        shutil.copytree(ORIGINAL, "features/mine", dirs_exist_ok=True)
        assert run("whole-store", *MINE, "--overwrite") == 0
        return result("whole-store")


def restore(store: Path) -> None:
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(ORIGINAL, store)


def delete(store: Path) -> None:
    shutil.rmtree(store)


def truncate(store: Path) -> None:
    os.truncate(store / "features.npy", 2000)


def other_features(store: Path) -> None:
    """Change one number in the last row, in place."""
    with (store / "features.npy").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(1e3).tobytes())


def other_manifest(store: Path) -> None:
    path = store / "manifest.csv"
    path.write_text(path.read_text().replace(",F01,", ",F99,"))


def other_front_end(store: Path) -> None:
    path = store / "config.json"
    path.write_text(path.read_text().replace('"sample_rate": 8000', '"sample_rate": 8001'))


def replace(store: Path) -> None:
    """Rename another folder into the place of the store, as prepare.py does."""
    shutil.copytree(store, "new")
    other_features(Path("new"))
    store.rename("old")
    Path("new").rename(store)
    shutil.rmtree("old")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (delete, "no features at features/mine"),
        (truncate, "features at features/mine are damaged"),
        (other_features, "features/mine has changed since runs/between/augment was started"),
        (other_manifest, "features/mine has changed"),
        (other_front_end, "features/mine has changed"),
        (replace, "features/mine has changed"),
    ],
)
def test_resume_refuses_a_changed_store_until_it_is_restored(
    store: Path, expected, monkeypatch, capsys, fault: Callable[[Path], None], message: str
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        disturb(patch, interrupt)
        assert run("between", *MINE, "--overwrite") == 130
    before = contents(folder("between"))
    fault(store)
    capsys.readouterr()
    assert run("between", *MINE, "--resume") == 2
    assert is_one_line(capsys.readouterr().err, message)
    assert contents(folder("between")) == before
    restore(store)
    assert run("between", *MINE, "--resume") == 0
    assert result("between") == expected


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("fault", [delete, replace, truncate])
def test_a_run_keeps_reading_the_store_it_opened(
    store: Path, expected, monkeypatch, capsys, fault: Callable[[Path], None], resident: bool
):
    """Only a file that is cut short while rows are read from disk stops the run."""
    if not resident:
        monkeypatch.setitem(batches.RESIDENT_BYTES, "cpu", 0)
    with monkeypatch.context() as patch:
        disturb(patch, lambda *_: fault(store))
        code = run("during", *MINE, "--overwrite")
    if fault is truncate and not resident:
        assert code == 2
        assert is_one_line(capsys.readouterr().err, "features.npy was cut short while it was in use")
        assert checkpoint("during")["progress"]["epoch"] == 1
        restore(store)
        assert run("during", *MINE, "--resume") == 0
    else:
        assert code == 0
    assert result("during") == expected
