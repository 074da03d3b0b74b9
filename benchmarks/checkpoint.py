"""What do checkpoints cost a search? The same search with them and without, in turn; and a save against the interval.

python benchmarks/checkpoint.py --config configs/demo.yaml --rounds 5     on the demo corpus, in a temporary folder
python benchmarks/checkpoint.py --rounds 0                                a save of the paper's supernet alone

An interval in minutes bounds the share whatever the data: a save's seconds by the interval's. One in steps does not.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import search
from bilevel import Bilevel, make_supernet
from config import SearchConfig
from engine.checkpoints import Checkpoints, Schedule
from engine.runs import RunFolder
from engine.training import check_finite, snapshot
from flags import parse

CPU = torch.device("cpu")
CLASSES = 4


def seconds_of_search(config: SearchConfig, saving: bool) -> tuple[float, int]:
    """How long a whole search takes, with its checkpoints or without, and how many it has written."""
    saves, save = [], RunFolder.save_checkpoint
    RunFolder.save_checkpoint = lambda *args: saves.append(saving) or (save(*args) if saving else None)
    start = time.perf_counter()
    try:
        search.run(config.model_copy(update={"name": "benchmark", "overwrite": True}))
    finally:
        RunFolder.save_checkpoint = save
    return time.perf_counter() - start, sum(saves)


def seconds_of_saves(config: SearchConfig, count: int) -> list[float]:
    """How long each save of a supernet on the CPU takes after its first step: checked, written, and on the disk."""
    bilevel = Bilevel(config, make_supernet(config, CLASSES))
    for optimizer in (bilevel.weight_optimizer, bilevel.alpha_optimizer):
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            p.grad = torch.randn_like(p)
        optimizer.step()
    optimizers = {"weight_optimizer": bilevel.weight_optimizer, "alpha_optimizer": bilevel.alpha_optimizer}
    parts, checkpoints, seconds = {"network": bilevel.network, **optimizers}, Checkpoints(Path()), []
    for _ in range(count):
        start = time.perf_counter()
        check_finite(parts, "the benchmark")
        checkpoints.save(snapshot(parts, CPU))
        seconds.append(time.perf_counter() - start)
    print(f"a checkpoint has {checkpoints.newest.stat().st_size / 1e6:,.1f} MB")
    return seconds


def main() -> None:
    """Print medians and shares."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="All flags of search.py are taken too.")
    own.add_argument("--rounds", type=int, default=5, help="searches with checkpoints, and as many without (5)")
    own.add_argument("--saves", type=int, default=9, help="saves to time (9)")
    options, rest = own.parse_known_args()
    config = parse(SearchConfig, "search", rest)
    if config.config:
        config = config.model_copy(update={"config": config.config.resolve()})
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        save = statistics.median(seconds_of_saves(config, options.saves))
        print(f"a save takes {save:.3f} s (median of {options.saves})")
        schedule = Schedule(config.checkpoint_every)
        if schedule.by_clock:
            print(f"one every {config.checkpoint_every}: {save / (60 * schedule.limit):.2%} of the time at most")
        found = [[seconds_of_search(config, saving) for saving in (True, False)] for _ in range(options.rounds)]
        if found:
            (with_, counts), (without, _) = (zip(*side, strict=True) for side in zip(*found, strict=True))
            a, b, count = *map(statistics.median, (with_, without)), counts[0]
            print(f"a search with {count} checkpoints {a:.2f} s, without {b:.2f} s: {a / b - 1:+.2%} of the time")
            print(f"of that the saves alone: {count * save / b:.2%}")
        os.chdir("/")


if __name__ == "__main__":
    main()
