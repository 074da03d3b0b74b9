"""Throughput of predictions: recordings per second, and seconds of sound per second.

python benchmarks/predict.py --model runs/demo --files 200          with the model of a run
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from search_step import machine

from training.devices import choose_device
from training.inference import load_run

RATE = 16_000
BATCH_SIZES = (1, 8, 32)


def main() -> None:
    """Predict the same recordings of 1 to 12 seconds with several batch sizes, in alternation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a run with a model")
    parser.add_argument("--files", type=int, default=200, help="recordings (200)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds through all batch sizes (3)")
    parser.add_argument("--gpus", default="auto", help="as in predict.py")
    options = parser.parse_args()
    device = choose_device(options.gpus)
    model = load_run(options.model, device=device, windows=True)
    rng = np.random.default_rng(0)
    lengths = rng.uniform(1, 12, options.files)  # seconds
    times: dict[int, list[float]] = {batch_size: [] for batch_size in BATCH_SIZES}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.wav" for number in range(options.files)]
        for file, length in zip(files, lengths, strict=True):
            soundfile.write(file, 0.1 * rng.standard_normal(int(length * RATE)), RATE)
        list(model.predict(files[:8]))  # warm-up
        for _ in range(options.rounds):
            for batch_size in BATCH_SIZES:
                start = time.perf_counter()
                list(model.predict(files, batch_size))
                times[batch_size].append(time.perf_counter() - start)
    print(f"{machine(device)}\n")
    print(f"{'batch':>6}{'recordings/s':>15}{'x real time':>13}")
    for batch_size in BATCH_SIZES:
        seconds = statistics.median(times[batch_size])
        print(f"{batch_size:6}{options.files / seconds:15.1f}{lengths.sum() / seconds:13.0f}")


if __name__ == "__main__":
    main()
