"""Signals in the middle of an epoch of a search of either order or an augment; a random search that is cut off.

A task sends its own process the signal, so that it comes in a known step: that one is brought to its end and saved, no
other is begun, and the run that goes on ends as one that nothing befell, to the bit.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RESULTS
from harness import execute, here

from augment import Augment
from plots import cells
from search import Search
from training.loop import tensors_in

TASKS = {"search": Search, "augment": Augment}
CASES = [
    ("search", ["--order", "second"], signal.SIGTERM, 143),
    ("search", ["--order", "first"], signal.SIGINT, 130),
    ("augment", ["--genotype", "cnn_lstm", "--mixup", 0.2], signal.SIGUSR1, 138),
]


def result(command: str, name: str) -> list[bytes]:
    return [Path("runs", name, command, file).read_bytes() for file in RESULTS[command]]


def checkpoint(command: str, name: str) -> dict[str, Any]:
    return torch.load(Path("runs", name, command, "checkpoint.pt"), weights_only=True)


@pytest.mark.parametrize(
    ("command", "flags", "number", "code"), CASES, ids=["second order", "first order", "augment"]
)
def test_a_run_interrupted_within_an_epoch_loses_nothing(
    monkeypatch, command: str, flags: list[object], number: int, code: int
):
    words = ["--config", "tiny.yaml", "--epochs", 2, "--checkpoint_every", 0, *flags]
    assert execute(command, *words, "--name", f"whole{code}") == 0

    task, done = TASKS[command], []
    step = task.step

    def signalled(self: Any, i: int) -> dict[str, torch.Tensor]:
        if i == self.steps + 1:
            os.kill(os.getpid(), number)
        done.append(i - self.steps)
        return step(self, i)

    with monkeypatch.context() as patch:
        patch.setattr(task, "step", signalled)
        assert execute(command, *words, "--name", f"cut{code}") == code
    assert done[-1] == 1, "a step was begun after the signal"
    position = checkpoint(command, f"cut{code}")["position"]
    assert (position["epoch"], position["step"]) == (1, 2)

    assert execute(command, *words, "--name", f"cut{code}", "--resume") == 0
    assert result(command, f"cut{code}") == result(command, f"whole{code}")
    states = [tensors_in(checkpoint(command, name)) for name in (f"whole{code}", f"cut{code}")]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_random_search_that_is_cut_off_draws_the_same_genotype_again(monkeypatch):
    words = ["search", "--config", "tiny.yaml", "--strategy", "random"]
    assert execute(*words, "--name", "drawn") == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cells, "draw_genotype", interrupted)
        assert execute(*words, "--name", "cut_off") == 130
    assert not Path("runs/cut_off/search/genotype.json").exists()
    assert execute(*words, "--name", "cut_off", "--resume") == 0
    genotypes = [Path("runs", name, "search", "genotype.json").read_bytes() for name in ("drawn", "cut_off")]
    assert genotypes[0] == genotypes[1]
