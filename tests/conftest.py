"""Shared helpers of the tests: running the commands, and a workspace with a small demo corpus."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import hypothesis
import pytest

ROOT = forked.ROOT
hypothesis.settings.register_profile("any speed", deadline=None)  # a busy machine fails no test
hypothesis.settings.load_profile("any speed")
RESULTS = {
    "search": ("genotype.json", "history.jsonl"),
    "augment": ("metrics.json", "predictions.csv", "history.jsonl", "model.safetensors"),
}
"""The files by which two finished runs are compared."""


def line(command: str, *arguments: object) -> list[str]:
    """Return the words of a command line."""
    return [sys.executable, str(ROOT / f"{command}.py"), *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the environment of the commands: no GPU, and one thread, because tests run in parallel."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def execute(command: str, *arguments: object, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run a command of this repository as a user does, and wait for its end."""
    return forked.run(command, list(map(str, arguments)), cwd, environment(), timeout)


def succeed(command: str, *arguments: object, cwd: Path, timeout: float = 240) -> str:
    """Run a command that must succeed; return its output."""
    done = execute(command, *arguments, cwd=cwd, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, lock files excepted."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def compile_nothing(patch: pytest.MonkeyPatch) -> None:
    """Use torch operations in place of the compiled ones, as on other devices."""
    patch.setattr("models.fused.native.compiler.library", lambda: None)


@pytest.fixture(params=["compiled", "by library"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the compiled operations of a CPU, and again with torch operations only."""
    if request.param == "by library":
        compile_nothing(monkeypatch)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the prepared demo corpus and `tiny.yaml`, with which a run takes seconds."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copy(ROOT / "configs" / "tiny.yaml", folder)
    succeed("prepare", "--corpus", "demo", "--config", "tiny.yaml", cwd=folder)
    return folder
