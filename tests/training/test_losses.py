"""The losses against computations by hand and scikit-learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from training.losses import ClassificationLoss, MixupLoss, class_weights

LOGITS = [[0.5, -1.0, 2.0], [1.0, 0.0, 0.0], [-2.0, 0.3, 0.1]]
AUXILIARY_LOGITS = [[0.0, 1.0, 2.0], [3.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
Y = [2, 0, 1]
WEIGHT = [0.5, 2.0, 1.25]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50))
def test_class_weights_equal_the_balanced_ones_of_scikit_learn(labels: list[int]):
    """Scikit-learn counts only the classes that are present; absent ones get the weight 0."""
    labels = np.array(labels)
    weights = class_weights(labels, 4)
    present = np.unique(labels)
    balanced = compute_class_weight("balanced", classes=present, y=labels) * len(present) / 4
    assert weights.dtype == torch.float32
    assert weights.shape == (4,)
    np.testing.assert_allclose(weights[present], balanced, rtol=1e-6)
    assert (np.delete(weights.numpy(), present) == 0).all()
    totals = weights.numpy() * np.bincount(labels, minlength=4)
    np.testing.assert_allclose(totals[present], len(labels) / 4, rtol=1e-6)


def loss_by_hand(logits: list[list[float]], y: list[int], weight: list[float]) -> float:
    """The weighted mean of -log softmax."""
    total = 0.0
    for row, label in zip(logits, y, strict=True):
        total += weight[label] * (math.log(sum(math.exp(value) for value in row)) - row[label])
    return total / sum(weight[label] for label in y)


@pytest.mark.parametrize("weight", [WEIGHT, None], ids=["class weights", "no class weights"])
@pytest.mark.parametrize("aux_weight", [0.0, 0.4, 1.0])
def test_joint_loss_adds_the_loss_of_the_auxiliary_head(aux_weight: float, weight: list[float] | None):
    loss = ClassificationLoss(None if weight is None else torch.tensor(weight), aux_weight)
    logits, auxiliary_logits, y = torch.tensor(LOGITS), torch.tensor(AUXILIARY_LOGITS), torch.tensor(Y)
    own, auxiliary = (loss_by_hand(values, Y, weight or [1.0] * 3) for values in (LOGITS, AUXILIARY_LOGITS))
    assert float(loss(logits, y)) == pytest.approx(own, rel=1e-5)
    assert float(loss((logits, auxiliary_logits), y)) == pytest.approx(own + aux_weight * auxiliary, rel=1e-5)


@pytest.mark.parametrize("weight", [WEIGHT, None], ids=["class weights", "no class weights"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_label_smoothing_spreads_a_share_of_the_target_over_all_classes(share: float, weight):
    weights = np.array(weight or [1.0] * 3)
    for heads in ([LOGITS], [LOGITS, AUXILIARY_LOGITS]):
        total = 0.0
        for logits, factor in zip(map(np.array, heads), (1.0, 0.4), strict=False):
            negative_log = np.log(np.exp(logits).sum(axis=1, keepdims=True)) - logits
            target = (1 - share) * np.eye(3)[Y] + share / 3
            total += factor * (target * weights * negative_log).sum() / weights[Y].sum()
        loss = ClassificationLoss(None if weight is None else torch.tensor(weight), 0.4, share)
        outputs = tuple(map(torch.tensor, heads))
        found = loss(outputs if len(heads) > 1 else outputs[0], torch.tensor(Y))
        assert float(found) == pytest.approx(total, rel=1e-5)


def test_gradient_reaches_both_heads():
    outputs = tuple(torch.tensor(values, requires_grad=True) for values in (LOGITS, AUXILIARY_LOGITS))
    ClassificationLoss(torch.tensor(WEIGHT), 0.4)(outputs, torch.tensor(Y)).backward()
    assert all(head.grad.abs().max() > 0 for head in outputs)


def test_class_weights_are_a_buffer_that_is_not_trained():
    loss = ClassificationLoss(torch.tensor(WEIGHT), 0.4)
    assert list(loss.parameters()) == []
    assert loss.to(torch.float64).weight.dtype == torch.float64
    assert not ClassificationLoss(None).state_dict()


@given(st.integers(2, 9), st.floats(0, 1), st.integers(0, 9999), st.booleans())
def test_mixup_loss_is_cross_entropy_with_soft_labels(n: int, share: float, seed: int, auxiliary: bool):
    torch.manual_seed(seed)
    logits, auxiliary_logits = torch.randn(2, n, 4).double()
    y = torch.randint(4, (n,))
    partner = torch.randperm(n)
    outputs = (logits, auxiliary_logits) if auxiliary else logits
    found = MixupLoss(ClassificationLoss(None, 0.4), partner, torch.tensor(share, dtype=torch.float64))(
        outputs, y
    )

    one_hot = torch.eye(4, dtype=torch.float64)
    soft_labels = share * one_hot[y] + (1 - share) * one_hot[y[partner]]  # (n, classes)
    expected = F.cross_entropy(logits, soft_labels)
    if auxiliary:
        expected = expected + 0.4 * F.cross_entropy(auxiliary_logits, soft_labels)
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixup_loss_weights_both_labels_by_their_class(share: float):
    partner = torch.tensor([1, 2, 0])
    loss = MixupLoss(ClassificationLoss(torch.tensor(WEIGHT), 0.4), partner, torch.tensor(share))
    found = loss(torch.tensor(LOGITS), torch.tensor(Y))
    other = [Y[i] for i in partner.tolist()]
    own_loss, other_loss = (loss_by_hand(LOGITS, labels, WEIGHT) for labels in (Y, other))
    assert float(found) == pytest.approx(share * own_loss + (1 - share) * other_loss, rel=1e-5)


def test_gradient_of_mixup_loss_is_that_of_soft_labels():
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = MixupLoss(ClassificationLoss(None, 0.4), torch.tensor([1, 2, 0]), torch.tensor(0.3))
    loss(logits, torch.tensor(Y)).backward()
    soft_labels = 0.3 * np.eye(3)[Y] + 0.7 * np.eye(3)[[0, 1, 2]]
    exponentials = np.exp(np.array(LOGITS))
    expected = (exponentials / exponentials.sum(axis=1, keepdims=True) - soft_labels) / 3
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-4, atol=1e-6)
