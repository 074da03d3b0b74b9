"""The losses against hand computation and scikit-learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from training.losses import JointLoss, MixupLoss, class_weights


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50))
def test_class_weights_are_scikit_learns_balanced_ones(labels: list[int]):
    labels = np.array(labels)
    weights = class_weights(labels, 4)
    present = np.unique(labels)
    balanced = compute_class_weight("balanced", classes=present, y=labels) * len(present) / 4
    assert weights.dtype == torch.float32
    assert weights.shape == (4,)
    np.testing.assert_allclose(weights[present], balanced, rtol=1e-6)
    assert (np.delete(weights.numpy(), present) == 0).all()


def test_all_classes_present_is_exactly_balanced():
    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(labels, 3), expected, rtol=1e-6)
    counts = np.bincount(labels)
    np.testing.assert_allclose(
        class_weights(labels, 3) * counts, np.full(3, 2.0), rtol=1e-6
    )  # every class the same


def by_hand(logits: list[list[float]], y: list[int], weight: list[float]) -> float:
    """Weighted mean of -log softmax."""
    total = 0.0
    for row, label in zip(logits, y, strict=True):
        total += weight[label] * (math.log(sum(math.exp(value) for value in row)) - row[label])
    return total / sum(weight[label] for label in y)


LOGITS, AUXILIARY = (
    [[0.5, -1.0, 2.0], [1.0, 0.0, 0.0], [-2.0, 0.3, 0.1]],
    [[0.0, 1.0, 2.0], [3.0, 0.0, 1.0], [0.0] * 3],
)
Y, WEIGHT = [2, 0, 1], [0.5, 2.0, 1.25]


def test_a_network_without_auxiliary_head_has_the_weighted_cross_entropy():
    loss = JointLoss(torch.tensor(WEIGHT), aux_weight=0.4)
    found = loss(torch.tensor(LOGITS), torch.tensor(Y))
    assert float(found) == pytest.approx(by_hand(LOGITS, Y, WEIGHT), rel=1e-5)


@pytest.mark.parametrize("aux_weight", [0.0, 0.4, 1.0])
def test_the_auxiliary_head_adds_its_share(aux_weight: float):
    loss = JointLoss(torch.tensor(WEIGHT), aux_weight)
    found = loss((torch.tensor(LOGITS), torch.tensor(AUXILIARY)), torch.tensor(Y))
    expected = by_hand(LOGITS, Y, WEIGHT) + aux_weight * by_hand(AUXILIARY, Y, WEIGHT)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_reaches_both_heads():
    outputs = tuple(torch.tensor(values, requires_grad=True) for values in (LOGITS, AUXILIARY))
    JointLoss(torch.tensor(WEIGHT), 0.4)(outputs, torch.tensor(Y)).backward()
    assert all(head.grad.abs().max() > 0 for head in outputs)


def test_the_weights_move_with_the_loss_and_are_not_trained():
    loss = JointLoss(torch.tensor(WEIGHT), 0.4)
    assert list(loss.parameters()) == []
    assert loss.to(torch.float64).weight.dtype == torch.float64


def test_without_class_weights_every_utterance_counts_the_same():
    loss = JointLoss(None, aux_weight=0.4)
    outputs = torch.tensor(LOGITS), torch.tensor(AUXILIARY)
    expected = by_hand(LOGITS, Y, [1.0] * 3) + 0.4 * by_hand(AUXILIARY, Y, [1.0] * 3)
    assert float(loss(outputs, torch.tensor(Y))) == pytest.approx(expected, rel=1e-5)
    assert float(loss(outputs[0], torch.tensor(Y))) == pytest.approx(by_hand(LOGITS, Y, [1.0] * 3), rel=1e-5)
    assert not loss.state_dict()


@given(st.integers(2, 9), st.floats(0, 1), st.integers(0, 9999), st.booleans())
def test_the_loss_of_a_blend_is_cross_entropy_with_soft_labels(
    n: int, share: float, seed: int, auxiliary: bool
):
    torch.manual_seed(seed)
    logits, others, y = torch.randn(n, 4).double(), torch.randn(n, 4).double(), torch.randint(4, (n,))
    partner = torch.randperm(n)
    outputs = (logits, others) if auxiliary else logits
    found = MixupLoss(JointLoss(None, 0.4), partner, torch.tensor(share, dtype=torch.float64))(outputs, y)

    soft = share * np.eye(4)[y] + (1 - share) * np.eye(4)[y[partner]]  # (n, classes)

    def soft_cross_entropy(values: torch.Tensor) -> float:
        scores = np.exp(values.numpy())
        return float(-(soft * np.log(scores / scores.sum(axis=1, keepdims=True))).sum(axis=1).mean())

    expected = soft_cross_entropy(logits) + (0.4 * soft_cross_entropy(others) if auxiliary else 0.0)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    if not auxiliary:
        assert float(found) == pytest.approx(float(F.cross_entropy(logits, torch.from_numpy(soft))), rel=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_of_a_blend_weighs_both_labels_by_their_class(share: float):
    partner = torch.tensor([1, 2, 0])
    blended = MixupLoss(JointLoss(torch.tensor(WEIGHT), 0.4), partner, torch.tensor(share))
    found = blended(torch.tensor(LOGITS), torch.tensor(Y))
    other = [Y[place] for place in partner.tolist()]
    expected = share * by_hand(LOGITS, Y, WEIGHT) + (1 - share) * by_hand(LOGITS, other, WEIGHT)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_a_blend_reaches_the_logits():
    logits = torch.tensor(LOGITS, requires_grad=True)
    MixupLoss(JointLoss(None, 0.4), torch.tensor([1, 2, 0]), torch.tensor(0.3))(
        logits, torch.tensor(Y)
    ).backward()
    soft = 0.3 * np.eye(3)[Y] + 0.7 * np.eye(3)[[0, 1, 2]]
    scores = np.exp(np.array(LOGITS))
    expected = (scores / scores.sum(axis=1, keepdims=True) - soft) / 3
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-4, atol=1e-6)
