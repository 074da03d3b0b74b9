"""How far is a pass from what the machine could do at best, by the work alone and by the memory that moves?

python benchmarks/floor.py --batch_size 16          any flag of search.py; OMP_NUM_THREADS sets the threads

A pass, forward and backward for all weights and alphas, needs three products for every one of forward. And whatever
backward needs is written and read once, and so is its gradient: four times its bytes. Rates are measured in
the same run, of a product of 512 x 128 x 512 numbers and of a copy that no cache holds.
"""

import sys
from statistics import median

import search_step
import torch

from cli import parse
from config import SearchConfig
from models.complexity import multiply_adds
from training.devices import choose_device


def rates(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[float, float]:
    """(operations a second in matrix products, bytes a second in a copy, read and written).

    The products are such as fill the device: 512 x 128 x 512 numbers on the CPU, 8192 each way elsewhere.
    """
    n, k, times = (512, 128, 200) if device.type == "cpu" else (8192, 8192, 20)
    a, b = torch.randn(n, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
    source = torch.randn(2**26, device=device)
    target = torch.empty_like(source)
    product = median(search_step.seconds(lambda: a @ b, device, 1, times))
    copy = median(search_step.seconds(lambda: target.copy_(source), device, 1, 5))
    return 2 * n * k * n / product, 2 * source.nbytes / copy


def forward_operations(config: SearchConfig) -> float:
    """Of one forward pass of one utterance, two a multiply-add; counted with one module an op."""
    with search_step.plainly(), torch.device("meta"):
        network = search_step.make_supernet(config, search_step.CLASSES)
        return 2 * multiply_adds(network, (search_step.COEFFICIENTS, search_step.FRAMES))


def main() -> None:
    """Print, for the CNN and the SeqNN, the two floors and the time taken."""
    config = parse(SearchConfig, ["--recompute", "none", *sys.argv[1:]])
    device, n = choose_device("none"), config.batch_size
    shape = search_step.COEFFICIENTS, search_step.FRAMES
    cells = estimate(config, search_step.CLASSES, shape, device).cells
    alone = forward_operations(config.model_copy(update={"rnn_layers": 0}))
    works = {
        "CNN cells": (alone, cells[: config.layers], search_step.cnn_cells),
        "SeqNN cells": (forward_operations(config) - alone, cells[config.layers :], search_step.rnn_cells),
    }
    products, bandwidth = rates(device)
    print(search_step.machine(config))
    print(f"{products / 1e9:.0f} GFLOP/s in products, {bandwidth / 1e9:.1f} GB/s in a copy; batch {n}\n")
    print(f"{'':14}{'GFLOP':>9}{'floor s':>9}{'GB moved':>10}{'floor s':>9}{'taken s':>9}{'x floor':>9}")
    for name, (operations, footprints, make) in works.items():
        flop, moved = 3 * n * operations, 4 * n * sum(cell.stored["none"] for cell in footprints)
        floor = max(flop / products, moved / bandwidth)
        taken = median(search_step.seconds(make(config, device), device, 1, 3))
        row = flop / 1e9, flop / products, moved / 1e9, moved / bandwidth, taken, taken / floor
        print(
            f"{name:14}"
            + "".join(f"{number:{width}.2f}" for number, width in zip(row, (9, 9, 10, 9, 9, 9), strict=True))
        )


if __name__ == "__main__":
    main()
