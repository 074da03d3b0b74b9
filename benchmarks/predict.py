"""Throughput of predictions: recordings a second, and how much faster than real time.

python benchmarks/predict.py --model runs/demo --files 200          with the model of a run
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from training.devices import choose_device
from training.inference import load_run

RATE = 16_000


def main() -> None:
    """Predict the same recordings of 1 to 12 seconds with several batch sizes, in alternation."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    own.add_argument("--model", required=True, help="a run with a model")
    own.add_argument("--files", type=int, default=200, help="recordings (200)")
    own.add_argument("--rounds", type=int, default=3, help="rounds through all batch sizes (3)")
    own.add_argument("--gpus", default="auto", help="as in predict.py")
    options = own.parse_args()
    device = choose_device(options.gpus)
    model, rng = load_run(options.model, device=device, windows=True), np.random.default_rng(0)
    seconds: dict[int, list[float]] = {1: [], 8: [], 32: []}
    with tempfile.TemporaryDirectory() as folder:
        lengths = rng.uniform(1, 12, options.files)
        files = [Path(folder) / f"{number}.wav" for number in range(options.files)]
        for file, length in zip(files, lengths, strict=True):
            soundfile.write(file, 0.1 * rng.standard_normal(int(length * RATE)), RATE)
        list(model.predict(files[:8]))
        for _ in range(options.rounds):
            for batch_size, times in seconds.items():
                start = time.perf_counter()
                list(model.predict(files, batch_size))
                times.append(time.perf_counter() - start)
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability()
    )
    print(f"{name} on {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(f"{'batch':>6}{'recordings/s':>15}{'x real time':>13}")
    for batch_size, times in seconds.items():
        median = statistics.median(times)
        print(f"{batch_size:6}{options.files / median:15.1f}{lengths.sum() / median:13.0f}")


if __name__ == "__main__":
    main()
