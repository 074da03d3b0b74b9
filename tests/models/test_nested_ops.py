"""Nested depth: an edge against the library's recurrent modules of k layers, which hold the weights of one stack."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from config import SearchConfig
from darts.supernet import make_supernet
from genotypes import RNN_OPS
from models.augment_network import AugmentNetwork
from models.cells import SEQ
from models.joint_network import Size
from models.nested_ops import NestedOp
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

CHANNELS = 4
CNN_OPS = ("skip_connect", "sep_conv_3x3", "none")
OPS = [
    RNN_OPS,
    RNN_OPS[:-1],
    ("lstm_1", "lstm_3", "none"),
    ("rnn_att_2", "lstm_3", "skip_connect", "rnn_4", "lstm_1", "none"),
    ("lstm_att_1", "lstm_att_2"),
]


def nested_edge(ops, recompute=False):
    torch.manual_seed(0)
    return NestedOp(SEQ, ops, CHANNELS, 1, recompute).double()


def plain_output(edge, op, x):
    """One op by the library's module of k layers and the formula of the attention, with the weights of the edge."""
    if op == "none":
        return torch.zeros_like(x)
    if op == "skip_connect":
        return x
    stack = next(stack for stack in edge.stacks if op in stack.names)
    kind, k, attention = nn.LSTM if op.startswith("lstm") else nn.RNN, int(op[-1]), "_att_" in op
    weights = {
        name.replace("l0", f"l{layer}"): p
        for layer, module in enumerate(stack.layers[:k])
        for name, p in module.named_parameters()
    }
    rnn = kind(CHANNELS, CHANNELS, k, batch_first=True, bidirectional=attention).double()
    assert weights.keys() == dict(rnn.named_parameters()).keys()
    h = functional_call(rnn, weights, x)[0]
    if not attention:
        return h
    read = stack.reads[str(k)]
    energy = torch.tanh(h @ read.key.weight.T + read.key.bias) @ read.score.weight[0]  # (N, T)
    shares = energy.exp() / energy.exp().sum(dim=1, keepdim=True)
    context = torch.einsum("nt,ntc->nc", shares, h)[:, None].repeat(1, x.shape[1], 1)
    return h @ read.project.weight.T + context @ read.project_context.weight.T + read.project.bias


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("ops", OPS, ids=",".join)
def test_an_edge_is_the_weighted_sum_of_ops_with_shared_layers(ops, recompute):
    """The output, and the gradients of the input, of the ops' weights and of every parameter."""
    edge = nested_edge(ops, recompute)
    x = torch.randn(3, 5, CHANNELS, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(ops), dtype=torch.float64, requires_grad=True)
    found = edge(x, weights)
    truth = torch.einsum("k,kntc->ntc", weights, torch.stack([plain_output(edge, op, x) for op in ops]))
    torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-12)
    g, inputs = torch.randn_like(x), [x, weights, *edge.parameters()]
    for a, b in zip(
        torch.autograd.grad(found, inputs, g), torch.autograd.grad(truth, inputs, g), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_none_takes_its_share_and_gives_nothing():
    edge, x = nested_edge(RNN_OPS), torch.randn(3, 5, CHANNELS, dtype=torch.float64)
    one_hot = torch.zeros(len(RNN_OPS), dtype=torch.float64)
    one_hot[-1] = 1
    one_hot.requires_grad_()
    out = edge(x, one_hot)
    assert not out.any()
    out.sum().backward()
    assert one_hot.grad[-1] == 0
    assert one_hot.grad[:-1].all()


@pytest.mark.parametrize(
    ("ops", "lstm", "rnn", "lstm_att", "rnn_att"),
    [(RNN_OPS, 4, 4, 2, 2), (("lstm_1", "lstm_3", "none"), 3, 0, 0, 0), (("rnn_2", "rnn_att_1"), 0, 2, 0, 1)],
)
def test_a_family_has_as_many_layers_as_its_deepest_op(ops, lstm, rnn, lstm_att, rnn_att):
    c = CHANNELS
    one_way = 2 * c * c + 2 * c  # of a gate: W, U and two biases
    both_ways = {0: 0, 1: 2 * one_way, 2: 2 * one_way + 2 * (one_way + c * c)}  # the second layer is fed 2C
    attention = (2 * c + 1) * c + c + (4 * c + 1) * c
    layers = (4 * lstm + rnn) * one_way + 4 * both_ways[lstm_att] + both_ways[rnn_att]
    reads = sum("_att_" in op for op in ops) * attention
    assert sum(p.numel() for p in nested_edge(ops).parameters()) == layers + reads


def supernet(rnn_ops, rnn_layers=2, recompute="none", nested_depth=True):
    torch.manual_seed(0)
    space = SearchSpace(1, 2, CNN_OPS, rnn_ops)
    return SearchNetwork(space, Size(2, 2, rnn_layers, CHANNELS), 4, 0.0, recompute, nested_depth)


def run(network):
    """(logits, the gradients of all parameters)."""
    torch.manual_seed(1)
    out = network(torch.randn(3, 1, 8, 12))
    inputs = list(network.parameters())
    return [out, *torch.autograd.grad(out.square().sum(), inputs, materialize_grads=True)]


@pytest.mark.parametrize("rnn_layers", [1, 2])
@pytest.mark.parametrize(
    "rnn_ops",
    [("lstm_1", "rnn_1", "lstm_att_1", "rnn_att_1", "skip_connect", "none"), ("lstm_2",), ("rnn_att_2",)],
)
def test_with_one_op_a_family_the_supernet_is_the_default_one(rnn_ops, rnn_layers):
    """To the bit, and from the same seed."""
    nested, default = (supernet(rnn_ops, rnn_layers, nested_depth=nested) for nested in (True, False))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (nested, default)]
    assert sizes[0] == sizes[1]
    logits, truth = run(nested)[0], run(default)[0]
    assert torch.equal(logits, truth)
    found, wanted = ([d.flatten() for d in run(network)[1:]] for network in (nested, default))
    assert torch.equal(torch.cat(found), torch.cat(wanted))


