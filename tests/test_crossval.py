"""Tests of crossval.py as a user runs it: with real processes, real signals and Ray."""

import csv
import io
import json
import os
import re
import runpy
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from conftest import RESULTS, environment, execute, succeed
from rich.console import Console
from running import have_ended, process_of, started, wait_for
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import search
from cli import parse
from config import CrossvalConfig
from data.folds import make_folds
from data.functionals import store_functionals
from data.store import FeatureStore
from report.trials import TrialKey
from study.live_table import LiveTable
from study.runner import (
    check_settings,
    progress_of,
    run_trial,
    trial_configs,
)
from training import ray_tasks
from utils import UserError, write_json

ROOT = Path(__file__).parent.parent
DEMO = ["--config", "tiny.yaml", "--dataset", "demo"]
STUDY = [*DEMO, "--folds", 1, 2, "--seeds", 1, "--methods", "darts", "cnn", "svm:table.csv"]
DARTS = TrialKey("darts", 1, 1)


def modification_times(folder: Path) -> dict[str, int]:
    """The modification time of every file and folder below `folder`."""
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def write_table(path: Path, store: FeatureStore) -> None:
    """A table of functionals as openSMILE writes it, of a copy of the corpus in another folder."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "start", "end", *(f"mean{i}" for i in range(store.features.shape[1]))])
        for row, clip in zip(store.manifest, store.features[:], strict=True):
            writer.writerow(
                [
                    f"/copy/{row.file}",
                    "0 days",
                    f"0 days 00:00:0{row.duration}",
                    *map(float, clip.mean(axis=1)),
                ]
            )


@pytest.fixture(scope="module")
def study(workspace: Path) -> Path:
    """The folder of a finished study in which one process was killed in the middle of a search."""
    write_table(workspace / "table.csv", FeatureStore.open(workspace / "features" / "demo"))
    folder = workspace / "runs" / "study"
    search = folder / str(DARTS) / "search"
    with started("crossval", "--name", "study", *STUDY, cwd=workspace) as process:
        wait_for((search / "checkpoint.pt").exists, process)
        os.kill(process_of(search), signal.SIGKILL)
        assert not (search / "genotype.json").exists(), "the signal came too late to test anything"
        assert process.wait(240) == 0, (workspace / "output.txt").read_text()
    return folder


def test_study_writes_the_metrics_of_every_trial_and_a_report(study: Path, workspace: Path):
    assert len(list(study.glob("*-fold*-seed1/augment/metrics.json"))) == 8
    for name in ("results.json", "results.md", "report.html"):
        assert (study / name).stat().st_size > 1000, name
    assert "8/8" in (workspace / "output.txt").read_text()


def test_trial_of_a_killed_process_equals_the_uninterrupted_commands(study: Path, workspace: Path):
    for command in ("search", "augment"):
        succeed(command, "--config", "tiny.yaml", "--name", "alone", "--seed", 1, cwd=workspace)
        for file in RESULTS[command]:
            trial = study / str(DARTS) / command / file
            alone = workspace / "runs" / "alone" / command / file
            assert trial.read_bytes() == alone.read_bytes(), file


def pipeline_of(chosen: dict[str, Any]) -> Pipeline:
    """The machine that a trial has chosen, built by hand."""
    kernel = {"kernel": chosen["kernel"], "gamma": chosen["gamma"] or "scale"}
    machine = SVC(C=chosen["C"], **kernel, class_weight="balanced", break_ties=True)
    return make_pipeline(StandardScaler(), machine)


@pytest.mark.parametrize("method", ["svm", "svm_table"])
def test_trial_of_an_svm_equals_a_pipeline_built_by_hand(method: str, study: Path, workspace: Path):
    trial = study / f"{method}-fold1-seed1"
    metrics = json.loads((trial / "augment" / "metrics.json").read_text())
    predictions = list(csv.DictReader((trial / "augment" / "predictions.csv").open()))
    store = FeatureStore.open(workspace / "features" / "demo")  # a row per utterance
    fold = make_folds(store.manifest)[0]
    x = store_functionals(store, {row.utterance: [i] for i, row in enumerate(store.manifest)})
    if method == "svm_table":
        x = store.features[:].mean(axis=2)
    chosen = metrics["chosen"]
    pipeline = pipeline_of(chosen).fit(x[fold.train], store.labels[fold.train])
    predicted = pipeline.predict(x[fold.validation])
    assert balanced_accuracy_score(store.labels[fold.validation], predicted) == pytest.approx(chosen["ua"])
    predicted = pipeline.predict(x[fold.test])
    assert balanced_accuracy_score(store.labels[fold.test], predicted) == pytest.approx(metrics["ua"])
    assert [row["utterance"] for row in predictions] == [store.manifest[i].utterance for i in fold.test]
    assert [row["predicted"] for row in predictions] == [store.classes[i] for i in predicted]
    assert metrics["functionals"] == x.shape[1]
    assert metrics["ua"] > 1.2 / len(store.classes), "the functionals say nothing"


def test_refit_fits_the_chosen_svm_to_the_validation_speakers_too(
    study: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(workspace)
    settings = yaml.safe_load(Path("tiny.yaml").read_text())
    settings["augment"] |= {"protocol": "refit", "pick": "last"}
    Path("refit.yaml").write_text(yaml.safe_dump(settings))
    config = CrossvalConfig(name="refit", config="refit.yaml", dataset="demo", methods=("svm",))
    metrics = run_trial(str(workspace), 1, *trial_configs(TrialKey("svm", 1, 1), config))
    held_out = json.loads((study / "svm-fold1-seed1" / "augment" / "metrics.json").read_text())
    store = FeatureStore.open(workspace / "features" / "demo")
    fold = make_folds(store.manifest)[0]
    x = store_functionals(store, {row.utterance: [i] for i, row in enumerate(store.manifest)})
    rows = np.concatenate([fold.train, fold.validation])
    predicted = pipeline_of(metrics["chosen"]).fit(x[rows], store.labels[rows]).predict(x[fold.test])
    assert metrics["chosen"] == held_out["chosen"]
    assert metrics["fitted"] == len(rows)
    assert balanced_accuracy_score(store.labels[fold.test], predicted) == pytest.approx(metrics["ua"])
    assert metrics["ua"] != held_out["ua"]


def test_seed_of_an_svm_does_not_matter(study: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workspace)
    config = CrossvalConfig(name="seeds", config="tiny.yaml", dataset="demo", methods=("svm",))
    key = TrialKey("svm", 1, 7)
    run_trial(str(workspace), 1, *trial_configs(key, config))
    one, other = (study / "svm-fold1-seed1", workspace / "runs" / "seeds" / str(key))
    for file in ("augment/predictions.csv", "augment/plots/confusion.png"):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    assert (other / "seconds.json").exists()


def test_svm_standardises_by_speaker_if_the_networks_do(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(workspace)
    file = tmp_path / "own.yaml"
    file.write_text("prepare: {}\naugment: {normalise: speaker}\n")
    config = CrossvalConfig(name="by_speaker", config=file, dataset="demo", methods=("svm",))
    metrics = run_trial(str(workspace), 1, *trial_configs(TrialKey("svm", 1, 1), config))
    store = FeatureStore.open(workspace / "features" / "demo")
    fold = make_folds(store.manifest)[0]
    x = store_functionals(store, {row.utterance: [i] for i, row in enumerate(store.manifest)})
    speakers = np.array(store.speakers)
    for name in set(store.speakers):
        own = x[speakers == name]
        x[speakers == name] = (own - own.mean(axis=0)) / np.maximum(own.std(axis=0), 1e-12)
    chosen = metrics["chosen"]
    pipeline = pipeline_of(chosen).fit(x[fold.train], store.labels[fold.train])
    for rows, ua in ((fold.validation, chosen["ua"]), (fold.test, metrics["ua"])):
        assert balanced_accuracy_score(store.labels[rows], pipeline.predict(x[rows])) == pytest.approx(ua)


def test_trial_of_a_killed_process_resumes_from_its_checkpoint(study: Path):
    log = (study / str(DARTS) / "search" / "search.log").read_text()
    assert log.count("supernet") == 2, "the search was not started twice"
    assert log.count("epoch   1 ") == 1
    assert not (study / str(DARTS) / "seconds.json").exists(), "the total time of the trial is not known"
    assert (study / "cnn-fold1-seed1" / "seconds.json").exists()


def test_failed_trial_is_reported_and_the_others_still_run(study: Path, workspace: Path):
    broken = shutil.copytree(study, workspace / "runs" / "broken")
    for fold in (1, 2):
        (broken / f"cnn-fold{fold}-seed1/augment/metrics.json").unlink()
    for checkpoint in (broken / "cnn-fold1-seed1/augment").glob("checkpoint*.pt"):
        checkpoint.write_bytes(b"no checkpoint")
    done = execute("crossval", "--name", "broken", *STUDY, "--resume", cwd=workspace)
    assert done.returncode == 1, done.stderr
    assert (broken / "cnn-fold2-seed1/augment/metrics.json").exists()
    for text in (done.stdout, (broken / "results.md").read_text()):
        assert "damaged, or no checkpoint of this program" in text


def interrupt(number: int, cwd: Path) -> int:
    """Start or resume a study, send a signal when a trial has finished; return the exit code."""
    flags = [*DEMO, "--folds", 1, 2, "--seeds", 1, "--methods", "cnn", "darts", "--resume"]
    with started("crossval", "--name", "cut", *flags, cwd=cwd) as process:
        wait_for(lambda: "UA" in (cwd / "output.txt").read_text(), process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        code = process.wait(60)
    assert children
    assert have_ended(children), "processes of Ray still run"
    return code


@pytest.mark.slow
def test_interrupted_study_resumes_with_the_missing_trials_and_more_seeds(workspace: Path):
    folder = workspace / "runs" / "cut"
    assert interrupt(signal.SIGTERM, workspace) == 143
    finished = [path.parent.parent for path in folder.glob("*/augment/metrics.json")]
    before = {trial: modification_times(trial) for trial in finished}
    flags = [*DEMO, "--folds", 1, 2, "--seeds", 1, 2, "--methods", "cnn", "--resume"]
    printed = succeed("crossval", "--name", "cut", *flags, cwd=workspace)
    assert before
    assert {trial: modification_times(trial) for trial in finished} == before, "a finished trial has changed"
    done = sum(trial.name.startswith(("cnn", "svm")) for trial in finished)
    assert printed.startswith(f"8 trials, {done} already done")
    assert len(list(folder.glob("cnn-fold*/augment/metrics.json"))) == 4
    assert "seeds 1, 2" in (folder / "results.md").read_text()


def test_a_study_with_candidates_is_resumed_with_the_same_retraining_alone(workspace: Path, monkeypatch):
    monkeypatch.chdir(workspace)
    key = TrialKey("random_2", 1, 1)
    flags = ["--name", "chosen", "--dataset", "demo", "--methods", "random:2", "--resume"]
    config = parse(CrossvalConfig, [*flags, "--config", "tiny.yaml"])
    search.run(trial_configs(key, config)[0])
    check_settings(key, config)
    settings = yaml.safe_load(Path("tiny.yaml").read_text())
    settings["augment"]["epochs"] = 3
    Path("shorter.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="--augment is"):
        check_settings(key, parse(CrossvalConfig, [*flags, "--config", "shorter.yaml"]))


@pytest.mark.slow
def test_ctrl_c_ends_a_study_with_exit_code_130(workspace: Path):
    assert interrupt(signal.SIGINT, workspace) == 130


ERRORS = {
    "--methods transformer": "--methods transformer",
    "--methods": "expected at least one argument",
    "--methods svm:": "or svm:FILE.csv",
    "--methods svm:none.csv": "none.csv: no such file",
    "--methods svm:short.csv": "short.csv: 768 of 768 utterances of features/demo have no row",
    "--methods svm:a/t.csv svm:b/t.csv": "two files of one method have the same name",
    "--methods cnn:none.yaml": "--methods: there is no file none.yaml",
    "--methods darts:bands.yaml": "--rnn_bands 99",
    "--methods evolution:start.yaml": "'none.json' is not known",
    "--methods cnn:typo.yaml": "typo.yaml leaves out all flags of --config: let it begin with extends: tiny.yaml",
    "--methods cnn:wrong.yaml": "wrong.yaml: unknown flag --epoch; did you mean --epochs?",
    "--methods darts:top.yaml": "top.yaml: epochs must be under search: or augment:",
    "--folds 9": "fold 9",
    "--folds 0": "--folds",
    "--folds all 1": "each once",
    "--seeds 1 1": "each once",
    "--config typo.yaml": "did you mean --epochs?",
    "--config strange.yaml": "--batch_size 1",
    "--cpus_per_trial 0": "--cpus_per_trial 0",
    "--dataset none": "features/none",
    "--name study": "--resume runs the missing trials, --overwrite starts again",
    "--name study --resume --overwrite": "choose one",
    "--name study --resume --config other.yaml": "was started with",
    "--name other": "something other than a cross-validation",
    "--name file": "something other than a cross-validation",
}
"""Wrong flags, and a part of the message."""


@pytest.fixture
def prepared(workspace: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files that `ERRORS` needs. Starting Ray fails the test."""
    tiny = (workspace / "tiny.yaml").read_text()
    (workspace / "short.csv").write_text("file,F0\n")
    (workspace / "typo.yaml").write_text("augment: {epoch: 3}\n")
    (workspace / "wrong.yaml").write_text("extends: tiny.yaml\naugment: {epoch: 3}\n")
    (workspace / "bands.yaml").write_text("extends: tiny.yaml\naugment: {rnn_bands: 99}\n")
    (workspace / "start.yaml").write_text("extends: tiny.yaml\nsearch: {start_genotypes: [none.json]}\n")
    (workspace / "top.yaml").write_text("extends: tiny.yaml\nepochs: 3\n")
    (workspace / "strange.yaml").write_text("search: {batch_size: 1}\n")
    (workspace / "other.yaml").write_text(tiny.replace("epochs: 4", "epochs: 5"))
    write_json(workspace / "runs" / "other" / "mine.json", {})
    (workspace / "runs" / "file").write_text("mine")
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(ray_tasks.ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    return workspace


@pytest.mark.parametrize("flags", ERRORS)
def test_error_is_one_line_and_nothing_is_written(
    flags: str, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    before = modification_times(prepared)
    config = [] if "--config" in flags else ["--config", "tiny.yaml"]
    monkeypatch.setattr(sys, "argv", ["crossval.py", *config, *flags.split()])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "crossval.py"), run_name="__main__")
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert ERRORS[flags] in message
    assert modification_times(prepared) == before


