"""How many runs that are killed at a random moment come to the identical result once they are gone on with?

python benchmarks/kill.py --runs 50     kills a search and an augment 50 times each (SIGKILL), in a temporary folder

A search of second order, and the training and test of the network that it finds, as configs/tiny.yaml has them. The
moment is drawn evenly from the time that an undisturbed run takes, from the start of the process to its end.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TINY = ROOT / "configs" / "tiny.yaml"
FLAGS = {"search": (), "augment": ("--genotype", "runs/whole/search/genotype.json")}
RESULTS = {
    "search": ("genotype.json", "history.jsonl"),
    "augment": ("metrics.json", "predictions.csv", "history.jsonl", "model.safetensors"),
}


def begin(place: Path, command: str, *flags: object) -> subprocess.Popen:
    """Start a command in a folder."""
    words = [sys.executable, ROOT / f"{command}.py", "--config", TINY, *FLAGS.get(command, ()), *map(str, flags)]
    return subprocess.Popen(words, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    """Wait for a command that must succeed."""
    errors = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(errors)


def result(place: Path, command: str, name: str) -> list[bytes]:
    """What a run is compared by."""
    return [(place / "runs" / name / command / file).read_bytes() for file in RESULTS[command]]


def survives(place: Path, command: str, name: str, moment: float, every: int) -> tuple[bool, bool]:
    """Kill a run at a moment, go on with it: whether it equals the undisturbed one, and whether it had a checkpoint."""
    flags = "--name", name, "--checkpoint_every", every
    process = begin(place, command, *flags)
    time.sleep(moment)
    process.kill()
    process.communicate()
    saved = (place / "runs" / name / command / "checkpoint.pt").exists()
    try:
        finish(begin(place, command, *flags, "--resume"))
    except RuntimeError as error:
        print(f"{command} killed after {moment:.2f} s did not go on: {str(error).strip()[-300:]}")
        return False, saved
    return result(place, command, name) == result(place, command, "whole"), saved


def main() -> None:
    """Exit with 1 where a run did not survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="how often each command is killed")
    parser.add_argument("--every", type=int, default=2, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    options, lost = parser.parse_args(), 0
    with tempfile.TemporaryDirectory() as folder:
        place, chance = Path(folder), random.Random(options.seed)
        finish(begin(place, "prepare", "--corpus", "demo"))
        for command in RESULTS:
            start = time.perf_counter()
            finish(begin(place, command, "--name", "whole"))
            seconds = time.perf_counter() - start
            moments = [chance.uniform(0, seconds) for _ in range(options.runs)]
            found = [survives(place, command, f"cut{i}", moment, options.every) for i, moment in enumerate(moments)]
            same, saved = map(sum, zip(*found, strict=True))
            print(f"{command}: {same} of {options.runs} came to the identical result, killed within {seconds:.1f} s, ")
            print(f"    {saved} of them with a checkpoint to go on from", flush=True)
            lost += options.runs - same
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
