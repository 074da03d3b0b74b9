"""The multiply-adds of a network, against those that torch's own counter sees and those counted by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from genotypes import BUILT_IN
from models.architecture import Searched
from models.baselines import BASELINES
from models.complexity import multiply_adds
from models.joint_network import Size


def seen_by_torch(network: nn.Module, shape: tuple[int, int]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.randn(1, 1, *shape))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("shape", [(16, 24), (13, 29)])
@pytest.mark.parametrize("layers", [2, 5])
def test_a_derived_cnn_costs_what_torch_counts(layers: int, shape: tuple[int, int]):
    network = Searched(BUILT_IN["darts_v2"], Size(layers, 3, 0, 8)).build(4)
    assert multiply_adds(network, shape) == seen_by_torch(network, shape)


def test_recurrences_cost_their_weights_at_every_step():
    frames, coefficients, h = 24, 16, 512
    recurrent = frames * (4 * h * coefficients + 4 * h * h)
    assert multiply_adds(BASELINES["lstm"](4, (coefficients, frames)), (coefficients, frames)) == (
        recurrent + h * 32 + 32 * 4
    )


def test_recurrences_in_both_directions_and_attention():
    network = Searched(BUILT_IN["cnn_lstm"], Size(2, 3, 1, 8)).build(4)
    recurrent = [module for module in network.modules() if isinstance(module, nn.RNNBase)]
    assert recurrent
    longer, shorter = (multiply_adds(network, (16, frames)) for frames in (48, 24))
    assert 1.9 < longer / shorter < 2.1


def test_counting_leaves_the_network_alone():
    network = Searched(BUILT_IN["cnn_lstm"], Size(2, 3, 1, 8)).build(4)
    before = {name: p.clone() for name, p in network.named_parameters()}
    multiply_adds(network, (16, 24))
    assert network.training
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert not any(module._forward_hooks for module in network.modules())
