"""Two processes against one: the same steps, one architecture, and runs that are interrupted and resumed."""

import json
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import ranks
import torch
from conftest import RESULTS, ROOT, environment, succeed
from torch import Tensor

import search
from genotypes import load_genotype
from training import distributed
from utils import UserError

ONE_HOST = ["--standalone", "--nproc_per_node", 2]


def start_torchrun(options: list[object], script: str, *arguments: object, cwd: Path) -> subprocess.Popen:
    """Start a script of this repository under torchrun."""
    words = [sys.executable, "-m", "torch.distributed.run", *options, ROOT / script, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, words)), cwd=cwd, env=environment(), **pipes)


# ---------------------------------------------------------------- tests/training/ranks.py in two processes


@dataclass
class TwoProcesses:
    """Two processes that have ended, and the folder of their results."""

    folder: Path
    returncode: int
    stderr: str

    def results(self, name: str) -> list[dict[str, Tensor]]:
        """The results of each rank."""
        return [torch.load(self.folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def two(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> TwoProcesses:
    folder = tmp_path_factory.mktemp("ranks")
    process = start_torchrun(ONE_HOST, "tests/training/ranks.py", folder, cwd=workspace)
    try:
        stderr = process.communicate(timeout=300)[1]
    finally:
        process.terminate()  # in case the ranks wait for each other
    assert (workspace / "runs" / "different").exists(), stderr  # the last run
    return TwoProcesses(folder, process.returncode, stderr)


@pytest.mark.parametrize("name", ranks.SAME_STEPS)
def test_two_processes_compute_the_same_steps_as_one(two, workspace, monkeypatch, name):
    """In float64, with class weights: weights, alphas, running statistics, loss and accuracy."""
    monkeypatch.chdir(workspace)
    truth = ranks.SAME_STEPS[name]()
    for state in two.results(name):
        assert state.keys() == truth.keys()
        for key, value in truth.items():
            torch.testing.assert_close(
                state[key], value, rtol=1e-6, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_without_sync_batchnorm_only_the_running_statistics_differ(two: TwoProcesses):
    first, second = two.results("unsynchronised")
    statistics = {key for key in first if key.endswith(("running_mean", "running_var"))}
    assert all(torch.equal(first[key], second[key]) for key in first.keys() - statistics)
    assert not all(torch.equal(first[key], second[key]) for key in statistics)


def test_dropout_masks_differ_between_processes_and_steps(two: TwoProcesses):
    """Within a step, the three passes of the training loss share them."""
    first, second = two.results("masks")
    for step in ("0", "1"):
        assert 0.4 < float((first[step][0] == second[step][0]).float().mean()) < 0.6
        for at_w, ahead, plus, minus, of_weight_step in (first[step], second[step]):
            assert torch.equal(at_w, plus)
            assert torch.equal(at_w, minus)
            assert not torch.equal(at_w, ahead)
            assert not torch.equal(at_w, of_weight_step)
    assert not torch.equal(first["0"], first["1"])


def test_every_step_of_every_process_draws_different_numbers(two: TwoProcesses):
    drawn = torch.cat([result["drawn"] for result in two.results("observed")])
    processes, epochs, steps = 2, 2, 3
    assert len(drawn.unique(dim=0)) == len(drawn) == processes * epochs * steps


def test_history_has_the_mean_over_the_processes(two: TwoProcesses, workspace: Path):
    first, second = (result["losses"] for result in two.results("observed"))
    assert not torch.equal(first, second)
    history = (workspace / "runs/whole/search/history.jsonl").read_text().splitlines()
    means = ((first + second) / 2).view(2, 3).mean(dim=1)
    assert [json.loads(record)["train/loss"] for record in history] == pytest.approx(means.tolist(), rel=1e-6)


def test_signal_to_one_process_interrupts_both_and_the_resumed_run_is_identical(two, workspace):
    runs = workspace / "runs"
    interrupted = (runs / "fewer/search/history.jsonl").read_text().splitlines()
    assert json.loads(interrupted[-1])["epoch"] == 1
    for name in ("genotype.json", "history.jsonl"):
        assert (runs / "cut/search" / name).read_bytes() == (runs / "whole/search" / name).read_bytes()
    whole, resumed = (
        torch.load(runs / name / "search/checkpoint.pt", weights_only=True) for name in ("whole", "cut")
    )
    for part in ("network", "weight_optimizer", "alpha_optimizer"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)


def test_one_process_resumes_a_run_of_two(two: TwoProcesses, workspace: Path, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    genotype = search.run(ranks.search_config(name="fewer", resume=True, **ranks.RUN))
    assert "from 2 processes to 1: results will differ slightly" in capsys.readouterr().out
    history = (workspace / "runs/fewer/search/history.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in history] == [1, 2]
    assert load_genotype(workspace / "runs/fewer/search/genotype.json") == genotype


def test_run_stops_if_the_alphas_of_the_processes_differ(two: TwoProcesses):
    assert two.returncode != 0
    assert [line for line in two.stderr.splitlines() if line.startswith("error:")] == [
        "error: the alphas of the processes differ after epoch 1: run all of them on equal machines with equal "
        "versions; --resume continues from the last checkpoint"
    ]
    assert "exitcode  : 2" in two.stderr, "as torchrun reports the first process that ended"


# ---------------------------------------------------------------- one process


def test_gradient_of_an_unused_input_is_zero():
    used = torch.tensor([1.0, 2.0], requires_grad=True)
    unused = torch.ones(2, 3, requires_grad=True)
    d_used, d_unused = distributed.gradient((used**2).sum(), [used, unused])
    assert torch.equal(d_used, torch.tensor([2.0, 4.0]))
    assert torch.equal(d_unused, torch.zeros(2, 3))
    assert used.grad is None


def test_gradients_share_no_memory():
    """Autograd returns one tensor for both terms of a sum: clipped in place, it would shrink twice."""
    b, c = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    d_b, d_c = distributed.gradient(((b + c) ** 2).sum(), [b, c])
    d_b.zero_()
    assert torch.equal(d_c, torch.full((3,), 4.0))


START = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from training import distributed
distributed.choose_devices = lambda *_: [torch.device("cpu")] * 2
device = distributed.start("0,1")
line = f"{{distributed.rank()}} of {{distributed.world_size()}} on {{device}} with {{sys.argv[1:]}}\\n"
sys.stdout.write(line)  # in one piece: the processes share the pipe
distributed.barrier()
"""


def test_start_restarts_the_command_with_one_process_per_device(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(START)
    words = [sys.executable, script, "--flag", "a b"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        f"{rank} of 2 on cpu with ['--flag', 'a b']" for rank in (0, 1)
    ]


class Restarted(Exception):
    """Raised instead of replacing the process."""


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs; the list of the backends and devices that a process initialises."""
    initialised = []
    monkeypatch.setattr("training.devices.available_gpus", lambda: ("cuda", 2))
    monkeypatch.setattr("torch.cuda.set_device", initialised.append)
    monkeypatch.setattr("torch.distributed.init_process_group", initialised.append)
    monkeypatch.setattr("atexit.register", lambda function: None)
    return initialised


def test_start_restarts_the_command_for_several_gpus_only(monkeypatch, two_gpus: list):
    def execv(path: str, words: list[str]) -> None:
        raise Restarted(path, words)

    monkeypatch.setattr("os.execv", execv)
    monkeypatch.setattr("sys.argv", ["search.py", "--gpus", "all"])
    with pytest.raises(Restarted) as error:
        distributed.start("all")
    module = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert error.value.args == (sys.executable, [sys.executable, *module, "search.py", "--gpus", "all"])
    assert distributed.start("1") == torch.device("cuda:1")
    assert distributed.start("none") == torch.device("cpu")
    assert two_gpus == [torch.device("cuda:1")], "one process must not connect to others"


def test_start_under_torchrun_connects_and_takes_the_device_of_the_local_rank(monkeypatch, two_gpus: list):
    for name, value in {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert distributed.start("auto") == torch.device("cuda:1")
    assert two_gpus == ["cpu:gloo,cuda:nccl", torch.device("cuda:1")]
    assert distributed.start("none") == torch.device("cpu")
    assert two_gpus[2:] == ["gloo"]
    with pytest.raises(UserError, match="--gpus 0: 2 processes need as many GPUs, and this gives 1"):
        distributed.start("0")


def test_start_under_torchrun_of_one_process_does_not_connect(monkeypatch, two_gpus: list):
    for name, value in {"LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert distributed.start("none") == torch.device("cpu")
    assert two_gpus == []


# ---------------------------------------------------------------- the commands under torchrun

FLAGS = ["--config", "tiny.yaml", "--epochs", 7, "--batch_size", 36]


def read_results(workspace: Path, name: str) -> list[bytes]:
    return [(workspace / "runs" / name / "search" / file).read_bytes() for file in RESULTS["search"]]


@pytest.fixture(scope="module")
def uninterrupted(workspace: Path) -> list[bytes]:
    """The results of a search in two processes."""
    process = start_torchrun(ONE_HOST, "search.py", *FLAGS, "--name", "torchrun", cwd=workspace)
    assert process.wait() == 0, process.stderr.read()
    return read_results(workspace, "torchrun")


@pytest.mark.slow
def test_torchrun_can_be_interrupted_and_resumed(workspace: Path, uninterrupted: list[bytes]):
    command = [ONE_HOST, "search.py", *FLAGS, "--name", "torchrun-cut"]
    process = start_torchrun(*command, cwd=workspace)
    for line in process.stdout:
        if line.startswith("epoch   2"):
            process.send_signal(signal.SIGTERM)
            break
    assert "--resume continues from here" in process.communicate()[0]
    assert process.returncode != 0

    refused = start_torchrun(*command, cwd=workspace).communicate()[1]
    assert refused.count("error: ") == 1
    assert "runs/torchrun-cut/search holds a run: --resume " in refused

    assert start_torchrun(*command, "--resume", cwd=workspace).wait() == 0
    assert read_results(workspace, "torchrun-cut") == uninterrupted


@pytest.mark.slow
def test_two_hosts_give_the_results_of_two_processes_on_one_host(workspace: Path, uninterrupted: list[bytes]):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ["--nnodes", 2, "--nproc_per_node", 1, "--master_addr", "localhost", "--master_port", port]
    command = ["search.py", *FLAGS, "--name", "hosts"]
    hosts = [start_torchrun([*options, "--node_rank", i], *command, cwd=workspace) for i in (0, 1)]
    printed = [host.communicate() for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], printed
    assert read_results(workspace, "hosts") == uninterrupted


@pytest.mark.slow
def test_evaluation_of_a_network_trained_by_two_processes_repeats_its_test(workspace: Path):
    flags = ["--config", "tiny.yaml", "--genotype", "cnn_lstm", "--name", "torchrun", "--sync_batchnorm"]
    process = start_torchrun(ONE_HOST, "augment.py", *flags, cwd=workspace)
    assert process.wait() == 0, process.stderr.read()
    succeed("evaluate", "--model", "runs/torchrun", "--out", "results/torchrun", cwd=workspace)
    files = ("runs/torchrun/augment/metrics.json", "results/torchrun/metrics.json")
    own, repeated = (json.loads((workspace / file).read_text()) for file in files)
    assert own["recall"] == repeated["recall"]
