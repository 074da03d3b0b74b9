"""A run that is interrupted by a signal and resumed gives the same bytes as an uninterrupted one."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import RESULTS, environment, line, succeed

from training.loop import tensors_in

EPOCHS = 7
RECIPE = (
    "--normalise speaker --optimizer adamw --lr 0.003 --schedule onecycle --label_smoothing 0.1 --mixup 0.2"
    " --freq_mask 4 --time_mask 4 --pick last --stem_stride 2 --deltas 1 --rnn_bands 2"
)
"""The flags of configs/small.yaml, deltas and bands."""
CORRECTIONS = (
    "--op_norm --halves speakers --balance weights --alpha_start 0.3 --alpha_reach 3 --alpha_average 3 --pick best"
    " --edges_by without_none"
)
"""The flags of a search in configs/small.yaml, and the choice of the best epoch."""
RELAXED = "--order second --relaxation dirichlet --dropout 0.2"
"""Random weights of the ops."""
SEARCHES = {"corrected": CORRECTIONS.split(), "relaxed": RELAXED.split()}


def flags(command: str, order: str) -> list[object]:
    common = ["--config", "tiny.yaml", "--epochs", EPOCHS]
    if command == "search":
        return [*common, *SEARCHES.get(order, ("--order", order))]
    recipe = RECIPE.split() if order == "recipe" else []
    return [*common, "--genotype", "cnn_lstm", *recipe]


def interrupt(command: str, name: str, options: list[object], number: int, cwd: Path) -> int:
    """Start a run, send a signal in its second epoch, and return the exit code."""
    process = subprocess.Popen(
        line(command, *options, "--name", name), cwd=cwd, env=environment(), stdout=subprocess.PIPE, text=True
    )
    for printed in process.stdout:
        if printed.startswith("epoch   1"):
            time.sleep(0.1)  # until the middle of the next epoch
            process.send_signal(number)
            break
    process.stdout.read()
    return process.wait(timeout=120)


@pytest.mark.parametrize(
    ("command", "order", "number", "code", "every"),
    [
        pytest.param("search", "second", signal.SIGTERM, 143, "200", marks=pytest.mark.slow),
        pytest.param("search", "first", signal.SIGKILL, -9, "0.0002min", marks=pytest.mark.slow),
        ("search", "corrected", signal.SIGTERM, 143, "5min"),
        ("search", "relaxed", signal.SIGTERM, 143, "5min"),
        ("augment", "", signal.SIGINT, 130, "5min"),
        ("augment", "recipe", signal.SIGTERM, 143, "5min"),
        pytest.param("augment", "", signal.SIGKILL, -9, "200", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    workspace: Path, command: str, order: str, number: int, code: int, every: str
):
    whole = f"{command}-{order}whole"
    cut = f"{command}-{order}-{code}"
    options = flags(command, order)
    folder = workspace / "runs" / whole / command
    if not folder.exists():
        succeed(command, *options, "--name", whole, cwd=workspace)
    assert interrupt(command, cut, [*options, "--checkpoint_every", every], number, workspace) == code
    resumed = workspace / "runs" / cut / command
    done = len((resumed / "history.jsonl").read_text().splitlines())
    assert done < EPOCHS, "the signal came too late to test anything"
    assert not (resumed / RESULTS[command][0]).exists()

    succeed(command, *options, "--name", cut, "--resume", cwd=workspace)
    for name in RESULTS[command]:
        assert (resumed / name).read_bytes() == (folder / name).read_bytes(), name
    states = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (folder, resumed)]
    assert all(torch.equal(a, b) for a, b in zip(*map(tensors_in, states), strict=True))
