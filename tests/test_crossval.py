"""The cross-validation as a user runs it: real processes, a real Ray on this machine, real signals."""

import io
import os
import re
import runpy
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import RESULTS, environment, execute, line, succeed
from rich.console import Console

from config import CrossvalConfig
from report.trials import Key
from study import cluster
from study.board import Board
from study.runner import flags_of
from utils import UserError, write_json

ROOT = Path(__file__).parent.parent


STUDY = [
    "--config",
    "tiny.yaml",
    "--dataset",
    "demo",
    "--folds",
    1,
    2,
    "--seeds",
    1,
    "--methods",
    "darts",
    "cnn",
]
DARTS = Key("darts", 1, 1)


def wait_for(what: Callable[[], Any], process: subprocess.Popen, seconds: float = 120) -> Any:
    """What `what` returns, once it returns something."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None, "the command ended too early to test anything"
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)
    return found


@contextmanager
def started(*flags: object, cwd: Path, command: str = "crossval") -> Iterator[subprocess.Popen]:
    """A command that runs; it is killed where a test ends before it does."""
    with (cwd / "output.txt").open("w") as output:
        process = subprocess.Popen(
            line(command, *flags), cwd=cwd, env=environment(), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def descendants(parent: int) -> set[tuple[int, str]]:
    """The processes that a process started, and those that these did: (pid, when it started)."""
    children: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if words := stat_of(int(folder.name)):
            children.setdefault(int(words[1]), []).append((int(folder.name), words[19]))
    found, new = set(), [parent]
    while new:
        below = children.get(new.pop(), [])
        found.update(below)
        new.extend(pid for pid, _ in below)
    return found


def stat_of(pid: int) -> list[str]:
    """/proc/PID/stat from the state on; nothing for a process that has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if words[0] == "Z" else words


def gone(processes: set[tuple[int, str]], seconds: float = 20) -> bool:
    """Whether processes have ended, within a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(stat_of(pid)[19:20] == [start] for pid, start in processes):
            return True
        time.sleep(0.1)
    return False


def process_of(run: Path) -> int:
    """The process that works at a run: the names of TensorBoard's files tell it."""
    newest = max(run.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)
    return int(newest.name.split(".")[-2])


def written(study: Path) -> dict[str, int]:
    """When each file of the finished trials was last changed."""
    trials = [path.parent.parent for path in study.glob("*/augment/metrics.json")]
    return {str(path): path.stat().st_mtime_ns for trial in trials for path in trial.rglob("*")}


@pytest.fixture(scope="module")
def study(workspace: Path) -> Path:
    """The folder of a study that has run to its end, though a process of it was killed in the middle of a search."""
    folder = workspace / "runs" / "study"
    search = folder / str(DARTS) / "search"
    with started("--name", "study", *STUDY, cwd=workspace) as process:
        wait_for((search / "checkpoint.pt").exists, process)
        os.kill(process_of(search), signal.SIGKILL)
        assert not (search / "genotype.json").exists(), "the signal came too late to test anything"
        assert process.wait(240) == 0, (workspace / "output.txt").read_text()
    return folder


def test_a_study_leaves_the_metrics_of_every_trial_and_a_report(study: Path):
    assert len(list(study.glob("*-fold*-seed1/augment/metrics.json"))) == 4
    for name in ("results.json", "results.md", "report.html"):
        assert (study / name).stat().st_size > 1000, name
    assert "4/4" in (study.parent.parent / "output.txt").read_text()


def test_a_trial_whose_process_was_killed_equals_the_undisturbed_commands_to_the_byte(
    study: Path, workspace: Path
):
    for command in ("search", "augment"):
        succeed(command, "--config", "tiny.yaml", "--name", "alone", "--seed", 1, cwd=workspace)
    trial, alone = study / str(DARTS), workspace / "runs" / "alone"
    for name in (f"{command}/{file}" for command, files in RESULTS.items() for file in files):
        assert (trial / name).read_bytes() == (alone / name).read_bytes(), name


def test_a_trial_whose_process_was_killed_goes_on_from_its_checkpoint(study: Path):
    log = (study / str(DARTS) / "search" / "search.log").read_text()
    assert log.count("supernet") == 2, "it was begun twice"
    assert log.count("epoch   1 ") == 1
    assert not (study / str(DARTS) / "seconds.json").exists(), "the time that was lost is not known"
    assert (study / "cnn-fold1-seed1" / "seconds.json").exists()


