"""A small run as the commands run it: in this process where that will do, in its own where a process matters."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RESULTS, environment, line

import augment
import search
from cli import exit_codes, parse
from config import AugmentConfig, SearchConfig

COMMANDS = {"search": (search, SearchConfig), "augment": (augment, AugmentConfig)}
EPOCHS = 3
FLAGS = ["--config", "tiny.yaml", "--model", "cnn", "--epochs", str(EPOCHS), "--checkpoint_every", "4"]


def execute(command: str, *words: object) -> int:
    """Run a command to its end, or to its error, in this process; return the exit code."""
    module, kind = COMMANDS[command]
    try:
        with exit_codes():
            module.run(parse(kind, list(map(str, words))))
    except SystemExit as exit_:
        return exit_.code
    return 0


def run(name: str, *flags: object) -> int:
    """Train a network in this process; return the exit code."""
    return execute("augment", *FLAGS, "--name", name, *flags)


def start(name: str, *flags: object, before: tuple[str, ...] = ()) -> subprocess.Popen:
    """Begin to train in a process of its own; `before` are words to put before the command."""
    words = [*before, *line("augment", *FLAGS, "--name", name, *flags)]
    return subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen, beginning: str) -> None:
    """Read what a process prints up to a line that begins so."""
    assert any(printed.startswith(beginning) for printed in process.stdout), process.stderr.read()


def folder(name: str) -> Path:
    return Path("runs") / name / "augment"


def is_one_line(printed: str, *parts: str) -> bool:
    """Whether this is one error line that holds all parts, and nothing else."""
    return (
        printed.startswith("error: ") and printed.count("\n") == 1 and all(part in printed for part in parts)
    )


def result(name: str) -> dict[str, bytes]:
    """What a finished run is compared by."""
    return {file: (folder(name) / file).read_bytes() for file in RESULTS["augment"]}


def contents(path: Path) -> dict[str, str]:
    """The hash of every file below a folder but locks."""
    files = (file for file in path.rglob("*") if file.is_file() and file.suffix != ".lock")
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def checkpoint(name: str, file: str = "checkpoint.pt") -> dict[str, Any]:
    """A checkpoint, which must be whole."""
    return torch.load(folder(name) / file, weights_only=True)


@pytest.fixture(autouse=True)
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test of a file that imports this runs in the workspace."""
    monkeypatch.chdir(workspace)


@pytest.fixture(scope="module")
def whole(workspace: Path) -> dict[str, bytes]:
    """The result of a run that nothing befell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        assert run("whole", "--overwrite") == 0
        return result("whole")
