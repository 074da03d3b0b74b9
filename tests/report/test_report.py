"""Tests of the report: scores, missing trials, and a page that is well-formed and self-contained."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score
from synthetic import CLASSES, cross_validation, manifest, write_trial

from data.store import Row
from report.figures import method_colour
from report.trials import TrialKey, read_trials
from report.writer import write_report
from training.metrics import write_predictions
from utils import UserError

METHODS = ("darts", "random", "cnn_lstm_att", "cnn")
COMMAND = "python crossval.py --name study"
HOSTILE = '<script>alert("x")</script>|`[a](http://x.example/b.png)'


class PageParser(HTMLParser):
    """Collects the tags, text and references of a page; checks that tags are closed in order."""

    VOID = ("meta", "link", "br", "img", "hr", "input")
    REFERENCES = ("src", "href", "xlink:href", "data", "srcset", "poster")

    def __init__(self, page: str):
        super().__init__()
        self.tags = []
        self.references = []
        self.text = []
        self.open_tags = []
        self.feed(page)
        self.close()
        assert self.open_tags == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in self.REFERENCES]
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_report(folder: Path) -> tuple[dict, str, str]:
    """The contents of results.json, results.md and report.html."""
    names = ("results.json", "results.md", "report.html")
    results, markdown, page = [(folder / name).read_text(encoding="utf-8") for name in names]
    return json.loads(results, parse_constant=pytest.fail), markdown, page


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete cross-validation with its report."""
    folder = cross_validation(tmp_path_factory.mktemp("runs") / "study", METHODS, folds=3)
    write_report(folder, COMMAND)
    return folder


