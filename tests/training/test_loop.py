"""The loop, the step and the evaluation that search and augment share, on a task small enough to check by hand."""

import json
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch import nn

from config import SearchConfig
from training.interruption import Interruption
from training.loop import fit, weight_step
from training.run_folder import RunFolder
from utils import Interrupted, UserError

CPU = torch.device("cpu")
EPOCHS, STEPS = 3, 4


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs go to a folder of their own, and event files are numbered from 0.

    TensorBoard reads the files of a folder by name; within a second and a process, `.10` would come before `.9`.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    return tmp_path


class Toy:
    """A linear map trained on noise: what it becomes depends on every step, every epoch and the random generator."""

    steps, waited = STEPS, 0.0

    def __init__(self, epochs: int = EPOCHS, kill: tuple[int, int] | None = None, **flags):
        """`kill` = (step, signal): send this process a signal from within a step."""
        self.config = SearchConfig(
            **{"name": "toy", "epochs": epochs, "print_freq": 2, "checkpoint_every": 200, **flags}
        )
        torch.manual_seed(0)
        self.network = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs)
        self.parts = {"network": self.network, "optimizer": self.optimizer, "scheduler": self.scheduler}
        self.kill, self.done, self.losses = kill, [], []

    def step(self, i: int) -> dict[str, torch.Tensor]:
        if self.kill and self.kill[0] == i:
            os.kill(os.getpid(), self.kill[1])
        batch = torch.randn(5, 3), torch.randint(2, (5,))
        metrics = weight_step(self.network, self.optimizer, batch, F.cross_entropy, 5.0)
        self.done.append(i)
        self.losses.append(float(metrics["train/loss"]))
        return metrics

    def after_epoch(self, epoch: int) -> dict:
        self.scheduler.step()
        return {"lr": self.scheduler.get_last_lr()[0], "note": [epoch]}


def train(task: Toy) -> list[dict]:
    with RunFolder("search", task.config) as folder:
        return fit(folder, task, CPU)


