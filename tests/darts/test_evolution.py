"""The evolution through the command line: its files, what it has seen, a resumed run; and its scores by hand."""

import json
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import contents, environment, execute, line, succeed
from sklearn.metrics import log_loss, recall_score

from cli import parse
from config import SearchConfig
from darts.evolution import EVOLVING, Evolution
from darts.supernet import search_space
from genotypes import load_genotype
from models.search_space import canonical
from training.experiment import start_experiment

FLAGS = ["--config", "tiny.yaml", "--strategy", "evolution", "--epochs", "3", "--population", "6"]
FLAGS += ["--generations", "3"]


@pytest.fixture(scope="module")
def evolved(workspace: Path) -> tuple[Path, str]:
    """The folder of an evolution of two objectives, and its output."""
    words = [*FLAGS, "--name", "evolved", "--objectives", "loss", "weights"]
    return workspace / "runs" / "evolved" / "search", succeed("search", *words, cwd=workspace)


def front_of(output: str) -> list[tuple[float, int]]:
    """The losses and weights of the front in the log."""
    lines = output.partition("front ")[2].splitlines()[1:]
    rows = [each.split() for each in lines[: next(i for i, text in enumerate(lines) if not text.strip())]]
    return [(float(row[1]), int(row[3].replace(",", ""))) for row in rows]


def test_the_front_has_no_genotype_that_another_dominates(evolved: tuple[Path, str]):
    folder, output = evolved
    front = front_of(output)
    losses, weights = zip(*front, strict=True)
    assert list(losses) == sorted(losses)
    assert list(weights) == sorted(set(weights), reverse=True)
    files = sorted(path.name for path in (folder / "front").iterdir())
    assert files == sorted(f"{number}.json" for number in range(1, len(front) + 1))
    assert (folder / "plots" / "front.png").stat().st_size > 1000


def test_the_genotype_is_that_of_the_lowest_loss_and_augment_takes_it(evolved: tuple[Path, str]):
    folder, _ = evolved
    best = load_genotype(folder / "front" / "1.json")
    assert load_genotype(folder / "genotype.json") == best
    workspace = folder.parent.parent.parent
    words = ["--config", "tiny.yaml", "--name", "from_front", "--genotype", folder / "front" / "1.json"]
    succeed("augment", *words, cwd=workspace)
    metrics = json.loads((workspace / "runs" / "from_front" / "augment" / "metrics.json").read_text())
    assert metrics["heard_in_search"] == []


def test_the_search_knows_its_validation_speakers(evolved: tuple[Path, str], workspace: Path):
    config = parse(SearchConfig, ["--config", str(workspace / "tiny.yaml")])
    fold = start_experiment_in(workspace, config).fold
    heard = set(json.loads((evolved[0] / "genotype.json").read_text())["searched_on"]["speakers"])
    speakers = start_experiment_in(workspace, config).store.speakers
    assert heard == {speakers[row] for row in (*fold.train, *fold.validation)}


def start_experiment_in(folder: Path, config: SearchConfig):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return start_experiment(config)


