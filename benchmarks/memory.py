"""The memory that `search.py --plan` predicts, beside the memory that the search takes.

python benchmarks/memory.py                                                  the system's allocator
LD_PRELOAD=/path/to/libtcmalloc_minimal.so.4 python benchmarks/memory.py     another one

Each search runs one step in a fresh process. On a CPU its peak is the resident set above that of the
idle process, on CUDA the memory that torch allocated. An allocator that returns all freed memory (at
some cost in time) shows the peak of the tensors alone: MALLOC_MMAP_THRESHOLD_=65536 with glibc.
"""

import multiprocessing
from typing import Any

import search_step

from config import SearchConfig
from darts.planner import estimate
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


def predict(config: SearchConfig) -> float:
    """The planner's peak, in MB."""
    device = choose_device(config.gpus)
    shape = search_step.COEFFICIENTS, search_step.FRAMES
    needs = estimate(config, search_step.CLASSES, shape, device)
    return needs.peak(config.batch_size, config.order, config.recompute) / search_step.MEGABYTE


def call_in_fresh_process(function: Any, *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Print one line per search."""
    print(f"{'predicted MB':>13}{'measured MB':>12}{'error':>8}  search")
    for flags in SEARCHES:
        config = search_step.parse_search(flags.split(), recompute="none")
        step = f"step, {config.order} order"
        predicted = call_in_fresh_process(predict, config)
        _, measured = call_in_fresh_process(search_step.measure, step, "ours", config, 1, 1)
        print(f"{predicted:13,.0f}{measured:12,.0f}{predicted / measured - 1:8.1%}  {flags}", flush=True)


if __name__ == "__main__":
    main()
