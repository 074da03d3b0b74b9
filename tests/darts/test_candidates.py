"""The candidates of a search: how many are retrained for how long, which one is chosen, and a resumed choice."""

import json
import os
import re
import signal
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import ROOT, contents, execute, succeed
from hypothesis import given
from hypothesis import strategies as st
from running import have_ended, process_of, started, wait_for

from cli import parse
from config import AugmentConfig, SearchConfig
from darts import candidate_training, candidates
from darts.candidates import FEWEST_EPOCHS, check_parallel, retraining_config, rungs
from darts.supernet import search_space
from genotypes import load_genotype
from training.experiment import start_experiment
from utils import UserError

TINY = ROOT / "configs" / "tiny.yaml"
FLAGS = ["--config", "tiny.yaml", "--strategy", "random", "--candidates", 4]


def test_rungs_by_hand():
    assert list(rungs(2, 90)) == [(2, 30)]
    assert list(rungs(5, 90)) == [(5, 30)]
    assert list(rungs(6, 90)) == [(6, 10), (2, 30)]
    assert list(rungs(27, 270)) == [(27, 10), (9, 30), (3, 90)]
    assert list(rungs(3, 10)) == [(3, FEWEST_EPOCHS)]
    assert list(rungs(3, 4)) == [(3, 4)]


