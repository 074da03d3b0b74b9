"""Evaluate through the commands: a run's own test again, ensembles, and tests that would be none."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import execute, succeed
from safetensors import safe_open
from safetensors.torch import save_file

import evaluate
from config import EvaluateConfig
from data.store import FeatureStore
from training.predictions import Predictions
from utils import UserError

CLASSES = ["angry", "happy", "neutral", "sad"]


@pytest.fixture(scope="module")
def place(workspace: Path) -> Path:
    """The workspace with three trained runs: two of fold 2, one of fold 1."""
    for name, fold, seed in (("one", 2, 1), ("two", 2, 2), ("elsewhere", 1, 1)):
        flags = (
            "--config",
            "tiny.yaml",
            "--name",
            f"e/{name}",
            "--fold",
            fold,
            "--seed",
            seed,
            "--epochs",
            2,
        )
        succeed("augment", *flags, "--genotype", "cnn_lstm", cwd=workspace)
    return workspace


def evaluation(place: Path, *runs: str, out: str, fold: int = 2, **flags: object) -> dict:
    """The metrics of an evaluation, made by the command."""
    words = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    models = [f"runs/e/{run}" for run in runs]
    succeed("evaluate", "--model", *models, "--fold", fold, "--out", out, "--gpus", "none", *words, cwd=place)
    return json.loads((place / out / "metrics.json").read_text())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def probabilities(path: Path) -> np.ndarray:
    return np.array([[float(row[name]) for name in CLASSES] for row in rows_of(path)])


def test_one_model_on_its_own_fold_repeats_its_own_test(place: Path):
    own = json.loads((place / "runs/e/one/augment/metrics.json").read_text())
    found = evaluation(place, "one", out="again", batch_size=48)
    shared = set(own) & set(found)
    assert {
        "ua",
        "wa",
        "macro_f1",
        "n",
        "recall",
        "confusion",
        "ci95",
        "test_speakers",
        "leaks",
        "fold",
    } <= shared
    assert {key: found[key] for key in shared} == {key: own[key] for key in shared}
    assert (found["models"], found["heard_in_training"]) == (["runs/e/one"], {"runs/e/one": []})
    assert not {"each", "gain"} & set(found)
    again, before = (place / "again/predictions.csv", place / "runs/e/one/augment/predictions.csv")
    assert again.read_bytes() == before.read_bytes()
    assert (place / "again/plots/confusion.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (place / "again").iterdir()} == evaluate.OWN


def test_an_ensemble_answers_by_the_mean_of_its_models_and_tells_what_that_gains(place: Path):
    words = ("--fold", 2, "--out", "both", "--gpus", "none")
    said = succeed("evaluate", "--model", "runs/e/one", "runs/e/two/augment", *words, cwd=place)
    found = json.loads((place / "both/metrics.json").read_text())
    singles = [probabilities(place / f"runs/e/{run}/augment/predictions.csv") for run in ("one", "two")]
    assert np.abs(singles[0] - singles[1]).max() > 0.01
    np.testing.assert_allclose(
        probabilities(place / "both/predictions.csv"), np.mean(singles, axis=0), atol=2e-6
    )
    own = [json.loads((place / f"runs/e/{run}/augment/metrics.json").read_text()) for run in ("one", "two")]
    names = ["runs/e/one", "runs/e/two/augment"]
    assert found["models"] == names
    assert found["each"] == [
        {"model": n, "ua": m["ua"], "wa": m["wa"]} for n, m in zip(names, own, strict=True)
    ]
    for rate in ("ua", "wa"):
        alone = [metrics[rate] for metrics in own]
        assert found["gain"]["over_mean"][rate] == pytest.approx(found[rate] - sum(alone) / 2)
        assert found["gain"]["over_best"][rate] == pytest.approx(found[rate] - max(alone))
    assert f"UA        {found['ua']:6.1%}" in said
    assert said.count("alone") == 2
    assert f"gain      UA {100 * found['gain']['over_best']['ua']:+6.1f}" in said
    rows = rows_of(place / "both/predictions.csv")
    assert np.mean([row["emotion"] == row["predicted"] for row in rows]) == pytest.approx(found["wa"])


def test_speakers_that_were_heard_in_training_are_no_test(place: Path):
    words = ("--model", "runs/e/one", "runs/e/elsewhere", "--fold", 2, "--gpus", "none", "--out", "leaky")
    done = execute("evaluate", *words, cwd=place)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: fold 2: runs/e/elsewhere heard ")
    assert "--allow_leak speakers" in done.stderr
    assert not (place / "leaky").exists()
    found = evaluation(place, "one", "elsewhere", out="leaky", allow_leak="speakers")
    assert found["allow_leak"] == ["speakers"]
    assert found["heard_in_training"] == {"runs/e/one": [], "runs/e/elsewhere": found["test_speakers"]}


def test_a_model_file_says_whom_it_heard(place: Path):
    store = FeatureStore.open(place / "features/demo")
    tested = json.loads((place / "runs/e/one/augment/metrics.json").read_text())["test_speakers"]
    trained = evaluate.SavedModel.load(place / "runs/e/one/augment/model.safetensors").trained_on
    assert (trained.dataset, trained.corpus) == ("demo", "demo")
    assert sorted([*trained.speakers, *tested]) == sorted(set(store.speakers))


def test_the_papers_protocol_has_heard_its_test_speakers(place: Path):
    flags = (
        "--config",
        "tiny.yaml",
        "--name",
        "e/paper",
        "--epochs",
        1,
        "--protocol",
        "paper",
        "--model",
        "cnn",
    )
    succeed("augment", *flags, cwd=place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        with pytest.raises(UserError, match=r"runs/e/paper heard .* in training"):
            evaluate.run(EvaluateConfig(model=["runs/e/paper"], out="none"))


def rewritten(source: Path, out: Path, **change: object) -> str:
    """The model of a run with another header; None takes a part away."""
    with safe_open(source, "pt") as file:
        header = {**json.loads(file.metadata()["emodarts"]), **change}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = {name: value for name, value in header.items() if value is not None}
    save_file(tensors, out, {"emodarts": json.dumps(header)})
    return str(out)


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def refused(model: str, **flags: object) -> str:
    config = EvaluateConfig(**{"model": [model], "fold": 2, "out": "none", "gpus": "none", **flags})
    with pytest.raises(UserError) as error:
        evaluate.run(config)
    assert not Path("none").exists()
    return str(error.value)


ONE = Path("runs/e/one/augment/model.safetensors")


def test_a_model_that_does_not_say_whom_it_heard_needs_leave(inside: Path):
    older = rewritten(ONE, Path("older.safetensors"), trained_on=None)
    assert "does not say whom it heard" in refused(older)
    found = evaluate.run(
        EvaluateConfig(model=[older], fold=2, out="older", gpus="none", allow_leak=["speakers"])
    )
    assert found["heard_in_training"] == {older: None}


@pytest.mark.parametrize(
    ("dataset", "corpus", "heard"),
    [
        ("demo", "manifest", True),
        ("else", "demo", True),
        ("else", "manifest", False),
        ("else", "emodb", False),
    ],
)
def test_names_mean_the_same_speakers_in_one_store_and_in_one_corpus(
    inside: Path, dataset: str, corpus: str, heard: bool
):
    speakers = json.loads(Path("runs/e/one/augment/metrics.json").read_text())["test_speakers"][1:2]
    trained_on = {"dataset": dataset, "corpus": corpus, "speakers": speakers}
    other = rewritten(ONE, Path("other.safetensors"), trained_on=trained_on)
    if heard:
        assert f"heard {speakers[0]} in training" in refused(other)
    else:
        config = EvaluateConfig(model=[other], fold=2, out=f"{dataset}-{corpus}", gpus="none")
        assert evaluate.run(config)["heard_in_training"] == {other: []}


def test_what_a_fold_shares_stops_the_models_that_it_has_trained(inside: Path):
    speakers = FeatureStore.open(Path("features/demo")).speakers
    heard = {"dataset": "demo", "corpus": "demo", "speakers": sorted(set(speakers) - {"F01"})}
    alone = rewritten(ONE, Path("alone.safetensors"), trained_on=heard)
    flags = {"model": [alone], "folds_by": "speaker", "fold": 1, "gpus": "none"}
    assert "session 1 is in training and test" in refused(alone, folds_by="speaker", fold=1)
    found = evaluate.run(EvaluateConfig(**flags, out="sessions", allow_leak=["sessions"]))
    assert found["leaks"]["leaks"] == ["sessions"]
    stranger = rewritten(
        ONE, Path("stranger.safetensors"), trained_on={**heard, "dataset": "x", "corpus": "x"}
    )
    found = evaluate.run(EvaluateConfig(**{**flags, "model": [stranger]}, out="strange"))
    assert found["leaks"]["leaks"] == []


def test_models_for_other_classes_or_features_are_refused(inside: Path):
    front_end = FeatureStore.open(Path("features/demo")).front_end.model_dump()
    classes = rewritten(ONE, Path("classes.safetensors"), classes=["a", "b", "c", "d"])
    assert "knows the classes a, b, c, d; features/demo has angry, happy, neutral, sad" in refused(classes)
    rate = rewritten(ONE, Path("rate.safetensors"), front_end={**front_end, "sample_rate": 9000})
    assert "takes features with sample_rate 9000; features/demo has 8000" in refused(rate)


def test_a_folder_is_replaced_only_where_it_is_an_evaluation_and_only_when_asked(inside: Path):
    assert "runs/e/one/augment holds something other than an evaluation" in refused(
        "runs/e/one", out="runs/e/one/augment", overwrite=True
    )
    assert "tiny.yaml holds something other" in refused("runs/e/one", out="tiny.yaml", overwrite=True)
    flags = {"model": ["runs/e/one"], "fold": 2, "out": "mine", "gpus": "none"}
    evaluate.run(EvaluateConfig(**flags))
    before = Path("mine/metrics.json").read_bytes()
    assert "mine holds an evaluation: --overwrite replaces it" in refused("runs/e/one", out="mine")
    evaluate.run(EvaluateConfig(**flags, overwrite=True))
    assert Path("mine/metrics.json").read_bytes() == before


def test_the_mean_is_that_of_probabilities_also_where_some_are_nil():
    logs = torch.tensor([[[0.25, 0.75], [1.0, 0.0]], [[0.75, 0.25], [0.5, 0.5]]]).log()
    found = evaluate.mean_of([Predictions(None, np.arange(2), log) for log in logs])
    np.testing.assert_allclose(found.probabilities, [[0.5, 0.5], [0.75, 0.25]], rtol=1e-6)
