"""Seconds and peak memory of a search step and its parts: CNN cells, SeqNN cells, optimisers.

python benchmarks/search_step.py --batch_size 16 --rounds 3        any flag of search.py
python benchmarks/search_step.py --batch_size 8 --plain            also the plain cells, op by op
python benchmarks/search_step.py --batch_size 16 --against PATH    also the published code (original.py)

Every measurement runs in a fresh process, so that the peaks are separate. Each round measures all
parts in turn, and medians over the rounds are printed. On a CPU the peak is the resident set above
that of the idle process, on CUDA the memory that torch allocated.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

import original

from cli import parse
from config import SearchConfig
from darts.architect import Architect
from darts.supernet import make_supernet
from models.joint_network import to_sequence
from models.search_network import SearchNetwork
from training.cuda_graphs import RecordedStep, keep_weights_in_place, make_recorder
from training.devices import choose_device
from training.distributed import gradient
from training.precision import set_precision
from training.steps import Batch, Metrics

MEGABYTE = 2**20
CLASSES, COEFFICIENTS, FRAMES = 4, 128, 128


def cnn_cells(config: SearchConfig, device: torch.device, only_alphas: bool = False) -> Callable[[], None]:
    """Forward and backward of stem, CNN cells and head, for all weights and alphas."""
    network = make_supernet(config.model_copy(update={"rnn_layers": 0}), CLASSES).to(device)
    freeze(network, only_alphas)
    x, y = batch(config, device)
    inputs = [p for p in network.parameters() if p.requires_grad]
    return lambda: gradient(F.cross_entropy(network(x), y), inputs)


def freeze(network: SearchNetwork, only_alphas: bool) -> None:
    """With `only_alphas`, compute no gradient of a weight, as in the passes at w+ and w-."""
    for w in network.weights().values():
        w.requires_grad_(not only_alphas)


def rnn_cells(config: SearchConfig, device: torch.device, only_alphas: bool = False) -> Callable[[], None]:
    """Forward and backward of the SeqNN cells, on the CNN's outputs, for all their weights and alphas."""
    network = make_supernet(config, CLASSES).to(device)
    freeze(network, only_alphas)
    joint = network.network
    weights = network.op_weights
    with torch.no_grad():
        s0 = s1 = joint.stem(batch(config, device)[0])
        for kind, cell in zip(joint.kinds, joint.cnn_cells, strict=True):
            s0, s1 = s1, cell(s0, s1, weights()[kind])
    # the CNN's alphas need these gradients
    first, second = (to_sequence(s).requires_grad_() for s in (s0, s1))
    parameters = [*joint.rnn_cells.parameters(), *network.alphas["rnn"]]
    inputs = [first, second, *(p for p in parameters if p.requires_grad)]

    def work() -> None:
        s0, s1 = first, second
        for cell in joint.rnn_cells:
            s0, s1 = s1, cell(s0, s1, weights()["rnn"])
        gradient(s1.square().mean(), inputs)

    return work


def optimisers(config: SearchConfig, device: torch.device) -> Callable[[], None]:
    """Clip the gradients, SGD for the weights, Adam for the alphas. The gradients are constants."""
    architect = Architect(config, make_supernet(config, CLASSES).to(device))
    weights = list(architect.network.weights().values())
    for p in architect.network.parameters():
        p.grad = torch.full_like(p, 1e-3)

    def work() -> None:
        torch.nn.utils.clip_grad_norm_(weights, config.w_grad_clip)
        architect.weight_optimizer.step()
        architect.alpha_optimizer.step()

    return work


def search_step(config: SearchConfig, device: torch.device) -> Callable[[], None]:
    """A whole step of `search.py`: the alphas by `config.order`, then the weights."""
    step = make_step(Architect(config, make_supernet(config, CLASSES).to(device)), device)
    train, val = batch(config, device), batch(config, device)
    return lambda: step(train, val)


def make_step(architect: Architect, device: torch.device) -> Callable[[Batch, Batch], Metrics]:
    """The step of an architect; with --cuda_graphs, recorded and replayed."""
    if not architect.config.cuda_graphs:
        return architect.step
    keep_weights_in_place(architect.network)
    recorded = RecordedStep(architect.step, make_recorder(device))
    group = architect.weight_optimizer.param_groups[0]
    return lambda train, val: recorded(train, val, constants=group["lr"])


