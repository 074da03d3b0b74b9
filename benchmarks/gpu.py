"""Search steps on a GPU: time, memory, kernel launches, and shares of the hardware limits.

python benchmarks/gpu.py                                  the paper's space, in every variant
python benchmarks/gpu.py --batches 16 --against PATH      also the published code (original.py)
python benchmarks/gpu.py --search 2280                    a whole search on so many utterances of noise
python benchmarks/gpu.py --config configs/tiny.yaml       any flag of search.py; runs on a CPU too

A second-order step does 13 products for every one of a forward pass: 3 each at w, at w' and for the
weights, 2 each at w+ and w-. A first-order step does 5: 2 and 3. What a pass moves in memory is
explained in floor.py. The limits are measured in the same process, those of products in the precision
of the step. Launches are the calls of the CUDA runtime that start work; on a CPU, the operations that
would launch a kernel (see launches.py).
"""

import argparse
import datetime
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
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

from config import SearchConfig
from darts.architect import Architect
from darts.planner import estimate
from darts.supernet import make_supernet
from data.batches import Features, TrainingBatches
from data.normalisation import Standardisation
from training.cuda_graphs import WARM_UP_STEPS
from training.devices import choose_device
from training.precision import PASS_DTYPES, has_tf32, set_precision
from training.predictions import compute_logits

PASSES = {"second": 5, "first": 2}
PRODUCTS = {"second": 13, "first": 5}
LAUNCH_CALLS = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
SHAPE = search_step.COEFFICIENTS, search_step.FRAMES
ORIGINAL_BATCH = 16
"""The only batch size at which the published code runs."""
COLUMNS = ("utt./s", "peak MB", "launches", "products", "bandwidth")


@dataclass(frozen=True)
class Row:
    """The measurements of one process."""

    seconds: float
    peak: float  # MB
    launches: float = float("nan")
    products: float = float("nan")  # share of the limit
    bandwidth: float = float("nan")  # share of the limit


def count_launches(work: Callable[[], object], device: torch.device) -> int:
    """The number of kernels that one call launches."""
    if device.type != "cuda":
        with Launches() as counter:
            work()
        return counter.count
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return sum(event.count for event in profiler.key_averages() if event.key.startswith(LAUNCH_CALLS))


def measure(config: SearchConfig, side: str, repeats: int) -> Row:
    """Measure our step, or that of the published code at the path `side`, in this process."""
    device = choose_device(config.gpus)
    idle = search_step.resident_peak()
    work = search_step.make_part(f"step, {config.order} order", side, config, device)
    seconds = median(search_step.time_calls(work, device, WARM_UP_STEPS + 1, repeats))
    peak = search_step.peak(device, idle) / search_step.MEGABYTE
    if side != "ours":
        return Row(seconds, peak)
    launches = count_launches(work, device)
    del work
    operations, moved = step_demand(config, device)
    products, bandwidth = floor.rates(device, PASS_DTYPES[config.precision] or torch.float32)
    return Row(seconds, peak, launches, operations / products / seconds, moved / bandwidth / seconds)


def step_demand(config: SearchConfig, device: torch.device) -> tuple[float, float]:
    """(operations in products, bytes moved) of a step."""
    operations = PRODUCTS[config.order] * config.batch_size * floor.forward_operations(config)
    stored = sum(cell.stored["none"] for cell in estimate(config, search_step.CLASSES, SHAPE, device).cells)
    return operations, 4 * PASSES[config.order] * config.batch_size * stored


def time_epochs(config: SearchConfig, rows: int, epochs: int) -> list[float]:
    """Seconds of each of the first `epochs` of a search on `rows` utterances of noise.

    An epoch is its steps and its evaluation, without drawings and files.
    """
    device = choose_device(config.gpus)
    set_precision(config.precision, device)
    noise = np.random.default_rng(0).standard_normal((rows, *SHAPE), dtype=np.float32)
    store = SimpleNamespace(features=noise, labels=np.arange(rows) % search_step.CLASSES)
    zeros, ones = np.zeros((1, SHAPE[0]), np.float32), np.ones((1, SHAPE[0]), np.float32)
    features = Features(store, Standardisation(zeros, ones, np.zeros(rows, np.int64)), device)
    halves = np.array_split(np.arange(rows), 2)
    train, val = (TrainingBatches(features, half, config.batch_size, config.seed) for half in halves)
    architect = Architect(config, make_supernet(config, search_step.CLASSES).to(device))
    step, steps = search_step.make_step(architect, device), len(train)
    times = []
    for epoch in range(epochs):
        start = perf_counter()
        architect.weight_optimizer.param_groups[0]["lr"] *= (
            0.99  # a new rate makes --cuda_graphs record again
        )
        for i in range(epoch * steps, (epoch + 1) * steps):
            step(train[i], val[i])
        # waits for the device
        compute_logits(architect.network, features.in_order(halves[1], config.batch_size))
        times.append(perf_counter() - start)
    return times


