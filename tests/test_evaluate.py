"""Evaluate: a run's own test repeated, ensembles, models trained on test speakers, and what is refused."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import execute, succeed
from safetensors import safe_open
from safetensors.torch import save_file

import evaluate
from config import EvaluateConfig
from data.segments import Segment
from data.store import FeatureStore
from training.inference import load_run
from utils import UserError

CLASSES = ["angry", "happy", "neutral", "sad"]
ONE = Path("runs/e/one/augment/model.safetensors")
REPEATED = {
    "ua", "wa", "macro_f1", "n", "recall", "confusion", "ci95", "test_speakers", "leaks", "fold"
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(workspace: Path) -> Path:
    """The workspace with three trained runs: two of fold 2, one of fold 1."""
    for name, fold, seed in (("one", 2, 1), ("two", 2, 2), ("elsewhere", 1, 1)):
        flags = ["--config", "tiny.yaml", "--epochs", 2, "--genotype", "cnn_lstm"]
        own = ["--name", f"e/{name}", "--fold", fold, "--seed", seed]
        succeed("augment", *flags, *own, cwd=workspace)
    return workspace


@pytest.fixture
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same workspace, as the working directory."""
    monkeypatch.chdir(trained)
    return trained


def evaluate_models(*models: str, **flags: object) -> dict:
    """The metrics of an evaluation on fold 2."""
    return evaluate.run(EvaluateConfig(**{"model": models, "fold": 2, "gpus": "none", **flags}))


def assert_refused(*models: str, message: str, **flags: object) -> None:
    with pytest.raises(UserError) as error:
        evaluate_models(*models, **{"out": "none", **flags})
    assert message in str(error.value)
    assert not Path("none").exists()


def read_json(path: str) -> dict:
    return json.loads(Path(path).read_text())


