"""Evaluation: logits as of a network that is not trained, the probabilities of recordings, the loss over all."""

import numpy as np
import pytest
import torch
from torch import nn

from training.predictions import average_clips, compute_logits, mean_loss


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_those_of_evaluation_and_nothing_is_changed(training: bool):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    network(torch.randn(20, 3))  # running statistics of their own
    network.train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(7, 3)
    found = compute_logits(network, [(x[:4], torch.zeros(4)), (x[4:], torch.zeros(3))])
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert not found.requires_grad
    torch.testing.assert_close(found, network.eval()(x).detach())


def test_cross_entropy_is_the_mean_over_all():
    logits, labels = torch.randn(9, 4), [0, 1, 2, 3, 0, 1, 2, 3, 0]
    expected = sum(float(torch.logsumexp(row, 0) - row[y]) for row, y in zip(logits, labels, strict=True)) / 9
    assert mean_loss(logits, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("clips", [[3, 1, 4, 2], [10], [1, 9]])
@pytest.mark.parametrize("scale", [1.0, 300.0], ids=["plain", "beyond what exp can hold"])
def test_pooling_is_the_mean_of_the_probabilities(clips: list[int], scale: float):
    logits = scale * torch.randn(10, 3)
    found = average_clips(logits, clips)
    assert found.shape == (len(clips), 3)
    wide = logits.numpy().astype(np.longdouble)
    scores = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    means = [part.mean(axis=0) for part in np.split(probabilities, np.cumsum(clips)[:-1])]
    np.testing.assert_allclose(found.numpy(), np.log(means).astype(np.float64), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.exp().sum(dim=1), 1, rtol=1e-5)


def test_pooling_one_clip_each_changes_no_bit():
    logits = 20 * torch.randn(50, 4)
    assert torch.equal(average_clips(logits, [1] * 50), logits.log_softmax(dim=1))
