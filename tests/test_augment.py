"""What the flags of augment ask to train, and what only some networks have: dropout, an auxiliary head, drop paths."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import augment
from config import AugmentConfig
from genotypes import BUILT_IN
from models.architecture import Designed, Searched
from models.augment_network import DropPath
from models.baselines import BASELINES
from models.joint_network import Size

GENOTYPE = BUILT_IN["cnn_lstm"]
SMALL = {"layers": 2, "init_channels": 3, "rnn_layers": 1, "rnn_channels": 5}


def test_a_genotype_is_built_as_the_flags_say():
    config = AugmentConfig(**SMALL, dropout=0.25, aux_weight=0.0)
    assert augment.choose(config, GENOTYPE, (8, 9)) == Searched(GENOTYPE, Size(2, 3, 1, 5), 0.25, False)
    assert augment.choose(AugmentConfig(**SMALL), GENOTYPE, (8, 9)).auxiliary


def test_dropout_and_the_auxiliary_head_reach_the_network():
    network = Searched(GENOTYPE, Size(2, 3, 1, 5), 0.25, auxiliary=True).build(4).train()
    assert network.network.dropout.p == 0.25
    assert [logits.shape for logits in network(torch.randn(2, 1, 8, 9))] == [(2, 4), (2, 4)]
    assert drop_paths_of(network)


@pytest.mark.parametrize("model", BASELINES)
def test_a_baseline_is_built_for_the_shape_of_the_features(model: str):
    config = AugmentConfig(model=model)
    assert augment.find_genotype(config) == (None, None)
    assert augment.choose(config, None, (8, 9)) == Designed(model, (8, 9))
    network = Designed(model, (8, 9)).build(4).train()
    assert isinstance(network(torch.randn(2, 1, 8, 9)), torch.Tensor)
    assert drop_paths_of(network) == []


def test_drop_paths_grow_by_epochs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(augment, "weight_step", lambda *_: {})
    network = nn.Sequential(DropPath(), nn.Sequential(DropPath()))
    task = SimpleNamespace(
        config=AugmentConfig(epochs=4, drop_path_prob=0.4), steps=3, drop_paths=drop_paths_of(network),
        batches=[(torch.zeros(2, 1, 8, 9), torch.zeros(2))] * 12,
        call=network, optimizer=None, criterion=None, gradient=None,
    )  # fmt: skip
    for i in range(12):
        augment.Augment.step(task, i)
        assert [module.probability for module in (network[0], network[1][0])] == pytest.approx(
            [0.1 * (i // 3)] * 2
        )
