"""A feature store that vanishes, is cut short or replaced, while a run reads it or before it is gone on with."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import checkpoint, contents, folder, is_one_line, result, run

import augment
from data import batches

KEPT = Path("features/demo")
STEP = 15  # in the second epoch


@pytest.fixture(autouse=True)
def store(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the store, to be spoilt; not of the name that is made on first use."""
    monkeypatch.chdir(workspace)
    path = Path("features/mine")
    shutil.copytree(KEPT, path, dirs_exist_ok=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def whole(workspace: Path) -> dict[str, bytes]:
    """The result of a run that nothing befell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        shutil.copytree(KEPT, "features/mine", dirs_exist_ok=True)
        assert run("whole-store", "--dataset", "mine", "--overwrite") == 0
        return result("whole-store")


def vanish(store: Path) -> None:
    shutil.rmtree(store)


def truncate(store: Path) -> None:
    os.truncate(store / "features.npy", 2000)


def other_features(store: Path) -> None:
    """One number in the last row, in place."""
    with (store / "features.npy").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(1e3).tobytes())


def other_manifest(store: Path) -> None:
    path = store / "manifest.csv"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, *rest]).replace(",F01,", ",F99,"))


def other_front_end(store: Path) -> None:
    path = store / "config.json"
    path.write_text(path.read_text().replace('"sample_rate": 8000', '"sample_rate": 8001'))


def replace(store: Path) -> None:
    """As `prepare.py` does: another folder is renamed into its place."""
    shutil.copytree(store, "new")
    other_features(Path("new"))
    store.rename("old")
    Path("new").rename(store)
    shutil.rmtree("old")


def befalls(fault: Callable[[Path], None], store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fault come in the midst of the run."""
    step = augment.Augment.step

    def faulty(self: augment.Augment, i: int) -> dict:
        if i == STEP:
            fault(store)
        return step(self, i)

    monkeypatch.setattr(augment.Augment, "step", faulty)


def interrupted(name: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        befalls(stop, store, patch)
        assert run(name, "--dataset", "mine", "--overwrite") == 130


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (vanish, "no features at features/mine"),
        (truncate, "features at features/mine are damaged"),
        (other_features, "features/mine is no longer what runs/between/augment was started with"),
        (other_manifest, "features/mine is no longer what"),
        (other_front_end, "features/mine is no longer what"),
        (replace, "features/mine is no longer what"),
    ],
)
def test_another_store_is_not_gone_on_with(store: Path, whole, monkeypatch, capsys, fault, says: str):
    interrupted("between", store, monkeypatch)
    before = contents(folder("between"))
    fault(store)
    capsys.readouterr()
    assert run("between", "--dataset", "mine", "--resume") == 2
    assert is_one_line(capsys.readouterr().err, says)
    assert contents(folder("between")) == before
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(KEPT, store)
    assert run("between", "--dataset", "mine", "--resume") == 0
    assert result("between") == whole


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("fault", [vanish, replace, truncate])
def test_a_run_holds_on_to_the_store_it_opened(
    store: Path, whole, monkeypatch, capsys, fault, resident: bool
):
    """Only rows that are cut off while they are read from disk stop it; what was saved is gone on with."""
    if not resident:
        monkeypatch.setitem(batches.RESIDENT_BYTES, "cpu", 0)
    with monkeypatch.context() as patch:
        befalls(fault, store, patch)
        code = run("during", "--dataset", "mine", "--overwrite")
    if fault is truncate and not resident:
        assert code == 2
        assert is_one_line(capsys.readouterr().err, "features.npy was cut short while it was in use")
        assert checkpoint("during")["position"]["epoch"] == 1
        shutil.rmtree(store)
        shutil.copytree(KEPT, store)
        assert run("during", "--dataset", "mine", "--resume") == 0
    else:
        assert code == 0
    assert result("during") == whole
