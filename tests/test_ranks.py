"""Two processes under torchrun, over gloo, against one: the same steps, one architecture, and runs that go on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import torch
from conftest import ROOT, environment
from torch import Tensor

import search
from genotypes import Genotype

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def both(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess:
    """Two processes, after all that tests/ranks.py lets them do in the workspace."""
    folder = tmp_path_factory.mktemp("ranks")
    words = [*LAUNCH, str(ROOT / "tests" / "ranks.py"), str(folder)]
    options = {"env": environment(), "capture_output": True, "text": True, "check": False, "timeout": 240}
    done = subprocess.run(words, cwd=workspace, **options)
    assert (workspace / "runs" / "drift").exists(), done.stderr  # which is the last
    return done


def found(both: subprocess.CompletedProcess, name: str) -> list[dict[str, Tensor]]:
    """What each of the two came to."""
    return [torch.load(Path(both.args[-1]) / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ranks.EXPERIMENTS)
def test_two_processes_do_the_steps_of_one(both, workspace: Path, monkeypatch, name: str):
    """Some steps in float64, classes weighted: weights, alphas, running statistics, loss and accuracy."""
    monkeypatch.chdir(workspace)
    one, two = ranks.EXPERIMENTS[name](), found(both, name)
    for state in two:
        assert state.keys() == one.keys()
        for key, value in one.items():
            torch.testing.assert_close(state[key], value, rtol=1e-6, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")


def test_without_synchronised_statistics_the_weights_and_alphas_are_the_same_to_the_bit(both):
    first, second = found(both, "unsynchronised")
    own = {key for key in first if key.endswith(("running_mean", "running_var"))}
    assert all(torch.equal(first[key], second[key]) for key in first.keys() - own)
    assert not all(torch.equal(first[key], second[key]) for key in own), "each normalises by its own share"


def test_every_process_drops_out_its_own(both):
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


def test_a_signal_to_one_process_ends_both_and_they_go_on_to_the_bit(both, workspace: Path):
    runs = workspace / "runs"
    assert json.loads((runs / "fewer/search/history.jsonl").read_text().splitlines()[-1])["epoch"] == 1
    for name in ("genotype.json", "history.jsonl"):
        assert (runs / "cut/search" / name).read_bytes() == (runs / "whole/search" / name).read_bytes()
    whole, cut = (torch.load(runs / name / "search/checkpoint.pt", weights_only=True) for name in ("whole", "cut"))
    for part in ("network", "weight_optimizer", "alpha_optimizer"):
        torch.testing.assert_close(cut[part], whole[part], rtol=0, atol=0)


def test_one_process_goes_on_with_a_run_of_two(both, workspace: Path, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    genotype = search.run(ranks.searching(name="fewer", resume=True, **ranks.RUN))
    assert "a run of 2 processes goes on in 1: not to the bit" in capsys.readouterr().out
    records = (workspace / "runs/fewer/search/history.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in records] == [1, 2]
    assert Genotype.load(workspace / "runs/fewer/search/genotype.json") == genotype


def test_processes_whose_alphas_differ_are_stopped(both):
    assert both.returncode != 0
    assert [line for line in both.stderr.splitlines() if line.startswith("error:")] == [
        "error: the alphas of the processes differ after epoch 1: give all of them the same machines and versions; "
        "--resume goes on from the last checkpoint"
    ]
    assert "exitcode  : 2" in both.stderr, "what torchrun says of the first that ended"