def test_what_fails_is_named_and_the_rest_goes_on(study: Path, workspace: Path):
    shutil.copytree(study, workspace / "runs" / "broken")
    for fold in (1, 2):
        (workspace / f"runs/broken/cnn-fold{fold}-seed1/augment/metrics.json").unlink()
    for checkpoint in (workspace / "runs/broken/cnn-fold1-seed1/augment").glob("checkpoint*.pt"):
        checkpoint.write_bytes(b"no checkpoint")
    done = execute("crossval", "--name", "broken", *STUDY, "--resume", cwd=workspace)
    assert done.returncode == 1, done.stderr
    assert (workspace / "runs/broken/cnn-fold2-seed1/augment/metrics.json").exists()
    for told in (done.stdout, (workspace / "runs/broken/results.md").read_text()):
        assert "damaged, or no checkpoint of this program" in told


def interrupt(number: int, cwd: Path) -> int:
    """Start or resume the study `cut`, send a signal once a trial has finished, and return the exit code."""
    with started("--name", "cut", *STUDY[:-2], "cnn", "darts", "--resume", cwd=cwd) as process:
        wait_for(lambda: "UA" in (cwd / "output.txt").read_text(), process)
        children = descendants(process.pid)
        process.send_signal(number)
        code = process.wait(60)
    assert children
    assert gone(children), "processes of Ray are left behind"
    return code


@pytest.mark.slow
def test_an_interrupted_study_resumes_with_what_is_missing_and_takes_a_seed_more(workspace: Path):
    folder = workspace / "runs" / "cut"
    assert interrupt(signal.SIGTERM, workspace) == 143
    before = written(folder)
    more = [*STUDY[:4], "--folds", 1, 2, "--seeds", 1, 2, "--methods", "cnn", "--resume"]
    told = succeed("crossval", "--name", "cut", *more, cwd=workspace)
    assert before
    assert before.items() <= written(folder).items(), "a finished trial was touched"
    done = sum("cnn" in path for path in before if path.endswith("metrics.json"))
    assert told.startswith(f"4 trials, {done} of them done already")
    assert len(list(folder.glob("cnn-fold*/augment/metrics.json"))) == 4
    assert "seeds 1, 2" in (folder / "results.md").read_text()


@pytest.mark.slow
def test_ctrl_c_ends_a_study_with_its_own_exit_code(workspace: Path):
    assert interrupt(signal.SIGINT, workspace) == 130


WRONG = {
    "--methods transformer": "--methods transformer",
    "--methods": "expected at least one argument",
    "--folds 9": "fold 9",
    "--folds 0": "--folds",
    "--folds all 1": "each once",
    "--seeds 1 1": "each once",
    "--config typo.yaml": "did you mean --epochs?",
    "--config strange.yaml": "--batch_size 1",
    "--cpus_per_trial 0": "--cpus_per_trial 0",
    "--dataset none": "features/none",
    "--name study": "--resume runs what is missing, --overwrite starts anew",
    "--name study --resume --overwrite": "choose one",
    "--name study --resume --config other.yaml": "was started with",
    "--name other": "something other than a cross-validation",
    "--name file": "something other than a cross-validation",
}


