"""What do checkpoints cost a search? Its epochs with one and without, in turn; and a save against the interval.

python benchmarks/checkpoint.py --config configs/demo.yaml --pairs 8     on the demo corpus, in a temporary folder
python benchmarks/checkpoint.py --pairs 0                                a save of the paper's supernet alone

An interval in minutes bounds the share whatever the data: a save's seconds by the interval's. One in steps does not.
The processor's seconds are told beside the clock's: other programs do not change them, but they leave out the disk.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
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
    """Seconds by the clock, and of the processor."""
    return time.perf_counter(), time.process_time()


def seconds_of_epochs(config: SearchConfig, pairs: int) -> list[tuple[float, float]]:
    """How long each epoch of a search takes, from the end of the one before; every other one begins with a save."""
    ends, due = [], Schedule.due

    def every_other(_: Schedule, epoch_ended: bool = False) -> bool:
        if epoch_ended:
            ends.append(now())
        return epoch_ended and len(ends) % 2 == 0

    Schedule.due = every_other
    try:  # the first epoch is a warm-up; after the last, none is due
        search.run(config.model_copy(update={"name": "benchmark", "epochs": 2 * pairs + 3}))
    finally:
        Schedule.due = due
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(ends[1:])]


def seconds_of_saves(config: SearchConfig, count: int) -> list[tuple[float, float]]:
    """How long each save of a supernet on the CPU takes after its first step: checked, written, and on the disk."""
    bilevel = Architect(config, make_supernet(config, CLASSES))
    for optimizer in (bilevel.weight_optimizer, bilevel.alpha_optimizer):
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            p.grad = torch.randn_like(p)
        optimizer.step()
    optimizers = {"weight_optimizer": bilevel.weight_optimizer, "alpha_optimizer": bilevel.alpha_optimizer}
    parts, checkpoints, seconds = {"network": bilevel.network, **optimizers}, Checkpoints(Path()), []
    for _ in range(count):
        start = now()
        check_finite(parts, "the benchmark")
        checkpoints.save(snapshot(parts, CPU))
        seconds.append(tuple(b - a for a, b in zip(start, now(), strict=True)))
    print(f"a checkpoint has {checkpoints.newest.stat().st_size / 1e6:,.1f} MB")
    return seconds


def tell(kind: str, saves: Sequence[float], epochs: Sequence[float], interval: float) -> None:
    """Print medians and shares by one kind of seconds."""
    save = statistics.median(saves)
    print(f"{kind}: a save {save:.3f} s", end="")
    if interval:
        print(f", {save / interval:.2%} of the interval at most", end="")
    if epochs:
        with_, without = epochs[::2], epochs[1::2]
        epoch = statistics.median(without)
        more = statistics.median(a - b for a, b in zip(with_, without, strict=True))
        print(f"; an epoch {epoch:.3f} s, and {more:+.3f} s ({more / epoch:+.2%}) with a save", end="")
    print()


def main() -> None:
    """Print medians and shares."""
    own = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All flags of search.py are taken too."
    )
    own.add_argument("--pairs", type=int, default=8, help="epochs with a checkpoint, and as many without (8)")
    own.add_argument("--saves", type=int, default=9, help="saves to time (9)")
    options, rest = own.parse_known_args()
    config = parse(SearchConfig, rest)
    if config.config:
        config = config.model_copy(update={"config": config.config.resolve()})
    schedule = Schedule(config.checkpoint_every)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        saves = seconds_of_saves(config, options.saves)
        epochs = seconds_of_epochs(config, options.pairs) if options.pairs else []
        for i, kind in enumerate(("by the clock", "of the processor")):
            by_kind = [s[i] for s in saves], [s[i] for s in epochs]
            tell(kind, *by_kind, 60 * schedule.limit if schedule.by_clock else 0)
        os.chdir("/")


if __name__ == "__main__":
    main()
