"""A test on speakers of the search is refused, by all commands, unless --allow_leak speakers is given."""

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
from data.speakers import pack_recordings
from data.store import FeatureStore
from genotypes import load_genotype
from models.saved import SavedModel
from training.experiment import start_experiment
from training.given_genotypes import check_searched_speakers
from training.retraining import Retraining
from utils import UserError

GENOTYPE = Path("runs/h/search/genotype.json")
RETRAIN = ["--config", "tiny.yaml", "--name", "h/fold2", "--fold", "2", "--epochs", "1"]
SEARCHED = ["--genotype", str(GENOTYPE)]


@pytest.fixture(scope="module")
def searched(workspace: Path) -> Path:
    """The workspace after a search on fold 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        search.run(parse(SearchConfig, ["--config", "tiny.yaml", "--name", "h", "--epochs", "1"]))
    return workspace


@pytest.fixture
def searched_on(searched: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The speakers that the search recorded. Changes to the workspace."""
    monkeypatch.chdir(searched)
    return json.loads(GENOTYPE.read_text())["searched_on"]


def speakers(fold: int, *parts: str) -> set[str]:
    """The speakers in parts of a fold, according to the manifest."""
    store = FeatureStore.open(Path("features/demo"))
    chosen = make_folds(store.manifest)[fold - 1]
    return {store.speakers[row] for part in parts for row in getattr(chosen, part)}


def shared_speakers() -> list[str]:
    """The test speakers of fold 2 on which fold 1 searches."""
    return sorted(speakers(2, "test") & speakers(1, "train"))


def is_refusal(message: str) -> bool:
    """Whether an error names the fold, the search, the shared speakers, and the ways out."""
    words = ["fold 2", "search", ", ".join(shared_speakers()), "search.py --fold 2", "--allow_leak speakers"]
    return all(word in message for word in words)


def retrain(*words: str) -> dict:
    return augment.run(parse(AugmentConfig, words))


def prepared(path: Path) -> tuple[list[str] | None, set[str]]:
    """For a genotype retrained on fold 2: the test speakers of its search, and all speakers of its model."""
    config = parse(AugmentConfig, [*RETRAIN, "--genotype", str(path)])
    experiment = start_experiment(config)
    genotype, searched_on = augment.find_genotype(config)
    heard = check_searched_speakers(searched_on, experiment)
    return heard, set(Retraining(config, experiment, genotype).trained_on(searched_on).speakers)


def genotype_searched_on(folder: Path, searched_on: dict) -> Path:
    """Write the genotype with other speakers of its search; return the file."""
    content = json.loads(GENOTYPE.read_text()) | {"searched_on": searched_on}
    (folder / "g.json").write_text(json.dumps(content))
    return folder / "g.json"


def test_search_records_its_speakers_and_the_genotype_of_the_last_epoch(searched_on: dict) -> None:
    assert list(searched_on) == ["dataset", "corpus", "speakers", "recordings"]
    rows = [
        row
        for row in FeatureStore.open(Path("features/demo")).manifest
        if row.speaker in searched_on["speakers"]
    ]
    assert searched_on["recordings"] == pack_recordings(row.audio for row in rows)
    assert (searched_on["dataset"], searched_on["corpus"]) == ("demo", "demo")
    assert len(searched_on["speakers"]) == len(set(searched_on["speakers"]))
    assert set(searched_on["speakers"]) == speakers(1, "train")
    last = json.loads((GENOTYPE.parent / "history.jsonl").read_text().splitlines()[-1])["genotype"]
    assert json.loads(GENOTYPE.read_text()) == {**last, "searched_on": searched_on}
    assert load_genotype(GENOTYPE).to_json() == last


