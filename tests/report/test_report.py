"""The report of a cross-validation: its numbers are scikit-learn's, it says what is missing, the page stands alone."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score
from synthetic import CLASSES, cross_validation, manifest, write_trial

from data.store import Row
from report.page import write_report
from report.trials import Key
from utils import UserError

METHODS = ("darts", "random", "cnn_lstm_att", "cnn")
HOSTILE = '<script>alert("x")</script>|`[a](http://x.example/b.png)'


class Page(HTMLParser):
    """Collects what a page refers to, its text and its tags; complains of tags that are closed out of order."""

    VOID = ("meta", "link", "br", "img", "hr", "input", "use", "path", "polygon", "ellipse")

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.resources, self.words, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.resources += [
            v for k, v in attributes if k in ("src", "href", "xlink:href", "data", "srcset", "poster")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(folder: Path) -> tuple[dict, str, str]:
    """(results.json, results.md, report.html) as they lie there."""
    texts = [
        (folder / name).read_text(encoding="utf-8") for name in ("results.json", "results.md", "report.html")
    ]
    return json.loads(texts[0], parse_constant=pytest.fail), *texts[1:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = cross_validation(tmp_path_factory.mktemp("runs") / "whole", METHODS, folds=3)
    write_report(folder, "python crossval.py --name whole")
    return folder


def predictions(folder: Path, method: str, seed: int) -> tuple[list[str], list[str]]:
    """The labels and predictions of a method with a seed over all folds, straight from the files."""
    labels, predicted = [], []
    for path in sorted(folder.glob(f"{method}-fold*-seed{seed}/augment/predictions.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                labels.append(row["emotion"])
                predicted.append(row["predicted"])
    return labels, predicted


def test_scores_are_scikit_learns_on_the_predictions(whole: Path):
    results, table, _ = read(whole)
    for method in METHODS:
        found, by_seed = results["methods"][method], [predictions(whole, method, seed) for seed in (1, 2)]
        scorers = {
            "ua": balanced_accuracy_score,
            "wa": accuracy_score,
            "macro_f1": lambda y, p: f1_score(y, p, average="macro"),
        }
        for name, score in scorers.items():
            assert found["pooled"][name] == pytest.approx(np.mean([score(*pair) for pair in by_seed]))
            assert found["pooled"]["ci95"][name][0] < found["pooled"][name] < found["pooled"]["ci95"][name][1]
        confusion = sum(confusion_matrix(*pair, labels=CLASSES) for pair in by_seed)
        assert found["confusion"] == confusion.tolist()
        assert list(found["recall"].values()) == pytest.approx(confusion.diagonal() / confusion.sum(axis=1))
        trials = [balanced_accuracy_score(*fold) for fold in _single(whole, method)]
        assert (found["ua"]["mean"], found["ua"]["std"]) == pytest.approx(
            (np.mean(trials), np.std(trials, ddof=1))
        )
        assert f"{100 * np.mean(trials):.1f} ± {100 * np.std(trials, ddof=1):.1f} %" in table


def _single(folder: Path, method: str):
    """(labels, predicted) of each trial."""
    for path in folder.glob(f"{method}-fold*-seed*/augment/predictions.csv"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        yield [row["emotion"] for row in rows], [row["predicted"] for row in rows]


def test_each_method_is_compared_with_the_best_baseline_and_the_search_with_chance(whole: Path):
    results, table, page = read(whole)
    assert results["best_baseline"] == "cnn_lstm_att"
    found = {(c["a"], c["b"]): c for c in results["comparisons"]}
    assert list(found) == [
        ("darts", "cnn_lstm_att"),
        ("random", "cnn_lstm_att"),
        ("cnn", "cnn_lstm_att"),
        ("darts", "random"),
    ]
    ua = {method: results["methods"][method]["pooled"]["ua"] for method in METHODS}
    for (a, b), c in found.items():
        assert c["difference"] == pytest.approx(ua[a] - ua[b])
        assert (c["exact"], c["speakers"], c["seeds"]) == (True, 12, [1, 2])
        assert c["p"] <= c["p_holm"] <= 1
    for word in ("permutation test", "bootstrap that draws speakers", "Holm"):
        assert word in table
        assert word in page


def test_cells_ops_curves_settings_and_command_are_there(whole: Path):
    results, _, page = read(whole)
    for kind in ("normal", "reduce", "rnn"):
        share = np.array(results["searched"]["darts"][kind]["share"])
        assert share.sum() == pytest.approx(4)  # two nodes of two edges
        assert share[:2].sum(axis=1) == pytest.approx([1, 1])  # the first node has no other choice
    assert results["curves"]["augment"]["cnn"]["valid/ua"]["n"] == [6] * 24
    assert set(results["curves"]["search"]) == {"darts"}
    assert results["settings"]["augment"]["common"]["lr"] == 0.025
    assert results["settings"]["augment"]["differing"]["rnn_layers"]["cnn"] == [0]
    assert results["methods"]["darts"]["seconds"]["mean"] == pytest.approx(80)
    for text in ("python crossval.py --name whole", "Reduction cell", "training loss", "0.025"):
        assert text in page


def test_the_page_parses_and_asks_for_nothing(whole: Path):
    _, _, text = read(whole)
    page = Page(text)
    assert page.tags.count("svg") >= 5
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert all(reference.startswith("#") for reference in page.resources)
    assert not re.search(r"scale\((?!1 1\))", text)  # a drawing that outgrows its view is cut off
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    assert str(whole.parent) not in text


def test_the_same_trials_give_the_same_files(whole: Path):
    before = read(whole)
    write_report(whole, "python crossval.py --name whole")
    assert read(whole) == before


def test_missing_failed_and_odd_trials_are_told_and_left_out(tmp_path: Path):
    folder = cross_validation(tmp_path / "part", METHODS, folds=2)
    shutil.rmtree(folder / "cnn-fold1-seed1")
    (folder / "random-fold2-seed2/augment/metrics.json").unlink()
    (folder / "darts-fold1-seed2/augment/predictions.csv").write_text("utterance\n")
    shutil.rmtree(folder / "cnn_lstm_att-fold2-seed2")
    write_trial(folder, "cnn_lstm_att", 2, 2, manifest(2, prefix="other"))
    planned = [Key("lstm", 1, 1)]
    write_report(
        folder, planned=planned, reasons={Key("cnn", 1, 1): "killed <twice>", Key("lstm", 1, 1): "no memory"}
    )
    results, table, page = read(folder)
    why = {(m["method"], m["fold"], m["seed"]): m["reason"] for m in results["missing"]}
    assert why["cnn", 1, 1] == "killed <twice>"
    assert why["random", 2, 2] == "not finished"
    assert why["darts", 1, 2].startswith("cannot be read")
    assert why["cnn_lstm_att", 2, 2].startswith("tested on other utterances")
    assert (why["lstm", 1, 1], why["lstm", 2, 1]) == ("no memory", "not run")
    assert {m: results["methods"][m]["pooled"]["seeds"] for m in METHODS} == {
        "darts": [1], "random": [1], "cnn_lstm_att": [1], "cnn": [2],
    }  # fmt: skip
    assert results["methods"]["lstm"]["pooled"] is None
    assert ("darts", "cnn_lstm_att") in [(c["a"], c["b"]) for c in results["comparisons"]]
    assert ("cnn", "cnn_lstm_att") not in [
        (c["a"], c["b"]) for c in results["comparisons"]
    ]  # no seed in common
    assert "8 of 20 trials are missing" in table
    assert "killed &lt;twice&gt;" in page
    Page(page)


def test_one_trial_alone_makes_a_report_without_comparisons(tmp_path: Path):
    write_trial(tmp_path / "one", "cnn", 1, 1, manifest(1, speakers=1))
    results, table, page = read(write_report(tmp_path / "one").parent)
    assert results["comparisons"] == []
    assert results["methods"]["cnn"]["pooled"]["ci95"]["ua"] is None
    assert results["methods"]["cnn"]["ua"]["std"] is None
    assert "None" not in table + " ".join(Page(page).words)


def test_four_speakers_can_show_nothing_and_the_report_says_so(tmp_path: Path):
    folder = cross_validation(tmp_path / "few", ("darts", "cnn"), folds=1)
    results, table, _ = read(write_report(folder).parent)
    assert results["comparisons"][0]["smallest_p"] == 0.125
    assert (
        "With 4 speakers the smallest p-value that is possible is 0.12: no difference can be significant"
        in table
    )


def test_published_numbers_stand_beside_their_protocol(tmp_path: Path, whole: Path):
    folder = cross_validation(tmp_path / "iemocap", ("cnn",), folds=1, dataset="iemocap", protocol="paper")
    _, table, page = read(write_report(folder).parent)
    for text in (table, page):
        for part in (
            "76.55 %",
            "78.03 %",
            "10.1109/ACCESS.2024.3439604",
            "The protocols differ",
            "test fold",
        ):
            assert part in text
        assert "MSP-IMPROV" not in text
    assert "76.55 %" not in "".join(read(whole)[1:])


def test_hostile_names_are_only_text(tmp_path: Path):
    classes = ("a", HOSTILE)
    rows = [
        Row(f"{HOSTILE}{i}", "", f"{HOSTILE}{i % 3}", "", classes[i // 3 % 2], "", 1.0, "", "", 0.0, "")
        for i in range(18)
    ]
    folder = tmp_path / "<b>"
    for method in ("cnn", "evil"):
        write_trial(
            folder,
            method,
            1,
            1,
            rows,
            classes,
            dataset=HOSTILE,
            protocol=HOSTILE,
            params="many",
            allow_leak=[HOSTILE],
        )
    _, table, page = read(write_report(folder, HOSTILE, reasons={}).parent)
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert "&lt;b&gt;</h1>" in page
    assert any(HOSTILE in words for words in parsed.words)
    assert "<script" not in table.replace(
        HOSTILE.replace("`", ""), ""
    )  # but in the code block, which shows the command


def test_a_folder_without_trials_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="no finished trial"):
        write_report(tmp_path)


def test_without_dot_the_cells_are_told_in_words(whole: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    write_report(whole, "python crossval.py --name whole")
    assert "node 0 = " in read(whole)[2]


@pytest.mark.slow
def test_a_browser_shows_the_page(whole: Path, tmp_path: Path):
    """Chromium lays out every picture, and nothing of the page is wider than a phone."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium here")
    probe = (
        "<script>addEventListener('load',()=>{document.querySelectorAll('details').forEach(d=>d.open=true);"
    )
    probe += "document.title=[document.documentElement.scrollWidth<=innerWidth,"
    probe += "...[...document.querySelectorAll('svg')].map(s=>s.getBoundingClientRect().height>40)].join()})</script>"
    text = re.sub(r"<meta http-equiv[^>]*>", "", read(whole)[2]).replace("</body>", probe + "</body>")
    (tmp_path / "probed.html").write_text(text, encoding="utf-8")
    line = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    line += ["--window-size=500,900", (tmp_path / "probed.html").as_uri()]
    shown = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout
    answers = re.search("<title>(.*?)</title>", shown)[1].split(",")
    assert len(answers) > 5
    assert set(answers) == {"true"}
