"""Scores against scikit-learn, intervals against a plain bootstrap over speakers, predictions.csv."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from data.store import Row
from training import metrics
from training.metrics import confidence_intervals, report, scores, table, write_predictions

CLASSES = ("angry", "happy", "sad")


@st.composite
def predictions(draw, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(labels, predicted) of 1 to 40 utterances; some classes may be absent from either."""
    n, ids = draw(st.integers(1, 40)), st.integers(0, classes - 1)
    return tuple(np.array(draw(st.lists(ids, min_size=n, max_size=n))) for _ in range(2))


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(labels, predicted, speakers) of 60 utterances, about 60 % right, by 5 speakers; the last has most."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60)
    predicted = np.where(rng.random(60) < 0.6, labels, rng.integers(3, size=60))
    return labels, predicted, [f"S{min(i // 7, 4)}" for i in range(60)]


@settings(max_examples=200)
@given(predictions())
def test_scores_equal_those_of_scikit_learn(pair: tuple[np.ndarray, np.ndarray]):
    labels, predicted = pair
    found = scores(labels, predicted)
    with warnings.catch_warnings(action="ignore"):  # it warns about predicted classes that do not occur
        assert found["ua"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found["wa"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    assert all(type(value) is float and 0 <= value <= 1 for value in found.values())


@settings(max_examples=50)
@given(predictions())
def test_scores_do_not_depend_on_the_order_of_the_utterances(pair: tuple[np.ndarray, np.ndarray]):
    labels, predicted = pair
    order = np.random.default_rng(0).permutation(len(labels))
    assert scores(labels[order], predicted[order]) == pytest.approx(scores(labels, predicted))


def test_ua_averages_classes_and_wa_utterances():
    labels, predicted = np.array([0] * 9 + [1]), np.array([0] * 10)
    assert scores(labels, predicted) == pytest.approx({"ua": 0.5, "wa": 0.9, "macro_f1": (2 * 0.9 / 1.9) / 2})


def test_a_report_has_every_field_of_metrics_json(sample):
    labels, predicted, speakers = sample
    found = report(labels, predicted, speakers, CLASSES)
    assert set(found) == {"ua", "wa", "macro_f1", "n", "classes", "recall", "confusion", "ci95", "by_sex"}
    assert (found["n"], found["classes"], set(found["ci95"])) == (60, list(CLASSES), {"ua", "wa"})
    assert found["confusion"] == confusion_matrix(labels, predicted).tolist()
    assert found["ua"] == pytest.approx(np.mean(list(found["recall"].values())))
    for number, name in enumerate(CLASSES):
        row = found["confusion"][number]
        assert found["recall"][name] == pytest.approx(row[number] / sum(row))


def test_a_class_that_does_not_occur_has_no_recall():
    labels, predicted = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 1])
    found = report(labels, predicted, ["a", "b", "a", "b"], CLASSES)
    assert found["recall"] == {"angry": 0.5, "happy": None, "sad": 0.5}
    assert found["confusion"] == [[1, 1, 0], [0, 0, 0], [0, 1, 1]]
    assert found["ua"] == 0.5


