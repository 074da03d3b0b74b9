"""The program that `test_distributed` runs in one process and in two.

torchrun --nproc_per_node 2 tests/training/ranks.py FOLDER

Their working directory is the tests' workspace; they write FOLDER/NAME-RANK.pt, and runs.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor

import search
from augment import Augment, find_genotype
from cli import exit_codes, from_file
from config import AugmentConfig, RunConfig, SearchConfig
from search import Search
from training import distributed
from training.experiment import start_experiment
from training.loop import Metrics
from training.run_folder import RunFolder
from utils import Interrupted

STEPS = 20
WEIGHTS = 0.5, 1.0, 2.0, 4.0
"""Of the classes: the shares of a batch weigh differently."""
EQUAL = {"batch_size": 16, "dropout": 0.0, "sync_batchnorm": True}
RUN = {"batch_size": 72, "epochs": 2, "order": "first", "sync_batchnorm": False}


def searching(**flags: Any) -> SearchConfig:
    return from_file(SearchConfig, Path("tiny.yaml"), **flags)


def augmenting(**flags: Any) -> AugmentConfig:
    return from_file(AugmentConfig, Path("tiny.yaml"), **{"genotype": "cnn_lstm", **flags})


def task_of(config: RunConfig) -> Search | Augment:
    """A search, or the training of a derived network, before its first step."""
    experiment = start_experiment(config)
    if isinstance(config, SearchConfig):
        return Search(config, experiment, RunFolder("search", config, writes=False))
    return Augment(config, experiment, *find_genotype(config))


def stepped(config: RunConfig, steps: int = STEPS) -> dict[str, Tensor]:
    """The network's state after some steps in float64, its classes weighted, and the metrics of the last."""
    task = task_of(config)
    task.network.double()
    task.features.resident = task.features.resident.double()
    criterion = task.architect.loss if isinstance(task, Search) else task.criterion
    criterion.weight = torch.tensor(WEIGHTS, dtype=torch.float64)
    for i in range(steps):
        metrics = task.step(i)
    means = distributed.mean([value.double() for value in metrics.values()])
    return {**task.network.state_dict(), **dict(zip(metrics, means, strict=True))}


EXPERIMENTS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "search second": lambda: stepped(searching(**EQUAL, order="second")),
    "search first": lambda: stepped(searching(**EQUAL, order="first", recompute="cells"), steps=5),
    "augment": lambda: stepped(augmenting(**EQUAL, cutout_length=0, drop_path_prob=0.0)),
}
"""Of which two processes make what one does."""


def masks() -> dict[str, Tensor]:
    """What is dropped in each pass of two second-order steps: {step: (passes, what)}."""
    task = task_of(searching(batch_size=16, order="second", dropout=0.5))
    dropped: list[Tensor] = []
    task.network.network.dropout.register_forward_hook(lambda _module, _inputs, out: dropped.append(out == 0))
    found = {}
    for i in range(2):
        distributed.seed_step(task.config.seed, i)
        dropped.clear()
        task.step(i)
        passes = 5  # at w, w', w+, w-, and of the weights' step
        found[str(i)] = torch.stack(
            [torch.cat([d.flatten() for d in part]) for part in chunks(dropped, passes)]
        )
    return found


def chunks(parts: list[Tensor], count: int) -> list[list[Tensor]]:
    size = len(parts) // count
    return [parts[i * size : (i + 1) * size] for i in range(count)]


@contextmanager
def before_each_step(do: Callable[[Search, int], None]) -> Iterator[list[Metrics]]:
    """Let every search do something before a step; yields what its steps then return."""
    step, returned = Search.step, []

    def changed(task: Search, i: int) -> Metrics:
        do(task, i)
        returned.append(step(task, i))
        return returned[-1]

    Search.step = changed
    try:
        yield returned
    finally:
        Search.step = step


def watched(config: SearchConfig) -> dict[str, Tensor]:
    """What a run's steps draw first, in this process, (steps, 4), and the losses of its share, (steps,)."""
    drawn = []

    def draw(*_: object) -> None:
        with torch.random.fork_rng(devices=[]):
            drawn.append(torch.rand(4))

    with before_each_step(draw) as metrics:
        search.run(config)
    return {"drawn": torch.stack(drawn), "losses": torch.stack([m["train/loss"] for m in metrics])}


def interrupted(config: SearchConfig) -> None:
    """A run of which the last process alone is told to end, in the middle of the second epoch."""

    def cut(task: Search, i: int) -> None:
        if i == task.steps + 1 and distributed.rank() == distributed.world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with before_each_step(cut):
            search.run(config)
    except Interrupted:
        return
    raise AssertionError("the run was not interrupted")


def main(folder: Path) -> None:
    """Everything in which two processes must agree, and at last something in which they do not: one start for all."""
    for name, experiment in EXPERIMENTS.items():
        save(folder, name, experiment())
    save(folder, "unsynchronised", stepped(searching(batch_size=16, order="second", dropout=0.3), steps=3))
    save(folder, "masks", masks())
    save(folder, "watched", watched(searching(name="whole", **RUN)))
    for name in ("cut", "fewer"):
        interrupted(searching(name=name, **RUN))
    search.run(searching(name="cut", resume=True, **RUN))
    drift()


def drift() -> None:
    """A search in one of whose processes an alpha moves by a rounding error: it ends this process."""
    step = Search.step

    def drifting(task: Search, i: int) -> dict[str, Tensor]:
        metrics = step(task, i)
        if i == task.steps - 1 and distributed.rank() == 1:
            alpha = task.network.architecture_parameters()[0].data
            alpha[0, 0] = torch.nextafter(alpha[0, 0], alpha.new_tensor(1.0))
        return metrics

    Search.step = drifting
    search.run(searching(name="drift", **RUN))


def save(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, folder / f"{name}-{distributed.rank()}.pt")


if __name__ == "__main__":
    with exit_codes():
        main(Path(sys.argv[1]))