def scalars(tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator("runs/toy/search", size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def history_file() -> list[dict]:
    return [json.loads(line) for line in Path("runs/toy/search/history.jsonl").read_text().splitlines()]


def test_the_history_has_the_mean_of_every_epoch():
    task = Toy()
    history = train(task)
    assert task.done == list(range(EPOCHS * STEPS))
    assert [record["epoch"] for record in history] == [1, 2, 3]
    for epoch, record in enumerate(history):
        losses = task.losses[epoch * STEPS : (epoch + 1) * STEPS]
        assert record["train/loss"] == pytest.approx(sum(losses) / STEPS, rel=1e-6)
        assert record["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * (epoch + 1) / EPOCHS)))
        assert record["note"] == [epoch + 1]
    assert history_file() == history


def test_tensorboard_has_every_number_of_every_epoch():
    history = train(Toy())
    for tag in ("train/loss", "train/wa", "lr"):
        assert [step for step, _ in scalars(tag)] == [1, 2, 3]
        assert [value for _, value in scalars(tag)] == pytest.approx(
            [record[tag] for record in history], rel=1e-6
        )


@pytest.mark.parametrize("number", Interruption.SIGNALS)
@pytest.mark.parametrize(
    "step", [0, 5, 7, 11], ids=["first", "middle of an epoch", "end of an epoch", "last"]
)
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    here: Path, monkeypatch, step: int, number: int
):
    (here / "whole").mkdir()
    monkeypatch.chdir(here / "whole")
    whole = Toy()
    expected = train(whole)
    monkeypatch.chdir(here)

    cut, handler = Toy(kill=(step, number)), signal.getsignal(number)
    with pytest.raises(Interrupted) as interrupted:
        train(cut)
    assert interrupted.value.args == (number,)
    assert signal.getsignal(number) is handler
    assert cut.done == list(range(step + 1)), "the step is brought to its end, and no other begun"
    assert not list(Path("runs/toy/search").glob(".*")), "something half-written was left"

    torch.manual_seed(99)  # another process starts elsewhere
    resumed = Toy(resume=True)
    assert train(resumed) == expected
    assert cut.done + resumed.done == whole.done
    assert cut.losses + resumed.losses == whole.losses
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value)
    assert history_file() == expected
    assert [epoch for epoch, _ in scalars("train/loss")] == [1, 2, 3]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_killed_before_its_checkpoint_leaves_no_epoch_twice(monkeypatch, epoch: int):
    """The numbers of an epoch are in TensorBoard before its checkpoint is written; power may fail in between."""
    expected = train(Toy())
    saves = []

    def fail(self: RunFolder, state: dict) -> None:
        saves.append(state)
        if len(saves) == epoch:
            raise KeyboardInterrupt
        save(self, state)

    save = RunFolder.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", fail)
        with pytest.raises(KeyboardInterrupt):
            train(Toy(overwrite=True))
    assert train(Toy(resume=True)) == expected
    assert [step for step, _ in scalars("train/loss")] == [1, 2, 3]


def dying(task: Toy, step: int) -> Toy:
    """A task whose process dies at a step. It fails outright, as of SIGKILL: nothing is saved on the way out."""
    good = task.step

    def fail(i: int) -> dict[str, torch.Tensor]:
        if i == step:
            raise KeyboardInterrupt
        return good(i)

    task.step = fail
    return task


@pytest.mark.parametrize("every", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("step", range(EPOCHS * STEPS))
def test_a_kill_loses_no_more_than_the_steps_since_the_last_checkpoint(step: int, every: int):
    whole = Toy(overwrite=True)
    expected = train(whole)

    killed = dying(Toy(overwrite=True, checkpoint_every=every), step)
    with pytest.raises(KeyboardInterrupt):
        train(killed)
    torch.manual_seed(99)
    resumed = Toy(resume=True, checkpoint_every=2)
    assert train(resumed) == expected
    within = step % STEPS
    assert resumed.done[0] == step - (within % every if every else within)
    assert all(
        torch.equal(resumed.network.state_dict()[name], w) for name, w in whole.network.state_dict().items()
    )


class Clock:
    """Time that passes as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        for name in ("perf_counter", "monotonic"):
            monkeypatch.setattr(time, name, lambda: self.now)

    def spend(self, seconds: float, function: Callable) -> Callable:
        def slow(*arguments: object) -> Any:
            self.now += seconds
            return function(*arguments)

        return slow


@pytest.mark.parametrize(
    ("every", "saved_after"),
    [("1min", range(1, 13)), ("2.5min", [3, 6, 9, 12]), ("5min", [5, 10, 12]), ("60min", [12])],
)
def test_minutes_are_counted_from_the_last_checkpoint_whatever_the_epoch(
    monkeypatch, every: str, saved_after
):
    """A step takes a minute; four make an epoch, which is no reason to save."""
    clock, task, saved = Clock(monkeypatch), Toy(checkpoint_every=every), []
    task.step = clock.spend(60, task.step)
    save = RunFolder.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", lambda *args: saved.append(len(task.done)) or save(*args))
        expected = train(task)
    assert saved == list(saved_after)
    assert history_file() == expected


@pytest.mark.parametrize("step", range(0, EPOCHS * STEPS, 3))
def test_a_kill_loses_no_more_than_the_minutes_since_the_last_checkpoint(monkeypatch, step: int):
    whole = Toy(overwrite=True)
    expected = train(whole)
    clock = Clock(monkeypatch)

    def minute_by_minute(**flags: bool) -> Toy:
        task = Toy(checkpoint_every="2min", **flags)
        task.step = clock.spend(60, task.step)
        return task

    with pytest.raises(KeyboardInterrupt):
        train(dying(minute_by_minute(overwrite=True), step))
    torch.manual_seed(99)
    resumed = minute_by_minute(resume=True)
    assert train(resumed) == expected
    assert resumed.done[0] == step - step % 2
    assert all(
        torch.equal(resumed.network.state_dict()[name], w) for name, w in whole.network.state_dict().items()
    )


def test_what_an_epoch_costs_is_of_its_steps_alone_and_in_no_history(monkeypatch, capsys):
    """A step takes a second, a quarter of which is waiting; checkpoints and what comes after an epoch are left out."""
    clock, task = Clock(monkeypatch), Toy(checkpoint_every=3, batch_size=10)

    def step(i: int) -> dict[str, torch.Tensor]:
        clock.now, task.wait_seconds = clock.now + 1, task.wait_seconds + 0.25
        return Toy.step(task, i)

    task.step, task.after_epoch = step, clock.spend(50, task.after_epoch)
    monkeypatch.setattr(RunFolder, "save_checkpoint", clock.spend(100, RunFolder.save_checkpoint))
    history = train(task)
    assert not any("machine" in key for record in history for key in record)
    for tag, value in (("step_seconds", 1.0), ("data_wait_share", 0.25), ("utterances_per_second", 10.0)):
        assert scalars(f"machine/{tag}") == [(epoch, value) for epoch in (1, 2, 3)]
    assert len(scalars("machine/host_memory_mb")) == EPOCHS
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == EPOCHS
    assert all("  1 s a step, 10 utterances/s, data 25.0 %, " in line for line in lines)


def test_resuming_a_finished_run_does_nothing():
    expected = train(Toy())
    again = Toy(resume=True)
    assert train(again) == expected
    assert again.done == []
    assert [step for step, _ in scalars("train/loss")] == [1, 2, 3]


def test_resume_where_there_is_nothing_starts():
    assert len(train(Toy(resume=True))) == EPOCHS


def test_overwrite_starts_anew():
    train(Toy())
    task = Toy(overwrite=True)
    train(task)
    assert task.done == list(range(EPOCHS * STEPS))
    assert [step for step, _ in scalars("train/loss")] == [1, 2, 3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_last_checkpoint(bad: float):
    task, handler = Toy(), signal.getsignal(signal.SIGTERM)
    good = task.step

    def step(i: int) -> dict[str, torch.Tensor]:
        metrics = good(i)
        return {**metrics, "train/loss": torch.tensor(bad)} if i == STEPS + 1 else metrics

    task.step = step
    with pytest.raises(UserError, match=f"train/loss became {bad} in epoch 2: lower the learning rate"):
        train(task)
    assert signal.getsignal(signal.SIGTERM) is handler
    checkpoint = torch.load("runs/toy/search/checkpoint.pt", weights_only=True)
    assert checkpoint["position"]["epoch"] == 1
    assert len(history_file()) == 1


def test_signals_are_noted_and_the_handlers_given_back_whatever_happens():
    handlers, noted = [signal.getsignal(number) for number in Interruption.SIGNALS], []
    with suppress(ZeroDivisionError), Interruption() as interruption:
        noted.append(interruption.signal)
        os.kill(os.getpid(), signal.SIGINT)
        noted.append(interruption.signal)
        raise ZeroDivisionError
    assert noted == [None, signal.SIGINT]
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == handlers


def twins() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(1)
    first, second = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    second.load_state_dict(first.state_dict())
    return first, second


@pytest.mark.parametrize("clip", [1e6, 0.05], ids=["unclipped", "clipped"])
def test_a_weight_step_is_the_plain_step_of_sgd(clip: float):
    """p <- p - lr v, v <- momentum v + clipped gradient + decay p, written out, over three steps."""
    network, plain = twins()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    velocities = [torch.zeros_like(p) for p in plain.parameters()]
    for _ in range(3):
        x, y = torch.randn(6, 3, dtype=torch.float64), torch.randint(2, (6,))
        logits = plain(x)
        loss = F.cross_entropy(logits, y)
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))
        assert (norm > clip) == (clip < 1)
        metrics = weight_step(network, optimizer, (x, y), F.cross_entropy, clip)
        assert float(metrics["train/loss"]) == pytest.approx(loss.item())
        assert float(metrics["train/wa"]) == pytest.approx(float((logits.argmax(1) == y).double().mean()))
        with torch.no_grad():
            for p, g, v in zip(plain.parameters(), gradients, velocities, strict=True):
                v.mul_(0.9).add_(g * min(1.0, clip / float(norm)) + 0.01 * p)
                p.sub_(0.1 * v)
        for p, q in zip(network.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(
                p, q, rtol=1e-6, atol=1e-8
            )  # torch adds 1e-6 to the norm it divides by


def test_a_weight_step_leaves_other_parameters_and_no_gradients():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = network[0].weight.clone()
    optimizer = torch.optim.SGD(network[1].parameters(), 0.1)
    metrics = weight_step(network, optimizer, (torch.randn(5, 3), torch.ones(5).long()), F.cross_entropy, 1)
    assert torch.equal(network[0].weight, before)
    assert all(p.grad is None for p in network.parameters())
    assert not any(value.requires_grad for value in metrics.values())


def test_accuracy_is_of_the_main_head():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * x, -self.scale * x

    x, y = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 2, 1])
    network = TwoHeads()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    metrics = weight_step(network, optimizer, (x, y), lambda o, y: F.cross_entropy(o[0], y), 1)
    assert float(metrics["train/wa"]) == 0.75
