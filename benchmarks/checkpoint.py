"""Cost of checkpoints: one save beside the interval, and epochs with and without a save.

python benchmarks/checkpoint.py --config configs/demo.yaml --pairs 8     on the demo corpus
python benchmarks/checkpoint.py --pairs 0                                saves of the paper's supernet only

If --checkpoint_every is in minutes, a save's share of the run is at most its seconds divided by the
interval. If it is in steps, there is no such bound. CPU time does not depend on other programs, but
leaves out the disk.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import chdir
from itertools import pairwise
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import search
from cli import parse
from config import SearchConfig
from darts.architect import Architect
from darts.supernet import make_supernet
from training.checkpoints import Checkpoints, Schedule
from training.loop import check_finite, snapshot

CPU = torch.device("cpu")
CLASSES = 4


def now() -> tuple[float, float]:
    """(wall-clock time, CPU time) in seconds."""
    return time.perf_counter(), time.process_time()


def elapsed(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """(wall-clock time, CPU time) between two readings of `now`."""
    return end[0] - start[0], end[1] - start[1]


def measure_epochs(config: SearchConfig, pairs: int) -> list[tuple[float, float]]:
    """The times of the epochs of a search. Every other one, from the first on, begins with a save."""
    ends = []
    due = Schedule.due

    def every_other_epoch(_: Schedule, epoch_ended: bool = False) -> bool:
        if epoch_ended:
            ends.append(now())
        return epoch_ended and len(ends) % 2 == 0

    Schedule.due = every_other_epoch
    try:  # the first epoch is a warm-up; `due` is not called after the last
        search.run(config.model_copy(update={"name": "benchmark", "epochs": 2 * pairs + 3}))
    finally:
        Schedule.due = due
    return [elapsed(start, end) for start, end in pairwise(ends[1:])]


def measure_saves(config: SearchConfig, count: int) -> list[tuple[float, float]]:
    """The times of `count` saves of a supernet after its first step, until the file is on the disk."""
    config = config.model_copy(update={"alpha_lr": 1e-3})  # also if the flags have --alpha_reach instead
    architect = Architect(config, make_supernet(config, CLASSES))
    optimizers = {
        "weight_optimizer": architect.weight_optimizer,
        "alpha_optimizer": architect.alpha_optimizer,
    }
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn_like(p)
        optimizer.step()
    parts = {"network": architect.network, **optimizers}
    checkpoints = Checkpoints(Path())
    times = []
    for _ in range(count):
        start = now()
        check_finite(parts, "the benchmark")
        checkpoints.save(snapshot(parts, CPU))
        times.append(elapsed(start, now()))
    print(f"size of a checkpoint: {checkpoints.newest.stat().st_size / 1e6:,.1f} MB")
    return times


def report(clock: str, saves: Sequence[float], epochs: Sequence[float], interval: float) -> None:
    """Print the medians by one clock. `interval`: seconds between two checkpoints, 0 if counted in steps."""
    save = statistics.median(saves)
    print(f"{clock}: one save {save:.3f} s", end="")
    if interval:
        print(f", at most {save / interval:.2%} of the interval", end="")
    if epochs:
        with_save, without = epochs[::2], epochs[1::2]
        epoch = statistics.median(without)
        more = statistics.median(a - b for a, b in zip(with_save, without, strict=True))
        print(f"; an epoch {epoch:.3f} s, with a save {more:+.3f} s ({more / epoch:+.2%})", end="")
    print()


def main() -> None:
    """Measure saves and epochs, and print both by wall-clock time and by CPU time."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All flags of search.py are accepted too."
    )
    parser.add_argument("--pairs", type=int, default=8, help="epochs with a save, and as many without (8)")
    parser.add_argument("--saves", type=int, default=9, help="saves to time (9)")
    options, rest = parser.parse_known_args()
    config = parse(SearchConfig, rest)
    if config.config:
        config = config.model_copy(update={"config": config.config.resolve()})
    schedule = Schedule(config.checkpoint_every)
    interval = 60 * schedule.limit if schedule.by_clock else 0
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        saves = measure_saves(config, options.saves)
        epochs = measure_epochs(config, options.pairs) if options.pairs else []
        for i, clock in enumerate(("wall-clock time", "CPU time")):
            report(clock, [times[i] for times in saves], [times[i] for times in epochs], interval)


if __name__ == "__main__":
    main()
