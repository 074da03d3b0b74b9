"""Seconds and peak memory of one search step, by part: CNN cells, SeqNN cells, optimisers, first and second order.

python benchmarks/search_step.py --batch_size 16 --rounds 3          the paper's space; any search flag changes it
python benchmarks/search_step.py --batch_size 8 --plain              also one library call an op, one op at a time
python benchmarks/search_step.py --batch_size 16 --against PATH      also the publication's code (see original.py)

Every measurement runs in a process of its own, so that its peak is its own; rounds go through all parts in turn, and
medians are printed. On the CPU the peak is the resident set above the idle process's, on CUDA what torch allocated.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

import original

from cli import parse
from config import SearchConfig
from darts.architect import Architect
from darts.supernet import make_supernet
from models import ops
from models.cells import Cell
from models.fused.cnn.cell import FusedCnnCell, MixedMaps
from models.fused.rnn.stacked_cell import StackedRnnCell
from models.joint_network import to_sequence
from models.mixed_ops import MixedNode
from models.search_network import SearchNetwork
from training.devices import choose_device
from training.distributed import gradient as local_gradient
from training.precision import set_precision

MEGABYTE = 2**20
CLASSES, COEFFICIENTS, FRAMES = 4, 128, 128


def cnn_cells(config: SearchConfig, device: torch.device, only_alphas: bool = False) -> Callable[[], None]:
    """Stem, CNN cells and head: forward and backward for all weights and alphas."""
    network = make_supernet(config.model_copy(update={"rnn_layers": 0}), CLASSES).to(device)
    freeze(network, only_alphas)
    x, y = batch(config, device)
    inputs = [p for p in network.parameters() if p.requires_grad]
    return lambda: local_gradient(F.cross_entropy(network(x), y), inputs)


def freeze(network: SearchNetwork, only_alphas: bool) -> None:
    """Let the weights ask for no gradient, as in the passes at w+ and w-."""
    for w in network.weights().values():
        w.requires_grad_(not only_alphas)


def rnn_cells(config: SearchConfig, device: torch.device, only_alphas: bool = False) -> Callable[[], None]:
    """The SeqNN cells alone, on what the CNN gives them: forward and backward for all their weights and alphas."""
    network = make_supernet(config, CLASSES).to(device)
    freeze(network, only_alphas)
    joint, weights = network.network, network.softmaxed
    with torch.no_grad():
        s0 = s1 = joint.stem(batch(config, device)[0])
        for kind, cell in zip(joint.kinds, joint.cnn_cells, strict=True):
            s0, s1 = s1, cell(s0, s1, weights()[kind])
    first, second = (to_sequence(s).requires_grad_() for s in (s0, s1))  # for what the CNN's alphas ask
    inputs = [
        first,
        second,
        *(p for p in (*joint.rnn_cells.parameters(), *network.alphas["rnn"]) if p.requires_grad),
    ]

    def work() -> None:
        s0, s1 = first, second
        for cell in joint.rnn_cells:
            s0, s1 = s1, cell(s0, s1, weights()["rnn"])
        local_gradient(s1.square().mean(), inputs)

    return work


def optimisers(config: SearchConfig, device: torch.device) -> Callable[[], None]:
    """Clipping and SGD for the weights, Adam for the alphas; the gradients are given."""
    bilevel = Architect(config, make_supernet(config, CLASSES).to(device))
    weights = list(bilevel.network.weights().values())
    for p in bilevel.network.parameters():
        p.grad = torch.full_like(p, 1e-3)

    def work() -> None:
        torch.nn.utils.clip_grad_norm_(weights, config.w_grad_clip)
        bilevel.weight_optimizer.step()
        bilevel.alpha_optimizer.step()

    return work


def search_step(config: SearchConfig, device: torch.device) -> Callable[[], None]:
    """A whole step as `search.py` does it: alphas by `config.order`, then weights."""
    bilevel = Architect(config, make_supernet(config, CLASSES).to(device))
    step, train, val = bilevel.step_on(device), batch(config, device), batch(config, device)
    return lambda: step(train, val)


PARTS = {
    "CNN cells, forward + backward": (cnn_cells, {}),
    "CNN cells, for the alphas alone": (partial(cnn_cells, only_alphas=True), {}),
    "SeqNN cells, forward + backward": (rnn_cells, {}),
    "SeqNN cells, for the alphas alone": (partial(rnn_cells, only_alphas=True), {}),
    "optimisers": (optimisers, {}),
    "step, first order": (search_step, {"order": "first"}),
    "step, second order": (search_step, {"order": "second"}),
}


def batch(config: SearchConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features and labels of the reference's size."""
    x = torch.randn(config.batch_size, 1, COEFFICIENTS, FRAMES, device=device)
    return x, torch.randint(CLASSES, (config.batch_size,), device=device)