def test_augment_refuses_a_test_on_speakers_of_the_search(searched: Path, searched_on: dict) -> None:
    assert shared_speakers()
    done = execute("augment", *RETRAIN, *SEARCHED, cwd=searched)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: fold 2: ")
    assert is_refusal(done.stderr)
    assert not Path("runs/h/fold2").exists()
    with pytest.raises(UserError, match="fold 2") as caught:  # also if the test selects the epoch
        retrain(*RETRAIN, *SEARCHED, "--protocol", "paper", "--allow_leak", "sessions", "texts")
    assert is_refusal(str(caught.value))


def test_allowed_leak_is_recorded_in_metrics_and_model(searched_on: dict) -> None:
    metrics = retrain(*RETRAIN, *SEARCHED, "--allow_leak", "speakers")
    shared = shared_speakers()
    assert (metrics["heard_in_search"], metrics["allow_leak"]) == (shared, ["speakers"])
    assert json.loads(Path("runs/h/fold2/augment/metrics.json").read_text())["heard_in_search"] == shared
    trained = SavedModel.load(Path("runs/h/fold2/augment/model.safetensors")).trained_on
    assert set(trained.speakers) == speakers(2, "train", "validation") | set(searched_on["speakers"])
    again = {"model": ["runs/h/fold2"], "fold": 2, "out": "refused", "gpus": "none"}
    with pytest.raises(UserError, match=rf"runs/h/fold2 was trained on .*{', '.join(shared)}"):
        evaluate.run(EvaluateConfig(**again))
    found = evaluate.run(EvaluateConfig(**again, allow_leak=["speakers"]))
    assert found["heard_in_training"] == {"runs/h/fold2": shared}


def test_fold_of_the_search_needs_no_permission(searched_on: dict) -> None:
    metrics = retrain("--config", "tiny.yaml", "--name", "h", "--epochs", "1")
    assert metrics["heard_in_search"] == []
    trained = SavedModel.load(Path("runs/h/augment/model.safetensors")).trained_on
    assert set(trained.speakers) == speakers(1, "train", "validation")
    found = evaluate.run(EvaluateConfig(model=["runs/h"], fold=1, out="own", gpus="none"))
    assert (found["heard_in_training"], found["ua"]) == ({"runs/h": []}, metrics["ua"])


def test_genotype_without_speakers_may_be_tested_on_any(searched_on: dict, tmp_path: Path) -> None:
    load_genotype(GENOTYPE).save(tmp_path / "g.json")
    assert prepared(tmp_path / "g.json") == (None, speakers(2, "train", "validation"))


@pytest.mark.parametrize(
    ("change", "refused", "heard"),
    [
        ({}, True, None),
        ({"dataset": "else"}, True, None),
        ({"corpus": "manifest"}, True, None),
        ({"dataset": "else", "corpus": "manifest"}, True, None),  # known by their recordings
        ({"dataset": "else", "corpus": "emodb"}, True, None),
        ({"dataset": "else", "recordings": ""}, True, None),
        ({"corpus": "manifest", "recordings": ""}, True, None),
        ({"dataset": "else", "corpus": "manifest", "recordings": ""}, False, None),  # it cannot be told
        ({"dataset": "else", "corpus": "emodb", "recordings": ""}, False, []),
    ],
)
def test_speakers_of_the_search_are_known_by_name_or_by_their_recordings(
    searched_on: dict, tmp_path: Path, change: dict[str, str], refused: bool, heard: list | None
) -> None:
    file = genotype_searched_on(tmp_path, {**searched_on, **change})
    if refused:
        with pytest.raises(UserError, match="fold 2") as caught:
            prepared(file)
        assert is_refusal(str(caught.value))
    else:
        assert prepared(file) == (heard, speakers(2, "train", "validation"))


def test_validation_speakers_may_be_speakers_of_the_search(searched_on: dict, tmp_path: Path) -> None:
    validation = {"speakers": sorted(speakers(2, "validation")), "recordings": ""}
    file = genotype_searched_on(tmp_path, {**searched_on, **validation})
    assert prepared(file)[0] == []
