"""Which alphas a genotype is derived from, and which epoch's genotype is the result."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from config import SearchConfig
from darts.derivation import Derivation
from darts.supernet import make_supernet
from genotypes import discretise
from models.search_network import SearchNetwork
from models.search_space import canonical

SIZE = {"layers": 2, "init_channels": 2, "cnn_nodes": 2, "rnn_layers": 1, "rnn_nodes": 2, "rnn_channels": 4}
SCORES = [(0.9, -0.2), (0.4, -0.9), (0.5, -0.8), (0.5, -0.7), (0.5, -0.7), (0.3, -0.1)]
"""UA and -loss of six epochs; the first does not train the alphas. The fourth is the best of the others."""


def make_config(**flags: object) -> SearchConfig:
    return SearchConfig(**SIZE, rnn_ops=("lstm_1", "rnn_1", "skip_connect", "none"), **flags)


def draw_alphas(network: SearchNetwork, epoch: int) -> None:
    """Set the alphas to those of an epoch."""
    torch.manual_seed(epoch)
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha, std=2)


def run_epochs(derivation: Derivation, epochs: range) -> list:
    """The genotypes of these epochs, counted from 1."""
    genotypes = []
    for epoch in epochs:
        draw_alphas(derivation.network, epoch)
        genotypes.append(derivation.update(epoch, None if epoch == 1 else SCORES[epoch - 1]))
    return genotypes


@pytest.fixture
def network() -> SearchNetwork:
    return make_supernet(make_config(), 4)


@pytest.mark.parametrize("edges_by", ["weight", "without_none"])
@pytest.mark.parametrize("average", [1, 3, 9])
def test_genotype_follows_from_the_mean_of_the_softmaxed_alphas_of_the_last_epochs(
    network, average, edges_by
):
    derivation = Derivation(make_config(alpha_average=average, edges_by=edges_by), network)
    found = run_epochs(derivation, range(1, 7))
    for epoch, genotype in enumerate(found, 1):
        counted = range(max(1, epoch - average + 1), epoch + 1)
        for kind in ("normal", "reduce", "rnn"):
            sums = 0.0
            for earlier in counted:
                draw_alphas(network, earlier)
                rows = torch.cat(list(network.alphas[kind])).double()
                sums = sums + rows.exp() / rows.exp().sum(dim=1, keepdim=True)
            mean = (sums / len(counted)).detach().numpy()
            truth = discretise([mean[:2], mean[2:]], network.space.of(kind)[1], edges_by)
            assert getattr(genotype, kind) == truth
    assert len(set(map(str, found))) > 1


@pytest.mark.parametrize(("pick", "epoch"), [("last", 6), ("best", 4)])
def test_best_epoch_has_the_highest_ua_then_the_lowest_loss_of_those_that_train_the_alphas(
    network, pick, epoch
):
    derivation = Derivation(make_config(pick=pick), network)
    found = run_epochs(derivation, range(1, 7))
    assert derivation.epoch == epoch
    assert derivation.genotype == found[epoch - 1]
    assert derivation.genotype != found[0]


@pytest.mark.parametrize("cut", range(1, 6))
def test_resumed_derivation_equals_an_uninterrupted_one(network, cut, tmp_path):
    config = make_config(pick="best", alpha_average=3)
    whole, first, resumed = (Derivation(config, network) for _ in range(3))
    truth = run_epochs(whole, range(1, 7))
    run_epochs(first, range(1, cut + 1))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert run_epochs(resumed, range(cut + 1, 7)) == truth[cut:]
    assert (resumed.epoch, resumed.genotype) == (whole.epoch, whole.genotype)


def test_without_flags_it_is_the_genotype_of_the_network_after_the_last_epoch(network):
    derivation = Derivation(make_config(), network)
    for epoch, genotype in enumerate(run_epochs(derivation, range(1, 4)), 1):
        draw_alphas(network, epoch)
        assert genotype == network.genotype()
    assert derivation.genotype == network.genotype()


def test_candidates_are_the_picked_genotype_and_different_others(network):
    derivation = Derivation(make_config(seed=3), network)
    picked = run_epochs(derivation, range(1, 3))[-1]
    found = derivation.candidates(6, ("normal",))
    assert found[0] == picked
    assert len({canonical(each, ("normal",)) for each in found}) == 6
    assert derivation.candidates(6, ("normal",)) == found
    assert derivation.candidates(1, ()) == [picked]


def test_ops_are_drawn_by_their_softmax_weights(network):
    """The first node keeps both of its edges, so that its ops are drawn by the weights of the ops besides none."""
    derivation = Derivation(make_config(edges_by="without_none"), network)
    with torch.no_grad():
        for alpha in network.architecture_parameters():
            alpha.zero_()
        network.alphas["rnn"][0][0] = torch.tensor([1.0, 0.0, -1.0, 2.0])
    derivation.update(1, (0.5, -1.0))
    rng = np.random.default_rng(0)
    drawn = [next(op for op, source in derivation.draw(rng).rnn[0] if source == 0) for _ in range(2000)]
    weights = np.exp([1.0, 0.0, -1.0])
    counts = [drawn.count(op) for op in ("lstm_1", "rnn_1", "skip_connect")]
    assert chisquare(counts, 2000 * weights / weights.sum()).pvalue > 1e-3


def test_confident_alphas_have_few_candidates(network):
    derivation = Derivation(make_config(), network)
    with torch.no_grad():
        for alpha in network.architecture_parameters():
            alpha.zero_()
            alpha[:, 0] = 80.0
    derivation.update(1, (0.5, -1.0))
    found = derivation.candidates(50, ())
    assert {
        op
        for each in found
        for kind in ("normal", "reduce")
        for node in getattr(each, kind)
        for op, _ in node
    } == {"max_pool_3x3"}
