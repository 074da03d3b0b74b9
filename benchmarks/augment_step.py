"""Seconds of a step of augment.py: with the compiled units (--fused auto) and with the plain modules (--fused off).

python benchmarks/augment_step.py --config configs/demo.yaml                 any flag of augment.py
OMP_NUM_THREADS=1 python benchmarks/augment_step.py --config configs/demo.yaml --rounds 20

Both train the networks of the same genotypes, drawn at random, on the same random features, in alternation: every round
does one step of each network. The medians over the rounds are printed, in seconds on the clock and of the processor.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.optim import SGD

sys.path.insert(0, str(Path(__file__).parent.parent))

from search_step import machine

from cli import parse
from config import AugmentConfig
from genotypes import Genotype
from models.augment_network import set_drop_path
from models.search_space import SearchSpace
from training.devices import CPU, freed_memory_kept
from training.losses import ClassificationLoss
from training.retraining import choose_architecture
from training.steps import Metrics, weight_step

CLASSES = 4
SPACE = SearchSpace(
    cnn_nodes=2,
    rnn_nodes=2,
    cnn_ops=("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3", "none"),
    rnn_ops=("lstm_1", "rnn_1", "lstm_att_1", "rnn_att_1", "skip_connect", "none"),
)
"""That of configs/demo.yaml."""

Step = Callable[[], Metrics]


def make_step(config: AugmentConfig, genotype: Genotype, shape: tuple[int, int]) -> Step:
    """One step of the weights of a genotype's network, as in `Retraining.step`, on a batch of random features."""
    torch.manual_seed(config.seed)
    network = choose_architecture(config, genotype, shape).build(CLASSES)
    set_drop_path(network, config.drop_path_prob / 2)  # the mean over the epochs
    optimizer = SGD(network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay)
    loss = ClassificationLoss(None, config.aux_weight)
    batch = torch.randn(config.batch_size, 1, *shape), torch.randint(CLASSES, (config.batch_size,))
    return lambda: weight_step(network, optimizer, batch, loss, config.grad_clip)


def seconds_of(step: Step) -> tuple[float, float]:
    """The seconds of a step: on the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    """Print a line for each genotype and the median of the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All flags of augment.py are accepted too."
    )
    parser.add_argument("--rounds", type=int, default=20, help="steps of each network (20)")
    parser.add_argument("--genotypes", type=int, default=5, help="how many genotypes are drawn (5)")
    parser.add_argument(
        "--shape", type=int, nargs=2, default=(40, 64), help="coefficients and frames (40 64)"
    )
    options, rest = parser.parse_known_args()
    config = parse(AugmentConfig, rest)
    print(f"{machine(CPU)}, batch {config.batch_size}, {options.rounds} rounds\n")
    print(f"{'seconds':12}{'auto':>8}{'off':>8}{'ratio':>7}{'processor: auto':>18}{'off':>8}{'ratio':>7}")
    ratios = []
    for seed in range(1, options.genotypes + 1):
        genotype = SPACE.draw(seed)
        steps = [
            make_step(config.model_copy(update={"fused": fused}), genotype, options.shape)
            for fused in ("auto", "off")
        ]
        with freed_memory_kept():
            for step in steps:
                step()  # the first step allocates memory
            rounds = [[seconds_of(step) for step in steps] for _ in range(options.rounds)]
        fused, plain = (
            [statistics.median(kind) for kind in zip(*side, strict=True)]
            for side in zip(*rounds, strict=True)
        )
        ratios.append([b / a for a, b in zip(fused, plain, strict=True)])
        clock, processor = ratios[-1]
        print(
            f"genotype {seed:<3}{fused[0]:8.3f}{plain[0]:8.3f}{clock:7.2f}"
            f"{fused[1]:18.3f}{plain[1]:8.3f}{processor:7.2f}"
        )
    clock, processor = (statistics.median(kind) for kind in zip(*ratios, strict=True))
    print(f"{'median':28}{clock:7.2f}{processor:33.2f}")


if __name__ == "__main__":
    main()
