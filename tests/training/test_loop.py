"""The training loop and the weight step, on a task that is small enough to check by hand."""

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
from torch import Tensor, nn

from config import SearchConfig
from training.interruption import Interruption
from training.loop import fit
from training.run_folder import RunFolder
from training.steps import weight_step
from utils import Interrupted, UserError

CPU = torch.device("cpu")
EPOCHS = 3
STEPS = 4
FOLDER = Path("runs/toy/search")


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, and number event files from 0.

    TensorBoard reads the files of a folder in the order of their names, and `.10` would come before `.9`.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


class Toy:
    """A linear map trained on noise: its weights depend on every step, every epoch and the random generator."""

    steps = STEPS
    wait_seconds = 0.0

    def __init__(self, epochs: int = EPOCHS, **flags: Any):
        defaults = {"name": "toy", "epochs": epochs, "print_freq": 2, "checkpoint_every": 200}
        self.config = SearchConfig(**{**defaults, **flags})
        torch.manual_seed(0)
        self.network = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs)
        self.parts = {"network": self.network, "optimizer": self.optimizer, "scheduler": self.scheduler}
        self.done: list[int] = []
        self.losses: list[float] = []

    def step(self, i: int) -> dict[str, Tensor]:
        batch = torch.randn(5, 3), torch.randint(2, (5,))
        metrics = weight_step(self.network, self.optimizer, batch, F.cross_entropy, 5.0)
        self.done.append(i)
        self.losses.append(float(metrics["train/loss"]))
        return metrics

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        self.scheduler.step()
        return {"lr": self.scheduler.get_last_lr()[0], "note": [epoch]}


def before_step(task: Toy, step: int, action: Callable[[], None]) -> Toy:
    """Let a task do something before one of its steps."""
    original = task.step

    def step_after_action(i: int) -> dict[str, Tensor]:
        if i == step:
            action()
        return original(i)

    task.step = step_after_action
    return task


def die() -> None:
    """Fail as if the process were killed: nothing is saved."""
    raise KeyboardInterrupt


def train(task: Toy) -> list[dict]:
    with RunFolder("search", task.config) as folder:
        return fit(folder, task, CPU)


def read_scalars(tag: str) -> list[tuple[int, float]]:
    """The (epoch, value) pairs in TensorBoard."""
    accumulator = EventAccumulator(str(FOLDER), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def read_history() -> list[dict]:
    return [json.loads(line) for line in (FOLDER / "history.jsonl").read_text().splitlines()]


def assert_resumed_exactly(resumed: Toy, whole: Toy, expected: list[dict]) -> None:
    """Resume a run, and compare it with an uninterrupted one."""
    assert train(resumed) == expected
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], weight)
    assert read_history() == expected
    assert [epoch for epoch, _ in read_scalars("train/loss")] == [1, 2, 3], "each epoch must occur once"


