"""The step of a search on this device in one table: time, memory, launches, and how near it is to the ceilings.

python benchmarks/gpu.py                      the paper's space: batches, orders, precisions, with and without graphs
python benchmarks/gpu.py --batches 16 --against PATH          also the publication's step, in alternation (original.py)
python benchmarks/gpu.py --search 2280                        a whole search on so many utterances of noise
python benchmarks/gpu.py --batches 4 --config configs/tiny.yaml               any flag of search.py; runs on a CPU too

A step does 13 products for every one of a forward pass (second order: 3 each at w, w' and for the weights, 2 each at w+
and w-; first: 2 and 3), and moves what floor.py says, pass by pass. Ceilings are measured in the same process, products
in the step's own precision. Launches are the runtime's calls that start work; on a CPU, the operations
that would make some (see launches.py).
"""

import argparse
import datetime
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from statistics import median
from time import perf_counter
from types import SimpleNamespace

import floor
import numpy as np
import search_step
import torch
from launches import Launches
from torch.profiler import ProfilerActivity, profile

from cli import parse
from config import SearchConfig
from darts.architect import Architect
from darts.supernet import make_supernet
from data.batches import Features, TrainingBatches
from training.cuda_graphs import WARM_UP_STEPS
from training.devices import choose_device
from training.precision import PASS_DTYPES, has_tf32, set_precision

PASSES, PRODUCTS = {"second": 5, "first": 2}, {"second": 13, "first": 5}
STARTS = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
SHAPE = search_step.COEFFICIENTS, search_step.FRAMES
LIMIT = 16
"""The one batch size at which the publication's code runs."""


@dataclass(frozen=True)
class Row:
    """What one process measured."""

    seconds: float
    peak: float
    launches: float = float("nan")
    products: float = float("nan")  # shares of the ceilings
    bandwidth: float = float("nan")


def launches(work: Callable[[], object], device: torch.device) -> int:
    """What one call starts."""
    if device.type != "cuda":
        with Launches() as counter:
            work()
        return counter.count
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return sum(event.count for event in profiler.key_averages() if event.key.startswith(STARTS))


def measure(config: SearchConfig, side: str, repeats: int) -> Row:
    """A step of ours, or of the original at the path `side`; in this process, so that its peak is its own."""
    device, idle = choose_device(config.gpus), search_step.resident()
    work = search_step.prepared(f"step, {config.order} order", side, config, device)
    seconds = median(search_step.seconds(work, device, WARM_UP_STEPS + 1, repeats))
    peak = search_step.peak(device, idle) / search_step.MEGABYTE
    if side != "ours":
        return Row(seconds, peak)
    started = launches(work, device)
    del work
    operations, moved = demanded(config, device)
    products, bandwidth = floor.rates(device, PASS_DTYPES[config.precision] or torch.float32)
    return Row(seconds, peak, started, operations / products / seconds, moved / bandwidth / seconds)


def demanded(config: SearchConfig, device: torch.device) -> tuple[float, float]:
    """(operations in products, bytes moved) of a step."""
    operations = PRODUCTS[config.order] * config.batch_size * floor.forward_operations(config)
    stored = sum(cell.stored["none"] for cell in estimate(config, search_step.CLASSES, SHAPE, device).cells)
    return operations, 4 * PASSES[config.order] * config.batch_size * stored


def search_seconds(config: SearchConfig, rows: int, measured: int) -> list[float]:
    """Of the first so many epochs of a search on noise: its steps and its evaluation, without drawings and disk."""
    device, draw = choose_device(config.gpus), np.random.default_rng(0)
    set_precision(config.precision, device)
    noise = draw.standard_normal((rows, *SHAPE), dtype=np.float32)
    store = SimpleNamespace(features=noise, labels=np.arange(rows) % search_step.CLASSES)
    features = Features(store, np.zeros(SHAPE[0], np.float32), np.ones(SHAPE[0], np.float32), device)
    halves = np.array_split(np.arange(rows), 2)
    batches = [TrainingBatches(features, half, config.batch_size, config.seed) for half in halves]
    bilevel = Architect(config, make_supernet(config, search_step.CLASSES).to(device))
    step, steps, found = bilevel.step_on(device), len(batches[0]), []
    for epoch in range(measured):
        start = perf_counter()
        bilevel.weight_optimizer.param_groups[0]["lr"] *= 0.99  # as the schedule does: recorded anew
        for i in range(epoch * steps, (epoch + 1) * steps):
            step(batches[0][i], batches[1][i])
        compute_logits(
            bilevel.network, features.in_order(halves[1], config.batch_size)
        )  # waits for the device
        found.append(perf_counter() - start)
    return found


