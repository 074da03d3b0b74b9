"""The whole path through real processes and files: prepare, search, augment, predict, and what they leave behind."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment, succeed
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.folds import make_folds
from data.store import COLUMNS, FeatureStore
from genotypes import Genotype
from models.baselines import BASELINES
from plots.cells import TITLES

CLASSES = ["angry", "happy", "neutral", "sad"]


@pytest.fixture(scope="module")
def run(workspace: Path) -> Path:
    """runs/first, searched and retrained on fold 2."""
    for command in ("search", "augment"):
        succeed(command, "--config", "tiny.yaml", "--name", "first", "--fold", 2, "--seed", 5, cwd=workspace)
    return workspace / "runs" / "first"


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def test_prepare_writes_the_store_of_the_contract(workspace: Path):
    folder = workspace / "features" / "demo"
    with (folder / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert np.load(folder / "features.npy", mmap_mode="r").shape == (len(rows), 16, 24)
    assert len(rows) == 768


def test_search_leaves_a_genotype_and_its_history(run: Path):
    genotype = Genotype.load(run / "search" / "genotype.json")
    assert (len(genotype.normal), len(genotype.rnn)) == (1, 1)
    history = [json.loads(line) for line in (run / "search" / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert Genotype.from_json(history[-1]["genotype"]) == genotype
    assert {"train/loss", "train/wa", "valid/loss", "valid/ua", "lr/weights"} <= history[0].keys()


def test_search_shows_curves_alphas_and_cells_in_tensorboard(run: Path):
    shown = events(run / "search").Tags()
    for kind in TITLES:
        assert f"alpha_entropy/{kind}" in shown["scalars"]
        assert f"alphas/{kind}" in shown["images"]
        assert f"cells/{kind}" in shown["images"]
        assert (run / "search" / "plots" / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert [event.step for event in events(run / "search").Scalars("valid/ua")] == [1, 2, 3, 4]
    drawn = [event.step for event in events(run / "search").Images("cells/rnn")]
    assert (drawn[0], drawn[-1]) == (1, 4)  # between them, as many as take a tenth of the time


def test_metrics_are_scikit_learns_on_the_predictions(run: Path):
    metrics = json.loads((run / "augment" / "metrics.json").read_text())
    with (run / "augment" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["utterance", "speaker", "emotion", "predicted", *CLASSES]
    true, predicted = [row["emotion"] for row in rows], [row["predicted"] for row in rows]
    assert metrics["ua"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert metrics["wa"] == pytest.approx(accuracy_score(true, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert metrics["n"] == len(rows) == 192
    for row in rows:
        probabilities = [float(row[name]) for name in CLASSES]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == CLASSES[int(np.argmax(probabilities))]


def test_the_test_hears_exactly_the_speakers_of_its_fold(run: Path, workspace: Path):
    store = FeatureStore.open(workspace / "features" / "demo")
    fold = make_folds(store.manifest)[1]
    metrics = json.loads((run / "augment" / "metrics.json").read_text())
    assert metrics["test_speakers"] == sorted({store.speakers[row] for row in fold.test})
    seen = {store.speakers[row] for part in (fold.train, fold.validation) for row in part}
    assert not seen & set(metrics["test_speakers"])
    assert (metrics["protocol"], metrics["fold"], metrics["seed"]) == ("held_out", 2, 5)


def test_the_epoch_is_the_best_on_the_validation_speakers(run: Path):
    history = [json.loads(line) for line in (run / "augment" / "history.jsonl").read_text().splitlines()]
    best = max(history, key=lambda record: (record["valid/ua"], -record["valid/loss"]))
    assert json.loads((run / "augment" / "metrics.json").read_text())["best_epoch"] == best["epoch"]


def test_predict_repeats_the_test_on_the_wav_files(run: Path, workspace: Path):
    with (run / "augment" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))[::37]
    files = [f"corpora/demo/{row['utterance']}.wav" for row in rows]
    said = json.loads(
        succeed("predict", *files, "--model", run, "--config", "tiny.yaml", "--json", cwd=workspace)
    )
    for row, file, answer in zip(rows, files, said, strict=True):
        assert (answer["file"], answer["emotion"]) == (file, row["predicted"])
        assert answer["probabilities"] == pytest.approx(
            {name: float(row[name]) for name in CLASSES}, abs=1e-4
        )
    table = succeed("predict", files[0], "--model", run / "augment", cwd=workspace).splitlines()
    assert table[1].split()[:2] == [files[0], rows[0]["predicted"]]
    lines = list(
        csv.reader(succeed("predict", files[0], "--model", run, "--csv", cwd=workspace).splitlines())
    )
    assert lines[0] == ["file", "emotion", *CLASSES]
    assert lines[1][:2] == [files[0], rows[0]["predicted"]]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(run: Path, workspace: Path):
    flags = "--config", "tiny.yaml", "--fold", 2
    for command in ("search", "augment"):
        succeed(command, *flags, "--name", "again", "--seed", 5, cwd=workspace)
    succeed("search", *flags, "--name", "other", "--seed", 6, "--epochs", 1, cwd=workspace)
    searched = [f"search/{name}" for name in ("genotype.json", "history.jsonl")]
    trained = ("metrics.json", "predictions.csv", "model.safetensors", "history.jsonl")
    for name in searched + [f"augment/{name}" for name in trained]:
        first, again = ((workspace / "runs" / who / name).read_bytes() for who in ("first", "again"))
        assert first == again, name
    histories = (folder / "search" / "history.jsonl" for folder in (run, workspace / "runs" / "other"))
    first, other = (json.loads(history.read_text().splitlines()[0]) for history in histories)
    assert first["train/loss"] != other["train/loss"]


def test_a_network_without_seqnn_takes_a_pt_darts_genotype_and_the_papers_protocol(workspace: Path):
    flags = (
        "--config",
        "tiny.yaml",
        "--name",
        "cnn",
        "--rnn_layers",
        0,
        "--genotype",
        "darts_v2",
        "--epochs",
        1,
    )
    succeed("augment", *flags, "--protocol", "paper", cwd=workspace)
    metrics = json.loads((workspace / "runs" / "cnn" / "augment" / "metrics.json").read_text())
    assert (metrics["protocol"], metrics["model"]) == ("paper", "searched")
    assert metrics["genotype"]["rnn"] == []


def test_a_random_search_leaves_what_a_search_leaves_and_trains_nothing(run: Path, workspace: Path):
    flags = ("--config", "tiny.yaml", "--fold", 2, "--strategy", "random", "--cnn_nodes", 3)
    found = {}
    for name, seed in (("chance", 5), ("chance-again", 5), ("other-chance", 6)):
        said = succeed("search", *flags, "--name", name, "--seed", seed, cwd=workspace)
        assert "space     about 10^8.8 genotypes" in said  # (3^6 x 1 x 3 x 6)^2 x 2^2
        found[name] = (workspace / "runs" / name / "search" / "genotype.json").read_bytes()
    assert found["chance"] == found["chance-again"] != found["other-chance"]
    left = {path.name for path in (workspace / "runs" / "chance" / "search").iterdir()}
    assert left == {"config.json", "genotype.json", "origin.json", "plots", "search.log"}
    assert {f"{kind}.png" for kind in TITLES} == {
        path.name for path in (workspace / "runs/chance/search/plots").iterdir()
    }
    assert left < {path.name for path in (run / "search").iterdir()}
    genotype = Genotype.load(workspace / "runs" / "chance" / "search" / "genotype.json")
    assert (len(genotype.normal), len(genotype.reduce), len(genotype.rnn)) == (3, 3, 1)
    ops = {op for node in genotype.normal + genotype.reduce for op, _ in node}
    assert ops <= {"max_pool_3x3", "skip_connect", "sep_conv_3x3"}
    succeed("augment", "--config", "tiny.yaml", "--name", "chance", "--fold", 2, "--epochs", 1, cwd=workspace)
    metrics = json.loads((workspace / "runs" / "chance" / "augment" / "metrics.json").read_text())
    assert Genotype.from_json(metrics["genotype"]) == genotype
    assert metrics["heard_in_search"] is None  # chance hears nobody


def test_a_random_search_without_seqnn_draws_none(workspace: Path):
    flags = ("--config", "tiny.yaml", "--name", "chance-cnn", "--strategy", "random", "--rnn_layers", 0)
    succeed("search", *flags, cwd=workspace)
    succeed("search", *flags, "--resume", cwd=workspace)
    assert Genotype.load(workspace / "runs" / "chance-cnn" / "search" / "genotype.json").rnn == ()


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=() if m == "cnn_lstm_att" else pytest.mark.slow) for m in BASELINES]
)
def test_a_baseline_takes_the_same_path(workspace: Path, model: str):
    flags = ("--config", "tiny.yaml", "--name", f"by-hand-{model}", "--fold", 2, "--epochs", 1)
    said = succeed("augment", *flags, "--model", model, cwd=workspace)
    assert f"network   {model}, " in said
    folder = workspace / "runs" / f"by-hand-{model}" / "augment"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["model"], metrics["genotype"], metrics["n"]) == (model, None, 192)
    assert metrics["heard_in_search"] is None
    network = BASELINES[model](4, (16, 24))
    assert metrics["params"] == sum(p.numel() for p in network.parameters())
    assert [path.name for path in (folder / "plots").iterdir()] == ["confusion.png"]
    with (folder / "predictions.csv").open() as file:
        row = next(csv.DictReader(file))
    wav = f"corpora/demo/{row['utterance']}.wav"
    said = json.loads(succeed("predict", wav, "--model", folder.parent, "--json", cwd=workspace))
    assert said[0]["probabilities"] == pytest.approx({name: float(row[name]) for name in CLASSES}, abs=1e-4)


def test_classes_may_be_picked_and_renamed_all_the_way(workspace: Path):
    picks = ("--emotions", "angry", "happy:up", "sad:low", "neutral:low")
    out = succeed(
        "prepare",
        "--corpus",
        "demo",
        "--config",
        "tiny.yaml",
        *picks,
        "--out",
        "features/three",
        cwd=workspace,
    )
    assert "low" in out
    flags = ("--config", "tiny.yaml", "--name", "three", "--dataset", "three", "--epochs", 1)
    succeed("augment", *flags, "--genotype", "cnn_lstm", cwd=workspace)
    metrics = json.loads((workspace / "runs" / "three" / "augment" / "metrics.json").read_text())
    assert metrics["classes"] == ["angry", "low", "up"]
    assert [sum(row) for row in metrics["confusion"]] == [48, 96, 48]


def test_two_processes_agree_on_one_genotype(workspace: Path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    flags = [str(ROOT / "search.py"), "--config", "tiny.yaml", "--name", "pair", "--epochs", "1"]
    done = subprocess.run(
        launch + flags,
        cwd=workspace,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Genotype.load(workspace / "runs" / "pair" / "search" / "genotype.json").rnn
    assert done.stdout.count("epoch   1") == 1
