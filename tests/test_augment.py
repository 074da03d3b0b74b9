"""Augment: the architectures that its flags choose, the schedule of drop path, and the choice of the epoch."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import augment
from augment import BestEpoch, choose_architecture
from config import AugmentConfig
from genotypes import BUILT_IN
from models.architecture import BaselineArchitecture, SearchedArchitecture
from models.augment_network import DropPath
from models.baselines import BASELINES
from models.joint_network import Size

GENOTYPE = BUILT_IN["cnn_lstm"]
SHAPE = (8, 9)
SMALL = {"layers": 2, "init_channels": 3, "rnn_layers": 1, "rnn_channels": 5}
SIZE = Size(2, 3, 1, 5)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, SearchedArchitecture(GENOTYPE, SIZE, dropout=0.0, auxiliary=True, fused=True)),
        (
            {"dropout": 0.25, "aux_weight": 0.0},
            SearchedArchitecture(GENOTYPE, SIZE, dropout=0.25, auxiliary=False),
        ),
        (
            {"dropout": 0.25, "fused": "off"},
            SearchedArchitecture(GENOTYPE, SIZE, 0.25, auxiliary=True, fused=False),
        ),
        ({"deltas": 2}, SearchedArchitecture(GENOTYPE, replace(SIZE, deltas=2), auxiliary=True)),
    ],
)
def test_flags_choose_the_architecture(flags: dict, expected: SearchedArchitecture):
    flags = {"dropout": 0.0, **flags}
    assert choose_architecture(AugmentConfig(**SMALL, **flags), GENOTYPE, SHAPE) == expected


def test_searched_network_has_the_dropout_and_the_auxiliary_head_of_its_architecture():
    network = SearchedArchitecture(GENOTYPE, SIZE, 0.25, auxiliary=True).build(4).train()
    assert network.network.dropout.p == 0.25
    assert [logits.shape for logits in network(torch.randn(2, 1, *SHAPE))] == [(2, 4), (2, 4)]
    assert any(isinstance(module, DropPath) for module in network.modules())


@pytest.mark.parametrize("model", BASELINES)
def test_baseline_has_the_shape_of_the_features_and_no_genotype_or_drop_path(model: str):
    config = AugmentConfig(model=model)
    assert augment.find_genotype(config) == (None, None)
    architecture = choose_architecture(config, None, SHAPE)
    assert architecture == BaselineArchitecture(model, SHAPE)
    network = architecture.build(4).train()
    assert isinstance(network(torch.randn(2, 1, *SHAPE)), Tensor)
    assert not any(isinstance(module, DropPath) for module in network.modules())


def test_deltas_are_for_searched_networks_and_acrnn():
    config = AugmentConfig(model="acrnn", deltas=2)
    assert choose_architecture(config, None, SHAPE) == BaselineArchitecture("acrnn", SHAPE, deltas=2)
    for model in set(BASELINES) - {"acrnn"}:
        with pytest.raises(ValueError, match=f"--deltas is for --model searched or acrnn; {model} is"):
            AugmentConfig(model=model, deltas=1)


def test_drop_path_probability_grows_linearly_with_the_epoch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(augment, "weight_step", lambda *_: {})
    network = nn.Sequential(DropPath(), nn.Sequential(DropPath()))
    batch = torch.zeros(2, 1, *SHAPE), torch.zeros(2)
    config = AugmentConfig(epochs=4, drop_path_prob=0.4)
    parts = {"network": network, "optimizer": None, "loss": nn.CrossEntropyLoss()}
    task = SimpleNamespace(config=config, steps=3, batches=[batch] * 12, **parts)
    for i in range(12):
        augment.Augment.step(task, i)
        probabilities = [network[0].probability, network[1][0].probability]
        assert probabilities == pytest.approx([0.1 * (i // 3)] * 2)


def test_best_epoch_has_the_highest_ua_and_then_the_lowest_loss():
    network = nn.Linear(1, 1, bias=False)
    best = BestEpoch(network)
    scores = [(0.5, -1.0), (0.6, -2.0), (0.6, -1.5), (0.6, -1.5), (0.4, -0.1)]
    for epoch, score in enumerate(scores, start=1):
        nn.init.constant_(network.weight, epoch)
        best.update(score, epoch)
    assert (best.epoch, best.score) == (3, (0.6, -1.5))
    resumed = BestEpoch(network)
    resumed.load_state_dict(best.state_dict())
    resumed.restore()
    assert (resumed.epoch, resumed.score, network.weight.item()) == (3, (0.6, -1.5), 3.0)
