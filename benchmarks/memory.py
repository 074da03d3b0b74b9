"""How near is the memory that `search.py --plan` foretells to what a search takes?

python benchmarks/memory.py                 on this machine's allocator
LD_PRELOAD=/path/to/libtcmalloc_minimal.so.4 python benchmarks/memory.py          on another (README tells why)

Each search runs one step in a process of its own: on the CPU its peak is the resident set above the idle process's, on
CUDA what torch allocated. Where the allocator keeps nothing of what is freed, which costs time, the peak is that of the
tensors alone: MALLOC_MMAP_THRESHOLD_=65536 with glibc.
"""

import multiprocessing
from typing import Any

import search_step

from cli import parse
from config import SearchConfig
from training.devices import choose_device

SEARCHES = [
    "--batch_size 8 --rnn_layers 0",
    "--batch_size 16 --rnn_layers 0 --recompute ops",
    "--batch_size 16 --rnn_layers 0 --recompute cells --order first",
    "--batch_size 32 --rnn_layers 0 --cnn_nodes 2 --order first",
    "--batch_size 8 --rnn_layers 0 --layers 6 --cnn_ops max_pool_3x3 skip_connect sep_conv_3x3 none",
    "--batch_size 16 --rnn_layers 2 --cnn_nodes 2 --rnn_ops lstm",
    "--batch_size 16 --rnn_layers 2 --cnn_nodes 2 --rnn_ops rnn --order first",
    "--batch_size 16 --rnn_layers 2 --cnn_nodes 2 --rnn_nodes 2 --recompute ops",
    "--batch_size 16 --rnn_layers 2 --cnn_nodes 2 --rnn_nodes 2 --recompute cells --order first",
    "--batch_size 16 --rnn_layers 2 --cnn_nodes 2 --rnn_nodes 3 --nested_depth --order first",
    "--batch_size 32 --rnn_layers 1 --cnn_nodes 2 --rnn_nodes 2 --init_channels 16 --rnn_channels 64 --order first",
    "--batch_size 4 --recompute none",
    "--batch_size 8 --recompute cells",
    "--batch_size 16 --recompute ops --order first",
]


def foretold(config: SearchConfig) -> float:
    """The planner's peak, in MB."""
    device = choose_device(config.gpus)
    shape = search_step.COEFFICIENTS, search_step.FRAMES
    needs = estimate(config, search_step.CLASSES, shape, device)
    return needs.peak(config.batch_size, config.order, config.recompute) / search_step.MEGABYTE


def apart(function: Any, *arguments: Any) -> Any:
    """Call in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Print a row a search."""
    print(f"{'foretold MB':>12}{'measured MB':>12}{'off by':>8}  search")
    for flags in SEARCHES:
        config = parse(SearchConfig, ["--recompute", "none", *flags.split()])
        told = apart(foretold, config)
        _, taken = apart(search_step.measure, f"step, {config.order} order", "ours", config, 1, 1)
        print(f"{told:12,.0f}{taken:12,.0f}{told / taken - 1:8.1%}  {flags}", flush=True)


if __name__ == "__main__":
    main()