PARTS = {
    "CNN cells, forward + backward": (cnn_cells, {}),
    "CNN cells, for the alphas only": (partial(cnn_cells, only_alphas=True), {}),
    "SeqNN cells, forward + backward": (rnn_cells, {}),
    "SeqNN cells, for the alphas only": (partial(rnn_cells, only_alphas=True), {}),
    "optimisers": (optimisers, {}),
    "step, first order": (search_step, {"order": "first"}),
    "step, second order": (search_step, {"order": "second"}),
}


def batch(config: SearchConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features of the paper's shape, and random labels."""
    x = torch.randn(config.batch_size, 1, COEFFICIENTS, FRAMES, device=device)
    return x, torch.randint(CLASSES, (config.batch_size,), device=device)


def measure(part: str, side: str, config: SearchConfig, warmup: int, repeats: int) -> tuple[float, float]:
    """(median seconds, peak MB) of one part in this process.

    `side`: ours, plain, or the path of the published code.
    """
    device = choose_device(config.gpus)
    idle = resident_peak()
    times = time_calls(make_part(part, side, config, device), device, warmup, repeats)
    return statistics.median(times), peak(device, idle) / MEGABYTE


def make_part(part: str, side: str, config: SearchConfig, device: torch.device) -> Callable[[], None]:
    """Build one part; the function returned runs it once."""
    make, changes = PARTS[part]
    torch.manual_seed(config.seed)
    if side in ("ours", "plain"):
        set_precision(config.precision, device)
        fused = "auto" if side == "ours" else "off"
        return make(config.model_copy(update={**changes, "fused": fused}), device)
    return original.PARTS[part](Path(side).resolve(), config, batch(config, device), batch(config, device))


def time_calls(work: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls after `warmup` others, until the device has finished."""
    times = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times[warmup:]


def peak(device: torch.device, idle: int) -> int:
    """Peak memory so far, in bytes: of tensors on CUDA, otherwise of this process above `idle`."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else resident_peak() - idle


def resident_peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> str:
    """The device and the versions, for the heading of a table."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{name} on {platform.machine()}, {torch.get_num_threads()} threads, {versions}"


def has_part(side: str, part: str) -> bool:
    """Whether a side can measure a part: the published code has two of them."""
    return side in ("ours", "plain") or part in original.PARTS


def parse_search(words: list[str], **defaults: object) -> SearchConfig:
    """The flags of a search; `defaults` replace those of search.py where `words` does not give the flag."""
    config = parse(SearchConfig, words)
    unset = defaults.keys() - config.model_fields_set
    return config.model_copy(update={name: defaults[name] for name in unset})


def main() -> None:
    """Measure every part in each round, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All flags of search.py are accepted too."
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds through all parts (3)")
    parser.add_argument("--warmup", type=int, default=1, help="uncounted runs before each measurement (1)")
    parser.add_argument("--repeats", type=int, default=1, help="counted runs in each measurement (1)")
    parser.add_argument("--plain", action="store_true", help="also measure the plain cells, one op at a time")
    parser.add_argument("--against", metavar="PATH", help="also measure the published code (see original.py)")
    parser.add_argument("--parts", default="", help="measure only the parts whose name contains this")
    options, rest = parser.parse_known_args()
    config = parse(SearchConfig, rest)
    sides = {"ours": ""}  # by side, what the table adds to the name of a part
    if options.plain:
        sides["plain"] = ", plain"
    if options.against:
        sides[options.against] = ", original"
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for part in PARTS:
        if options.parts in part:
            results |= {(part, side): [] for side in sides if has_part(side, part)}
    context = multiprocessing.get_context("spawn")
    for _ in range(options.rounds):
        for (part, side), measured in results.items():
            with context.Pool(1) as pool:
                arguments = part, side, config, options.warmup, options.repeats
                measured.append(pool.apply(measure, arguments))
    print(machine(choose_device(config.gpus)))
    print(f"batch {config.batch_size}, {COEFFICIENTS} x {FRAMES} inputs, {options.rounds} rounds\n")
    print(f"{'part':44}{'seconds':>10}{'min':>9}{'max':>9}{'peak MB':>10}")
    for (part, side), measured in results.items():
        times, peaks = zip(*measured, strict=True)
        numbers = f"{statistics.median(times):10.3f}{min(times):9.3f}{max(times):9.3f}"
        print(f"{part + sides[side]:44}{numbers}{statistics.median(peaks):10.0f}")


if __name__ == "__main__":
    main()
