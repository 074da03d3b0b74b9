"""The program that `test_distributed` runs in one process and in two.

torchrun --nproc_per_node 2 tests/training/ranks.py FOLDER

The working directory is the tests' workspace. Each rank writes its results to FOLDER/NAME-RANK.pt.
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
from augment import find_genotype
from cli import exit_codes, from_file
from config import AugmentConfig, RunConfig, SearchConfig
from darts.evolution import Evolution
from darts.gradient_search import GradientSearch
from training import distributed
from training.experiment import start_experiment
from training.retraining import Retraining
from training.run_folder import RunFolder
from training.steps import Metrics
from utils import Interrupted

CLASS_WEIGHTS = 0.5, 1.0, 2.0, 4.0
"""Different, so that the shares of a batch have different total weights."""
DETERMINISTIC = {"batch_size": 16, "dropout": 0.0, "sync_batchnorm": True}
RUN = {"batch_size": 72, "epochs": 2, "order": "first", "sync_batchnorm": False}


def search_config(**flags: Any) -> SearchConfig:
    return from_file(SearchConfig, Path("tiny.yaml"), **flags)


def augment_config(**flags: Any) -> AugmentConfig:
    return from_file(AugmentConfig, Path("tiny.yaml"), **{"genotype": "cnn_lstm", **flags})


def make_task(config: RunConfig) -> GradientSearch | Evolution | Retraining:
    """A search, or the training of a derived network, before its first step."""
    experiment = start_experiment(config)
    if isinstance(config, SearchConfig):
        search_class = search.STRATEGIES[config.strategy]
        return search_class(config, experiment, RunFolder("search", config, writes=False))
    return Retraining(config, experiment, find_genotype(config)[0])


def run_steps(config: RunConfig, steps: int) -> dict[str, Tensor]:
    """The state of the network after some steps in float64 with class weights, and the metrics of the last step."""
    task = make_task(config)
    task.network.double()
    task.features.resident = task.features.resident.double()
    loss = task.architect.loss if isinstance(task, GradientSearch) else task.loss
    loss.weight = torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)
    for i in range(steps):
        metrics = task.step(i)
    means = distributed.mean([value.double() for value in metrics.values()])
    return {**task.network.state_dict(), **dict(zip(metrics, means, strict=True))}


def guard_reading() -> dict[str, Tensor]:
    """What the guard of a search reads in float64."""
    task = make_task(search_config(**DETERMINISTIC))
    task.network.double()
    task.features.resident = task.features.resident.double()
    task.guard.vector = task.guard.vector.double()
    reading = task.guard.read(1, task.network.genotype())
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in reading.items()}


def evolved_losses() -> dict[str, Tensor]:
    """The shared weights of the evolution after some steps in float64, and the losses of its population."""
    config = search_config(**DETERMINISTIC, strategy="evolution", population=4, generations=2)
    task = make_task(config)
    task.network.double()
    task.features.resident = task.features.resident.double()
    for i in range(10):
        task.step(i)
    losses = torch.tensor([each.loss for each in task.evolve()], dtype=torch.float64)
    # without the running statistics, which nothing uses: the same rows on two ranks count twice in their variance
    return {**dict(task.network.named_parameters()), "losses": losses}


SAME_STEPS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "second order": lambda: run_steps(search_config(**DETERMINISTIC, order="second"), 20),
    "first order": lambda: run_steps(search_config(**DETERMINISTIC, order="first", recompute="cells"), 5),
    "augment": lambda: run_steps(augment_config(**DETERMINISTIC, cutout_length=0, drop_path_prob=0.0), 20),
    "relaxed": lambda: run_steps(search_config(**DETERMINISTIC, relaxation="dirichlet"), 5),
    "guard": guard_reading,
    "evolution": evolved_losses,
}
"""Steps that two processes must compute as one process does."""


def dropout_masks() -> dict[str, Tensor]:
    """The dropout masks of each pass of two second-order steps: {step: (passes, units)}."""
    task = make_task(search_config(batch_size=16, order="second", dropout=0.5))
    passes: list[list[Tensor]] = []
    task.network.register_forward_pre_hook(lambda *_: passes.append([]))
    task.network.dropout.register_forward_hook(lambda module, inputs, out: passes[-1].append(out == 0))
    masks = {}
    for i in range(2):
        distributed.seed_step(task.config.seed, i)
        passes.clear()
        task.step(i)
        masks[str(i)] = torch.stack([torch.cat([mask.flatten() for mask in each]) for each in passes])
    return masks


@contextmanager
def before_each_step(action: Callable[[GradientSearch, int], None]) -> Iterator[list[Metrics]]:
    """Do something before every step of a search; yield the list of the metrics that the steps return."""
    step = GradientSearch.step
    returned = []

    def step_after_action(task: GradientSearch, i: int) -> Metrics:
        action(task, i)
        returned.append(step(task, i))
        return returned[-1]

    GradientSearch.step = step_after_action
    try:
        yield returned
    finally:
        GradientSearch.step = step


def observed_run(config: SearchConfig) -> dict[str, Tensor]:
    """The first random numbers of each step of a run in this process (steps, 4), and its losses (steps,)."""
    drawn = []

    def draw(*_: object) -> None:
        with torch.random.fork_rng(devices=[]):
            drawn.append(torch.rand(4))

    with before_each_step(draw) as metrics:
        search.run(config)
    return {"drawn": torch.stack(drawn), "losses": torch.stack([m["train/loss"] for m in metrics])}


def interrupted_run(config: SearchConfig) -> None:
    """A run whose last process alone gets a signal, in the middle of the second epoch."""

    def interrupt(task: GradientSearch, i: int) -> None:
        if i == task.steps + 1 and distributed.rank() == distributed.world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with before_each_step(interrupt):
            search.run(config)
    except Interrupted:
        return
    raise AssertionError("the run was not interrupted")


def run_with_different_alphas(config: SearchConfig) -> None:
    """A search in which an alpha of rank 1 moves by a rounding error; it must end this process."""

    def change(task: GradientSearch, i: int) -> None:
        if i == task.steps - 1 and distributed.rank() == 1:
            alpha = task.network.architecture_parameters()[0].data
            alpha[0, 0] = torch.nextafter(alpha[0, 0], alpha.new_tensor(1.0))

    with before_each_step(change):
        search.run(config)


def main(folder: Path) -> None:
    """Run everything with one start of the processes; the last run ends them."""

    def save(name: str, tensors: dict[str, Tensor]) -> None:
        torch.save(tensors, folder / f"{name}-{distributed.rank()}.pt")

    for name, steps in SAME_STEPS.items():
        save(name, steps())
    save("unsynchronised", run_steps(search_config(batch_size=16, order="second", dropout=0.3), steps=3))
    save("masks", dropout_masks())
    save("observed", observed_run(search_config(name="whole", **RUN)))
    for name in ("cut", "fewer"):
        interrupted_run(search_config(name=name, **RUN))
    search.run(search_config(name="cut", resume=True, **RUN))
    run_with_different_alphas(search_config(name="different", **RUN))


if __name__ == "__main__":
    with exit_codes():
        main(Path(sys.argv[1]))
