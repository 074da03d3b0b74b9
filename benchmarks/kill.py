"""Kill runs at random moments, resume them, and count how many give the identical result.

python benchmarks/kill.py --runs 50     50 kills (SIGKILL) each, in a temporary folder

The runs are a second-order search of configs/tiny.yaml, and the training and test of its network.
Every run is a process of its own, forked after all imports: the moment of the kill, drawn uniformly
from the time of an undisturbed run, falls into its work and not into the start of Python. Moments are
in CPU seconds, which do not depend on other programs.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import chdir
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import augment
import prepare
import search
from cli import exit_codes, parse
from config import AugmentConfig, PrepareConfig, SearchConfig

TINY = Path(__file__).resolve().parent.parent / "configs" / "tiny.yaml"
COMMANDS = {
    "prepare": (prepare, PrepareConfig),
    "search": (search, SearchConfig),
    "augment": (augment, AugmentConfig),
}
FLAGS = {"search": (), "augment": ("--genotype", "runs/whole/search/genotype.json")}
RESULTS = {
    "search": ("genotype.json", "history.jsonl"),
    "augment": ("metrics.json", "predictions.csv", "history.jsonl", "model.safetensors"),
}


def execute(command: str, words: list[str]) -> None:
    """Run a command in this process; its output goes into output.txt."""
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    module, config = COMMANDS[command]
    with exit_codes():
        module.run(parse(config, words))


def start(command: str, *flags: object) -> BaseProcess:
    """Start a command in the current folder."""
    words = ["--config", str(TINY), *FLAGS.get(command, ()), *map(str, flags)]
    process = multiprocessing.get_context("fork").Process(target=execute, args=(command, words))
    process.start()
    return process


def finish(process: BaseProcess) -> None:
    """Wait for a command that must succeed."""
    process.join()
    if process.exitcode:
        raise RuntimeError(f"exit code {process.exitcode}: {Path('output.txt').read_text().strip()[-300:]}")


def result(name: str, command: str) -> list[bytes]:
    """The contents of the files by which runs are compared."""
    return [Path("runs", name, command, file).read_bytes() for file in RESULTS[command]]


def wait_for_work(process: BaseProcess, seconds: float) -> None:
    """Wait until a process has used so many CPU seconds, or has ended."""
    work = psutil.Process(process.pid)
    while process.is_alive() and sum(work.cpu_times()[:2]) < seconds:
        time.sleep(0.005)


def saved_state(folder: Path) -> str:
    """What a killed run resumes from, in words."""
    if not (folder / "checkpoint.pt").exists():
        return "no checkpoint"
    progress = torch.load(folder / "checkpoint.pt", weights_only=True)["progress"]
    return "saved within an epoch" if progress["step"] else "saved at the end of an epoch"


def kill_and_resume(command: str, name: str, moment: float, every: int) -> tuple[bool, str]:
    """(whether the resumed run equals the undisturbed one, what it resumed from)."""
    flags = "--name", name, "--checkpoint_every", every
    process = start(command, *flags)
    wait_for_work(process, moment)
    process.kill()
    process.join()
    state = saved_state(Path("runs", name, command)) if process.exitcode < 0 else "had already ended"
    try:
        finish(start(command, *flags, "--resume"))
    except RuntimeError as error:
        print(f"{command} killed after {moment:.2f} s could not be resumed: {error}")
        return False, state
    return result(name, command) == result("whole", command), state


def kill_repeatedly(command: str, runs: int, every: int, rng: random.Random) -> int:
    """Kill a command `runs` times; return how many results differed."""
    before = sum(os.times()[2:4])  # CPU seconds of the child processes that have ended
    finish(start(command, "--name", "whole", "--checkpoint_every", every))
    seconds = sum(os.times()[2:4]) - before
    identical = 0
    states = Counter()
    for i in range(1, runs + 1):
        equal, state = kill_and_resume(command, f"cut{i}", rng.uniform(0, seconds), every)
        identical += equal
        states[state] += 1
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        print(
            f"{command}: {identical} of {i} identical (killed within {seconds:.1f} s: {counts})", flush=True
        )
    return runs - identical


def main() -> None:
    """Test both commands; exit with 1 if any result differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50, help="how often each command is killed (50)")
    parser.add_argument("--every", type=int, default=2, help="steps between two checkpoints (2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (0)")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        finish(start("prepare", "--corpus", "demo"))
        different = sum(kill_repeatedly(command, options.runs, options.every, rng) for command in RESULTS)
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
