"""Run a command in its own process without waiting for imports: a server imports them once and forks.

The process runs the command's file as `python COMMAND.py WORDS` does.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["augment", "evaluate", "export", "predict", "prepare", "search", "visualize"])


def run(
    command: str, words: list[str], cwd: Path, env: dict[str, str], timeout: float
) -> subprocess.CompletedProcess:
    """Run a command. Raises `subprocess.TimeoutExpired` if it takes longer than `timeout` seconds."""
    start_server({**env, "PYTHONPATH": str(ROOT)})
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, name) for name in ("stdout", "stderr")]
        process = SERVER.Process(target=execute, args=(command, words, cwd, env, printed))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([command, *words], timeout)
        stdout, stderr = (path.read_text() for path in printed)
        return subprocess.CompletedProcess([command, *words], process.exitcode, stdout, stderr)


def start_server(env: dict[str, str]) -> None:
    """Start the server in an environment, unless it runs: importing torch fixes the number of threads."""
    before = dict(os.environ)
    os.environ.update(env)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def execute(command: str, words: list[str], cwd: Path, env: dict[str, str], printed: list[Path]) -> None:
    """Run a command in the forked process, with its output sent to the two files `printed`."""
    for descriptor, path in enumerate(printed, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [f"{command}.py", *words]
    runpy.run_path(str(ROOT / f"{command}.py"), run_name="__main__")