def read_predictions(folder: Path, pattern: str) -> tuple[list[str], list[str]]:
    """The labels and the predictions of all trials whose folder name matches `pattern`."""
    labels, predicted = [], []
    for path in sorted(folder.glob(f"{pattern}/augment/predictions.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                labels.append(row["emotion"])
                predicted.append(row["predicted"])
    return labels, predicted


@pytest.mark.parametrize("method", METHODS)
def test_scores_equal_scikit_learn(method: str, study: Path):
    results, markdown, _ = read_report(study)
    found = results["methods"][method]
    by_seed = [read_predictions(study, f"{method}-fold*-seed{seed}") for seed in (1, 2)]
    scorers = {"ua": balanced_accuracy_score, "wa": accuracy_score}
    scorers["macro_f1"] = partial(f1_score, average="macro")
    for name, scorer in scorers.items():
        low, high = found["pooled"]["ci95"][name]
        assert found["pooled"][name] == pytest.approx(np.mean([scorer(*pair) for pair in by_seed]))
        assert low < found["pooled"][name] < high
    confusion = sum(confusion_matrix(*pair, labels=CLASSES) for pair in by_seed)
    assert found["confusion"] == confusion.tolist()
    assert list(found["recall"].values()) == pytest.approx(confusion.diagonal() / confusion.sum(axis=1))
    trials = [read_predictions(study, path.name) for path in study.glob(f"{method}-fold*-seed*")]
    ua = [balanced_accuracy_score(*trial) for trial in trials]
    mean, std = np.mean(ua), np.std(ua, ddof=1)
    assert (found["ua"]["mean"], found["ua"]["std"]) == pytest.approx((mean, std))
    assert f"{100 * mean:.1f} ± {100 * std:.1f} %" in markdown


def test_methods_are_compared_with_the_best_baseline_and_darts_with_random_search(study: Path):
    results, markdown, page = read_report(study)
    assert results["best_baseline"] == "cnn_lstm_att"
    found = {(c["a"], c["b"]): c for c in results["comparisons"]}
    with_baseline = [(method, "cnn_lstm_att") for method in ("darts", "random", "cnn")]
    assert list(found) == [*with_baseline, ("darts", "random")]
    ua = {method: results["methods"][method]["pooled"]["ua"] for method in METHODS}
    for (a, b), comparison in found.items():
        assert comparison["difference"] == pytest.approx(ua[a] - ua[b])
        assert comparison["exact"]
        assert (comparison["speakers"], comparison["seeds"]) == (12, [1, 2])
        assert comparison["p"] <= comparison["p_holm"] <= 1
    for words in ("permutation test", "bootstrap that draws speakers", "Holm"):
        assert words in markdown
        assert words in page


def test_every_search_is_compared_with_every_random_search(tmp_path: Path):
    methods = ("evolution", "darts_3", "random", "random_3", "random_9", "cnn", "svm")
    folder = cross_validation(tmp_path / "searches", methods, folds=2)
    write_report(folder, COMMAND)
    results, markdown, page = read_report(folder)
    assert list(results["methods"]) == [
        "darts_3",
        "evolution",
        "random",
        "random_3",
        "random_9",
        "cnn",
        "svm",
    ]
    assert results["best_baseline"] == "svm"
    pairs = [(found["a"], found["b"]) for found in results["comparisons"]]
    searched = [(a, b) for a in ("darts_3", "evolution") for b in ("random", "random_3", "random_9")]
    assert pairs == [(method, "svm") for method in results["methods"] if method != "svm"] + searched
    assert set(results["searched"]) == {"darts_3", "evolution", "random", "random_3", "random_9"}
    for title in ("DARTS, best of 3", "Evolution", "Random search", "Random search, best of 3"):
        assert title in markdown
        assert title in page
    assert "Evolution against Random search, best of 3: " in markdown
    assert len({method_colour(method) for method in results["methods"]}) == len(methods)


def test_report_has_ops_curves_settings_cost_and_command(study: Path):
    results, _, page = read_report(study)
    for cell in ("normal", "reduce", "rnn"):
        share = np.array(results["searched"]["darts"][cell]["share"])
        assert share.sum() == pytest.approx(4)  # two nodes of two edges
        assert share[:2].sum(axis=1) == pytest.approx([1, 1])  # the first node has only these two edges
    assert results["curves"]["augment"]["cnn"]["valid/ua"]["n"] == [6] * 24
    assert set(results["curves"]["search"]) == {"darts"}
    assert results["settings"]["augment"]["common"]["lr"] == 0.025
    assert results["settings"]["augment"]["differing"]["rnn_layers"]["cnn"] == [0]
    assert results["methods"]["darts"]["seconds"]["mean"] == pytest.approx(80)
    for text in (COMMAND, "Reduction cell", "training loss", "0.025"):
        assert text in page


def test_a_resumed_trial_does_not_count_in_the_seconds(tmp_path: Path):
    folder = cross_validation(tmp_path / "resumed", METHODS, folds=3)
    (folder / "darts-fold2-seed1" / "seconds.json").unlink()
    (folder / "darts-fold3-seed1" / "seconds.json").write_text('{"search": 10.0, "augment": 4.0}')
    write_report(folder, COMMAND)
    results, _, _ = read_report(folder)
    trials = sum(trial["method"] == "darts" for trial in results["trials"])
    seconds = results["methods"]["darts"]["seconds"]
    assert seconds["n"] == trials - 1
    assert (seconds["min"], seconds["max"]) == (14, 80)
    assert seconds["mean"] == pytest.approx((14 + 80 * (trials - 2)) / (trials - 1))


def test_page_is_well_formed_and_loads_nothing(study: Path):
    _, _, text = read_report(study)
    page = PageParser(text)
    assert page.tags.count("svg") >= 5
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert all(reference.startswith("#") for reference in page.references)
    assert not re.search(r"scale\((?!1 1\))", text)  # else the drawing is cut off
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    assert str(study.parent) not in text


def test_same_trials_give_the_same_files(study: Path):
    before = read_report(study)
    write_report(study, COMMAND)
    assert read_report(study) == before


def test_missing_trials_are_listed_with_the_reason(tmp_path: Path):
    folder = cross_validation(tmp_path / "part", METHODS, folds=2)
    shutil.rmtree(folder / "cnn-fold1-seed1")
    (folder / "random-fold2-seed2/augment/metrics.json").unlink()
    (folder / "darts-fold1-seed2/augment/predictions.csv").write_text("utterance\n")
    shutil.rmtree(folder / "cnn_lstm_att-fold2-seed2")
    write_trial(folder, "cnn_lstm_att", 2, 2, manifest(2, prefix="other"))
    reasons = {TrialKey("cnn", 1, 1): "killed <twice>", TrialKey("lstm", 1, 1): "no memory"}
    write_report(folder, planned=[TrialKey("lstm", 1, 1)], reasons=reasons)
    results, markdown, page = read_report(folder)
    missing = {(m["method"], m["fold"], m["seed"]): m["reason"] for m in results["missing"]}
    assert missing["cnn", 1, 1] == "killed <twice>"
    assert missing["random", 2, 2] == "not finished"
    assert missing["darts", 1, 2].startswith("cannot be read")
    assert missing["cnn_lstm_att", 2, 2].startswith("tested on other utterances")
    assert missing["lstm", 1, 1] == "no memory"
    assert missing["lstm", 2, 1] == "not run"
    complete_seeds = {method: results["methods"][method]["pooled"]["seeds"] for method in METHODS}
    assert complete_seeds == {"darts": [1], "random": [1], "cnn_lstm_att": [1], "cnn": [2]}
    assert results["methods"]["lstm"]["pooled"] is None
    compared = [(c["a"], c["b"]) for c in results["comparisons"]]
    assert ("darts", "cnn_lstm_att") in compared
    assert ("cnn", "cnn_lstm_att") not in compared  # they have no complete seed in common
    assert "8 of 20 trials are missing" in markdown
    assert "killed &lt;twice&gt;" in page
    PageParser(page)


@pytest.fixture(scope="module")
def study_with_svm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with two SVMs, whose trials of a fold are equal."""
    methods = ("darts", "cnn", "svm", "svm_egemaps")
    folder = cross_validation(tmp_path_factory.mktemp("runs") / "svm", methods, folds=3)
    for trial in folder.glob("svm*-seed2"):
        shutil.rmtree(trial)
        shutil.copytree(str(trial).replace("seed2", "seed1"), trial)
    for config in folder.glob("svm*/augment/config.json"):
        config.write_text(json.dumps({"table": None}))
    write_report(folder)
    return folder


def test_svm_has_one_score_for_each_fold(study_with_svm: Path):
    results, markdown, _ = read_report(study_with_svm)
    trials = [read_predictions(study_with_svm, f"svm-fold{fold}-seed1") for fold in (1, 2, 3)]
    ua = [balanced_accuracy_score(*trial) for trial in trials]
    found = results["methods"]["svm"]
    assert (found["ua"]["mean"], found["ua"]["std"]) == pytest.approx((np.mean(ua), np.std(ua, ddof=1)))
    assert found["ua"]["n"] == 3
    assert found["pooled"]["seeds"] == [1, 2]
    pooled = balanced_accuracy_score(*read_predictions(study_with_svm, "svm-fold*-seed1"))
    assert found["pooled"]["ua"] == pytest.approx(pooled)
    sentence = f"SVM on functionals, the best of the human-designed baselines, reaches a UA of {pooled:.1%}"
    assert sentence.replace("%", " %") in markdown


def test_networks_that_an_svm_beats_are_named(study_with_svm: Path, study: Path):
    results, markdown, page = read_report(study_with_svm)
    ua = {method: found["pooled"]["ua"] for method, found in results["methods"].items()}
    assert ua["cnn"] < ua["svm"] < ua["darts"]
    for text in (markdown, page):
        assert "No higher UA than the SVM on functionals: CNN." in text
        assert "SVM on egemaps" in text
    assert "No higher UA than" not in read_report(study)[1]


def test_settings_of_an_svm_are_not_compared_with_those_of_networks(study_with_svm: Path):
    results, _, _ = read_report(study_with_svm)
    assert results["settings"]["augment"]["common"]["lr"] == 0.025
    assert set(results["settings"]["augment"]["differing"]["rnn_layers"]) == {"darts", "cnn"}


def average_files(folder: Path, method: str, seeds: Sequence[int]) -> list[tuple[str, str]]:
    """The label of each utterance of the study, and the class with the highest mean probability over the seeds."""
    labels, sums = {}, {}
    for seed in seeds:
        for path in folder.glob(f"{method}-fold*-seed{seed}/augment/predictions.csv"):
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    labels[row["utterance"]] = row["emotion"]
                    total = sums.setdefault(row["utterance"], dict.fromkeys(CLASSES, 0.0))
                    for name in CLASSES:
                        total[name] += float(row[name]) / len(seeds)
    return [(labels[utterance], max(total, key=total.get)) for utterance, total in sums.items()]


@pytest.mark.parametrize("method", METHODS)
def test_ensemble_equals_a_plain_loop_over_the_files(method: str, study: Path):
    results, markdown, page = read_report(study)
    found = results["methods"][method]["ensemble"]
    labels, predicted = zip(*average_files(study, method, (1, 2)), strict=True)
    assert len(labels) == results["utterances"]
    assert found["seeds"] == [1, 2]
    assert found["ua"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found["wa"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    single = [balanced_accuracy_score(*read_predictions(study, f"{method}-fold*-seed{s}")) for s in (1, 2)]
    assert found["gain"]["ua"] == pytest.approx(found["ua"] - np.mean(single))
    low, high = found["gain"]["ci95"]
    assert low < found["gain"]["ua"] < high
    gain = f"{100 * found['gain']['ua']:+.1f}".replace("-", "\N{MINUS SIGN}")
    shown = f"{100 * found['ua']:.1f} %"
    assert re.search(rf"^\| [^|]+ \| 2 \| {re.escape(shown)} \(.*\| {re.escape(gain)} \(", markdown, re.M)
    assert f"{shown} with DARTS ({gain} points)" in markdown or method != "darts"
    for text in (markdown, page):
        assert "Ensemble over seeds" in text
        assert "single models, above, are the ones to compare with publications" in text


def test_ensemble_has_the_intervals_of_one_model_with_its_predictions(study: Path, tmp_path: Path):
    for path in study.glob("cnn-fold*-seed1"):
        copy = shutil.copytree(path, tmp_path / "one" / path.name)
        file = copy / "augment/predictions.csv"
        rows = list(csv.DictReader(file.open(newline="")))
        other = csv.DictReader((study / f"{path.name[:-1]}2/augment/predictions.csv").open(newline=""))
        for row, second in zip(rows, other, strict=True):
            mean = {name: (float(row[name]) + float(second[name])) / 2 for name in CLASSES}
            row |= mean | {"predicted": max(mean, key=mean.get)}
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    expected = read_report(write_report(tmp_path / "one").parent)[0]["methods"]["cnn"]
    found = read_report(study)[0]["methods"]["cnn"]["ensemble"]
    assert found["ci95"] == expected["pooled"]["ci95"]
    assert found["ua"] == expected["pooled"]["ua"]
    assert expected["ensemble"] is None  # of a single seed


def test_seed_without_every_fold_is_not_in_the_ensemble(tmp_path: Path):
    folder = cross_validation(tmp_path / "part", ("darts", "cnn"), folds=2, seeds=(1, 2, 3))
    shutil.rmtree(folder / "darts-fold2-seed3")
    for seed in (2, 3):
        shutil.rmtree(folder / f"cnn-fold1-seed{seed}")
    results, markdown, _ = read_report(write_report(folder).parent)
    found = results["methods"]["darts"]["ensemble"]
    assert found["seeds"] == [1, 2]
    labels, predicted = zip(*average_files(folder, "darts", (1, 2)), strict=True)
    assert found["ua"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert results["methods"]["cnn"]["ensemble"] is None
    section = markdown.split("## Ensemble over seeds")[1].split("\n## ")[0]
    assert "| DARTS | 2 |" in section
    assert "CNN" not in section


def test_seeds_that_disagree_are_decided_by_the_more_certain_one(tmp_path: Path):
    """Each seed is certain and right on every other pass over the classes, else slightly wrong."""
    rows = manifest(1)
    labels = np.array([CLASSES.index(row.emotion) for row in rows])
    right, wrong = np.eye(4)[labels], np.eye(4)[(labels + 1) % 4]
    for seed in (1, 2):
        path = write_trial(tmp_path / "split", "cnn", 1, seed, rows)
        is_certain = (np.arange(len(rows)) // 4 % 2 == seed % 2)[:, None]
        probabilities = np.where(is_certain, right, 0.6 * wrong + 0.4 * right)
        order = np.arange(len(rows))[:: 1 if seed == 1 else -1]  # a file may have any order
        ordered = [rows[i] for i in order]
        write_predictions(path / "augment/predictions.csv", ordered, CLASSES, probabilities[order])
    results, markdown, _ = read_report(write_report(tmp_path / "split").parent)
    found = results["methods"]["cnn"]
    assert found["pooled"]["ua"] == 0.5
    assert (found["ensemble"]["ua"], found["ensemble"]["wa"], found["ensemble"]["macro_f1"]) == (1, 1, 1)
    assert found["ensemble"]["gain"] == {"ua": 0.5, "ci95": [0.5, 0.5]}
    assert "The ensemble over seeds reaches a UA of 100.0 % with CNN (+50.0 points)." in markdown


def test_svm_has_no_ensemble(study_with_svm: Path):
    results, markdown, _ = read_report(study_with_svm)
    ensembles = {method: found["ensemble"] for method, found in results["methods"].items()}
    assert ensembles["svm"] is ensembles["svm_egemaps"] is None
    assert ensembles["darts"]["seeds"] == ensembles["cnn"]["seeds"] == [1, 2]
    section = markdown.split("## Ensemble over seeds")[1].split("\n## ")[0]
    assert "SVM" not in section


def test_probabilities_are_in_the_order_of_the_utterances(study: Path):
    trial = read_trials(study)[0][0]
    assert trial.probabilities.dtype == np.float32
    assert trial.probabilities.shape == (len(trial.utterances), len(CLASSES))
    assert trial.probabilities.argmax(axis=1).tolist() == trial.predicted.tolist()


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "-0.1", "1.5", "", "many"])
def test_damaged_probabilities_make_a_trial_missing(tmp_path: Path, value: str):
    folder = cross_validation(tmp_path / "odd", ("cnn",), folds=1)
    file = folder / "cnn-fold1-seed2/augment/predictions.csv"
    lines = file.read_text().splitlines()
    lines[5] = f"{lines[5].rpartition(',')[0]},{value}"
    file.write_text("\n".join(lines))
    trials, missing = read_trials(folder)
    assert [trial.key for trial in trials] == [TrialKey("cnn", 1, 1)]
    assert missing[TrialKey("cnn", 1, 2)].startswith("cannot be read: ValueError")


def test_single_trial_gives_a_report_without_comparisons(tmp_path: Path):
    write_trial(tmp_path / "one", "cnn", 1, 1, manifest(1, speakers=1))
    results, markdown, page = read_report(write_report(tmp_path / "one").parent)
    assert results["comparisons"] == []
    assert results["methods"]["cnn"]["pooled"]["ci95"]["ua"] is None
    assert results["methods"]["cnn"]["ua"]["std"] is None
    assert "None" not in markdown + " ".join(PageParser(page).text)


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_few_speakers_have_no_interval_and_the_tables_say_so(tmp_path: Path, speakers: int):
    for method in ("darts", "cnn"):
        write_trial(tmp_path / "few", method, 1, 1, manifest(1, speakers=speakers))
    results, markdown, page = read_report(write_report(tmp_path / "few").parent)
    assert results["methods"]["darts"]["pooled"]["ci95"]["ua"] is None
    assert results["comparisons"][0]["ci95"] is None
    assert "% (too few speakers for an interval)" in markdown
    assert "| too few speakers for an interval |" in markdown
    assert "too few speakers" in page
    assert not re.search(r"95 % interval \S* to", markdown)


def test_ua_of_each_sex_is_pooled_over_the_folds(tmp_path: Path):
    """Speakers a and c of each fold are women, b is a man, and d is not known."""
    sexes = {"a": "female", "b": "male", "c": "female", "d": ""}
    for fold in (1, 2):
        rows = [replace(row, sex=sexes[row.speaker[-1]]) for row in manifest(fold)]
        write_trial(tmp_path / "sexes", "cnn", fold, 1, rows)
    results, markdown, _ = read_report(write_report(tmp_path / "sexes").parent)
    found = results["methods"]["cnn"]["pooled"]["ua_by_sex"]
    labels = {"female": [], "male": []}
    for path in sorted((tmp_path / "sexes").glob("cnn-fold*/augment/predictions.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                labels.setdefault(sexes[row["speaker"][-1]], []).append((row["emotion"], row["predicted"]))
    expected = {sex: balanced_accuracy_score(*zip(*labels[sex], strict=True)) for sex in ("female", "male")}
    assert found == pytest.approx(expected)
    assert f"| CNN | {100 * expected['female']:.1f} % | {100 * expected['male']:.1f} % |" in markdown


@pytest.mark.parametrize(
    "by_sex", [None, [], 3, {"female": 3}, {"female": {"speakers": "S1a"}}, {"female": {}}]
)
def test_damaged_sexes_are_not_known(tmp_path: Path, by_sex: object):
    write_trial(tmp_path / "odd", "cnn", 1, 1, manifest(1), by_sex=by_sex)
    results, markdown, _ = read_report(write_report(tmp_path / "odd").parent)
    assert results["methods"]["cnn"]["pooled"]["ua_by_sex"] == {}
    assert "UA of each sex" not in markdown


def test_report_says_that_four_speakers_are_too_few_for_significance(tmp_path: Path):
    folder = cross_validation(tmp_path / "few", ("darts", "cnn"), folds=1)
    results, markdown, _ = read_report(write_report(folder).parent)
    assert results["comparisons"][0]["smallest_p"] == 0.125
    sentence = "With 4 speakers the smallest possible p-value is 0.12: no difference can be significant here."
    assert sentence in markdown


def test_published_numbers_are_shown_with_their_protocol(tmp_path: Path, study: Path):
    folder = cross_validation(tmp_path / "iemocap", ("cnn",), folds=1, dataset="iemocap", protocol="paper")
    _, markdown, page = read_report(write_report(folder).parent)
    parts = ("76.55 %", "78.03 %", "10.1109/ACCESS.2024.3439604", "The protocols differ", "test fold")
    for text in (markdown, page):
        for part in parts:
            assert part in text
        assert "MSP-IMPROV" not in text
    assert "76.55 %" not in "".join(read_report(study)[1:])


def test_copies_that_networks_predict_are_named(tmp_path: Path, study: Path):
    copies = ["speed:1.1", "speed:0.9"]
    write_trial(tmp_path / "study", "cnn", 1, 1, manifest(1), copies=copies)
    write_trial(tmp_path / "study", "svm", 1, 1, manifest(1))
    results, *texts = read_report(write_report(tmp_path / "study").parent)
    assert results["copies"] == sorted(copies)
    for text in texts:
        assert "its copies speed:0.9, speed:1.1; the SVM has no copies" in text
    assert "its copies" not in "".join(read_report(study)[1:])


def test_conditions_of_some_methods_alone_are_told_with_these_methods(tmp_path: Path):
    folder = tmp_path / "mixed"
    write_trial(folder, "cnn", 1, 1, manifest(1), copies=["speed:0.9"], protocol="paper")
    write_trial(folder, "cnn_wide", 1, 1, manifest(1), copies=[], protocol="held_out")
    write_trial(folder, "lstm", 1, 1, manifest(1), copies=["speed:0.9", "noise:5"], protocol="held_out")
    results, markdown, _ = read_report(write_report(folder).parent)
    assert results["copies"] == ["noise:5 (lstm)", "speed:0.9 (cnn, lstm)"]
    assert "protocol held_out (cnn_wide, lstm), paper (cnn);" in markdown


def test_hostile_names_are_escaped(tmp_path: Path):
    classes = ("a", HOSTILE)
    rows = []
    for i in range(18):
        emotion = classes[i // 3 % 2]
        rows.append(Row(f"{HOSTILE}{i}", "", f"{HOSTILE}{i % 3}", "", emotion, "", 1.0, "", "", 0.0, ""))
    folder = tmp_path / "<b>"
    metrics = {"dataset": HOSTILE, "protocol": HOSTILE, "params": "many", "allow_leak": [HOSTILE]}
    metrics["copies"] = [HOSTILE]
    for method in ("cnn", "evil"):
        write_trial(folder, method, 1, 1, rows, classes, **metrics)
    _, markdown, page = read_report(write_report(folder, HOSTILE, reasons={}).parent)
    parsed = PageParser(page)
    assert "script" not in parsed.tags
    assert "&lt;b&gt;</h1>" in page
    assert any(HOSTILE in text for text in parsed.text)
    code_block = HOSTILE.replace("`", "")  # the command is shown unescaped in a code block
    assert "<script" not in markdown.replace(code_block, "")


def test_folder_without_trials_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="no finished trial"):
        write_report(tmp_path)


def test_without_dot_cells_are_drawn_all_the_same(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = shutil.copytree(study, tmp_path / "study")
    monkeypatch.setenv("PATH", "/nowhere")
    with_dot = read_report(folder)[2].count("<svg")
    write_report(folder, COMMAND)
    assert read_report(folder)[2].count("<svg") == with_dot > 0


PROBE = """<script>
addEventListener('load', () => {
  document.querySelectorAll('details').forEach(details => details.open = true);
  const figures = [...document.querySelectorAll('svg')];
  const visible = figures.map(figure => figure.getBoundingClientRect().height > 40);
  document.title = [document.documentElement.scrollWidth <= innerWidth, ...visible].join();
});
</script></body>"""
"""Writes into the page's title whether it fits the window and whether each figure is visible."""


@pytest.mark.slow
def test_browser_shows_all_figures_and_the_page_fits_a_phone(study: Path, tmp_path: Path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("Chromium is not installed")
    page = re.sub(r"<meta http-equiv[^>]*>", "", read_report(study)[2]).replace("</body>", PROBE)
    probed = tmp_path / "probed.html"
    probed.write_text(page, encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--window-size=500,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", probed.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    answers = re.search("<title>(.*?)</title>", shown)[1].split(",")
    assert len(answers) > 5
    assert set(answers) == {"true"}
