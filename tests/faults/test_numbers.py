"""Values that are not finite, and too little memory: the last good state stays, with a line of advice."""

from pathlib import Path

import pytest
import torch
from harness import EPOCH_STEPS, STEP, checkpoint, disturb, in_workspace, is_one_line, run

import augment
import search
from config import SearchConfig
from training.loop import memory_advice, tensors_in
from training.retraining import Retraining
from utils import UserError


def checkpoint_is_good(name: str) -> bool:
    """Whether the checkpoint is finite and was saved in the second epoch, before the fault."""
    state = checkpoint(name)
    position = state["progress"]
    before_fault = position["epoch"] == 1 and EPOCH_STEPS + position["step"] <= STEP
    return before_fault and all(tensor.isfinite().all() for tensor in tensors_in(state))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(monkeypatch, capsys, bad: float):
    disturb(monkeypatch, lambda _, metrics: {**metrics, "train/loss": torch.tensor(bad)})
    assert run("loss", "--overwrite") == 2
    assert is_one_line(
        capsys.readouterr().err, f"train/loss became {bad} in epoch 2", "learning rate", "checkpoint.pt"
    )
    assert checkpoint_is_good("loss")


@pytest.mark.parametrize("part", ["network", "optimizer"])
def test_a_state_that_is_not_finite_ends_the_run_before_it_is_saved(monkeypatch, capsys, part: str):
    def set_nan(task: Retraining, _: dict) -> None:
        next(tensors_in(task.parts[part].state_dict())).view(-1)[0] = float("nan")

    disturb(monkeypatch, set_nan)
    assert run("state", "--overwrite", checkpoint_every=STEP % EPOCH_STEPS + 1) == 2
    assert is_one_line(
        capsys.readouterr().err, f"the state of the {part} is no longer finite in epoch 2", "history"
    )
    assert checkpoint_is_good("state")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
    ],
)
def test_too_little_memory_ends_the_run_with_advice(monkeypatch, capsys, error: Exception):
    def fail(*_: object) -> None:
        raise error

    disturb(monkeypatch, fail)
    assert run("memory", "--overwrite") == 2
    assert is_one_line(
        capsys.readouterr().err, "out of memory: lower --batch_size (half of 48 takes about half"
    )
    assert checkpoint_is_good("memory")


def test_another_error_is_not_reported_as_too_little_memory(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    disturb(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run("bug", "--overwrite")


def test_the_advice_names_recompute_unless_the_search_uses_it():
    assert "--recompute ops" in memory_advice(SearchConfig())
    assert "--recompute" not in memory_advice(SearchConfig(recompute="ops"))


def test_a_search_that_diverges_in_its_first_step_saves_nothing():
    config = SearchConfig(name="diverges", batch_size=36, layers=2, rnn_layers=0, cnn_nodes=1, init_channels=2,
                          cnn_ops=("sep_conv_3x3",), gpus="none", w_lr=1e30, order="first", overwrite=True)  # fmt: skip
    with pytest.raises(UserError, match=r"finite|became nan|became inf"):
        search.run(config)
    assert not Path("runs/diverges/search/checkpoint.pt").exists()
