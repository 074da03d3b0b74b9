"""How many runs that are killed at a random moment come to the identical result once they are gone on with?

python benchmarks/kill.py --runs 50     kills a search and a retraining 50 times each (SIGKILL), in a temporary folder

The moment is drawn evenly from the time that an undisturbed run takes, from the start of the process to its end.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TINY = """
prepare: {sample_rate: 8000, n_fft: 256, hop_length: 128, n_mels: 20, n_mfcc: 16, duration: 1.5, frames: 24}
search:
  {epochs: 4, batch_size: 36, layers: 2, rnn_layers: 1, cnn_nodes: 1, rnn_nodes: 1, init_channels: 2, rnn_channels: 8,
   cnn_ops: [max_pool_3x3, skip_connect, sep_conv_3x3, none], rnn_ops: [lstm_1, rnn_att_1, none], gpus: none}
augment:
  {model: cnn_lstm, epochs: 8, batch_size: 48, cutout_length: 4, gpus: none}
"""
RESULTS = {
    "search": ("genotype.json", "history.jsonl"),
    "augment": ("metrics.json", "predictions.csv", "history.jsonl", "model.safetensors"),
}


def begin(place: Path, command: str, *flags: object) -> subprocess.Popen:
    """Start a command in a folder."""
    words = [sys.executable, str(ROOT / f"{command}.py"), "--config", "tiny.yaml", *map(str, flags)]
    return subprocess.Popen(words, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    """Wait for a command that must succeed."""
    errors = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(errors)


def result(place: Path, command: str, name: str) -> list[bytes]:
    """What a run is compared by."""
    return [(place / "runs" / name / command / file).read_bytes() for file in RESULTS[command]]


def survives(place: Path, command: str, name: str, moment: float, every: int) -> bool:
    """Kill a run at a moment, go on with it, and compare it with the undisturbed one."""
    flags = "--name", name, "--checkpoint_every", every
    process = begin(place, command, *flags)
    time.sleep(moment)
    process.kill()
    process.communicate()
    try:
        finish(begin(place, command, *flags, "--resume"))
    except RuntimeError as error:
        print(f"{command} killed after {moment:.2f} s did not go on: {str(error).strip()[-300:]}")
        return False
    return result(place, command, name) == result(place, command, "whole")


def main() -> None:
    """Exit with 1 where a run did not survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="how often each command is killed")
    parser.add_argument("--every", type=int, default=2, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    options, lost = parser.parse_args(), 0
    with tempfile.TemporaryDirectory() as folder:
        place, chance = Path(folder), random.Random(options.seed)
        (place / "tiny.yaml").write_text(TINY)
        finish(begin(place, "prepare", "--corpus", "demo"))
        for command in RESULTS:
            start = time.perf_counter()
            finish(begin(place, command, "--name", "whole"))
            seconds = time.perf_counter() - start
            moments = [chance.uniform(0, seconds) for _ in range(options.runs)]
            same = sum(survives(place, command, f"cut{i}", moment, options.every) for i, moment in enumerate(moments))
            print(f"{command}: {same} of {options.runs} came to the identical result, killed within {seconds:.1f} s")
            lost += options.runs - same
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
