"""How many runs that are killed at a random moment come to the identical result once they are gone on with?

python benchmarks/kill.py --runs 50     kills a search and an augment 50 times each (SIGKILL), in a temporary folder

A search of second order, and the training and test of the network that it finds, as configs/tiny.yaml has them. Every
run is a process of its own, forked once all is imported: so the moment, which is drawn evenly from the time that an
undisturbed run takes, falls into its work and not into the start of Python. It is counted in seconds of the processor,
which mean the same on a busy machine.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
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
    """What the process of a run does: its command, whose output goes into output.txt."""
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    module, config = COMMANDS[command]
    with exit_codes():
        module.run(parse(config, words))


def begin(command: str, *flags: object) -> BaseProcess:
    """Start a command in the present folder."""
    words = ["--config", str(TINY), *FLAGS.get(command, ()), *map(str, flags)]
    process = multiprocessing.get_context("fork").Process(target=execute, args=(command, words))
    process.start()
    return process


def finish(process: BaseProcess) -> None:
    """Wait for a command that must succeed."""
    process.join()
    if process.exitcode:
        raise RuntimeError(f"exit code {process.exitcode}: {Path('output.txt').read_text().strip()[-300:]}")


def result(folder: Path, command: str) -> list[bytes]:
    """What a run is compared by."""
    return [(folder / file).read_bytes() for file in RESULTS[command]]


def work_until(process: BaseProcess, seconds: float) -> None:
    """Wait until a process has worked so long, or has ended."""
    work = psutil.Process(process.pid)
    while process.is_alive() and sum(work.cpu_times()[:2]) < seconds:
        time.sleep(0.005)


def state_of(folder: Path) -> str:
    """What a killed run has to go on from."""
    if not (folder / "checkpoint.pt").exists():
        return "nothing saved"
    position = torch.load(folder / "checkpoint.pt", weights_only=True)["position"]
    return "saved within an epoch" if position["step"] else "saved at the end of an epoch"


def survives(command: str, name: str, moment: float, every: int) -> tuple[bool, str]:
    """Kill a run at a moment, go on with it: whether it equals the undisturbed one, and what it went on from."""
    folder, flags = Path("runs", name, command), ("--name", name, "--checkpoint_every", every)
    process = begin(command, *flags)
    work_until(process, moment)
    process.kill()
    process.join()
    state = state_of(folder) if process.exitcode < 0 else "had already ended"
    try:
        finish(begin(command, *flags, "--resume"))
    except RuntimeError as error:
        print(f"{command} killed after {moment:.2f} s did not go on: {error}")
        return False, state
    return result(folder, command) == result(Path("runs", "whole", command), command), state


def kill(command: str, runs: int, every: int, chance: random.Random) -> int:
    """Kill a command so often; how many did not survive."""
    start = sum(os.times()[2:4])  # of the children that have ended
    finish(begin(command, "--name", "whole", "--checkpoint_every", every))
    seconds, same, states = sum(os.times()[2:4]) - start, 0, {}
    for i in range(1, runs + 1):
        survived, state = survives(command, f"cut{i}", chance.uniform(0, seconds), every)
        same, states[state] = same + survived, states.get(state, 0) + 1
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        print(
            f"{command}: {same} of {i} came to the identical result (killed within {seconds:.1f} s: {counts})"
        )
        sys.stdout.flush()
    return runs - same


def main() -> None:
    """Exit with 1 where a run did not survive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50, help="how often each command is killed")
    parser.add_argument("--every", type=int, default=2, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        chance = random.Random(options.seed)
        finish(begin("prepare", "--corpus", "demo"))
        lost = sum(kill(command, options.runs, options.every, chance) for command in RESULTS)
        os.chdir("/")
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
