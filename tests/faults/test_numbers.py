"""Numbers that are not finite, memory that does not suffice: the last good state stays, and the way on is told."""

from pathlib import Path

import pytest
import torch
from harness import checkpoint, here, is_one_line, run

import augment
import search
from config import SearchConfig
from training.loop import memory_advice, tensors_in
from utils import UserError

STEP = 14  # in the second epoch; a checkpoint was written after its fourth


def befalls(fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `fault(augment, metrics)` follow a step of the second epoch."""
    step = augment.Augment.step

    def faulty(self: augment.Augment, i: int) -> dict:
        metrics = step(self, i)
        return fault(self, metrics) if i == STEP else metrics

    monkeypatch.setattr(augment.Augment, "step", faulty)


def last_good_state(name: str) -> bool:
    """Whether the checkpoint is of the second epoch, before the fault, and finite."""
    state = checkpoint(name)
    position = state["position"]
    within = position["epoch"] == 1 and position["step"] + position["epoch"] * 9 <= STEP
    return within and all(tensor.isfinite().all() for tensor in tensors_in(state))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(monkeypatch, capsys, bad: float):
    befalls(lambda _, metrics: {**metrics, "train/loss": torch.tensor(bad)}, monkeypatch)
    assert run("loss", "--overwrite") == 2
    assert is_one_line(
        capsys.readouterr().err, f"train/loss became {bad} in epoch 2", "learning rate", "checkpoint.pt"
    )
    assert last_good_state("loss")


@pytest.mark.parametrize("part", ["network", "optimizer"])
def test_a_step_of_finite_loss_that_leaves_a_state_that_is_not(monkeypatch, capsys, part: str):
    def spoil(task: augment.Augment, metrics: dict) -> dict:
        next(tensors_in(task.parts[part].state_dict())).view(-1)[0] = float("nan")
        return metrics

    befalls(spoil, monkeypatch)
    assert run("state", "--overwrite", "--checkpoint_every", STEP % 9 + 1) == 2
    assert is_one_line(
        capsys.readouterr().err, f"the state of the {part} is no longer finite in epoch 2", "history"
    )
    assert last_good_state("state")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
    ],
)
def test_too_little_memory(monkeypatch, capsys, error: Exception):
    def grow(*_: object) -> dict:
        raise error

    befalls(grow, monkeypatch)
    assert run("memory", "--overwrite") == 2
    assert is_one_line(
        capsys.readouterr().err, "out of memory: lower --batch_size (half of 48 takes about half"
    )
    assert last_good_state("memory")


def test_another_error_is_not_mistaken_for_it(monkeypatch):
    def fail(*_: object) -> dict:
        raise RuntimeError("a bug")

    befalls(fail, monkeypatch)
    with pytest.raises(RuntimeError, match="a bug"):
        run("bug", "--overwrite")


def test_a_search_is_told_of_recomputing_unless_it_does():
    assert "--recompute ops" in memory_advice(SearchConfig())
    assert "--recompute" not in memory_advice(SearchConfig(recompute="ops"))


def test_a_search_that_diverges(capsys):
    """A learning rate beyond all measure, from the first step on."""
    config = SearchConfig(name="diverges", batch_size=36, layers=2, rnn_layers=0, cnn_nodes=1, init_channels=2,
                          cnn_ops=("sep_conv_3x3",), gpus="none", w_lr=1e30, order="first", overwrite=True)  # fmt: skip
    with pytest.raises(UserError, match=r"finite|became nan|became inf"):
        search.run(config)
    assert not Path("runs/diverges/search/checkpoint.pt").exists()
