"""Shared parts of the fault tests: a small augment run, and the files that it leaves.

Runs in this process (`run`) are fast. Separate processes (`start`) are for signals, kills and resource limits.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RESULTS, environment, line

import augment
import search
from cli import exit_codes, parse
from config import AugmentConfig, SearchConfig
from training.retraining import Retraining

COMMANDS = {"search": (search, SearchConfig), "augment": (augment, AugmentConfig)}
EPOCHS = 3
EPOCH_STEPS = 9
STEP = 14
"""The step at which `disturb` acts: in the second epoch, after the checkpoint of its fourth step."""
FLAGS = ["--config", "tiny.yaml", "--model", "cnn", "--epochs", str(EPOCHS)]


def execute(command: str, *words: object) -> int:
    """Run a command in this process, and return its exit code."""
    module, kind = COMMANDS[command]
    try:
        with exit_codes():
            module.run(parse(kind, list(map(str, words))))
    except SystemExit as exit_:
        return exit_.code
    return 0


def run(name: str, *flags: object, checkpoint_every: int = 4) -> int:
    """Train a network in this process, and return the exit code."""
    return execute("augment", *FLAGS, "--name", name, "--checkpoint_every", checkpoint_every, *flags)


def start(name: str, *flags: object, before: tuple[str, ...] = ()) -> subprocess.Popen:
    """Start to train a network in its own process; `before` are words to put before the command."""
    words = [*before, *line("augment", *FLAGS, "--name", name, "--checkpoint_every", 4, *flags)]
    return subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen, beginning: str) -> None:
    """Read the output of a process up to a line with this beginning."""
    assert any(printed.startswith(beginning) for printed in process.stdout), process.stderr.read()


def disturb(monkeypatch: pytest.MonkeyPatch, action: Callable[[Retraining, dict], dict | None]) -> None:
    """Call `action(task, metrics)` after step `STEP`; metrics that it returns replace those of the step."""
    step = Retraining.step

    def disturbed_step(task: Retraining, i: int) -> dict:
        metrics = step(task, i)
        return (action(task, metrics) or metrics) if i == STEP else metrics

    monkeypatch.setattr(Retraining, "step", disturbed_step)


def folder(name: str) -> Path:
    """The folder of a run."""
    return Path("runs") / name / "augment"


def is_one_line(printed: str, *parts: str) -> bool:
    """Whether the text is exactly one error line that contains all parts."""
    one_line = printed.startswith("error: ") and printed.count("\n") == 1
    return one_line and all(part in printed for part in parts)


def result(name: str) -> dict[str, bytes]:
    """The files of a finished run that must not depend on what happened to it."""
    return {file: (folder(name) / file).read_bytes() for file in RESULTS["augment"]}


def checkpoint(name: str, file: str = "checkpoint.pt") -> dict[str, Any]:
    """The content of a checkpoint, which must be whole."""
    return torch.load(folder(name) / file, weights_only=True)


@pytest.fixture(autouse=True)
def in_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test of a module that imports this fixture in the workspace."""
    monkeypatch.chdir(workspace)


@pytest.fixture(scope="module")
def expected(workspace: Path) -> dict[str, bytes]:
    """The result of a run without any fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        assert run("undisturbed", "--overwrite") == 0
        return result("undisturbed")