def variants(config: SearchConfig, batches: list[int]) -> Iterator[SearchConfig]:
    """Every batch size, order, precision and way to launch that this device supports."""
    device = choose_device(config.gpus)
    precisions = [precision for precision in PASS_DTYPES if precision != "tf32" or has_tf32(device)]
    graphs = (False, True) if device.type == "cuda" else (False,)
    for values in product(batches, PASSES, precisions, graphs):
        changes = zip(("batch_size", "order", "precision", "cuda_graphs"), values, strict=True)
        yield config.model_copy(update=dict(changes))


def format_line(config: SearchConfig, side: str, rows: list[Row]) -> str:
    """A line of the table: medians over the rounds."""
    way = "original" if side != "ours" else "graph" if config.cuda_graphs else "eager"
    medians = Row(*(median(getattr(row, field.name) for row in rows) for field in fields(Row)))
    return (
        f"{config.batch_size:>5} {config.order:>7} {config.precision:>9} {way:>9}{medians.seconds:11.4f}"
        f"{config.batch_size / medians.seconds:10.1f}{medians.peak:10.0f}{medians.launches:10.0f}"
        f"{medians.products:10.1%}{medians.bandwidth:10.1%}"
    )


def report_search(config: SearchConfig, rows: int, measured: int) -> None:
    """Time the first epochs of a search, and print the extrapolated time of all."""
    times = time_epochs(config, rows, min(measured, config.epochs))
    first = times[0]
    later = median(times[1:] or times)
    whole = first + later * (config.epochs - 1)
    print(
        f"{whole:.1f} s for {config.epochs} epochs of {rows} utterances; measured {len(times)}: "
        f"{first:.2f} s the first, {later:.2f} s the median of the others"
    )


def report_steps(
    config: SearchConfig, batches: list[int], against: str | None, rounds: int, repeats: int
) -> None:
    """Measure every variant in each round, in fresh processes, and print the table."""
    results = {(variant, "ours"): [] for variant in variants(config, batches)}
    if against and ORIGINAL_BATCH in batches:
        variant = config.model_copy(update={"batch_size": ORIGINAL_BATCH, "order": "second"})
        results[variant, against] = []
    context = multiprocessing.get_context("spawn")
    for _ in range(rounds):
        for (variant, side), rows in results.items():
            with ProcessPoolExecutor(1, context) as pool:  # unlike Pool, it raises if a process dies
                rows.append(pool.submit(measure, variant, side, repeats).result())
    columns = "".join(f"{name:>10}" for name in COLUMNS)
    print(f"{'batch':>5} {'order':>7} {'precision':>9} {'launched':>9}{'seconds':>11}{columns}")
    for (variant, side), rows in results.items():
        print(format_line(variant, side, rows))


def main() -> None:
    """Print the table of steps, or the time of a search."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All flags of search.py are accepted too."
    )
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[16, 64, 256], help="batch sizes (16 64 256)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds through all lines (3)")
    parser.add_argument("--repeats", type=int, default=10, help="counted steps in each measurement (10)")
    parser.add_argument(
        "--against", metavar="PATH", help=f"also measure the published code, at batch {ORIGINAL_BATCH}"
    )
    parser.add_argument(
        "--search", metavar="ROWS", type=int, help="time a search on so many utterances instead"
    )
    parser.add_argument("--measured", type=int, default=3, help="epochs of that search to measure (3)")
    options, rest = parser.parse_known_args()
    config = search_step.parse_search(rest, recompute="none")
    machine = search_step.machine(choose_device(config.gpus))
    print(f"{machine}, {datetime.date.today()}; inputs {SHAPE[0]} x {SHAPE[1]}")
    if options.search:
        report_search(config, options.search, options.measured)
    else:
        report_steps(config, options.batches, options.against, options.rounds, options.repeats)


if __name__ == "__main__":
    main()
