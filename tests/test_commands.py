"""The whole path in real processes: prepare, search, augment, predict, and the files that they write."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import RESULTS, ROOT, environment, execute, succeed
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.folds import make_folds
from data.store import COLUMNS, FeatureStore
from genotypes import Genotype, load_genotype
from models.baselines import BASELINES
from plots.cells import TITLES

CLASSES = ["angry", "happy", "neutral", "sad"]


@pytest.fixture(scope="module")
def run(workspace: Path) -> Path:
    """The folder runs/first, with a search and an augment run on fold 2."""
    for command in ("search", "augment"):
        succeed(command, "--config", "tiny.yaml", "--name", "first", "--fold", 2, "--seed", 5, cwd=workspace)
    return workspace / "runs" / "first"


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def read_history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def read_rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def test_prepare_writes_the_manifest_and_the_features(workspace: Path):
    folder = workspace / "features" / "demo"
    rows = read_rows(folder / "manifest.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert np.load(folder / "features.npy", mmap_mode="r").shape == (len(rows), 16, 24)
    assert len(rows) == 768


def test_search_writes_a_genotype_and_a_history(run: Path):
    genotype = load_genotype(run / "search" / "genotype.json")
    assert (len(genotype.normal), len(genotype.rnn)) == (1, 1)
    history = read_history(run / "search")
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert Genotype.from_json(history[-1]["genotype"]) == genotype
    assert {"train/loss", "train/wa", "valid/loss", "valid/ua", "lr/weights"} <= history[0].keys()


def test_search_shows_curves_alphas_and_cells_in_tensorboard(run: Path):
    shown = events(run / "search").Tags()
    for kind in TITLES:
        assert {f"alpha_entropy/{kind}", f"guard/skips_{kind}"} <= set(shown["scalars"])
        assert f"alphas/{kind}" in shown["images"]
        assert f"cells/{kind}" in shown["images"]
        assert (run / "search" / "plots" / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert [event.step for event in events(run / "search").Scalars("valid/ua")] == [1, 2, 3, 4]
    drawn = [event.step for event in events(run / "search").Images("cells/rnn")]
    assert (drawn[0], drawn[-1]) == (1, 4)  # and others between them, as time allows


def test_metrics_equal_those_of_scikit_learn_on_the_predictions(run: Path):
    metrics = read_json(run / "augment" / "metrics.json")
    rows = read_rows(run / "augment" / "predictions.csv")
    assert list(rows[0]) == ["utterance", "speaker", "emotion", "predicted", *CLASSES]
    true = [row["emotion"] for row in rows]
    predicted = [row["predicted"] for row in rows]
    assert metrics["ua"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert metrics["wa"] == pytest.approx(accuracy_score(true, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert metrics["n"] == len(rows) == 192
    for row in rows:
        probabilities = [float(row[name]) for name in CLASSES]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == CLASSES[int(np.argmax(probabilities))]


def test_augment_tests_exactly_the_speakers_of_its_fold(run: Path, workspace: Path):
    store = FeatureStore.open(workspace / "features" / "demo")
    fold = make_folds(store.manifest)[1]
    metrics = read_json(run / "augment" / "metrics.json")
    assert metrics["test_speakers"] == sorted({store.speakers[row] for row in fold.test})
    others = {store.speakers[row] for part in (fold.train, fold.validation) for row in part}
    assert not others & set(metrics["test_speakers"])
    assert (metrics["protocol"], metrics["fold"], metrics["seed"]) == ("held_out", 2, 5)


def test_augment_picks_the_best_epoch_on_the_validation_speakers(run: Path):
    history = read_history(run / "augment")
    best = max(history, key=lambda record: (record["valid/ua"], -record["valid/loss"]))
    assert read_json(run / "augment" / "metrics.json")["best_epoch"] == best["epoch"]


def test_predict_repeats_the_predictions_of_augment_on_the_wav_files(run: Path, workspace: Path):
    rows = read_rows(run / "augment" / "predictions.csv")[::37]
    files = [f"corpora/demo/{row['utterance']}.wav" for row in rows]
    printed = succeed("predict", *files, "--model", run, "--config", "tiny.yaml", "--json", cwd=workspace)
    for row, file, answer in zip(rows, files, json.loads(printed), strict=True):
        assert (answer["file"], answer["emotion"]) == (file, row["predicted"])
        expected = {name: float(row[name]) for name in CLASSES}
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-4)
    table = succeed("predict", files[0], "--model", run / "augment", cwd=workspace).splitlines()
    assert table[1].split()[:2] == [files[0], rows[0]["predicted"]]
    printed = succeed("predict", files[0], "--model", run, "--csv", cwd=workspace)
    lines = list(csv.reader(printed.splitlines()))
    assert lines[0] == ["file", "emotion", *CLASSES]
    assert lines[1][:2] == [files[0], rows[0]["predicted"]]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(run: Path, workspace: Path):
    flags = "--config", "tiny.yaml", "--fold", 2
    for command in ("search", "augment"):
        succeed(command, *flags, "--name", "again", "--seed", 5, cwd=workspace)
    succeed("search", *flags, "--name", "other", "--seed", 6, "--epochs", 1, cwd=workspace)
    for command, names in RESULTS.items():
        for name in names:
            again = workspace / "runs" / "again" / command / name
            assert again.read_bytes() == (run / command / name).read_bytes(), name
    first, other = (read_history(folder / "search")[0] for folder in (run, workspace / "runs" / "other"))
    assert first["train/loss"] != other["train/loss"]


def test_augment_accepts_a_pt_darts_genotype_and_the_protocol_of_the_paper(workspace: Path):
    flags = ("--config", "tiny.yaml", "--name", "cnn", "--epochs", 1, "--protocol", "paper")
    succeed("augment", *flags, "--rnn_layers", 0, "--genotype", "darts_v2", cwd=workspace)
    metrics = read_json(workspace / "runs" / "cnn" / "augment" / "metrics.json")
    assert (metrics["protocol"], metrics["model"]) == ("paper", "searched")
    assert metrics["genotype"]["rnn"] == []


def test_refit_trains_on_the_validation_speakers_too_and_tests_the_last_epoch(workspace: Path):
    flags = (
        "--config",
        "tiny.yaml",
        "--name",
        "refit",
        "--model",
        "cnn",
        "--epochs",
        2,
        "--protocol",
        "refit",
    )
    refused = execute("augment", *flags, cwd=workspace)
    assert refused.returncode == 2
    assert (
        refused.stderr
        == "error: --protocol refit has no speakers left to pick an epoch on: pass --pick last\n"
    )
    printed = succeed("augment", *flags, "--pick", "last", cwd=workspace)
    store = FeatureStore.open(workspace / "features" / "demo")
    fold = make_folds(store.manifest)[0]
    trained = len(fold.train) + len(fold.validation)
    assert f"data      {trained} rows to train, 0 to pick the epoch, {len(fold.test)} to test" in printed
    folder = workspace / "runs" / "refit" / "augment"
    metrics = read_json(folder / "metrics.json")
    assert (metrics["protocol"], metrics["best_epoch"]) == ("refit", 2)
    assert set(read_history(folder)[0]) == {"epoch", "train/loss", "train/wa", "lr"}


def test_a_random_search_writes_a_genotype_and_trains_nothing(run: Path, workspace: Path):
    flags = ("--config", "tiny.yaml", "--fold", 2, "--strategy", "random", "--cnn_nodes", 3)
    found = {}
    for name, seed in (("random", 5), ("random-again", 5), ("random-other", 6)):
        printed = succeed("search", *flags, "--name", name, "--seed", seed, cwd=workspace)
        assert "space     about 10^8.8 genotypes" in printed  # (3^6 x 1 x 3 x 6)^2 x 2^2
        found[name] = (workspace / "runs" / name / "search" / "genotype.json").read_bytes()
    assert found["random"] == found["random-again"] != found["random-other"]
    folder = workspace / "runs" / "random" / "search"
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "genotype.json", "origin.json", "plots", "search.log"}
    assert {path.name for path in (folder / "plots").iterdir()} == {f"{kind}.png" for kind in TITLES}
    assert files < {path.name for path in (run / "search").iterdir()}
    genotype = load_genotype(folder / "genotype.json")
    assert (len(genotype.normal), len(genotype.reduce), len(genotype.rnn)) == (3, 3, 1)
    ops = {op for node in genotype.normal + genotype.reduce for op, _ in node}
    assert ops <= {"max_pool_3x3", "skip_connect", "sep_conv_3x3"}
    succeed("augment", "--config", "tiny.yaml", "--name", "random", "--fold", 2, "--epochs", 1, cwd=workspace)
    metrics = read_json(folder.parent / "augment" / "metrics.json")
    assert Genotype.from_json(metrics["genotype"]) == genotype
    assert metrics["heard_in_search"] == []  # it was trained on nobody


def test_a_random_search_without_seqnn_draws_no_rnn_cell(workspace: Path):
    flags = ("--config", "tiny.yaml", "--name", "random-cnn", "--strategy", "random", "--rnn_layers", 0)
    succeed("search", *flags, cwd=workspace)
    succeed("search", *flags, "--resume", cwd=workspace)
    assert load_genotype(workspace / "runs" / "random-cnn" / "search" / "genotype.json").rnn == ()


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=() if m == "cnn_lstm_att" else pytest.mark.slow) for m in BASELINES]
)
def test_a_baseline_is_trained_tested_and_used_like_a_searched_network(workspace: Path, model: str):
    flags = ("--config", "tiny.yaml", "--name", f"by-hand-{model}", "--fold", 2, "--epochs", 1)
    printed = succeed("augment", *flags, "--model", model, cwd=workspace)
    assert f"network   {model}, " in printed
    folder = workspace / "runs" / f"by-hand-{model}" / "augment"
    metrics = read_json(folder / "metrics.json")
    assert (metrics["model"], metrics["genotype"], metrics["n"]) == (model, None, 192)
    assert metrics["heard_in_search"] is None
    network = BASELINES[model](4, (16, 24))
    assert metrics["params"] == sum(p.numel() for p in network.parameters())
    assert [path.name for path in (folder / "plots").iterdir()] == ["confusion.png"]
    row = read_rows(folder / "predictions.csv")[0]
    wav = f"corpora/demo/{row['utterance']}.wav"
    answer = json.loads(succeed("predict", wav, "--model", folder.parent, "--json", cwd=workspace))[0]
    assert answer["probabilities"] == pytest.approx({name: float(row[name]) for name in CLASSES}, abs=1e-4)


def test_prepare_picks_and_merges_classes_for_augment(workspace: Path):
    picks = ("--emotions", "angry", "happy:up", "sad:low", "neutral:low")
    flags = ("--corpus", "demo", "--config", "tiny.yaml", "--out", "stores/three")
    assert "low" in succeed("prepare", *flags, *picks, cwd=workspace)
    flags = ("--config", "tiny.yaml", "--name", "three", "--dataset", "stores/three", "--epochs", 1)
    succeed("augment", *flags, "--genotype", "cnn_lstm", cwd=workspace)
    metrics = read_json(workspace / "runs" / "three" / "augment" / "metrics.json")
    assert metrics["dataset"] == "three"
    assert metrics["classes"] == ["angry", "low", "up"]
    assert [sum(row) for row in metrics["confusion"]] == [48, 96, 48]


def test_two_processes_agree_on_one_genotype(workspace: Path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    flags = [str(ROOT / "search.py"), "--config", "tiny.yaml", "--name", "pair", "--epochs", "1"]
    options = {"cwd": workspace, "env": environment(), "capture_output": True, "text": True}
    done = subprocess.run(launch + flags, timeout=200, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert load_genotype(workspace / "runs" / "pair" / "search" / "genotype.json").rnn
    assert done.stdout.count("epoch   1") == 1
