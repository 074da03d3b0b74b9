"""Disks that are full, folders that may not be written to, damaged files: what was saved stays, and one line says so.

Every run that a fault ended is gone on with, and its result is that of the run that nothing befell.
"""

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import RESULTS
from harness import checkpoint, contents, folder, here, is_one_line, result, run, start, wait_for, whole

from training.run_folder import RunFolder


def cut_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended after the third checkpoint, as if it was killed."""
    saves, save = [], RunFolder.save_checkpoint

    def dying(self: RunFolder, state: dict) -> None:
        save(self, state)
        saves.append(state)
        if len(saves) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", dying)
        assert run(name, "--overwrite") == 130


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(whole: dict[str, bytes]):
    """No file of the process may grow beyond 20 kB any more: the log and the history may go on, the checkpoint not."""
    process = start("full", "--overwrite")
    wait_for(process, "epoch   1")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    process.stdout.read()
    assert is_one_line(process.stderr.read(), "runs/full/augment/checkpoint.pt: File too large")
    assert process.wait() == 2
    assert not list(folder("full").glob(".*")), "half a file was left"
    for file in ("checkpoint.pt", "checkpoint.previous.pt"):
        assert (
            checkpoint("full", file)["position"]["step"] > 0
            or checkpoint("full", file)["position"]["epoch"] > 0
        )
    assert run("full", "--resume") == 0
    assert result("full") == whole


def test_a_log_that_cannot_be_written_ends_the_run(whole: dict[str, bytes], monkeypatch, capsys):
    cut_off("log", monkeypatch)
    log, before = folder("log") / "augment.log", checkpoint("log")["position"]["history"]
    os.truncate(log, 2**32)  # a hole, which takes no room
    capsys.readouterr()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**31, limit[1]))
    try:
        assert run("log", "--resume") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert is_one_line(capsys.readouterr().err, "File too large")
    assert checkpoint("log")["position"]["history"] == before
    log.unlink()
    assert run("log", "--resume") == 0
    assert result("log") == whole


def unprivileged() -> tuple[str, ...]:
    """Words before a command that make even root heed who may write."""
    if os.geteuid():
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root may write everywhere")
    return "setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"


def test_a_run_folder_that_may_not_be_written_to_is_told_and_left_alone(whole: dict[str, bytes], monkeypatch):
    cut_off("readonly", monkeypatch)
    before, path = contents(folder("readonly")), folder("readonly")
    path.chmod(0o555)
    try:
        process = start("readonly", "--resume", before=unprivileged())
        errors = process.communicate(timeout=120)[1]
    finally:
        path.chmod(0o755)
    assert process.returncode == 2
    assert is_one_line(errors, "runs/readonly/augment/", "Permission denied")
    assert contents(path) == before
    assert run("readonly", "--resume") == 0
    assert result("readonly") == whole


def test_a_file_where_the_run_is_to_be_is_told_and_left_alone(capsys: pytest.CaptureFixture):
    Path("runs/taken").write_text("a thesis")
    assert run("taken") == 2
    assert is_one_line(capsys.readouterr().err, "runs/taken")
    assert Path("runs/taken").read_text() == "a thesis"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [cut, flip, delete])
def test_a_damaged_checkpoint_costs_one_interval(
    whole: dict[str, bytes], monkeypatch, capsys, damage: Callable[[Path], None]
):
    name = damage.__name__
    cut_off(name, monkeypatch)
    damage(folder(name) / "checkpoint.pt")
    assert run(name, "--resume") == 0
    warned = f"warning   runs/{name}/augment/checkpoint.pt is damaged" in capsys.readouterr().out
    assert warned == (damage is not delete), (
        "a checkpoint that is not there is what a kill between renames leaves"
    )
    assert result(name) == whole


@pytest.mark.parametrize("name", ["config.json", "origin.json"])
def test_a_damaged_description_of_the_run_is_told_and_left_alone(name: str, monkeypatch, capsys):
    cut_off("described", monkeypatch)
    (folder("described") / name).write_text("{")
    before = contents(folder("described"))
    assert run("described", "--resume") == 2
    assert is_one_line(capsys.readouterr().err, f"runs/described/augment/{name} is damaged")
    assert contents(folder("described")) == before


def test_a_checkpoint_of_another_network_is_told_and_left_alone(monkeypatch, capsys):
    cut_off("foreign", monkeypatch)
    state = checkpoint("foreign")
    torch.save({**state, "network": {"w": torch.zeros(3)}}, folder("foreign") / "checkpoint.pt")
    before = contents(folder("foreign") / "checkpoint.pt")
    assert run("foreign", "--resume") == 2
    assert is_one_line(capsys.readouterr().err, "the checkpoint does not fit this run")
    assert contents(folder("foreign") / "checkpoint.pt") == before


def test_what_a_run_writes_beside_its_checkpoint_comes_back(whole: dict[str, bytes], monkeypatch):
    cut_off("bare", monkeypatch)
    for path in (
        *folder("bare").glob("events*"),
        folder("bare") / "history.jsonl",
        folder("bare") / "augment.log",
    ):
        path.unlink()
    (folder("bare") / ".checkpoint.pt.99999").write_bytes(b"half")
    assert run("bare", "--resume") == 0
    assert result("bare") == whole
    assert not list(folder("bare").glob(".*"))


def test_every_start_is_on_record(monkeypatch):
    cut_off("starts", monkeypatch)
    assert run("starts", "--resume") == 0
    origin = json.loads((folder("starts") / "origin.json").read_text())
    assert set(origin["inputs"]) == {"features/demo", "genotype"}
    assert len(origin["starts"]) == 2
    for start_ in origin["starts"]:
        assert start_["torch"] == torch.__version__
        assert start_["device"] == "cpu"
        assert {"time", "program", "commit", "python", "numpy", "machine", "system", "cores"} <= start_.keys()
    assert set(RESULTS["augment"]) <= {path.name for path in folder("starts").iterdir()}
