"""The fused CNN node and BatchNorm over several processes, against the plain modules in float64."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from genotypes import CNN_OPS
from models.cells import CNN
from models.fused import synchronise
from models.fused.cnn import prefixes
from models.fused.cnn.cell import State, relaxed_node
from models.fused.cnn.layout import Layout, choose_fold, fold_maps, unfold_maps
from models.fused.cnn.sync_batchnorm import processes_of
from models.mixed_ops import MixedNode, MixedOp
from models.ops import Pool, separable_conv


def make_node(ops, strides, channels, recompute=False, cell_type=CNN):
    """A node with running statistics that differ from the initial ones, in float64."""
    torch.manual_seed(0)
    node = MixedNode(MixedOp(cell_type, ops, channels, stride, recompute) for stride in strides).double()
    for name, buffer in node.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    first_pools = {}  # the pools out of one state share their statistics, as after any training step
    for module in node.modules():
        if isinstance(module, Pool):
            first = first_pools.setdefault(type(module.pooling), module)
            module.load_state_dict(first.state_dict())
    return node


def run_fused(node, states, weights):
    channels = states[0].shape[1]
    layout = Layout(choose_fold(len(states[0]), channels))
    states = [State(fold_maps(x, layout.fold), channels, layout) for x in states]
    return unfold_maps(relaxed_node(node, states, weights), channels)


def run(forward, node, states, weights):
    """The output, its gradients with respect to states, op weights and all parameters, and the statistics."""
    node = copy.deepcopy(node)
    leaves = [x.clone().requires_grad_() for x in (*states, weights)]
    out = forward(node, leaves[:-1], leaves[-1])
    g = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    gradients = torch.autograd.grad(out, [*leaves, *node.parameters()], g, materialize_grads=True)
    return [out, *gradients, *node.buffers()]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [8, 16], ids=["folded", "not folded"])
@pytest.mark.parametrize("size", [(6, 8), (7, 9), (8, 5), (2, 1)])
@pytest.mark.parametrize("ops", [*((op, "none") for op in CNN_OPS[:-1]), CNN_OPS], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_fused_node_equals_the_plain_node(ops, stride, size, channels, training):
    node = make_node(ops, [stride], channels).train(training)
    states = [torch.randn(4, channels, *size, dtype=torch.float64)]
    weights = torch.rand(1, len(ops), dtype=torch.float64)
    found, truth = (run(forward, node, states, weights) for forward in (run_fused, MixedNode.forward))
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_recomputing_maps_does_not_change_a_bit(stride, training):
    results = []
    for recompute in (False, True):
        node = make_node(CNN_OPS, [stride], 8, recompute).float().train(training)
        results.append(run(run_fused, node, [torch.randn(4, 8, 6, 8)], torch.rand(1, len(CNN_OPS))))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


class FrequencyConv(nn.Module):
    """An op that the fused cell has no fast code for."""

    def __init__(self, channels: int, stride: int, affine: bool):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (7, 1), stride, padding=(3, 0), bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x.relu()))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_op_without_fast_code_is_computed_by_its_own_forward(stride, recompute):
    new_ops = {"freq_conv_7x1": FrequencyConv, "sep_conv_7x7": partial(separable_conv, (7, 7))}
    cell_type = replace(CNN, ops={**CNN.ops, **new_ops})
    ops = ("sep_conv_7x7", "max_pool_3x3", "freq_conv_7x1", "sep_conv_3x3", "none")
    node = make_node(ops, [stride], 8, recompute, cell_type)
    states = [torch.randn(4, 8, 7, 9, dtype=torch.float64)]
    weights = torch.rand(1, len(ops), dtype=torch.float64)
    found, truth = (run(forward, node, states, weights) for forward in (run_fused, MixedNode.forward))
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-11)


def test_frozen_weights_and_states_need_no_convolution_gradients(monkeypatch):
    """A gradient of the alphas alone needs neither convolutions nor their gradients."""
    monkeypatch.setattr(prefixes, "depthwise_gradients", None)
    node = make_node(CNN_OPS, [1, 1], 16).requires_grad_(False)
    states = [torch.randn(2, 16, 6, 8, dtype=torch.float64) for _ in range(2)]
    weights = torch.rand(2, len(CNN_OPS), dtype=torch.float64, requires_grad=True)
    run_fused(node, states, weights).sum().backward()
    assert weights.grad[:, :-1].any(dim=1).all()


def test_synchronised_batchnorms_share_parameters_and_buffers():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), make_node(CNN_OPS, [2], 4)).eval()
    tensors = network.state_dict(keep_vars=True)
    synchronise(network, 1)
    assert processes_of(network) == 1
    synchronise(network, 2)
    assert processes_of(network) == 2
    assert not any(type(module) is nn.BatchNorm2d or module.training for module in network.modules())
    found = network.state_dict(keep_vars=True)
    assert list(found) == list(tensors)
    assert all(found[name] is tensors[name] for name in tensors)