def measure(part: str, side: str, config: SearchConfig, warmup: int, repeats: int) -> tuple[float, float]:
    """(median seconds, peak MB) of one part, in this process, after `warmup` runs; `side`: ours, plain, or a path."""
    device, idle = choose_device(config.gpus), resident()
    with plainly() if side == "plain" else nullcontext():
        found = seconds(prepared(part, side, config, device), device, warmup, repeats)
    return statistics.median(found), peak(device, idle) / MEGABYTE


@contextmanager
def plainly() -> Iterator[None]:
    """While active, relaxed cells call one module an op, and recurrent ops the library's RNN."""
    with ExitStack() as stack:
        for kind, forward in (
            (FusedCnnCell, Cell.forward),
            (StackedRnnCell, Cell.forward),
            (MixedMaps, MixedNode.forward),
        ):
            stack.enter_context(patch.object(kind, "forward", forward))
        stack.enter_context(patch.object(ops, "recur", lambda rnn, x: rnn(x)[0]))
        yield


def prepared(part: str, side: str, config: SearchConfig, device: torch.device) -> Callable[[], None]:
    """One part, ready to run."""
    make, changes = PARTS[part]
    torch.manual_seed(config.seed)
    if side in ("ours", "plain"):
        set_precision(config.precision, device)
        return make(config.model_copy(update=changes), device)
    return original.PARTS[part](Path(side).resolve(), config, batch(config, device), batch(config, device))


def seconds(work: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> list[float]:
    """Of each call but the first `warmup`; the device has done all of it."""
    found = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return found[warmup:]


def peak(device: torch.device, idle: int) -> int:
    """The most bytes so far: on CUDA of tensors, on the CPU of this process, above `idle`."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else resident() - idle


def resident() -> int:
    """Peak resident set of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(config: SearchConfig) -> str:
    """What the figures hold for."""
    device = choose_device(config.gpus)
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability()
    )
    name += f" on {platform.machine()}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def main() -> None:
    """Measure every part in turn, some rounds, and print the medians."""
    own = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All flags of search.py are taken too."
    )
    own.add_argument("--rounds", type=int, default=3, help="rounds through all parts (3)")
    own.add_argument("--warmup", type=int, default=1, help="runs not counted before each measurement (1)")
    own.add_argument("--repeats", type=int, default=1, help="runs counted in each measurement (1)")
    own.add_argument(
        "--plain", action="store_true", help="measure the cells that run one op at a time as well"
    )
    own.add_argument(
        "--against", metavar="PATH", help="measure the publication's code as well (see original.py)"
    )
    own.add_argument("--parts", default="", help="measure only the parts whose name holds this")
    options, rest = own.parse_known_args()
    config = parse(SearchConfig, rest)
    sides = ["ours", *(["plain"] if options.plain else []), *([options.against] if options.against else [])]
    turns = [
        (part, side) for part in PARTS if options.parts in part for side in sides if measures(side, part)
    ]
    results: dict[tuple[str, str], list[tuple[float, float]]] = {turn: [] for turn in turns}
    context = multiprocessing.get_context("spawn")
    for _ in range(options.rounds):
        for turn, found in results.items():
            with context.Pool(1) as pool:
                found.append(pool.apply(measure, (*turn, config, options.warmup, options.repeats)))
    print(machine(config))
    print(f"batch {config.batch_size}, {COEFFICIENTS} x {FRAMES} inputs, {options.rounds} rounds\n")
    print(f"{'part':44}{'seconds':>10}{'min':>9}{'max':>9}{'peak MB':>10}")
    for (part, side), found in results.items():
        times, peaks = zip(*found, strict=True)
        name = part if side == "ours" else f"{part}, {'plain' if side == 'plain' else 'original'}"
        print(
            f"{name:44}{statistics.median(times):10.3f}{min(times):9.3f}{max(times):9.3f}{statistics.median(peaks):10.0f}"
        )


def measures(side: str, part: str) -> bool:
    """Whether a side has such a part."""
    return side in ("ours", "plain") or part in original.PARTS


if __name__ == "__main__":
    main()
