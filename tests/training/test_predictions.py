"""Predictions: logits in evaluation mode, the mean over clips and over networks, and the mean loss."""

import numpy as np
import pytest
import torch
from torch import nn

from training.predictions import Predictions, average_clips, average_networks, compute_logits, mean_loss


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_computed_in_evaluation_mode_and_change_nothing(training: bool):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    network(torch.randn(20, 3))  # so that the running statistics differ from the initial ones
    network.train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(7, 3)
    logits = compute_logits(network, [(x[:4], torch.zeros(4)), (x[4:], torch.zeros(3))])
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert not logits.requires_grad
    torch.testing.assert_close(logits, network.eval()(x).detach())


def test_mean_loss_is_the_mean_cross_entropy():
    logits = torch.randn(9, 4)
    labels = [0, 1, 2, 3, 0, 1, 2, 3, 0]
    losses = [float(torch.logsumexp(row, 0) - row[y]) for row, y in zip(logits, labels, strict=True)]
    assert mean_loss(logits, labels) == pytest.approx(sum(losses) / 9, rel=1e-5)


@pytest.mark.parametrize("clips", [[3, 1, 4, 2], [10], [1, 9]])
@pytest.mark.parametrize("scale", [1.0, 300.0], ids=["small logits", "logits whose exp overflows"])
def test_average_clips_is_the_mean_of_the_probabilities(clips: list[int], scale: float):
    logits = scale * torch.randn(10, 3)
    found = average_clips(logits, clips)
    assert found.shape == (len(clips), 3)
    wide = logits.numpy().astype(np.longdouble)
    exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    means = [part.mean(axis=0) for part in np.split(probabilities, np.cumsum(clips)[:-1])]
    np.testing.assert_allclose(found.numpy(), np.log(means).astype(np.float64), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.exp().sum(dim=1), 1, rtol=1e-5)


def test_average_of_one_clip_each_changes_no_bit():
    logits = 20 * torch.randn(50, 4)
    assert torch.equal(average_clips(logits, [1] * 50), logits.log_softmax(dim=1))


def test_average_of_networks_is_the_mean_of_their_probabilities_even_if_some_are_zero():
    probabilities = torch.tensor([[[0.25, 0.75], [1.0, 0.0]], [[0.75, 0.25], [0.5, 0.5]]])
    average = average_networks([Predictions(None, np.arange(2), each.log()) for each in probabilities])
    np.testing.assert_allclose(average.probabilities, [[0.5, 0.5], [0.75, 0.25]], rtol=1e-6)