def read_rows(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def read_probabilities(path: str) -> np.ndarray:
    return np.array([[float(row[name]) for name in CLASSES] for row in read_rows(path)])


def rewrite_header(out: str, **change: object) -> str:
    """Write the model of run "one" with another header to `out`; None removes an entry."""
    with safe_open(ONE, "pt") as file:
        header = {**json.loads(file.metadata()["emodarts"]), **change}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = {name: value for name, value in header.items() if value is not None}
    save_file(tensors, out, {"emodarts": json.dumps(header)})
    return out


def test_evaluation_on_its_own_fold_repeats_the_test_of_the_run(place: Path):
    flags = ["--fold", 2, "--out", "again", "--gpus", "none", "--batch_size", 48]
    succeed("evaluate", "--model", "runs/e/one", *flags, cwd=place)
    own = read_json("runs/e/one/augment/metrics.json")
    found = read_json("again/metrics.json")
    shared = set(own) & set(found)
    assert shared >= REPEATED
    assert {key: found[key] for key in shared} == {key: own[key] for key in shared}
    assert found["models"] == ["runs/e/one"]
    assert found["heard_in_training"] == {"runs/e/one": []}
    assert not {"each", "gain"} & set(found)
    predictions = Path("again/predictions.csv").read_bytes()
    assert predictions == Path("runs/e/one/augment/predictions.csv").read_bytes()
    assert Path("again/plots/confusion.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in Path("again").iterdir()} == evaluate.OUTPUTS


@pytest.mark.parametrize("kind", ["speaker", "utterance"])
def test_evaluation_standardises_as_the_training_did(kind: str, place: Path):
    flags = ["--config", "tiny.yaml", "--epochs", 2, "--genotype", "cnn_lstm", "--fold", 2]
    succeed("augment", *flags, "--name", f"e/{kind}", "--normalise", kind, cwd=place)
    evaluate_models(f"runs/e/{kind}", out=Path(f"by_{kind}"), batch_size=48)
    found = Path(f"by_{kind}/predictions.csv").read_bytes()
    assert found == Path(f"runs/e/{kind}/augment/predictions.csv").read_bytes()
    assert found != Path("runs/e/one/augment/predictions.csv").read_bytes()


COPIES = ("noise:20", "speed:0.9")


@pytest.fixture(scope="module")
def with_copies(trained: Path) -> Path:
    """The workspace with a store of a third of the corpus and its copies, and runs that predict two of them."""
    header, *rows = (trained / "corpora/demo/manifest.csv").read_text().splitlines()
    third = trained / "corpora/demo/third.csv"
    third.write_text("\n".join([header, *rows[::3]]))
    flags = [
        "--config",
        "tiny.yaml",
        "--corpus",
        "manifest",
        "--root",
        third,
        "--long",
        "chunks",
        "--duration",
        1.2,
    ]
    copies = ["--perturb", "speed:0.9", "noise:10", "noise:20"]
    succeed("prepare", *flags, *copies, "--out", "features/copies", cwd=trained)
    for kind in ("training", "speaker"):
        flags = ["--config", "tiny.yaml", "--epochs", 2, "--model", "rnn", "--fold", 2, "--dataset", "copies"]
        own = ["--name", f"e/copies_{kind}", "--normalise", kind, "--test_copies", *COPIES]
        succeed("augment", *flags, *own, cwd=trained)
    return trained


def test_an_utterance_is_predicted_by_the_mean_over_its_copies(with_copies: Path, place: Path):
    """The mean over the clips of each copy, and then over the copies, of which one is not asked for."""
    run = "runs/e/copies_training"
    model = evaluate.SavedModel.load(Path(f"{run}/augment/model.safetensors"))
    own = read_json(f"{run}/augment/metrics.json")
    assert list(model.copies) == own["copies"] == list(COPIES)
    store = FeatureStore.open(Path("features/copies"))
    found = read_rows(f"{run}/augment/predictions.csv")
    assert own["n"] == len(found) > 0
    tested = {row["utterance"] for row in found}
    clips = defaultdict(list)
    for i, row in enumerate(store.manifest):
        if row.utterance not in tested:
            continue
        x = (store.features[i : i + 1] - model.mean[:, None]) / model.std[:, None]
        with torch.no_grad():
            probabilities = model.network(torch.from_numpy(x)[None])[0].softmax(0).numpy()
        clips[row.utterance, row.copy].append(probabilities)
    counts = {len({len(clips[name, copy]) for copy in ("", *COPIES)}) for name, _ in clips}
    assert counts == {1, 2}  # some have more clips at a lower speed
    for row, probabilities in zip(found, read_probabilities(f"{run}/augment/predictions.csv"), strict=True):
        each = [np.mean(clips[row["utterance"], copy], axis=0) for copy in ("", *COPIES)]
        np.testing.assert_allclose(probabilities, np.mean(each, axis=0), atol=2e-5)


@pytest.mark.parametrize("kind", ["training", "speaker"])
def test_copies_are_the_same_in_augment_evaluate_and_predict(kind: str, with_copies: Path, place: Path):
    run = f"runs/e/copies_{kind}"
    metrics = evaluate_models(run, dataset="copies", out=Path(f"over_copies_{kind}"), batch_size=48)
    assert metrics["copies_by_model"] == {run: list(COPIES)}
    own = Path(f"{run}/augment/predictions.csv")
    assert Path(f"over_copies_{kind}/predictions.csv").read_bytes() == own.read_bytes()
    store = FeatureStore.open(Path("features/copies"))
    rows = [row for row in store.manifest if row.speaker in metrics["test_speakers"] and not row.copy]
    files = {row.utterance: Segment(Path(row.file), speaker=row.speaker) for row in rows}
    predictions = dict(zip(files, load_run(run).predict(files.values()), strict=True))
    for row, probabilities in zip(read_rows(str(own)), read_probabilities(str(own)), strict=True):
        np.testing.assert_allclose(predictions[row["utterance"]].probabilities, probabilities, atol=1e-3)


def test_copies_that_the_store_lacks_are_refused_before_a_search(with_copies: Path, place: Path):
    lacking = "predicts copies that features/demo lacks ({}): prepare it again, with --perturb {} and its other flags"
    assert_refused("runs/e/copies_training", message=lacking.format(", ".join(COPIES), " ".join(COPIES)))
    settings = yaml.safe_load(Path("tiny.yaml").read_text())
    settings["augment"]["test_copies"] = ["speed:0.9"]
    Path("copies.yaml").write_text(yaml.safe_dump(settings))
    for command, *flags in (
        ("augment", "--model", "rnn"),
        ("search", "--strategy", "random", "--candidates", 2),
        ("crossval", "--methods", "rnn"),
    ):
        done = execute(command, "--config", "copies.yaml", "--name", "lacking", *flags, cwd=place)
        assert done.returncode == 2
        assert f"error: --test_copies {lacking.format('speed:0.9', 'speed:0.9')}" in done.stderr
        assert not Path("runs/lacking").exists()


def test_ensemble_predicts_the_mean_probabilities_and_reports_the_gain(place: Path):
    models = ["runs/e/one", "runs/e/two/augment"]
    flags = ["--fold", 2, "--out", "both", "--gpus", "none"]
    printed = succeed("evaluate", "--model", *models, *flags, cwd=place)
    found = read_json("both/metrics.json")
    singles = [read_probabilities(f"runs/e/{run}/augment/predictions.csv") for run in ("one", "two")]
    assert np.abs(singles[0] - singles[1]).max() > 0.01
    mean = np.mean(singles, axis=0)
    np.testing.assert_allclose(read_probabilities("both/predictions.csv"), mean, atol=2e-6)
    own = [read_json(f"runs/e/{run}/augment/metrics.json") for run in ("one", "two")]
    assert found["models"] == [each["model"] for each in found["each"]] == models
    for rate in ("ua", "wa"):
        alone = [metrics[rate] for metrics in own]
        assert [each[rate] for each in found["each"]] == alone
        assert found["gain"]["over_mean"][rate] == pytest.approx(found[rate] - sum(alone) / 2)
        assert found["gain"]["over_best"][rate] == pytest.approx(found[rate] - max(alone))
    assert f"UA        {found['ua']:6.1%}" in printed
    assert printed.count("alone") == 2
    assert f"gain      UA {100 * found['gain']['over_best']['ua']:+6.1f}" in printed
    rows = read_rows("both/predictions.csv")
    assert np.mean([row["emotion"] == row["predicted"] for row in rows]) == pytest.approx(found["wa"])


# ---------------------------------------------------------------- models trained on test speakers


def test_model_trained_on_test_speakers_is_refused_unless_allowed(place: Path):
    models = ["runs/e/one", "runs/e/elsewhere"]
    flags = ["--fold", 2, "--gpus", "none", "--out", "leaky"]
    done = execute("evaluate", "--model", *models, *flags, cwd=place)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: fold 2: runs/e/elsewhere was trained on test speakers (")
    assert "--allow_leak speakers" in done.stderr
    assert not Path("leaky").exists()
    found = evaluate_models(*models, out="leaky", allow_leak=["speakers"])
    assert found["allow_leak"] == ["speakers"]
    assert found["heard_in_training"] == {"runs/e/one": [], "runs/e/elsewhere": found["test_speakers"]}


def test_model_file_names_the_speakers_that_it_was_trained_on(place: Path):
    store = FeatureStore.open(Path("features/demo"))
    test_speakers = read_json("runs/e/one/augment/metrics.json")["test_speakers"]
    trained_on = evaluate.SavedModel.load(ONE).trained_on
    assert (trained_on.dataset, trained_on.corpus) == ("demo", "demo")
    assert sorted([*trained_on.speakers, *test_speakers]) == sorted(set(store.speakers))


def test_model_of_the_paper_protocol_was_trained_on_its_test_speakers(place: Path):
    flags = ["--config", "tiny.yaml", "--name", "e/paper", "--epochs", 1, "--protocol", "paper"]
    succeed("augment", *flags, "--model", "cnn", cwd=place)
    assert_refused("runs/e/paper", fold=1, message="runs/e/paper was trained on test speakers (")


def test_model_without_training_speakers_is_refused_unless_allowed(place: Path):
    older = rewrite_header("older.safetensors", trained_on=None)
    assert_refused(older, message="does not say which speakers it was trained on")
    found = evaluate_models(older, out="older", allow_leak=["speakers"])
    assert found["heard_in_training"] == {older: None}


@pytest.mark.parametrize(
    ("dataset", "corpus", "same"),
    [
        ("demo", "manifest", True),
        ("else", "demo", True),
        ("else", "manifest", None),  # it cannot be told without the recordings
        ("else", "emodb", False),
    ],
)
def test_speakers_are_compared_by_name_within_a_dataset_or_a_corpus(place, dataset, corpus, same):
    speakers = read_json("runs/e/one/augment/metrics.json")["test_speakers"][1:2]
    trained_on = {"dataset": dataset, "corpus": corpus, "speakers": speakers}
    model = rewrite_header("other.safetensors", trained_on=trained_on)
    if same:
        assert_refused(model, message=f"was trained on test speakers ({speakers[0]})")
    elif same is None:
        assert_refused(model, message=f"cannot be told whether {model} was trained on test speakers")
        found = evaluate_models(model, out="untold", allow_leak=["speakers"])
        assert found["heard_in_training"] == {model: None}
    else:
        assert evaluate_models(model, out=f"{dataset}-{corpus}")["heard_in_training"] == {model: []}


def test_speakers_are_known_in_another_store_of_the_same_recordings(place: Path):
    """A CSV of the demo corpus under another name, with other names of the speakers."""
    lines = Path("corpora/demo/manifest.csv").read_text().splitlines()
    Path("corpora/demo/again.csv").write_text(
        "\n".join(lines).replace(",F0", ",woman").replace(",M0", ",man")
    )
    flags = ["--config", "tiny.yaml", "--corpus", "manifest", "--root", "corpora/demo/again.csv"]
    succeed("prepare", *flags, cwd=place)
    test_speakers = read_json("runs/e/one/augment/metrics.json")[
        "test_speakers"
    ]  # fold 1 trains on all of them
    renamed = sorted(name.replace("F0", "woman").replace("M0", "man") for name in test_speakers)
    assert_refused("runs/e/elsewhere", dataset="again", message="was trained on test speakers (")
    found = evaluate_models("runs/e/elsewhere", dataset="again", out="again-leaky", allow_leak=["speakers"])
    assert found["heard_in_training"] == {"runs/e/elsewhere": renamed}
    found = evaluate_models("runs/e/one", dataset="again", out="again-fair")
    assert found["heard_in_training"] == {"runs/e/one": []}


def test_leaks_of_the_fold_stop_only_models_that_were_trained_on_the_dataset(place: Path):
    speakers = sorted(set(FeatureStore.open(Path("features/demo")).speakers) - {"F01"})
    trained_on = {"dataset": "demo", "corpus": "demo", "speakers": speakers}
    flags = {"folds_by": "speaker", "fold": 1}
    model = rewrite_header("alone.safetensors", trained_on=trained_on)
    assert_refused(model, **flags, message="session 1 is in training and test")
    found = evaluate_models(model, **flags, out="sessions", allow_leak=["sessions"])
    assert found["leaks"]["leaks"] == ["sessions"]
    elsewhere = {**trained_on, "dataset": "x", "corpus": "x"}
    model = rewrite_header("stranger.safetensors", trained_on=elsewhere)
    assert evaluate_models(model, **flags, out="strange")["leaks"]["leaks"] == []


# ---------------------------------------------------------------- what else is refused


def test_models_of_other_classes_or_features_are_refused(place: Path):
    model = rewrite_header("classes.safetensors", classes=["a", "b", "c", "d"])
    assert_refused(model, message="has the classes a, b, c, d; features/demo has angry, happy, neutral, sad")
    front_end = FeatureStore.open(Path("features/demo")).front_end.model_dump()
    model = rewrite_header("rate.safetensors", front_end={**front_end, "sample_rate": 9000})
    assert_refused(model, message="takes features with sample_rate 9000; features/demo has 8000")


def test_only_an_evaluation_is_replaced_and_only_with_overwrite(place: Path):
    for out in ("runs/e/one/augment", "tiny.yaml"):
        message = f"{out} holds something other than an evaluation"
        assert_refused("runs/e/one", out=out, overwrite=True, message=message)
    evaluate_models("runs/e/one", out="mine")
    before = Path("mine/metrics.json").read_bytes()
    assert_refused("runs/e/one", out="mine", message="mine holds an evaluation: --overwrite replaces it")
    evaluate_models("runs/e/one", out="mine", overwrite=True)
    assert Path("mine/metrics.json").read_bytes() == before