@given(st.integers(2, 500), st.integers(200, 2000))
def test_rungs_take_equal_time_and_leave_one(candidates: int, epochs: int):
    found = list(rungs(candidates, epochs))
    assert found[0][0] == candidates
    assert found[-1] == (found[-1][0], epochs // 3)
    assert found[-1][0] // 3 <= 1
    for (count, each), (later_count, later_each) in pairwise(found):
        assert later_count == count // 3 >= 2
        assert later_each >= each


@pytest.fixture(scope="module")
def searched(workspace: Path) -> tuple[Path, str]:
    """The folder of a random search with four candidates, and its output."""
    output = succeed("search", *FLAGS, "--name", "four", cwd=workspace)
    return workspace / "runs" / "four", output


def test_the_candidate_of_the_lowest_loss_is_chosen(searched: tuple[Path, str]):
    folder, output = searched
    losses = {name: float(loss) for name, loss in re.findall(r"candidate (\S+)  loss (\S+)", output)}
    assert len(losses) == 4
    best = min(losses, key=losses.get)
    chosen = load_genotype(folder / "search" / "genotype.json")
    origin = json.loads((folder.parent.parent / best / "augment" / "origin.json").read_text())
    assert chosen.to_json() == origin["inputs"]["genotype"]
    others = [
        json.loads(path.read_text())["inputs"]["genotype"] for path in folder.rglob("augment/origin.json")
    ]
    assert len({str(genotype) for genotype in others}) == 4


def test_the_first_candidate_is_the_one_without_candidates(searched: tuple[Path, str], workspace: Path):
    succeed("search", *FLAGS[:4], "--name", "one", cwd=workspace)
    one = load_genotype(workspace / "runs" / "one" / "search" / "genotype.json")
    first = json.loads((searched[0] / "candidates" / "1" / "1" / "augment" / "origin.json").read_text())
    assert first["inputs"]["genotype"] == one.to_json()


def test_validation_speakers_belong_to_the_search_and_test_speakers_do_not(searched: tuple[Path, str]):
    found = json.loads((searched[0] / "search" / "genotype.json").read_text())["searched_on"]["speakers"]
    model = succeed("augment", "--config", "tiny.yaml", "--name", "four", cwd=searched[0].parent.parent)
    metrics = json.loads((searched[0] / "augment" / "metrics.json").read_text())
    assert metrics["heard_in_search"] == []
    assert not set(metrics["test_speakers"]) & set(found)
    assert "UA" in model
    alone = json.loads((searched[0].parent / "one" / "search" / "genotype.json").read_text())
    assert "searched_on" not in alone or alone["searched_on"]["speakers"] == []


def test_candidates_can_predict_together(searched: tuple[Path, str]):
    models = sorted(str(path.parent) for path in searched[0].glob("candidates/1/*/augment/model.safetensors"))
    wav = "corpora/demo/wav/F01/F01-angry-01.wav"
    assert "F01-angry-01" in succeed("predict", "--model", *models, wav, cwd=searched[0].parent.parent)


def test_a_resumed_choice_is_the_same(searched: tuple[Path, str], workspace: Path):
    folder, _ = searched
    before = (folder / "search" / "genotype.json").read_bytes()
    for path in folder.glob("candidates/1/[34]/augment/checkpoint*.pt"):  # as if it had been cut off
        path.unlink()
    (folder / "search" / "genotype.json").unlink()
    kept = contents(folder / "candidates" / "1" / "1" / "augment")
    succeed("search", *FLAGS, "--name", "four", "--resume", cwd=workspace)
    assert (folder / "search" / "genotype.json").read_bytes() == before
    after = contents(folder / "candidates" / "1" / "1" / "augment")
    changed = {Path(name).name for name in kept if kept[name] != after[name]}
    assert not changed & {"model.safetensors", "history.jsonl", "checkpoint.pt"}


def test_candidates_retrained_in_parallel_are_the_same_also_after_an_interruption(
    searched: tuple[Path, str], workspace: Path
):
    flags = [*FLAGS, "--name", "parallel", "--parallel", 3]
    first = workspace / "runs" / "parallel" / "candidates" / "1" / "1" / "augment"
    with started("search", *flags, cwd=workspace) as process:
        wait_for((first / "checkpoint.pt").exists, process)
        worker = psutil.Process(process_of(first))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert have_ended([worker]), "a retraining still runs after its search has ended"
    assert "interrupted in rung 1; --resume continues" in (workspace / "output.txt").read_text()
    output = succeed("search", *flags[:-1], 2, "--resume", cwd=workspace)
    files = ["search/genotype.json", *(f"candidates/1/{i}/augment/model.safetensors" for i in range(1, 5))]
    for name in files:
        assert (workspace / "runs" / "parallel" / name).read_bytes() == (searched[0] / name).read_bytes()
    assert scores_of(output) == scores_of(searched[1])


def scores_of(output: str) -> dict[str, str]:
    """The loss and UA of each candidate of the first rung."""
    return dict(re.findall(r"candidates/1/(\d)  (loss .*)", output))


def test_a_retraining_whose_process_dies_is_an_error(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(
        candidate_training, "train_in_a_process", lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    )
    monkeypatch.setattr(candidate_training, "RETRIES", 0)
    config = parse(SearchConfig, [*map(str, FLAGS), "--name", "dying", "--parallel", "2"])
    experiment = start_experiment(config)
    genotypes = [search_space(config).draw(i) for i in range(2)]
    with pytest.raises(UserError, match=r"process of runs/dying/candidates/1/\d died 1 times"):
        candidates.choose(genotypes, None, config, experiment)


def test_parallel_is_for_a_search_on_one_process(monkeypatch: pytest.MonkeyPatch):
    config = SearchConfig(candidates=4, parallel=2)
    check_parallel(config)
    monkeypatch.setattr(candidates.distributed, "world_size", lambda: 2)
    with pytest.raises(UserError, match="--parallel starts processes of its own"):
        check_parallel(config)
    check_parallel(SearchConfig(candidates=4))


def test_the_retraining_has_the_flags_that_augment_takes_from_the_file(tmp_path: Path):
    file = tmp_path / "own.yaml"
    file.write_text("epochs: 30\nlayers: 3\nsearch: {epochs: 8}\naugment: {layers: 5}\norder: first\n")
    config = parse(SearchConfig, ["--config", str(file), "--candidates", "2"])
    retraining = retraining_config(config)
    assert (config.epochs, config.layers, config.order) == (8, 3, "first")
    assert (retraining.epochs, retraining.layers) == (30, 5)


def test_the_settings_of_the_retraining_are_those_of_the_run_also_from_its_config_json(
    searched: tuple[Path, str], workspace: Path
):
    settings = searched[0] / "search" / "config.json"
    section = json.loads(settings.read_text())["augment"]
    assert (
        section["epochs"] == AugmentConfig.model_validate(yaml.safe_load(TINY.read_text())["augment"]).epochs
    )
    succeed("search", "--config", settings, "--resume", cwd=workspace)
    changed = workspace / "changed.yaml"
    changed.write_text(TINY.read_text().replace("augment:", "augment:\n  weight_decay: 0.01"))
    done = execute(
        "search", "--config", "changed.yaml", *FLAGS[2:], "--name", "four", "--resume", cwd=workspace
    )
    assert done.returncode == 2
    assert "--augment is " in done.stderr


@pytest.mark.parametrize("wrong", ["lr: fast", "epochs: 0"])
def test_wrong_flags_of_the_retraining_are_found_before_the_search(workspace: Path, wrong: str):
    (workspace / "wrong.yaml").write_text(TINY.read_text().replace("augment:", f"augment:\n  {wrong}"))
    done = execute("search", "--config", "wrong.yaml", *FLAGS[2:], "--name", "wrong", cwd=workspace)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (workspace / "runs" / "wrong").exists()


def test_overwrite_deletes_the_candidates(searched: tuple[Path, str], workspace: Path):
    old = searched[0] / "candidates" / "old"
    old.mkdir()
    done = execute("search", *FLAGS, "--name", "four", cwd=workspace)
    assert done.returncode == 2
    assert old.exists()
    succeed("search", *FLAGS, "--name", "four", "--overwrite", cwd=workspace)
    assert not old.exists()
