"""The one-shot supernet against the derived network of each genotype with the same weights."""

import pytest
import torch
from torch import nn

from genotypes import Genotype
from models.augment_network import AugmentNetwork
from models.joint_network import Size
from models.one_shot_network import OneShotNetwork
from models.search_space import SearchSpace

SPACE = SearchSpace(
    2,
    2,
    ("max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3", "skip_connect", "none"),
    ("lstm_1", "rnn_att_1", "skip_connect", "none"),
)
SIZE = Size(layers=3, init_channels=4, rnn_layers=2, rnn_channels=8, stem_stride=2)


def make_network(dropout: float = 0.0) -> OneShotNetwork:
    torch.manual_seed(0)
    return OneShotNetwork(SPACE, SIZE, 3, dropout).double()


def name_in_derived(name: str, genotype: Genotype) -> str | None:
    """The name that a weight of the one-shot network has in the derived network; None if its op is not in it."""
    head, edges, tail = name.partition(".edges.")
    if not edges:
        return name
    cells, cell, number = head.split(".")[1], int(head.split(".")[2]), int(head.split(".")[4])
    kind = "rnn" if cells == "rnn_cells" else SIZE.kinds[cell]
    source, op, rest = tail.split(".", 2)
    node = getattr(genotype, kind)[number]
    edge = (op, int(source))
    return f"{head}.ops.{node.index(edge)}.0.{rest}" if edge in node else None


def derive(network: OneShotNetwork, genotype: Genotype) -> AugmentNetwork:
    """The derived network with the weights of the one-shot network."""
    derived = AugmentNetwork(genotype, SIZE, 3, dropout=0.0).double()
    state = {name_in_derived(name, genotype): tensor for name, tensor in network.state_dict().items()}
    state.pop(None, None)
    derived.load_state_dict(state)
    return derived


@pytest.mark.parametrize("seed", range(6))
def test_a_pass_equals_that_of_the_derived_network(seed: int, either_way: None):
    network = make_network()
    network.genotype = SPACE.draw(seed)
    derived = derive(network, network.genotype)
    x = torch.randn(5, 1, 12, 16, dtype=torch.float64)
    torch.testing.assert_close(network(x), derived(x), rtol=1e-10, atol=1e-10)


def test_weights_in_use_are_those_that_get_a_gradient():
    network = make_network()
    for seed in range(6):
        network.genotype = SPACE.draw(seed)
        network.zero_grad()
        network(torch.randn(4, 1, 12, 16, dtype=torch.float64)).square().sum().backward()
        used = {id(w) for w in network.weights_in_use()}
        for name, w in network.named_parameters():
            assert (id(w) in used) == (w.grad is not None), name


def test_log_probabilities_use_the_statistics_of_the_batch_and_no_dropout():
    network = make_network(dropout=0.5)
    network.genotype = SPACE.draw(1)
    x = torch.randn(6, 1, 12, 16, dtype=torch.float64)
    for module in network.modules():  # running statistics that no batch has
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(5.0)
    found = network.log_probabilities(x)
    derived = derive(network, network.genotype).train()
    torch.testing.assert_close(found, derived(x).log_softmax(dim=1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert not found.requires_grad
    assert not torch.equal(network(x), network(x))  # dropout is on again