def variants(config: SearchConfig, batches: list[int]) -> Iterator[SearchConfig]:
    """Every batch size, order, precision and way to launch that this program and this device know."""
    device = choose_device(config.gpus)
    precisions = [precision for precision in PASS_DTYPES if precision != "tf32" or has_tf32(device)]
    graphs = (False, True) if device.type == "cuda" else (False,)
    for values in product(batches, PASSES, precisions, graphs):
        changes = zip(("batch_size", "order", "precision", "cuda_graphs"), values, strict=True)
        yield config.model_copy(update=dict(changes))


def line(config: SearchConfig, side: str, rows: list[Row]) -> str:
    """A line of the table: medians over the rounds."""
    way = "original" if side != "ours" else "graph" if config.cuda_graphs else "eager"
    row = [median(getattr(row, name) for row in rows) for name in Row.__dataclass_fields__]
    seconds, peak, started, products, bandwidth = row
    return (
        f"{config.batch_size:>5} {config.order:>7} {config.precision:>8} {way:>9}{seconds:11.4f}"
        f"{config.batch_size / seconds:10.1f}{peak:10.0f}{started:10.0f}{products:10.1%}{bandwidth:10.1%}"
    )


def main() -> None:
    """Print the table, or the time of a search."""
    own = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All flags of search.py are taken too."
    )
    own.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256], help="batch sizes (16 64 256)")
    own.add_argument("--rounds", type=int, default=3, help="rounds through all lines (3)")
    own.add_argument("--repeats", type=int, default=10, help="steps counted in each (10)")
    own.add_argument(
        "--against", metavar="PATH", help=f"measure the publication's code as well, at batch {LIMIT}"
    )
    own.add_argument("--search", metavar="ROWS", type=int, help="time a search on so many utterances instead")
    own.add_argument(
        "--measured", type=int, default=3, help="its epochs that are measured, not extrapolated (3)"
    )
    options, rest = own.parse_known_args()
    config = parse(SearchConfig, ["--recompute", "none", *rest])
    print(f"{search_step.machine(config)}, {datetime.date.today()}; inputs {SHAPE[0]} x {SHAPE[1]}")
    if options.search:
        found = search_seconds(config, options.search, min(options.measured, config.epochs))
        first, later = found[0], median(found[1:] or found)
        whole = f"{first + later * (config.epochs - 1):.1f} s for {config.epochs} epochs of {options.search} utterances"
        print(
            f"{whole}; measured {len(found)}: {first:.2f} s the first, {later:.2f} s the others in the median"
        )
        return
    results = {(variant, "ours"): [] for variant in variants(config, options.batches)}
    if options.against and LIMIT in options.batches:
        results[config.model_copy(update={"batch_size": LIMIT, "order": "second"}), options.against] = []
    context = multiprocessing.get_context("spawn")
    for _ in range(options.rounds):
        for (variant, side), found in results.items():
            with ProcessPoolExecutor(1, context) as pool:  # which tells of a process that has died
                found.append(pool.submit(measure, variant, side, options.repeats).result())
    heads = zip(
        ("seconds", "utt./s", "peak MB", "launches", "products", "bandwidth"),
        (11, 10, 10, 10, 10, 10),
        strict=True,
    )
    print(
        f"{'batch':>5} {'order':>7} {'numbers':>8} {'launched':>9}" + "".join(f"{h:>{w}}" for h, w in heads)
    )
    for (variant, side), found in results.items():
        print(line(variant, side, found))


if __name__ == "__main__":
    main()
