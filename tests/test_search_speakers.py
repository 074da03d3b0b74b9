"""Whom a search has heard, through the commands: no test of what it found, whatever the retraining hears."""

import json
from pathlib import Path

import pytest
from conftest import execute

import augment
import evaluate
import search
from cli import parse
from config import AugmentConfig, EvaluateConfig, SearchConfig
from data.folds import make_folds
from data.store import FeatureStore
from genotypes import Genotype
from models.saved import SavedModel
from training.experiment import start_experiment
from utils import UserError

FOUND = Path("runs/h/search/genotype.json")
ELSEWHERE = (
    "--config",
    "tiny.yaml",
    "--name",
    "h/elsewhere",
    "--fold",
    "2",
    "--genotype",
    str(FOUND),
    "--epochs",
    "1",
)


@pytest.fixture(scope="module")
def searched(workspace: Path) -> Path:
    """The workspace with a search on fold 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        search.run(parse(SearchConfig, ["--config", "tiny.yaml", "--name", "h", "--epochs", "1"]))
    return workspace


@pytest.fixture
def place(searched: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(searched)
    return searched


@pytest.fixture
def told(place: Path) -> dict:
    """What the search says of whom it heard."""
    return json.loads(FOUND.read_text())["searched_on"]


def speakers(fold: int, *parts: str) -> set[str]:
    """The speakers of parts of a fold, by the manifest."""
    store = FeatureStore.open(Path("features/demo"))
    folds = make_folds(store.manifest)
    return {store.speakers[row] for part in parts for row in getattr(folds[fold - 1], part)}


def retrain(*words: str) -> dict:
    return augment.run(parse(AugmentConfig, words))


def prepared(genotype: Path) -> augment.Augment:
    """A retraining of a file's genotype on fold 2, before its first step."""
    config = parse(AugmentConfig, [*ELSEWHERE, "--genotype", str(genotype)])
    return augment.Augment(config, start_experiment(config), *augment.find_genotype(config))


def test_a_search_says_whom_it_heard_and_finds_the_same_genotype(place: Path, told: dict):
    assert list(told) == ["dataset", "corpus", "speakers"]
    assert (told["dataset"], told["corpus"]) == ("demo", "demo")
    assert len(told["speakers"]) == len(set(told["speakers"]))
    assert set(told["speakers"]) == speakers(1, "train")
    last = json.loads((FOUND.parent / "history.jsonl").read_text().splitlines()[-1])["genotype"]
    assert json.loads(FOUND.read_text()) == {**last, "searched_on": told}
    assert Genotype.load(FOUND).to_json() == last


def test_speakers_whom_the_search_has_heard_are_no_test(place: Path, told: dict):
    done = execute("augment", *ELSEWHERE, cwd=place)
    heard = sorted(speakers(2, "test") & speakers(1, "train"))
    assert heard
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(
        f"error: fold 2: the search of the genotype heard {', '.join(heard)}, so this is no "
    )
    assert "search.py --fold 2" in done.stderr
    assert "--allow_leak speakers" in done.stderr
    assert not Path("runs/h/elsewhere").exists()
    with pytest.raises(
        UserError, match="the search of the genotype heard"
    ):  # not even the epoch's choice undoes it
        retrain(*ELSEWHERE, "--protocol", "paper", "--allow_leak", "sessions", "texts")


def test_with_leave_metrics_and_model_say_whom_the_search_heard(place: Path, told: dict):
    metrics = retrain(*ELSEWHERE, "--allow_leak", "speakers")
    heard = sorted(speakers(2, "test") & speakers(1, "train"))
    assert (metrics["heard_in_search"], metrics["allow_leak"]) == (heard, ["speakers"])
    assert json.loads(Path("runs/h/elsewhere/augment/metrics.json").read_text())["heard_in_search"] == heard
    trained = SavedModel.load(Path("runs/h/elsewhere/augment/model.safetensors")).trained_on
    assert set(trained.speakers) == speakers(2, "train", "validation") | set(told["speakers"])
    again = {"model": ["runs/h/elsewhere"], "fold": 2, "out": "untold", "gpus": "none"}
    with pytest.raises(UserError, match=rf"runs/h/elsewhere heard {', '.join(heard)} in training"):
        evaluate.run(EvaluateConfig(**again))
    found = evaluate.run(EvaluateConfig(**again, allow_leak=["speakers"]))
    assert found["heard_in_training"] == {"runs/h/elsewhere": heard}


def test_on_the_fold_of_the_search_all_is_as_ever(place: Path):
    metrics = retrain("--config", "tiny.yaml", "--name", "h", "--epochs", "1")
    assert metrics["heard_in_search"] == []
    trained = SavedModel.load(Path("runs/h/augment/model.safetensors")).trained_on
    assert set(trained.speakers) == speakers(1, "train", "validation")
    found = evaluate.run(EvaluateConfig(model=["runs/h"], fold=1, out="own", gpus="none"))
    assert (found["heard_in_training"], found["ua"]) == ({"runs/h": []}, metrics["ua"])


def test_a_genotype_of_unknown_origin_may_be_tested_on_anyone(place: Path, tmp_path: Path):
    Genotype.load(FOUND).save(tmp_path / "g.json")
    task = prepared(tmp_path / "g.json")
    assert task.heard_in_search is None
    assert set(task.trained_on.speakers) == speakers(2, "train", "validation")


@pytest.mark.parametrize(
    ("change", "heard"),
    [
        ({}, True),
        ({"dataset": "else"}, True),
        ({"corpus": "manifest"}, True),
        ({"dataset": "else", "corpus": "manifest"}, False),
        ({"dataset": "else", "corpus": "emodb"}, False),
    ],
)
def test_names_mean_speakers_within_a_store_and_a_corpus(
    place: Path, told: dict, tmp_path: Path, change: dict[str, str], heard: bool
):
    file = tmp_path / "g.json"
    file.write_text(json.dumps({**json.loads(FOUND.read_text()), "searched_on": {**told, **change}}))
    if heard:
        with pytest.raises(UserError, match="the search of the genotype heard"):
            prepared(file)
    else:
        task = prepared(file)
        assert task.heard_in_search == []
        assert set(task.trained_on.speakers) == speakers(2, "train", "validation")


def test_speakers_who_pick_the_epoch_may_have_been_heard(place: Path, told: dict, tmp_path: Path):
    file, picking = tmp_path / "g.json", sorted(speakers(2, "validation"))
    heard = {**told, "speakers": picking}
    file.write_text(json.dumps({**json.loads(FOUND.read_text()), "searched_on": heard}))
    assert prepared(file).heard_in_search == []