def test_history_and_tensorboard_have_the_means_of_every_epoch():
    task = Toy()
    history = train(task)
    assert task.done == list(range(EPOCHS * STEPS))
    assert [record["epoch"] for record in history] == [1, 2, 3]
    for epoch, record in enumerate(history):
        losses = task.losses[epoch * STEPS : (epoch + 1) * STEPS]
        assert record["train/loss"] == pytest.approx(sum(losses) / STEPS, rel=1e-6)
        assert record["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * (epoch + 1) / EPOCHS)))
        assert record["note"] == [epoch + 1]
    assert read_history() == history
    for tag in ("train/loss", "train/wa", "lr"):
        epochs, values = zip(*read_scalars(tag), strict=True)
        assert epochs == (1, 2, 3)
        assert values == pytest.approx([record[tag] for record in history], rel=1e-6)


# ---------------------------------------------------------------- runs that end early and are resumed


@pytest.mark.parametrize("number", Interruption.SIGNALS)
@pytest.mark.parametrize(
    "step", [0, 5, 7, 11], ids=["first", "middle of an epoch", "end of an epoch", "last"]
)
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(step: int, number: int):
    whole = Toy()
    expected = train(whole)
    handler = signal.getsignal(number)
    cut = before_step(Toy(overwrite=True), step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted) as interrupted:
        train(cut)
    assert interrupted.value.args == (number,)
    assert signal.getsignal(number) is handler
    assert cut.done == list(range(step + 1)), "the step must be finished, and no other started"
    assert not list(FOLDER.glob(".*")), "a partly written file is left"
    resumed = Toy(resume=True)
    assert_resumed_exactly(resumed, whole, expected)
    assert cut.done + resumed.done == whole.done
    assert cut.losses + resumed.losses == whole.losses


@pytest.mark.parametrize("epoch", [1, 2])
def test_run_killed_between_its_record_and_its_checkpoint_has_no_epoch_twice(monkeypatch, epoch: int):
    """TensorBoard has the numbers of an epoch before the checkpoint is written."""
    whole = Toy()
    expected = train(whole)
    save = RunFolder.save_checkpoint
    saved = []

    def save_or_die(self: RunFolder, state: dict) -> None:
        saved.append(state)
        if len(saved) == epoch:
            die()
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            train(Toy(overwrite=True))
    assert_resumed_exactly(Toy(resume=True), whole, expected)


@pytest.mark.parametrize("every", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("step", range(EPOCHS * STEPS))
def test_killed_run_loses_only_the_steps_since_the_last_checkpoint(step: int, every: int):
    whole = Toy(overwrite=True)
    expected = train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(before_step(Toy(overwrite=True, checkpoint_every=every), step, die))
    resumed = Toy(resume=True, checkpoint_every=2)
    assert_resumed_exactly(resumed, whole, expected)
    in_epoch = step % STEPS
    assert resumed.done[0] == step - (in_epoch % every if every else in_epoch)


class Clock:
    """A clock that advances only when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        for name in ("perf_counter", "monotonic"):
            monkeypatch.setattr(time, name, lambda: self.now)

    def slow(self, seconds: float, function: Callable) -> Callable:
        """The function, which takes this long."""

        def slow_function(*arguments: object) -> Any:
            self.now += seconds
            return function(*arguments)

        return slow_function

    def make_task(self, **flags: Any) -> Toy:
        """A task whose steps take a minute."""
        task = Toy(**flags)
        task.step = self.slow(60, task.step)
        return task


@pytest.mark.parametrize(
    ("every", "saved_after"),
    [("1min", [*range(1, 13)]), ("2.5min", [3, 6, 9, 12]), ("5min", [5, 10, 12]), ("60min", [12])],
)
def test_minutes_between_checkpoints_are_counted_across_epochs(
    monkeypatch, every: str, saved_after: list[int]
):
    task = Clock(monkeypatch).make_task(checkpoint_every=every)
    save = RunFolder.save_checkpoint
    saved = []
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", lambda *args: saved.append(len(task.done)) or save(*args))
        history = train(task)
    assert saved == saved_after
    assert read_history() == history


@pytest.mark.parametrize("step", range(0, EPOCHS * STEPS, 3))
def test_killed_run_loses_only_the_minutes_since_the_last_checkpoint(monkeypatch, step: int):
    whole = Toy(overwrite=True)
    expected = train(whole)
    clock = Clock(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(before_step(clock.make_task(overwrite=True, checkpoint_every="2min"), step, die))
    resumed = clock.make_task(resume=True, checkpoint_every="2min")
    assert_resumed_exactly(resumed, whole, expected)
    assert resumed.done[0] == step - step % 2


def test_resuming_a_finished_run_does_nothing():
    expected = train(Toy())
    again = Toy(resume=True)
    assert train(again) == expected
    assert again.done == []
    assert [epoch for epoch, _ in read_scalars("train/loss")] == [1, 2, 3]


def test_resume_without_a_run_starts_one():
    assert len(train(Toy(resume=True))) == EPOCHS


def test_overwrite_starts_anew():
    train(Toy())
    task = Toy(overwrite=True)
    train(task)
    assert task.done == list(range(EPOCHS * STEPS))
    assert [epoch for epoch, _ in read_scalars("train/loss")] == [1, 2, 3]


def test_signals_are_recorded_and_their_handlers_restored():
    handlers = [signal.getsignal(number) for number in Interruption.SIGNALS]
    recorded = []
    with suppress(ZeroDivisionError), Interruption() as interruption:
        recorded.append(interruption.signal)
        os.kill(os.getpid(), signal.SIGINT)
        recorded.append(interruption.signal)
        raise ZeroDivisionError
    assert recorded == [None, signal.SIGINT]
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == handlers


# ---------------------------------------------------------------- numbers that are not finite, and times


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(bad: float):
    task = Toy()
    handler = signal.getsignal(signal.SIGTERM)
    original = task.step

    def step(i: int) -> dict[str, Tensor]:
        metrics = original(i)
        return {**metrics, "train/loss": torch.tensor(bad)} if i == STEPS + 1 else metrics

    task.step = step
    with pytest.raises(UserError, match=f"train/loss became {bad} in epoch 2: lower the learning rate"):
        train(task)
    assert signal.getsignal(signal.SIGTERM) is handler
    checkpoint = torch.load(FOLDER / "checkpoint.pt", weights_only=True)
    assert checkpoint["progress"]["epoch"] == 1
    assert len(read_history()) == 1


def test_reported_times_are_those_of_the_steps_alone(monkeypatch, capsys):
    """A step takes a second, and waits a quarter of it; checkpoints and the evaluation are not counted."""
    clock = Clock(monkeypatch)
    task = Toy(checkpoint_every=3, batch_size=10)

    def step(i: int) -> dict[str, Tensor]:
        clock.now += 1
        task.wait_seconds += 0.25
        return Toy.step(task, i)

    task.step = step
    task.after_epoch = clock.slow(50, task.after_epoch)
    monkeypatch.setattr(RunFolder, "save_checkpoint", clock.slow(100, RunFolder.save_checkpoint))
    history = train(task)
    assert not any("machine" in key for record in history for key in record)
    for tag, value in (("step_seconds", 1.0), ("data_wait_share", 0.25), ("utterances_per_second", 10.0)):
        assert read_scalars(f"machine/{tag}") == [(epoch, value) for epoch in (1, 2, 3)]
    assert len(read_scalars("machine/host_memory_mb")) == EPOCHS
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == EPOCHS
    assert all("  1 s a step, 10 utterances/s, data 25.0 %, " in line for line in lines)


# ---------------------------------------------------------------- the weight step


@pytest.mark.parametrize("clip", [1e6, 0.05], ids=["unclipped", "clipped"])
def test_weight_step_is_a_step_of_sgd(clip: float):
    """v <- momentum v + clipped gradient + decay p, then p <- p - lr v, over three steps."""
    torch.manual_seed(1)
    network = nn.Linear(3, 2).double()
    by_hand = nn.Linear(3, 2).double()
    by_hand.load_state_dict(network.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    velocities = [torch.zeros_like(p) for p in by_hand.parameters()]
    for _ in range(3):
        x, y = torch.randn(6, 3, dtype=torch.float64), torch.randint(2, (6,))
        logits = by_hand(x)
        loss = F.cross_entropy(logits, y)
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))
        assert (norm > clip) == (clip < 1)
        metrics = weight_step(network, optimizer, (x, y), F.cross_entropy, clip)
        assert float(metrics["train/loss"]) == pytest.approx(loss.item())
        assert float(metrics["train/wa"]) == pytest.approx(float((logits.argmax(1) == y).double().mean()))
        with torch.no_grad():
            for p, g, v in zip(by_hand.parameters(), gradients, velocities, strict=True):
                v.mul_(0.9).add_(g * min(1.0, clip / float(norm)) + 0.01 * p)
                p.sub_(0.1 * v)
        for p, q in zip(network.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)  # torch adds 1e-6 to the norm


def test_weight_step_changes_only_the_parameters_of_the_optimizer_and_leaves_no_gradients():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = network[0].weight.clone()
    optimizer = torch.optim.SGD(network[1].parameters(), 0.1)
    metrics = weight_step(network, optimizer, (torch.randn(5, 3), torch.ones(5).long()), F.cross_entropy, 1)
    assert torch.equal(network[0].weight, before)
    assert all(p.grad is None for p in network.parameters())
    assert not any(value.requires_grad for value in metrics.values())


class TwoHeads(nn.Module):
    """A network whose auxiliary logits are the opposite of its logits."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.scale * x, -self.scale * x


def test_accuracy_is_that_of_the_main_head():
    network = TwoHeads()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    batch = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 2, 1])
    metrics = weight_step(network, optimizer, batch, lambda outputs, y: F.cross_entropy(outputs[0], y), 1)
    assert float(metrics["train/wa"]) == 0.75
