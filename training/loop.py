"""The training loop of search and augment: epochs, steps and checkpoints.

`fit` runs a `Task`, which defines what a step computes and what follows an epoch. Metrics stay on the device and are
read once per epoch.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from config import RunConfig
from training import distributed
from training.checkpoints import Schedule
from training.devices import out_of_memory_advice, random_state, set_random_state
from training.interruption import Interruption
from training.meters import Meter
from training.run_folder import RunFolder, log
from training.steps import Metrics, mean_over_ranks
from utils import Interrupted, UserError, progress


class Stateful(Protocol):
    """Anything with a state for the checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Task(Protocol):
    """What `fit` trains: a supernet, or a derived network."""

    config: RunConfig
    parts: Mapping[str, Stateful]
    """The network, the optimizers, the schedulers: everything with a state."""
    steps: int
    """Steps per epoch."""

    @property
    def wait_seconds(self) -> float:
        """The seconds that the steps so far have waited for batches."""

    def step(self, i: int) -> Metrics:
        """Do step i, counted from the start of the run; return metrics, which are averaged over the epoch."""

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Evaluate after an epoch, counted from 1; return what its record holds besides the averages."""


@dataclass
class Progress:
    """Epochs done, steps done in the next one, the sums of their metrics, and the history: a record per epoch."""

    epoch: int = 0
    step: int = 0
    totals: Metrics = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def averages(self) -> dict[str, float]:
        """The averages of this epoch's metrics. Raises `UserError` if one is not finite."""
        means = {key: float(total) / self.step for key, total in self.totals.items()}
        for key, mean in means.items():
            if not math.isfinite(mean):
                raise not_finite(f"{key} became {mean} in epoch {self.epoch + 1}")
        return means

    def end_epoch(self, record: dict[str, Any]) -> None:
        """Append the record to the history, and count the epoch."""
        self.history.append(record)
        self.epoch += 1
        self.step = 0
        self.totals = {}


def fit(run: RunFolder, task: Task, device: torch.device) -> list[dict[str, Any]]:
    """Train a task for its epochs, from the run's checkpoint if it has one; return the history.

    Raises `Interrupted` after SIGINT, SIGTERM or SIGUSR1, once the state is saved.
    """
    config = task.config
    done = Progress()
    stateful = {**task.parts, "progress": done}
    restore(run.load_checkpoint(device), stateful, device)
    check_progress(done, task, run)
    meter = Meter(config.batch_size, device)
    schedule = Schedule(config.checkpoint_every)
    run.open_events(done.epoch + 1)
    with Interruption() as interruption, out_of_memory_advice(memory_advice(config)):
        while done.epoch < config.epochs:
            meter.start(task.wait_seconds)
            steps = run_steps(done, task, interruption, schedule)
            averages = done.averages()  # waits for the device, so that the meter counts all of its work
            meter.stop(steps, task.wait_seconds)
            check_finite(task.parts, f"epoch {done.epoch + 1}")
            if done.step == task.steps:
                epoch = done.epoch + 1
                done.end_epoch({"epoch": epoch, **averages, **task.after_epoch(epoch)})
                run.record(done.history, meter.read())
            signal = interruption.agreed  # a signal that arrives from here on is handled after the next step
            ended = done.epoch == config.epochs
            if signal or ended or schedule.due(epoch_ended=done.step == 0):
                run.save_checkpoint(snapshot(stateful, device))
                schedule.saved()
            if signal:
                log.info("interrupted in epoch %d; --resume continues from here", done.epoch + 1)
                raise Interrupted(signal)
    return done.history


def run_steps(done: Progress, task: Task, interruption: Interruption, schedule: Schedule) -> int:
    """Do steps until a checkpoint is due, the epoch ends, or a signal arrives; return their number."""
    config = task.config
    begin = done.step
    first = done.epoch * task.steps
    title = f"epoch {done.epoch + 1}/{config.epochs}"
    bar = progress(range(begin, task.steps), title, initial=begin, total=task.steps)
    shown: Metrics = {}
    for i in bar:
        distributed.seed_step(config.seed, first + i)
        metrics = mean_over_ranks(task.step(first + i))
        done.totals = {key: value + done.totals.get(key, 0.0) for key, value in metrics.items()}
        done.step = i + 1
        # shows the copies started last time: no step waits for the device
        if done.step % config.print_freq == 0:
            bar.set_postfix({key: f"{float(value):.3f}" for key, value in shown.items()})
            shown = {key: value.to("cpu", non_blocking=value.is_cuda) for key, value in metrics.items()}
        schedule.steps += 1
        if interruption.agree() or schedule.due():
            break
    bar.close()
    return done.step - begin


# ---------------------------------------------------------------- checkpoints


def snapshot(stateful: Mapping[str, Stateful], device: torch.device) -> dict[str, Any]:
    """The state that the rest of the run depends on."""
    parts = {name: part.state_dict() for name, part in stateful.items()}
    return {**parts, "random": random_state(device), "processes": distributed.world_size()}


def restore(state: dict[str, Any] | None, stateful: Mapping[str, Stateful], device: torch.device) -> None:
    """Load a snapshot; None: change nothing. Raises `UserError` if it does not fit."""
    if state is None:
        return
    try:
        for name, part in stateful.items():
            part.load_state_dict(state[name])
        set_random_state({name: value.cpu() for name, value in state["random"].items()}, device)
        before = int(state["processes"])
    except Exception as error:  # each part raises its own kind of error
        raise UserError(
            f"the checkpoint does not fit this run ({type(error).__name__}); --overwrite starts anew"
        ) from None
    if before != (now := distributed.world_size()):
        log.info("resume    from %d processes to %d: results will differ slightly", before, now)


def check_progress(done: Progress, task: Task, run: RunFolder) -> None:
    """Raise `UserError` if the ranks have read different checkpoints, or one whose epoch is longer than the task's."""
    distributed.require_equal(
        f"{done.epoch} {done.step}".encode(),
        f"the processes find different checkpoints in {run.path}: all hosts must share the folder of the runs",
    )
    if done.step >= task.steps:
        raise UserError(
            f"the checkpoint is in step {done.step} of an epoch of {task.steps}; --overwrite starts anew"
        )


# ---------------------------------------------------------------- errors


def check_finite(parts: Mapping[str, Stateful], when: str) -> None:
    """Raise `UserError` if a state is not finite, so that it is never saved. (The loss precedes the last step.)"""
    for name, part in parts.items():
        if not all(tensor.isfinite().all() for tensor in tensors_in(part.state_dict())):
            raise not_finite(f"the state of the {name} is no longer finite in {when}")


def tensors_in(state: Any) -> Iterator[Tensor]:
    """All tensors in a nested state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping | list | tuple):
        for child in state.values() if isinstance(state, Mapping) else state:
            yield from tensors_in(child)


def not_finite(problem: str) -> UserError:
    """The error for a loss or a state that is not finite."""
    return UserError(
        f"{problem}: lower the learning rate. checkpoint.pt is the last good state, if one was saved; history.jsonl "
        "and TensorBoard show the epochs before"
    )


def memory_advice(config: RunConfig) -> str:
    """What to do if the memory does not suffice."""
    advice = f"lower --batch_size (half of {config.batch_size} takes about half of the memory)"
    if getattr(config, "strategy", None) == "darts" and config.recompute != "ops":
        advice += ", or pass --recompute ops"
    return advice