def test_scores_by_hand(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    """The loss and the UA of scikit-learn, of the network's outputs for the whole validation part as one batch."""
    monkeypatch.chdir(workspace)
    config = parse(SearchConfig, [*FLAGS, "--batch_size", "256"])
    experiment = start_experiment(config)
    evolution = Evolution(config, experiment, folder=None)
    assert len(evolution.scored_batches) == 1
    genotype = evolution.space.draw(3)
    loss, ua = evolution.loss_and_ua(evolution.predict(genotype))
    rows = experiment.fold.validation
    x, y = evolution.features.fetch(rows)
    network = evolution.network
    network.genotype = genotype
    network.train()
    network.network.dropout.p = 0.0
    with torch.no_grad():
        probabilities = network(x).double().softmax(dim=1).numpy()
    balance = (1 / np.bincount(y))[y]
    assert loss == pytest.approx(log_loss(y, probabilities, sample_weight=balance), rel=1e-4)
    assert ua == pytest.approx(recall_score(y, probabilities.argmax(axis=1), average="macro"))


def test_the_log_tells_the_choice_without_each_validation_speaker(evolved: tuple[Path, str], workspace: Path):
    output = evolved[1]
    lines = output.partition("without speaker ")[2].splitlines()[1:]
    rows = [each.split() for each in lines[: next(i for i, text in enumerate(lines) if not text.strip())]]
    experiment = start_experiment_in(
        workspace, parse(SearchConfig, ["--config", str(workspace / "tiny.yaml")])
    )
    assert {row[0] for row in rows} == {experiment.store.speakers[i] for i in experiment.fold.validation}
    ranks = [int(row[3]) for row in rows]
    assert ranks == sorted(ranks, reverse=True)
    scored = int(re.search(r"scored +(\d+) genotypes", output)[1])
    for _, share, _, rank in rows:
        assert 0 <= int(share) <= 100
        assert 1 <= int(rank) <= scored
        assert int(rank) > 1 or share == "100"


def test_a_step_changes_the_weights_of_its_genotype_alone(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workspace)
    config = parse(SearchConfig, FLAGS)
    evolution = Evolution(config, start_experiment(config), folder=None)
    for i in range(3):  # from the second step on, weights that were used before have momentum
        before = {name: w.detach().clone() for name, w in evolution.network.named_parameters()}
        evolution.step(i)
        used = {id(w) for w in evolution.network.weights_in_use()}
        for name, w in evolution.network.named_parameters():
            changed = not torch.equal(w, before[name])
            assert changed <= (id(w) in used), name
        assert any(not torch.equal(w, before[name]) for name, w in evolution.network.named_parameters())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_resumed_evolution_is_the_same(evolved: tuple[Path, str], workspace: Path, number: int):
    words = [*FLAGS, "--name", f"cut{number}", "--objectives", "loss", "weights", "--checkpoint_every", "2"]
    process = subprocess.Popen(
        line("search", *words), cwd=workspace, env=environment(), stdout=subprocess.PIPE, text=True
    )
    for printed in process.stdout:
        if printed.startswith("epoch   1"):
            process.send_signal(number)
            break
    process.stdout.read()
    process.wait(timeout=120)
    folder = workspace / "runs" / f"cut{number}" / "search"
    assert not (folder / "genotype.json").exists()
    succeed("search", *words, "--resume", cwd=workspace)
    whole, resumed = contents(evolved[0]), contents(folder)
    for name in ("genotype.json", "history.jsonl", "front/1.json"):
        assert whole[str(evolved[0] / name)] == resumed[str(folder / name)], name


def test_two_equal_objectives_are_refused(workspace: Path):
    done = execute("search", *FLAGS, "--objectives", "loss", "loss", cwd=workspace)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


# ---------------------------------------------------------------- genotypes to begin with

SHORT = ["--config", "tiny.yaml", "--epochs", "1", "--population", "3", "--generations", "0"]
STARTED = [*SHORT, "--strategy", "evolution"]


def found_by_darts(workspace: Path, fold: int) -> Path:
    """The genotype of a search on a fold."""
    name = f"darts{fold}"
    path = workspace / "runs" / name / "search" / "genotype.json"
    if not path.exists():
        words = ["--config", "tiny.yaml", "--name", name, "--fold", str(fold), "--epochs", "1"]
        succeed("search", *words, cwd=workspace)
    return path


def test_the_first_population_has_the_given_genotypes_and_random_ones(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(workspace)
    given = found_by_darts(workspace, 1)
    config = parse(SearchConfig, [*STARTED, "--start_genotypes", str(given)])
    evolution = Evolution(config, start_experiment(config), folder=None)
    drawn = [evolution.space.draw(config.seed, i, EVOLVING) for i in range(2)]
    expected = {canonical(each, evolution.size.stem_twice) for each in (load_genotype(given), *drawn)}
    assert {each.genotype for each in evolution.evolve()} == expected


def test_the_best_of_three_given_genotypes_is_the_result(workspace: Path):
    given = [found_by_darts(workspace, 1)]
    for number in (1, 2):
        path = workspace / f"given{number}.json"
        config = parse(SearchConfig, ["--config", str(workspace / "tiny.yaml")])
        search_space(config).draw(number).save(path)
        given.append(path)
    words = [*STARTED, "--name", "started", "--objectives", "loss", "weights"]
    succeed("search", *words, "--start_genotypes", *given, cwd=workspace)
    folder = workspace / "runs" / "started" / "search"
    found = load_genotype(folder / "genotype.json")
    assert found in {canonical(load_genotype(each), ("normal", "reduce")) for each in given} | {
        canonical(load_genotype(each)) for each in given
    }
    origin = json.loads((folder / "origin.json").read_text())
    assert len(origin["inputs"]["start_genotypes"]) == 3


def test_speakers_of_the_given_search_are_those_of_the_evolution(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(workspace)
    content = json.loads(found_by_darts(workspace, 1).read_text())
    content["searched_on"] = {"dataset": "other", "corpus": "ravdess", "speakers": ["A", "B"]}
    Path("elsewhere.json").write_text(json.dumps(content))
    config = parse(SearchConfig, [*STARTED, "--start_genotypes", "elsewhere.json"])
    evolution = Evolution(config, start_experiment(config), folder=None)
    assert evolution.searched_on.also.speakers == ("A", "B")
    del content["searched_on"]
    Path("unknown.json").write_text(json.dumps(content))
    config = parse(SearchConfig, [*STARTED, "--start_genotypes", "unknown.json"])
    experiment = start_experiment(config)
    assert Evolution(config, experiment, folder=None).searched_on.heard(experiment.test_speakers) is None
    plain = parse(SearchConfig, STARTED)
    assert Evolution(plain, start_experiment(plain), folder=None).searched_on.also is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["darts_v2"], "--start_genotypes darts_v2: not in this search space"),
        (["nothing.json"], "nothing.json"),
        (["FOLD2"], "the genotype was searched on test speakers"),
        (["FOLD1", "FOLD2"], "darts2"),
        (["FOLD1"] * 4, "--start_genotypes has 4 genotypes, more than --population 3"),
        (["FOLD1", "--strategy", "darts"], "--start_genotypes is for --strategy evolution, not for darts"),
    ],
)
def test_genotypes_that_cannot_be_the_start_are_refused(workspace: Path, words: list[str], message: str):
    files = {"FOLD1": found_by_darts(workspace, 1), "FOLD2": found_by_darts(workspace, 2)}
    given = [files.get(each, each) for each in words]
    flags = SHORT if "--strategy" in words else STARTED
    done = execute("search", *flags, "--name", "no", "--start_genotypes", *given, cwd=workspace)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (workspace / "runs" / "no").exists()