@settings(max_examples=30)
@given(predictions(), st.integers(0, 5))
def test_intervals_equal_those_of_a_plain_bootstrap(pair: tuple[np.ndarray, np.ndarray], seed: int):
    labels, predicted = pair
    speakers = np.array([f"S{i * 7 % 5}" for i in range(len(labels))])
    assume(len(set(speakers)) >= 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BOOTSTRAPS", 60)
        found = confidence_intervals(labels, predicted, speakers, 4, seed)
    names = sorted(set(speakers))
    ua, wa = [], []
    for draw in np.random.default_rng(seed).integers(len(names), size=(60, len(names))):
        rows = np.concatenate([np.flatnonzero(speakers == names[speaker]) for speaker in draw])
        true = labels[rows]
        hit = true == predicted[rows]
        ua.append(np.mean([hit[true == c].mean() for c in np.unique(true)]))
        wa.append(hit.mean())
    for name, values in (("ua", ua), ("wa", wa)):
        assert found[name] == pytest.approx(np.percentile(values, [2.5, 97.5]))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_fewer_than_four_speakers_have_no_interval(count: int):
    """Of three, one resample in 27 is the worst speaker alone: the interval would be the range of the three."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60)
    speakers = [f"S{i % count}" for i in range(60)]
    found = report(labels, rng.permutation(labels), speakers, CLASSES)
    printed = table(found | {"test_speakers": sorted(set(speakers))})
    if count < 4:
        assert found["ci95"] == {"ua": None, "wa": None}
        assert printed.count("too few speakers for an interval") == 2
        assert "95 % interval" not in printed
    else:
        assert all(low < high for low, high in found["ci95"].values())
        assert printed.count("95 % interval") == 2


def test_scores_by_sex_are_those_of_the_utterances_of_each():
    labels = np.array([0, 0, 1, 1, 0, 1, 2])
    predicted = np.array([0, 1, 1, 1, 1, 1, 2])
    sexes = ["female"] * 4 + ["male"] * 2 + [""]
    found = report(labels, predicted, ["b", "a", "a", "b", "c", "c", "d"], CLASSES, sexes)
    assert found["by_sex"] == {
        "female": {"ua": 0.75, "n": 4, "speakers": ["a", "b"]},
        "male": {"ua": 0.5, "n": 2, "speakers": ["c"]},
    }
    printed = table(found | {"test_speakers": list("abcd")})
    assert "UA         75.0%   female (4 utterances)" in printed
    assert report(labels, predicted, ["a"] * 7, CLASSES)["by_sex"] == {}


def test_intervals_contain_the_score_and_are_reproducible(sample):
    labels, predicted, speakers = sample
    found = confidence_intervals(labels, predicted, speakers, 3)
    point = scores(labels, predicted)
    for name in ("ua", "wa"):
        low, high = found[name]
        assert 0 <= low < point[name] < high <= 1
    assert found == confidence_intervals(labels, predicted, speakers, 3)
    assert found != confidence_intervals(labels, predicted, speakers, 3, seed=1)


def test_differences_between_speakers_widen_the_interval(sample):
    """The bootstrap resamples speakers: with two right and two wrong speakers, WA may be anything."""
    labels = np.array([0, 1, 2] * 20)
    predicted = np.where(np.arange(60) < 30, labels, (labels + 1) % 3)
    together = confidence_intervals(labels, predicted, [str(i // 15) for i in range(60)], 3)
    alone = confidence_intervals(labels, predicted, [str(i) for i in range(60)], 3)
    assert together["wa"] == [0.0, 1.0]
    assert alone["wa"][1] - alone["wa"][0] < 0.4


def test_predictions_are_read_back_as_they_were_written(tmp_path: Path):
    names = ["a,b", 'say "so"', "ünïcode", "two words"]
    manifest = [
        Row(name, f"{name}.wav", "S1, the first", "1", "sad", "", 1.0, "", "", 0.0, "") for name in names
    ]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    write_predictions(tmp_path / "predictions.csv", manifest, CLASSES, probabilities)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["utterance", "speaker", "emotion", "predicted", *CLASSES]
    assert [row[:3] for row in rows] == [[name, "S1, the first", "sad"] for name in names]
    assert [row[3] for row in rows] == [CLASSES[p.argmax()] for p in probabilities]
    np.testing.assert_allclose(np.array([row[4:] for row in rows], dtype=float), probabilities, atol=5.1e-7)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_predictions_for_another_number_of_rows_are_refused(tmp_path: Path):
    manifest = [Row("u", "u.wav", "S1", "", "sad", "", 1.0, "", "", 0.0, "")]
    with pytest.raises(ValueError, match="zip"):
        write_predictions(tmp_path / "predictions.csv", manifest, CLASSES, np.ones((2, 3)) / 3)
    assert list(tmp_path.iterdir()) == []


def test_the_table_shows_the_scores_of_the_classes_that_occur():
    found = report(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2]), ["a", "a", "b", "b"], CLASSES)
    shown = table({**found, "test_speakers": ["a", "b"], "best_epoch": 7, "protocol": "held_out"})
    assert "4 utterances of a, b" in shown
    assert "epoch 7, protocol held_out" in shown
    assert "UA         83.3%" in shown
    assert "WA         75.0%" in shown
    assert "66.7%   angry" in shown
    assert "happy" not in shown
