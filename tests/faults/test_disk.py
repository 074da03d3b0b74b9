"""Full disks, missing permissions, damaged files: saved work stays, and one line says what is wrong.

Every run that a fault ended is resumed, and its result is that of an undisturbed run.
"""

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import RESULTS, contents
from harness import (
    checkpoint,
    expected,
    folder,
    in_workspace,
    is_one_line,
    result,
    run,
    start,
    wait_for,
)

from training.run_folder import RunFolder


def run_until_third_checkpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and stop without further saves after the third checkpoint, as if the run was killed."""
    save = RunFolder.save_checkpoint
    saves = []

    def save_and_stop(self: RunFolder, state: dict) -> None:
        save(self, state)
        saves.append(state)
        if len(saves) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", save_and_stop)
        assert run(name, "--overwrite") == 130


def test_a_full_disk_leaves_the_earlier_checkpoints(expected: dict[str, bytes]):
    """No file may grow beyond 20 kB: enough for the log and the history, too little for a checkpoint."""
    process = start("full", "--overwrite")
    wait_for(process, "epoch   1")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    process.stdout.read()
    assert is_one_line(process.stderr.read(), "runs/full/augment/checkpoint.pt: File too large")
    assert process.wait() == 2
    assert not list(folder("full").glob(".*")), "a temporary file was left"
    for file in ("checkpoint.pt", "checkpoint.previous.pt"):
        position = checkpoint("full", file)["progress"]
        assert (position["epoch"], position["step"]) > (0, 0)
    assert run("full", "--resume") == 0
    assert result("full") == expected


def test_a_log_that_cannot_be_written_ends_the_run(expected: dict[str, bytes], monkeypatch, capsys):
    run_until_third_checkpoint("log", monkeypatch)
    log = folder("log") / "augment.log"
    before = checkpoint("log")["progress"]["history"]
    os.truncate(log, 2**32)  # a sparse file, which takes no space
    capsys.readouterr()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**31, limit[1]))
    try:
        assert run("log", "--resume") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert is_one_line(capsys.readouterr().err, "File too large")
    assert checkpoint("log")["progress"]["history"] == before
    log.unlink()
    assert run("log", "--resume") == 0
    assert result("log") == expected


def unprivileged() -> tuple[str, ...]:
    """Words before a command that make file permissions apply even to root."""
    if os.geteuid():
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root may write everywhere")
    return "setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"


def test_a_run_folder_without_write_permission_is_left_unchanged(expected: dict[str, bytes], monkeypatch):
    run_until_third_checkpoint("readonly", monkeypatch)
    path = folder("readonly")
    before = contents(path)
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
    assert result("readonly") == expected


def test_a_file_in_place_of_the_run_folder_is_left_unchanged(capsys: pytest.CaptureFixture):
    Path("runs/taken").write_text("a thesis")
    assert run("taken") == 2
    assert is_one_line(capsys.readouterr().err, "runs/taken")
    assert Path("runs/taken").read_text() == "a thesis"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink])
def test_a_damaged_or_missing_checkpoint_costs_one_interval(
    expected: dict[str, bytes], monkeypatch, capsys, damage: Callable[[Path], None]
):
    """A kill between the renames of two checkpoints leaves only the previous one; that is no damage."""
    name = damage.__name__
    run_until_third_checkpoint(name, monkeypatch)
    damage(folder(name) / "checkpoint.pt")
    assert run(name, "--resume") == 0
    warning = f"warning   runs/{name}/augment/checkpoint.pt is damaged"
    assert (warning in capsys.readouterr().out) == (damage is flip_a_bit)
    assert result(name) == expected


OTHER_STATES = {
    "network": {"network": {"w": torch.zeros(3)}},
    "optimizer": {"optimizer": {}},
    "progress": {"progress": {"epoch": 1, "step": 2**20, "totals": {}, "history": [{"epoch": 1}]}},
}


@pytest.mark.parametrize("change", OTHER_STATES.values(), ids=OTHER_STATES)
def test_a_checkpoint_with_another_state_is_refused(change: dict, monkeypatch, capsys):
    run_until_third_checkpoint("foreign", monkeypatch)
    path = folder("foreign") / "checkpoint.pt"
    torch.save(checkpoint("foreign") | change, path)
    before = path.read_bytes()
    assert run("foreign", "--resume") == 2
    assert is_one_line(capsys.readouterr().err, "the checkpoint", "--overwrite")
    assert path.read_bytes() == before


def test_deleted_logs_and_histories_are_written_again(expected: dict[str, bytes], monkeypatch):
    run_until_third_checkpoint("bare", monkeypatch)
    for path in (
        *folder("bare").glob("events*"),
        folder("bare") / "history.jsonl",
        folder("bare") / "augment.log",
    ):
        path.unlink()
    (folder("bare") / ".checkpoint.pt.99999").write_bytes(b"half")
    assert run("bare", "--resume") == 0
    assert result("bare") == expected
    assert not list(folder("bare").glob(".*"))


def test_origin_json_records_every_start(monkeypatch):
    run_until_third_checkpoint("starts", monkeypatch)
    assert run("starts", "--resume") == 0
    origin = json.loads((folder("starts") / "origin.json").read_text())
    assert set(origin["inputs"]) == {"features/demo", "genotype"}
    assert len(origin["starts"]) == 2
    for recorded in origin["starts"]:
        assert recorded["torch"] == torch.__version__
        assert recorded["device"] == "cpu"
        assert {
            "time",
            "program",
            "commit",
            "python",
            "numpy",
            "machine",
            "system",
            "cores",
        } <= recorded.keys()
    assert set(RESULTS["augment"]) <= {path.name for path in folder("starts").iterdir()}
