"""Signals within an epoch, and a second or killed process in the folder of a run.

Most tests send a signal to their own process in a known step: that step is finished and saved, and
the resumed run ends with the same bytes as an undisturbed one.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RESULTS, contents
from harness import (
    execute,
    expected,
    folder,
    in_workspace,
    is_one_line,
    result,
    run,
    start,
    wait_for,
)

from darts.gradient_search import GradientSearch
from plots import cells
from training.loop import tensors_in
from training.retraining import Retraining

TASKS = {"search": GradientSearch, "augment": Retraining}
CASES = [
    ("search", ["--order", "second"], signal.SIGTERM, 143),
    ("search", ["--order", "first"], signal.SIGINT, 130),
    ("augment", ["--genotype", "cnn_lstm", "--mixup", 0.2], signal.SIGUSR1, 138),
]


def results(command: str, name: str) -> list[bytes]:
    return [Path("runs", name, command, file).read_bytes() for file in RESULTS[command]]


def load_checkpoint(command: str, name: str) -> dict[str, Any]:
    return torch.load(Path("runs", name, command, "checkpoint.pt"), weights_only=True)


@pytest.mark.parametrize(
    ("command", "flags", "number", "code"), CASES, ids=["second order", "first order", "augment"]
)
def test_a_run_interrupted_within_an_epoch_is_resumed_to_the_same_bytes(
    monkeypatch, command: str, flags: list[object], number: int, code: int
):
    words = [command, "--config", "tiny.yaml", "--epochs", 2, "--checkpoint_every", 0, *flags]
    assert execute(*words, "--name", f"whole{code}") == 0

    task = TASKS[command]
    step = task.step
    done = []

    def step_with_signal(self: Any, i: int) -> dict[str, torch.Tensor]:
        if i == self.steps + 1:
            os.kill(os.getpid(), number)
        done.append(i - self.steps)
        return step(self, i)

    with monkeypatch.context() as patch:
        patch.setattr(task, "step", step_with_signal)
        assert execute(*words, "--name", f"cut{code}") == code
    assert done[-1] == 1, "a step was started after the signal"
    position = load_checkpoint(command, f"cut{code}")["progress"]
    assert (position["epoch"], position["step"]) == (1, 2)

    assert execute(*words, "--name", f"cut{code}", "--resume") == 0
    assert results(command, f"cut{code}") == results(command, f"whole{code}")
    states = [tensors_in(load_checkpoint(command, name)) for name in (f"whole{code}", f"cut{code}")]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_an_interrupted_random_search_is_resumed_to_the_same_genotype(monkeypatch):
    words = ["search", "--config", "tiny.yaml", "--strategy", "random"]
    assert execute(*words, "--name", "drawn") == 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cells, "draw_genotype", interrupt)
        assert execute(*words, "--name", "cut_off") == 130
    assert not Path("runs/cut_off/search/genotype.json").exists()
    assert execute(*words, "--name", "cut_off", "--resume") == 0
    genotypes = [Path("runs", name, "search", "genotype.json").read_bytes() for name in ("drawn", "cut_off")]
    assert genotypes[0] == genotypes[1]


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(expected: dict[str, bytes], capsys):
    process = start("shared", "--overwrite")
    wait_for(process, "epoch   1")
    process.send_signal(signal.SIGSTOP)
    before = contents(folder("shared"))
    for flag in ("--resume", "--overwrite"):
        assert run("shared", flag) == 2
        assert is_one_line(capsys.readouterr().err, "runs/shared/augment is in use by another process")
    assert contents(folder("shared")) == before
    process.kill()
    process.communicate()
    assert run("shared", "--resume") == 0
    assert result("shared") == expected
