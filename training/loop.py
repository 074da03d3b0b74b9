"""What search and augment share: the loop over epochs and steps, with its checkpoints, and a step of the weights.

`fit` owns the order of things and the state; the task tells it the two things that differ: what a step does, and what
is due after an epoch. What steps return stays on the device and is read once an epoch.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from config import RunConfig
from training import distributed
from training.checkpoints import Schedule
from training.devices import Gradient, memory_advice, random_state, set_random_state
from training.interruption import Interruption
from training.meters import Meter
from training.run_folder import RunFolder, log
from utils import Interrupted, UserError, progress

Metrics = dict[str, Tensor]


class Stateful(Protocol):
    """What a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass
class Progress:
    """How far a run has come: epochs done, steps done in the next one, their summed metrics, and the history."""

    epoch: int = 0
    step: int = 0
    totals: Metrics = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Task(Protocol):
    """What `fit` trains: a search, or a derived network."""

    config: RunConfig
    parts: Mapping[str, Stateful]
    """Everything with a state: the network, the optimisers ..."""
    steps: int
    """Steps an epoch."""

    @property
    def waited(self) -> float:
        """Seconds that the steps so far have waited for batches."""

    def step(self, i: int) -> Metrics:
        """Do step i, counted from the start of the run; return metrics to average over the epoch."""

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Whatever is due after an epoch, counted from 1; return the rest of its record."""


def fit(run: RunFolder, task: Task, device: torch.device) -> list[dict[str, Any]]:
    """Run a task's epochs, from the run's checkpoint where it has one, and return the history.

    Raises `Interrupted` after SIGINT, SIGTERM or SIGUSR1, once the state is saved.
    """
    position, meter = Progress(), Meter(task.config.batch_size, device)
    schedule = Schedule(task.config.checkpoint_every)
    stateful = {**task.parts, "position": position}
    restore(run.load_checkpoint(device), stateful, device)
    distributed.require_equal(
        f"{position.epoch} {position.step}".encode(),
        f"the processes find different checkpoints in {run.path}: runs/ must be one folder that all hosts share",
    )
    if position.step >= task.steps:  # such an epoch would never end
        raise UserError(
            f"the checkpoint is in step {position.step} of an epoch of {task.steps}; --overwrite starts anew"
        )
    run.open_events(position.epoch + 1)
    with Interruption() as interruption, memory_advice(advice(task.config)):
        while position.epoch < task.config.epochs:
            meter.start(task.waited)
            done = some_steps(position, task, interruption, schedule)
            means = averages(position)  # waits for the device, so that the meter has all of its work
            meter.stop(done, task.waited)
            check_finite(task.parts, f"epoch {position.epoch + 1}")
            if position.step == task.steps:
                finish_epoch(position, means, task)
                run.record(position.history, meter.read())
            number = interruption.agreed  # one that comes from now on waits for the next step
            if number or position.epoch == task.config.epochs or schedule.due(epoch_ended=position.step == 0):
                run.save_checkpoint(snapshot(stateful, device))
                schedule.saved()
            if number:
                log.info("interrupted in epoch %d; --resume goes on from here", position.epoch + 1)
                raise Interrupted(number)
    return position.history


def advice(config: RunConfig) -> str:
    """What to do where the memory does not suffice."""
    half = f"lower --batch_size (half of {config.batch_size} takes about half of the memory)"
    return f"{half}, or pass --recompute cells" if getattr(config, "recompute", "cells") != "cells" else half


def some_steps(position: Progress, task: Task, interruption: Interruption, schedule: Schedule) -> int:
    """The steps up to the next checkpoint, or to the end of the epoch, or until interrupted; how many they were."""
    first, begin, freq = position.epoch * task.steps, position.step, task.config.print_freq
    title = f"epoch {position.epoch + 1}/{task.config.epochs}"
    bar = progress(range(begin, task.steps), title, initial=begin, total=task.steps)
    reading: Metrics = {}
    for i in bar:
        distributed.seed_step(task.config.seed, first + i)
        metrics = averaged(task.step(first + i))
        position.totals = {key: value + position.totals.get(key, 0.0) for key, value in metrics.items()}
        position.step = i + 1
        if position.step % freq == 0:  # show the copy begun a while ago, so that no step waits for the device
            bar.set_postfix({key: f"{float(value):.3f}" for key, value in reading.items()})
            reading = {key: value.to("cpu", non_blocking=value.is_cuda) for key, value in metrics.items()}
        schedule.steps += 1
        if interruption.agree() or schedule.due():
            break
    bar.close()
    return position.step - begin


def averaged(metrics: Metrics) -> Metrics:
    """The metrics of the whole batch."""
    return dict(zip(metrics, distributed.mean(list(metrics.values())), strict=True))


def averages(position: Progress) -> dict[str, float]:
    """The epoch's metrics so far. `UserError` where one is no longer finite, so that no such state is saved."""
    means = {key: float(total) / position.step for key, total in position.totals.items()}
    for key, mean in means.items():
        if not math.isfinite(mean):
            raise not_finite(f"{key} became {mean} in epoch {position.epoch + 1}")
    return means


