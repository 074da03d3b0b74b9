"""Two processes under torchrun, over gloo, against one: the same steps, one architecture, and runs that go on."""

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
from genotypes import Genotype

ONE_HOST = ["--standalone", "--nproc_per_node", 2]


def torchrun(launch: list[object], script: str, *arguments: object, cwd: Path) -> subprocess.Popen:
    """Start a script of this repository under torchrun."""
    words = [sys.executable, "-m", "torch.distributed.run", *launch, ROOT / script, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, words)), cwd=cwd, env=environment(), **pipes)


@dataclass
class Pair:
    """Two processes that have ended, and the folder they wrote to."""

    folder: Path
    returncode: int
    stderr: str


@pytest.fixture(scope="module")
def both(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two processes, after all that tests/training/ranks.py lets them do in the workspace."""
    folder = tmp_path_factory.mktemp("ranks")
    process = torchrun(ONE_HOST, "tests/training/ranks.py", folder, cwd=workspace)
    try:
        stderr = process.communicate(timeout=300)[1]
    finally:
        process.terminate()  # two that wait for each other
    assert (workspace / "runs" / "drift").exists(), stderr  # which is the last
    return Pair(folder, process.returncode, stderr)


def found(both: Pair, name: str) -> list[dict[str, Tensor]]:
    """What each of the two came to."""
    return [torch.load(both.folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ranks.EXPERIMENTS)
def test_two_processes_do_the_steps_of_one(both: Pair, workspace: Path, monkeypatch, name: str):
    """Some steps in float64, classes weighted: weights, alphas, running statistics, loss and accuracy."""
    monkeypatch.chdir(workspace)
    one, two = ranks.EXPERIMENTS[name](), found(both, name)
    for state in two:
        assert state.keys() == one.keys()
        for key, value in one.items():
            torch.testing.assert_close(
                state[key], value, rtol=1e-6, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_without_synchronised_statistics_the_weights_and_alphas_are_the_same_to_the_bit(both: Pair):
    first, second = found(both, "unsynchronised")
    own = {key for key in first if key.endswith(("running_mean", "running_var"))}
    assert all(torch.equal(first[key], second[key]) for key in first.keys() - own)
    assert not all(torch.equal(first[key], second[key]) for key in own), "each normalises by its own share"


def test_every_process_drops_out_its_own(both: Pair):
    """Masks differ between processes and between steps; the three passes of L_train in a step share them."""
    first, second = found(both, "masks")
    for step in ("0", "1"):
        assert 0.4 < float((first[step][0] == second[step][0]).float().mean()) < 0.6
        for at_w, ahead, plus, minus, of_weights in (first[step], second[step]):
            assert torch.equal(at_w, plus)
            assert torch.equal(at_w, minus)
            assert not torch.equal(at_w, ahead)
            assert not torch.equal(at_w, of_weights)
    assert not torch.equal(first["0"], first["1"])


def test_every_step_of_a_run_draws_numbers_of_its_own(both: Pair):
    drawn = torch.cat([state["drawn"] for state in found(both, "watched")])
    assert len(drawn.unique(dim=0)) == len(drawn) == 2 * 2 * 3, "by process, epoch and step"


def test_the_history_has_the_mean_of_the_processes(both: Pair, workspace: Path):
    first, second = (state["losses"] for state in found(both, "watched"))
    assert not torch.equal(first, second)
    records = (workspace / "runs/whole/search/history.jsonl").read_text().splitlines()
    means = ((first + second) / 2).view(2, 3).mean(dim=1)
    assert [json.loads(record)["train/loss"] for record in records] == pytest.approx(means.tolist(), rel=1e-6)


def test_a_signal_to_one_process_ends_both_and_they_go_on_to_the_bit(both: Pair, workspace: Path):
    runs = workspace / "runs"
    assert json.loads((runs / "fewer/search/history.jsonl").read_text().splitlines()[-1])["epoch"] == 1
    for name in ("genotype.json", "history.jsonl"):
        assert (runs / "cut/search" / name).read_bytes() == (runs / "whole/search" / name).read_bytes()
    whole, cut = (
        torch.load(runs / name / "search/checkpoint.pt", weights_only=True) for name in ("whole", "cut")
    )
    for part in ("network", "weight_optimizer", "alpha_optimizer"):
        torch.testing.assert_close(cut[part], whole[part], rtol=0, atol=0)


def test_one_process_goes_on_with_a_run_of_two(both: Pair, workspace: Path, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    genotype = search.run(ranks.searching(name="fewer", resume=True, **ranks.RUN))
    assert "a run of 2 processes goes on in 1: not to the bit" in capsys.readouterr().out
    records = (workspace / "runs/fewer/search/history.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in records] == [1, 2]
    assert Genotype.load(workspace / "runs/fewer/search/genotype.json") == genotype


def test_processes_whose_alphas_differ_are_stopped(both: Pair):
    assert both.returncode != 0
    assert [line for line in both.stderr.splitlines() if line.startswith("error:")] == [
        "error: the alphas of the processes differ after epoch 1: give all of them the same machines and versions; "
        "--resume goes on from the last checkpoint"
    ]
    assert "exitcode  : 2" in both.stderr, "what torchrun says of the first that ended"


# The commands as a user starts them


OPTIONS = ["--config", "tiny.yaml", "--epochs", 7, "--batch_size", 36]


@pytest.fixture(scope="module")
def whole(workspace: Path) -> list[bytes]:
    """What a search by two processes leaves."""
    process = torchrun(ONE_HOST, "search.py", *OPTIONS, "--name", "torchrun", cwd=workspace)
    assert process.wait() == 0, process.stderr.read()
    return results(workspace, "torchrun")


def results(workspace: Path, name: str) -> list[bytes]:
    return [(workspace / "runs" / name / "search" / file).read_bytes() for file in RESULTS["search"]]


@pytest.mark.slow
def test_torchrun_is_interrupted_and_goes_on_to_the_bit(workspace: Path, whole: list[bytes]):
    search_cut = [ONE_HOST, "search.py", *OPTIONS, "--name", "torchrun-cut"]
    process = torchrun(*search_cut, cwd=workspace)
    for printed in process.stdout:
        if printed.startswith("epoch   2"):
            process.send_signal(signal.SIGTERM)
            break
    assert "--resume goes on from here" in process.communicate()[0]
    assert process.returncode != 0

    refused = torchrun(*search_cut, cwd=workspace).communicate()[1]
    assert refused.count("error: ") == 1
    assert "runs/torchrun-cut/search holds a run: --resume continues it" in refused

    assert torchrun(*search_cut, "--resume", cwd=workspace).wait() == 0
    assert results(workspace, "torchrun-cut") == whole


@pytest.mark.slow
def test_two_hosts_do_what_two_processes_of_one_do(workspace: Path, whole: list[bytes]):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launch = [
        "--nnodes",
        2,
        "--nproc_per_node",
        1,
        "--master_addr",
        "localhost",
        "--master_port",
        port,
        "--node_rank",
    ]
    hosts = [torchrun([*launch, i], "search.py", *OPTIONS, "--name", "hosts", cwd=workspace) for i in (0, 1)]
    said = [host.communicate() for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    assert results(workspace, "hosts") == whole


@pytest.mark.slow
def test_two_processes_retrain_and_test_a_network(workspace: Path):
    """All of augment's randomness at its defaults; the result is tested again by one process."""
    options = ["--config", "tiny.yaml", "--genotype", "cnn_lstm", "--name", "torchrun", "--sync_batchnorm"]
    process = torchrun(ONE_HOST, "augment.py", *options, cwd=workspace)
    assert process.wait() == 0, process.stderr.read()
    succeed("evaluate", "--model", "runs/torchrun", "--out", "results/torchrun", cwd=workspace)
    tests = [
        json.loads((workspace / path).read_text())
        for path in ("runs/torchrun/augment/metrics.json", "results/torchrun/metrics.json")
    ]
    assert tests[0]["recall"] == tests[1]["recall"]