def files(folder: Path) -> dict[str, int]:
    """Everything in a folder, and when it was changed."""
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def place(workspace: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace with what is wrong in it, as the working directory of this process, which may not start Ray."""
    (workspace / "typo.yaml").write_text("augment: {epoch: 3}\n")
    (workspace / "strange.yaml").write_text("search: {batch_size: 1}\n")
    (workspace / "other.yaml").write_text(
        (workspace / "tiny.yaml").read_text().replace("epochs: 4", "epochs: 5")
    )
    write_json(workspace / "runs" / "other" / "mine.json", {})
    (workspace / "runs" / "file").write_text("mine")
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(cluster.ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    return workspace


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_one_line_and_touches_nothing(
    words: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    before = files(place)
    config = [] if "--config" in words else ["--config", "tiny.yaml"]
    monkeypatch.setattr(sys, "argv", ["crossval.py", *config, *words.split()])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "crossval.py"), run_name="__main__")
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert WRONG[words] in told
    assert files(place) == before


@pytest.mark.slow
def test_a_trial_that_no_machine_could_run_is_refused_by_ray_itself(workspace: Path):
    before = files(workspace / "runs")
    done = execute(
        "crossval", "--config", "tiny.yaml", "--name", "vast", "--cpus_per_trial", 1000, cwd=workspace
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: --cpus_per_trial 1000 --gpus_per_trial 0: no machine has so many (Ray found"
    )
    assert done.stderr.count("\n") == 1
    assert files(workspace / "runs") == before


def test_two_small_machines_are_no_large_one(monkeypatch: pytest.MonkeyPatch):
    machines = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
    ]
    dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [*machines, dead])
    for fits in ({"cpus_per_trial": 4}, {"cpus_per_trial": 2, "gpus_per_trial": 0.25}):
        cluster.check_room(CrossvalConfig(**fits))
    for too_large in ({"cpus_per_trial": 5}, {"cpus_per_trial": 4, "gpus_per_trial": 0.25}):
        with pytest.raises(UserError, match="no machine has so many"):
            cluster.check_room(CrossvalConfig(**too_large))


@pytest.mark.parametrize("listens", [False, True])
def test_an_address_where_no_cluster_answers_is_refused_soon(listens: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    monkeypatch.setattr(cluster.ray, "init", lambda *_, **__: pytest.fail("Ray was asked, and asks for long"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        if not listens:
            other.close()
        with pytest.raises(UserError, match=f"--ray_address {address}: no Ray cluster answers"):
            cluster.start(CrossvalConfig(ray_address=address))


def test_a_searched_trial_takes_neither_model_nor_genotype_from_the_file(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("augment: {genotype: other.json}\n")
    searching, retraining = flags_of(DARTS, CrossvalConfig(config=tmp_path / "own.yaml"))
    assert (searching.strategy, retraining.model, retraining.genotype) == ("darts", "searched", None)
    (tmp_path / "own.yaml").write_text("augment: {model: lstm}\n")
    assert flags_of(DARTS, CrossvalConfig(config=tmp_path / "own.yaml"))[1].model == "searched"


def shown(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a board prints of a trial under way, one that waits, one that is done and one that failed."""
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "runs/crossval/darts-fold1-seed1/search/config.json", {"epochs": 8})
    (tmp_path / "runs/crossval/darts-fold1-seed1/search/history.jsonl").write_text("{}\n{}\n")
    keys = [Key("cnn", 2, 1), DARTS, Key("cnn", 1, 1), Key("lstm", 1, 1)]
    console = Console(force_terminal=terminal, file=io.StringIO(), width=100)
    with Board(keys, CrossvalConfig(), console) as board:
        board.end(keys[2], {"ua": 0.7345})
        board.end(keys[3], ZeroDivisionError("of [bold]all\nthings"))
        board.refresh()
    return console.file.getvalue()


def test_a_terminal_shows_a_table_of_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = [line.split() for line in shown(True, tmp_path, monkeypatch).splitlines()]
    under_way, waiting = ["darts", "1", "1", "search,", "epoch", "3", "of", "8"], ["cnn", "2", "1", "waiting"]
    assert any("2 of 4 trials done" in " ".join(line) for line in words)
    assert words.index(under_way) < words.index(waiting)


def test_without_a_terminal_every_trial_that_ends_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert shown(False, tmp_path, monkeypatch).splitlines() == [
        "  1/4  cnn           fold 1  seed 1  UA 73.5%",
        "  2/4  lstm          fold 1  seed 1  failed: ZeroDivisionError: of [bold]all things",
    ]


@contextmanager
def head(folder: Path) -> Iterator[str]:
    """A cluster of one machine with one core, started elsewhere: its address."""
    start = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--port=0",
        "--num-cpus=1",
        "--block",
    ]
    quiet = ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen([*start, *quiet], cwd="/", env=environment(), stdout=output, stderr=output)
    try:
        yield wait_for(lambda: re.search(r"--address='([\w.:]+)'", log.read_text()), process)[1]
        assert process.poll() is None, "the cluster ended with the study"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_cluster_is_joined_from_another_folder_and_left_as_it_was(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    search = workspace / "runs" / "left" / str(DARTS) / "search"
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, head(Path(folder)) as address:
        flags = ["--config", "tiny.yaml", "--folds", 1, "--seeds", 1, "--ray_address", address, "--methods"]
        succeed("crossval", "--name", "joined", *flags, "cnn", cwd=workspace)
        with started("--name", "left", *flags, "darts", cwd=workspace) as process:
            wait_for((search / "checkpoint.pt").exists, process)
            worker = process_of(search)
            running = {(worker, stat_of(worker)[19])}
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
        assert gone(running), "a trial goes on without its study"
    assert (workspace / "runs" / "joined" / "report.html").exists()