def check_finite(parts: Mapping[str, Stateful], when: str) -> None:
    """`UserError` where the last step, whose loss came before it, has left a state that is no longer finite."""
    for name, part in parts.items():
        if not all(tensor.isfinite().all() for tensor in tensors_of(part.state_dict())):
            raise not_finite(f"the state of the {name} is no longer finite in {when}")


def tensors_of(state: Any) -> Iterator[Tensor]:
    """Every tensor in a plain state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping | list | tuple):
        for child in state.values() if isinstance(state, Mapping) else state:
            yield from tensors_of(child)


def not_finite(what: str) -> UserError:
    """The error, and where to look."""
    return UserError(
        f"{what}: lower the learning rate. The last good state that was saved is in checkpoint.pt, the way there in "
        "history.jsonl and TensorBoard"
    )


def finish_epoch(position: Progress, means: dict[str, float], task: Task) -> None:
    """Put the epoch's averages and what is measured after it into the history, and go on to the next epoch."""
    epoch = position.epoch + 1
    position.history.append({"epoch": epoch, **means, **task.after_epoch(epoch)})
    position.epoch, position.step, position.totals = epoch, 0, {}


def snapshot(stateful: Mapping[str, Stateful], device: torch.device) -> dict[str, Any]:
    """Everything that the rest of the run depends on, as plain state."""
    parts = {name: part.state_dict() for name, part in stateful.items()}
    return {**parts, "random": random_state(device), "processes": distributed.world_size()}


def restore(state: dict[str, Any] | None, stateful: Mapping[str, Stateful], device: torch.device) -> None:
    """Put every part into a snapshot's state; without a snapshot, leave it as it is."""
    if state is None:
        return
    try:
        for name, part in stateful.items():
            part.load_state_dict(state[name])
        set_random_state({name: value.cpu() for name, value in state["random"].items()}, device)
        before = int(state.get("processes", 1))
    except Exception as error:  # whatever a part makes of a state that is not its own
        raise UserError(
            f"the checkpoint does not fit this run ({type(error).__name__}); --overwrite starts anew"
        ) from None
    if before != (now := distributed.world_size()):
        log.info(
            "resume    a run of %s processes goes on in %s: not to the bit as it would have gone on",
            before,
            now,
        )


def weight_step(
    network: Callable[[Tensor], Any],
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    criterion: Callable[[Any, Tensor], Tensor],
    gradient: Gradient,
    clip: float,
) -> Metrics:
    """One step of the optimiser's parameters on a batch: the loss and the accuracy before it."""
    x, y = batch
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    outputs = network(x)
    loss = criterion(outputs, y)
    for p, d in zip(parameters, gradient(loss, parameters), strict=True):
        p.grad = d
    nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad()
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    return {"train/loss": loss.detach(), "train/wa": (logits.argmax(dim=1) == y).float().mean()}
