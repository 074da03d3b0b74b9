"""The multiply-adds of a network, against torch's own counter and against counts by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from genotypes import BUILT_IN
from models.architecture import SearchedArchitecture
from models.baselines import BASELINES
from models.complexity import multiply_adds
from models.joint_network import Size


@pytest.mark.parametrize("shape", [(16, 24), (13, 29)])
@pytest.mark.parametrize("layers", [2, 5])
def test_derived_cnn_costs_what_torch_counts(layers: int, shape: tuple[int, int]):
    size = Size(layers, 3, 0, 8)
    found = multiply_adds(SearchedArchitecture(BUILT_IN["darts_v2"], size).build(4), shape)
    network = SearchedArchitecture(BUILT_IN["darts_v2"], size, fused=False).build(
        4
    )  # torch counts its own code
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.randn(1, 1, *shape))
    assert found == counter.get_total_flops() // 2


def test_lstm_costs_its_weights_at_every_step():
    frames, coefficients, h = 24, 16, 512
    lstm = frames * (4 * h * coefficients + 4 * h * h)
    network = BASELINES["lstm"](4, (coefficients, frames))
    assert multiply_adds(network, (coefficients, frames)) == lstm + h * 32 + 32 * 4


def test_cost_of_a_joint_network_is_proportional_to_the_frames():
    """With bidirectional layers and attention."""
    network = SearchedArchitecture(BUILT_IN["cnn_lstm"], Size(2, 3, 1, 8)).build(4)
    longer, shorter = (multiply_adds(network, (16, frames)) for frames in (48, 24))
    assert 1.9 < longer / shorter < 2.1


def test_counting_leaves_the_network_unchanged():
    network = SearchedArchitecture(BUILT_IN["cnn_lstm"], Size(2, 3, 1, 8)).build(4)
    before = {name: p.clone() for name, p in network.named_parameters()}
    multiply_adds(network, (16, 24))
    assert network.training
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert not any(module._forward_hooks for module in network.modules())
