"""Augment: the architectures that its flags choose, the schedule of drop path, and the choice of the epoch."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import augment
from config import AugmentConfig, SearchConfig
from darts.supernet import make_supernet
from genotypes import BUILT_IN
from models.architecture import BaselineArchitecture, SearchedArchitecture
from models.augment_network import DropPath
from models.baselines import BASELINES
from models.joint_network import Size
from training.retraining import BestEpoch, Retraining, choose_architecture, make_optimizer, make_scheduler

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
        ({"rnn_bands": 2}, SearchedArchitecture(GENOTYPE, replace(SIZE, rnn_bands=2), auxiliary=True)),
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
    monkeypatch.setattr("training.retraining.weight_step", lambda *_: {})
    network = nn.Sequential(DropPath(), nn.Sequential(DropPath()))
    batch = torch.zeros(2, 1, *SHAPE), torch.zeros(2)
    config = AugmentConfig(epochs=4, drop_path_prob=0.4)
    parts = {"network": network, "optimizer": None, "loss": nn.CrossEntropyLoss()}
    task = SimpleNamespace(config=config, steps=3, batches=[batch] * 12, **parts)
    for i in range(12):
        Retraining.step(task, i)
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


# ---------------------------------------------------------------- the recipe of small corpora


def learning_rates(epochs: int, **flags: object) -> list[float]:
    """The learning rate of each epoch."""
    config = AugmentConfig(epochs=epochs, **flags)
    optimizer = make_optimizer(config, nn.Linear(2, 2))
    scheduler = make_scheduler(config, optimizer)
    rates = []
    for _ in range(epochs):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("epochs", [10, 40])
def test_one_cycle_rises_in_a_fifth_of_the_epochs_and_ends_near_0(epochs: int, optimizer: str):
    """Half a cosine from 1/25 of the largest rate to it, and half a cosine from there to 4e-6 of it."""
    top = round(0.2 * epochs) - 1
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(top + 1) / top)
    fall = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, epochs - top) / (epochs - 1 - top))
    expected = [*(0.04 + 0.96 * rise), *(4e-6 + (1 - 4e-6) * fall)]
    rates = learning_rates(epochs, schedule="onecycle", lr=0.3, optimizer=optimizer)
    np.testing.assert_allclose(rates, 0.3 * np.array(expected), rtol=1e-6)


def test_the_published_schedule_is_a_cosine():
    expected = [0.15 * (1 + math.cos(math.pi * epoch / 8)) for epoch in range(8)]
    np.testing.assert_allclose(learning_rates(8, lr=0.3), expected, rtol=1e-6)


@pytest.mark.parametrize("epochs", range(1, 8))
def test_one_cycle_needs_more_than_five_epochs(epochs: int):
    if epochs > 5:
        assert max(learning_rates(epochs, schedule="onecycle", lr=0.3)) > 0.25
        return
    with pytest.raises(ValueError, match="--schedule onecycle needs more than 5 epochs"):
        AugmentConfig(epochs=epochs, schedule="onecycle")


def test_adamw_decays_weights_and_neither_biases_nor_scales_of_norms():
    """The first step of Adam is lr g / (|g| + eps); decoupled decay subtracts lr * decay * p besides."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).double()
    nn.init.normal_(network[1].bias)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = make_optimizer(AugmentConfig(optimizer="adamw", lr=0.01, weight_decay=0.5), network)
    network(torch.randn(4, 1, 5, 5, dtype=torch.float64)).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    optimizer.step()
    for name, p in network.named_parameters():
        decay = 0.5 if name == "0.weight" else 0.0
        g = gradients[name]
        expected = before[name] * (1 - 0.01 * decay) - 0.01 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(p.detach(), expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("pick", "epoch"), [("best", 2), ("last", 4)])
def test_pick_decides_which_epoch_is_kept(pick: str, epoch: int):
    network = nn.Linear(1, 1, bias=False)
    uas = iter([0.5, 0.9, 0.6, 0.7])
    predictions = SimpleNamespace(scores=lambda: {"ua": next(uas)}, loss=1.0)
    scheduler = SimpleNamespace(get_last_lr=lambda: [0.1], step=lambda: None)
    parts = {"best": BestEpoch(network), "scheduler": scheduler, "picking_rows": [0]}
    config = AugmentConfig(epochs=4, pick=pick)
    task = SimpleNamespace(config=config, predict=lambda rows: predictions, **parts)
    for number in range(1, 5):
        nn.init.constant_(network.weight, number)
        Retraining.after_epoch(task, number)
    task.best.restore()
    assert (task.best.epoch, network.weight.item()) == (epoch, epoch)


@pytest.mark.parametrize("stride", [1, 2])
def test_stem_stride_halves_the_maps_of_search_and_augment(stride: int):
    sizes = {"stem_stride": stride, **SMALL}
    derived = choose_architecture(AugmentConfig(**sizes), GENOTYPE, SHAPE).build(4).network
    supernet = make_supernet(SearchConfig(**sizes, cnn_nodes=1, rnn_nodes=1), 4).network
    for network in (derived, supernet):
        shape = network.stem(torch.randn(2, 1, *SHAPE)).shape
        assert shape == (2, 9, *(-(-size // stride) for size in SHAPE))