@pytest.mark.parametrize("recompute", ["ops", "cells"])
def test_computing_again_changes_no_bit(recompute):
    stored, again = run(supernet(RNN_OPS)), run(supernet(RNN_OPS, recompute=recompute))
    assert all(torch.equal(a, b) for a, b in zip(stored, again, strict=True))


def test_of_a_stack_that_is_computed_again_only_input_and_outputs_are_stored():
    x = torch.randn(3, 5, CHANNELS, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(RNN_OPS), dtype=torch.float64, requires_grad=True)
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):
        nested_edge(RNN_OPS, recompute=True)(x, weights)
    distinct = {t.data_ptr(): t.numel() for t in stored}
    assert sum(distinct.values()) == (len(RNN_OPS) - 1) * (
        x.numel() + 1
    )  # of weight * output; skip_connect's is x


@pytest.mark.parametrize("rnn_layers", [1, 2])
def test_every_weight_learns_and_what_is_found_builds_a_network(rnn_layers):
    network = supernet(RNN_OPS, rnn_layers)
    names, (logits, *gradients) = [name for name, _ in network.named_parameters()], run(network)
    assert logits.shape == (3, 4)
    asleep = [name for name, d in zip(names, gradients, strict=True) if not d.any()]
    assert asleep == ["alphas.normal.0"]  # there are only reductions
    found = AugmentNetwork(network.genotype(), Size(2, 2, rnn_layers, CHANNELS), 4, 0.0, False)
    assert found(torch.randn(3, 1, 8, 12)).shape == (3, 4)


def test_the_flag_shares_the_layers():
    flags = {
        "cnn_nodes": 1,
        "rnn_nodes": 1,
        "layers": 1,
        "rnn_layers": 1,
        "init_channels": 2,
        "rnn_channels": 4,
    }
    layers = []
    for nested_depth in (False, True):
        network = make_supernet(SearchConfig(**flags, nested_depth=nested_depth), 4)
        recurrent = [module for module in network.modules() if isinstance(module, nn.RNNBase)]
        layers.append(sum(module.num_layers for module in recurrent))
    assert layers == [2 * (10 + 10 + 3 + 3), 2 * (4 + 4 + 2 + 2)]  # of the node's two edges
