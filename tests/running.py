"""Commands that run while a test looks at them."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from conftest import environment, line


def wait_for(condition: Callable[[], Any], process: subprocess.Popen, seconds: float = 300) -> Any:
    """Call `condition` until it returns a true value; return that value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, "the command ended too early to test anything"
        assert time.monotonic() < deadline, f"nothing happened within {seconds:g} seconds"
        time.sleep(0.02)
    return found


@contextmanager
def started(command: str, *flags: object, cwd: Path) -> Iterator[subprocess.Popen]:
    """A running command with its output in output.txt; killed if it still runs at the end."""
    with (cwd / "output.txt").open("w") as output:
        process = subprocess.Popen(
            line(command, *flags), cwd=cwd, env=environment(), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def have_ended(processes: list[psutil.Process], seconds: float = 20) -> bool:
    """Whether all processes end within `seconds`. A zombie has ended."""
    _, remaining = psutil.wait_procs(processes, timeout=seconds)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in remaining)


def process_of(run: Path) -> int:
    """The process that writes a run, from the name of its newest TensorBoard file."""
    newest = max(run.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)
    return int(newest.name.split(".")[-2])
