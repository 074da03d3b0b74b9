"""What several test files share: the commands as a user runs them, and a folder with the demo corpus prepared small."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest

ROOT = forked.ROOT
RESULTS = {
    "search": ("genotype.json", "history.jsonl"),
    "augment": ("metrics.json", "predictions.csv", "history.jsonl", "model.safetensors"),
}
"""What a finished run is compared by."""


def line(command: str, *arguments: object) -> list[str]:
    """The words of a command line."""
    return [sys.executable, str(ROOT / f"{command}.py"), *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread a process: the tests run side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def execute(command: str, *arguments: object, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run a command of this repository to its end, as a user does."""
    return forked.run(command, list(map(str, arguments)), cwd, environment(), timeout)


def succeed(command: str, *arguments: object, cwd: Path, timeout: float = 240) -> str:
    """Run a command that must succeed; return what it printed."""
    done = execute(command, *arguments, cwd=cwd, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def compile_nothing(patch: pytest.MonkeyPatch) -> None:
    """Let a CPU compute as other devices do, by torch's operations alone, which torch's modes can see."""
    patch.setattr("models.fused.native.compiler.library", lambda: None)


@pytest.fixture(params=["compiled", "by library"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU computes with a compiler, and what it and other devices do without one."""
    if request.param == "by library":
        compile_nothing(monkeypatch)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo corpus is prepared and `tiny.yaml` keeps every run to seconds."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copy(ROOT / "configs" / "tiny.yaml", folder)
    succeed("prepare", "--corpus", "demo", "--config", "tiny.yaml", cwd=folder)
    return folder
