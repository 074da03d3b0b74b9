"""The choice without single speakers, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from darts.left_out import choices
from genotypes import Genotype

CELLS = [[("skip_connect", 0), ("sep_conv_3x3", 1)]]


def make_genotype(op: str) -> Genotype:
    return Genotype.of_nodes(CELLS, CELLS, [[(op, 0), ("lstm_1", 1)]])


GENOTYPES = [make_genotype(op) for op in ("lstm_1", "rnn_1", "skip_connect")]


def test_choices_by_hand():
    losses = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 3.0, 3.0], [2.0, 2.0, 0.5, 0.5]])
    speakers = np.array(["a", "a", "b", "b"])
    found = choices(GENOTYPES, GENOTYPES[0], losses, np.array([0, 1, 0, 1]), speakers)
    # without a, the third is the best and the first the second; without b, the second is
    assert [(each.speaker, each.agreement, each.rank) for each in found] == [
        ("a", pytest.approx(5 / 6), 2),
        ("b", pytest.approx(5 / 6), 2),
    ]


def test_classes_count_the_same():
    rng = np.random.default_rng(0)
    labels, speakers = rng.integers(0, 3, 60), rng.integers(0, 4, 60).astype(str)
    labels[speakers == "2"] = 1  # without another speaker, the classes are uneven in another way
    probabilities = rng.dirichlet(np.ones(3), (3, 60))
    losses = -np.log(probabilities[:, np.arange(60), labels])
    for each in choices(GENOTYPES, GENOTYPES[1], losses, labels, speakers):
        left = speakers != each.speaker
        balance = (1 / np.bincount(labels[left]))[labels[left]]
        truth = [log_loss(labels[left], p[left], sample_weight=balance) for p in probabilities]
        assert each.rank == sorted(truth).index(truth[1]) + 1
        assert (each.agreement == 1.0) == (truth[1] == min(truth))


def test_the_speaker_without_whom_the_choice_changes_most_is_the_first():
    losses = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.5]])
    labels, speakers = np.array([0, 0]), np.array(["a", "b"])
    assert [each[::2] for each in choices(GENOTYPES, GENOTYPES[1], losses, labels, speakers)] == [
        ("a", 3),
        ("b", 1),
    ]


def test_a_single_speaker_cannot_be_left_out():
    assert choices(GENOTYPES, GENOTYPES[0], np.ones((3, 2)), np.array([0, 1]), np.array(["a", "a"])) == []