@pytest.mark.slow
def test_trial_that_no_machine_can_run_is_an_error(workspace: Path):
    before = modification_times(workspace / "runs")
    flags = ["--config", "tiny.yaml", "--name", "large", "--cpus_per_trial", 1000]
    done = execute("crossval", *flags, cwd=workspace)
    message = "error: --cpus_per_trial 1000 --gpus_per_trial 0: no machine has that many (Ray found"
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert modification_times(workspace / "runs") == before


@pytest.mark.parametrize("section", ["{genotype: other.json}", "{model: lstm}"])
def test_searched_trial_ignores_model_and_genotype_of_the_file(section: str, tmp_path: Path):
    (tmp_path / "own.yaml").write_text(f"augment: {section}\n")
    search_config, augment_config = trial_configs(DARTS, CrossvalConfig(config=tmp_path / "own.yaml"))
    assert search_config.strategy == "darts"
    assert (augment_config.model, augment_config.genotype) == ("searched", None)


def test_progress_of_an_svm_is_shown_without_epochs(tmp_path: Path):
    write_json(tmp_path / "augment" / "config.json", {"table": None})
    assert progress_of(tmp_path) == "fitting"


def live_table_output(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines printed for four trials: one runs, one waits, one has finished and one has failed."""
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "runs/crossval/darts-fold1-seed1/search/config.json", {"epochs": 8})
    (tmp_path / "runs/crossval/darts-fold1-seed1/search/history.jsonl").write_text("{}\n{}\n")
    waiting, finished, failed = TrialKey("cnn", 2, 1), TrialKey("cnn", 1, 1), TrialKey("lstm", 1, 1)
    console = Console(force_terminal=terminal, file=io.StringIO(), width=100)
    with LiveTable([waiting, DARTS, finished, failed], CrossvalConfig(), console) as table:
        table.add_outcome(finished, {"ua": 0.7345})
        table.add_outcome(failed, ZeroDivisionError("of [bold]all\nthings"))
        table.refresh()
    return console.file.getvalue().splitlines()


def test_terminal_shows_a_table_of_the_remaining_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = [" ".join(text.split()) for text in live_table_output(True, tmp_path, monkeypatch)]
    assert any("2 of 4 trials done" in text for text in lines)
    assert lines.index("darts 1 1 search, epoch 3 of 8") < lines.index("cnn 2 1 waiting")


def test_without_a_terminal_each_ended_trial_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert live_table_output(False, tmp_path, monkeypatch) == [
        "  1/4  cnn           fold 1  seed 1  UA 73.5%",
        "  2/4  lstm          fold 1  seed 1  failed: ZeroDivisionError: of [bold]all things",
    ]


@contextmanager
def ray_head(folder: Path) -> Iterator[str]:
    """The address of a Ray cluster of one machine with one core, started by Ray's own command."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=0", "--num-cpus=1"]
    command += ["--block", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd="/", env=environment(), stdout=output, stderr=output)
    try:
        yield wait_for(lambda: re.search(r"--address='([\w.:]+)'", log.read_text()), process)[1]
        assert process.poll() is None, "the study has ended the cluster"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_study_joins_a_cluster_and_leaves_it_running(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    search = workspace / "runs" / "left" / str(DARTS) / "search"
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, ray_head(Path(folder)) as address:
        flags = ["--config", "tiny.yaml", "--folds", 1, "--seeds", 1, "--ray_address", address, "--methods"]
        succeed("crossval", "--name", "joined", *flags, "cnn", cwd=workspace)
        with started("crossval", "--name", "left", *flags, "darts", cwd=workspace) as process:
            wait_for((search / "checkpoint.pt").exists, process)
            worker = psutil.Process(process_of(search))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
        assert have_ended([worker]), "a trial still runs after its study has ended"
    assert (workspace / "runs" / "joined" / "report.html").exists()
