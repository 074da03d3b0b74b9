"""The time of a pass beside the least time that its matrix products and its memory traffic could take.

python benchmarks/floor.py --batch_size 16          any flag of search.py; OMP_NUM_THREADS sets the threads

A pass (forward and backward for all weights and alphas) needs three products for every one of its
forward part. All that backward needs is written once and read once, and so is its gradient: four times
its bytes. The rates of the device are measured in the same process.
"""

import sys
from statistics import median

import search_step
import torch

from config import SearchConfig
from darts.planner import estimate
from darts.supernet import make_supernet
from models.complexity import multiply_adds
from training.devices import choose_device

COLUMNS = ("GFLOP", "least s", "GB moved", "least s", "taken s", "ratio")


def rates(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[float, float]:
    """(operations per second in matrix products, bytes read and written per second in a copy).

    The products fill the device: 512 x 128 x 512 numbers on the CPU, 8192 in each dimension elsewhere.
    The copy is larger than any cache.
    """
    n, k, times = (512, 128, 200) if device.type == "cpu" else (8192, 8192, 20)
    a = torch.randn(n, k, device=device, dtype=dtype)
    b = torch.randn(k, n, device=device, dtype=dtype)
    source = torch.randn(2**26, device=device)
    target = torch.empty_like(source)
    product = median(search_step.time_calls(lambda: a @ b, device, 1, times))
    copy = median(search_step.time_calls(lambda: target.copy_(source), device, 1, 5))
    return 2 * n * k * n / product, 2 * source.nbytes / copy


def forward_operations(config: SearchConfig) -> float:
    """Operations in a forward pass of one utterance, two per multiply-add, counted with one module per op."""
    plain = config.model_copy(update={"fused": "off"})
    with torch.device("meta"):
        network = make_supernet(plain, search_step.CLASSES)
        return 2 * multiply_adds(network, (search_step.COEFFICIENTS, search_step.FRAMES))


def main() -> None:
    """Print the least times and the measured time of the CNN cells and of the SeqNN cells."""
    config = search_step.parse_search(sys.argv[1:], recompute="none")
    device = choose_device("none")
    n = config.batch_size
    shape = search_step.COEFFICIENTS, search_step.FRAMES
    cells = estimate(config, search_step.CLASSES, shape, device).cells
    cnn = forward_operations(config.model_copy(update={"rnn_layers": 0}))
    rnn = forward_operations(config) - cnn
    works = {
        "CNN cells": (cnn, cells[: config.layers], search_step.cnn_cells),
        "SeqNN cells": (rnn, cells[config.layers :], search_step.rnn_cells),
    }
    products, bandwidth = rates(device)
    print(search_step.machine(device))
    print(f"{products / 1e9:.0f} GFLOP/s in products, {bandwidth / 1e9:.1f} GB/s in a copy; batch {n}\n")
    print(f"{'':14}" + "".join(f"{column:>10}" for column in COLUMNS))
    for name, (operations, footprints, make) in works.items():
        flop = 3 * n * operations
        moved = 4 * n * sum(cell.stored["none"] for cell in footprints)
        least = max(flop / products, moved / bandwidth)
        taken = median(search_step.time_calls(make(config, device), device, 1, 3))
        row = flop / 1e9, flop / products, moved / 1e9, moved / bandwidth, taken, taken / least
        print(f"{name:14}" + "".join(f"{number:10.2f}" for number in row))


if __name__ == "__main__":
    main()
