"""The support vector machine of a study: equal to pipelines and a grid search of scikit-learn, built by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from study import svm
from study.svm import Candidate, candidates, choose, decide, standardise_by, thin_out

D = 20


def data(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Utterances of unequal classes that a machine cannot tell apart entirely, with functionals of unequal scale."""
    shape = {"n_samples": 240, "n_features": D, "n_informative": 6}
    weights = np.array([2] + [1] * (classes - 1)) / (classes + 1)
    sizes = {"n_classes": classes, "n_clusters_per_class": 1, "weights": list(weights)}
    x, y = make_classification(**shape, **sizes, flip_y=0.2, random_state=seed)
    return x * np.logspace(-3, 3, D), y


def by_hand(candidate: Candidate) -> Pipeline:
    """The pipeline of a candidate, with the kernel of libsvm."""
    gamma = candidate.gamma or "scale"
    machine = SVC(
        kernel=candidate.kernel, C=candidate.C, gamma=gamma, class_weight="balanced", break_ties=True
    )
    return Pipeline([("scale", StandardScaler()), ("svm", machine)])


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("candidate", [Candidate("linear", 0.01, None), Candidate("rbf", 3.0, 0.05)])
def test_machine_equals_that_of_libsvm(candidate: Candidate, classes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(svm, "BLOCK", 7)
    x, y = data(classes)
    machine, other = (each.fit(x[:120], y[:120]) for each in (candidate.machine(), by_hand(candidate)))
    decisions = decide(machine, x[120:])
    assert decisions.shape == (120, classes)
    np.testing.assert_array_equal(decisions.argmax(axis=1), other.predict(x[120:]))
    differences = decisions if classes > 2 else decisions[:, 1] - decisions[:, 0]
    np.testing.assert_allclose(differences, other.decision_function(x[120:]), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_choice_equals_a_grid_search(seed: int):
    x, y = data(3, seed)
    train, picking = slice(0, 80), slice(80, 120)
    grid = [
        {"svm__kernel": ["linear"], "svm__C": [1e-4, 1e-3, 1e-2, 1e-1]},
        {"svm__kernel": ["rbf"], "svm__gamma": [0.25 / D, 1 / D], "svm__C": [1, 3, 10, 30]},
    ]
    split = PredefinedSplit([-1] * 80 + [0] * 40)
    pipeline = by_hand(Candidate("linear", 1, None))
    search = GridSearchCV(pipeline, grid, scoring="balanced_accuracy", cv=split, refit=False)
    scores = search.fit(x[:120], y[:120]).cv_results_
    candidate, ua, machine = choose(x[train], y[train], x[picking], y[picking])
    assert len(scores["params"]) == len(list(candidates(D))) == 12
    assert ua == pytest.approx(scores["mean_test_score"].max())
    other = by_hand(candidate).fit(x[train], y[train])
    assert balanced_accuracy_score(y[picking], other.predict(x[picking])) == pytest.approx(ua)
    np.testing.assert_array_equal(decide(machine, x[120:]).argmax(axis=1), other.predict(x[120:]))


def test_of_equal_candidates_the_simplest_is_chosen():
    x = np.repeat([[0.0] * D, [1.0] * D], 20, axis=0)
    y = np.repeat([0, 1], 20)
    candidate, ua, _ = choose(x, y, x, y)
    assert (candidate, ua) == (Candidate("linear", 1e-4, None), 1.0)


@pytest.mark.parametrize("most", [40, 57, 400])
def test_large_training_sets_are_thinned_out_evenly(most: int):
    labels = np.array([0] * 299 + [1] + [2] * 100)[np.random.default_rng(0).permutation(400)]
    store = SimpleNamespace(labels=labels)
    utterances = {f"{i:03}": [i] for i in range(400)}
    kept = thin_out(store, utterances, most)
    counts = np.bincount([labels[row] for rows in kept.values() for row in rows])
    assert most <= len(kept) <= most + 3
    assert list(kept) == sorted(kept)
    assert counts[1] == 1
    assert counts[0] / counts[2] == pytest.approx(3, rel=0.4)
    assert thin_out(store, kept, most + 3) == kept


def test_standardisation_by_speaker_removes_what_a_speaker_has_in_common():
    rng = np.random.default_rng(0)
    speakers = np.array(["a", "b", "a", "c", "b", "a"])
    offset = {"a": 5.0, "b": -300.0, "c": 1e4}
    plain = rng.normal(size=(6, 4))
    x = plain + np.array([[offset[name]] for name in speakers])
    found = standardise_by(speakers, x)
    for name in "ab":
        own = plain[speakers == name]
        np.testing.assert_allclose(found[speakers == name], (own - own.mean(axis=0)) / own.std(axis=0))
    assert found[3].tolist() == [0.0] * 4, "a single utterance is its own mean"
