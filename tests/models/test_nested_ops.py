"""Nested depth: an edge against the library's recurrent modules of k layers with the weights of the edge's stack."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from config import SearchConfig
from darts.supernet import make_supernet
from genotypes import RNN_OPS
from models.augment_network import AugmentNetwork
from models.fused import cell_types
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


def make_edge(ops, recompute=False, fused=True, norm=False) -> NestedOp:
    torch.manual_seed(0)
    return NestedOp(cell_types(fused)["rnn"], ops, CHANNELS, 1, recompute, norm).double()


def plain_output(edge: NestedOp, op: str, x: Tensor) -> Tensor:
    """One op, by the library's module of k layers and the formula of attention, with the weights of the edge."""
    if op == "none":
        return torch.zeros_like(x)
    if op == "skip_connect":
        return x
    stack = next(stack for stack in edge.stacks if op in stack.names)
    rnn_class = nn.LSTM if op.startswith("lstm") else nn.RNN
    layers = int(op[-1])
    attention = "_att_" in op
    weights = {}
    for layer, module in enumerate(stack.layers[:layers]):
        weights |= {name.replace("l0", f"l{layer}"): p for name, p in module.named_parameters()}
    rnn = rnn_class(CHANNELS, CHANNELS, layers, batch_first=True, bidirectional=attention).double()
    assert weights.keys() == dict(rnn.named_parameters()).keys()
    h = functional_call(rnn, weights, x)[0]
    if not attention:
        return h
    read = stack.reads[str(layers)]
    energy = torch.tanh(h @ read.key.weight.T + read.key.bias) @ read.score.weight[0]  # (N, T)
    shares = energy.exp() / energy.exp().sum(dim=1, keepdim=True)
    context = torch.einsum("nt,ntc->nc", shares, h)[:, None]
    return h @ read.project.weight.T + context @ read.project_context.weight.T + read.project.bias


def normalised(x: Tensor) -> Tensor:
    """LayerNorm over the channels, by its formula."""
    x = x - x.mean(dim=2, keepdim=True)
    return x / (x.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("ops", OPS, ids=",".join)
def test_edge_is_the_weighted_sum_of_ops_with_shared_layers(ops, recompute, fused, norm):
    """The output, and the gradients of the input, of the ops' weights and of every parameter."""
    edge = make_edge(ops, recompute, fused, norm)
    x = torch.randn(3, 5, CHANNELS, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(ops), dtype=torch.float64, requires_grad=True)
    found = edge(x, weights)
    outputs = [plain_output(edge, op, x) for op in ops]
    outputs = [normalised(output) for output in outputs] if norm else outputs
    truth = torch.einsum("k,kntc->ntc", weights, torch.stack(outputs))
    torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-12)
    g = torch.randn_like(x)
    inputs = [x, weights, *edge.parameters()]
    gradients, true_gradients = (torch.autograd.grad(out, inputs, g) for out in (found, truth))
    for d, true in zip(gradients, true_gradients, strict=True):
        torch.testing.assert_close(d, true, rtol=1e-10, atol=1e-12)


def test_none_takes_its_share_and_contributes_zero():
    edge = make_edge(RNN_OPS)
    x = torch.randn(3, 5, CHANNELS, dtype=torch.float64)
    weights = torch.zeros(len(RNN_OPS), dtype=torch.float64)
    weights[-1] = 1
    weights.requires_grad_()
    out = edge(x, weights)
    assert not out.any()
    out.sum().backward()
    assert weights.grad[-1] == 0
    assert weights.grad[:-1].all()


@pytest.mark.parametrize(
    ("ops", "lstm", "rnn", "lstm_att", "rnn_att"),
    [(RNN_OPS, 4, 4, 2, 2), (("lstm_1", "lstm_3", "none"), 3, 0, 0, 0), (("rnn_2", "rnn_att_1"), 0, 2, 0, 1)],
)
def test_family_has_as_many_layers_as_its_deepest_op(ops, lstm, rnn, lstm_att, rnn_att):
    c = CHANNELS
    one_way = 2 * c * c + 2 * c  # of a gate: W, U and two biases
    # the second layer's input is 2C
    both_ways = {
        0: 0,
        1: 2 * one_way,
        2: 2 * one_way + 2 * (one_way + c * c),
    }
    attention = (2 * c + 1) * c + c + (4 * c + 1) * c
    layers = (4 * lstm + rnn) * one_way + 4 * both_ways[lstm_att] + both_ways[rnn_att]
    reads = sum("_att_" in op for op in ops) * attention
    assert sum(p.numel() for p in make_edge(ops).parameters()) == layers + reads


def make_network(rnn_ops, rnn_layers=2, recompute="none", nested_depth=True) -> SearchNetwork:
    torch.manual_seed(0)
    space = SearchSpace(1, 2, CNN_OPS, rnn_ops)
    return SearchNetwork(space, Size(2, 2, rnn_layers, CHANNELS), 4, 0.0, recompute, nested_depth)


def run(network: SearchNetwork) -> list[Tensor]:
    """The logits, and the gradients of all parameters."""
    torch.manual_seed(1)
    logits = network(torch.randn(3, 1, 8, 12))
    parameters = list(network.parameters())
    return [logits, *torch.autograd.grad(logits.square().sum(), parameters, materialize_grads=True)]


@pytest.mark.parametrize("rnn_layers", [1, 2])
@pytest.mark.parametrize(
    "rnn_ops",
    [("lstm_1", "rnn_1", "lstm_att_1", "rnn_att_1", "skip_connect", "none"), ("lstm_2",), ("rnn_att_2",)],
)
def test_with_one_op_per_family_it_equals_the_ordinary_supernet_to_the_bit(rnn_ops, rnn_layers):
    """The parameters, in another order, the logits, and the gradients."""
    nested, ordinary = (make_network(rnn_ops, rnn_layers, nested_depth=nested) for nested in (True, False))
    assert sum(p.numel() for p in nested.parameters()) == sum(p.numel() for p in ordinary.parameters())
    found, truth = (torch.cat([tensor.flatten() for tensor in run(n)]) for n in (nested, ordinary))
    assert torch.equal(found, truth)


@pytest.mark.parametrize("recompute", ["ops", "cells"])
def test_recomputation_changes_no_bit(recompute):
    stored = run(make_network(RNN_OPS))
    recomputed = run(make_network(RNN_OPS, recompute=recompute))
    assert all(torch.equal(a, b) for a, b in zip(stored, recomputed, strict=True))


def test_recomputed_stack_stores_only_its_input_and_outputs():
    x = torch.randn(3, 5, CHANNELS, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(RNN_OPS), dtype=torch.float64, requires_grad=True)
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):
        make_edge(RNN_OPS, recompute=True)(x, weights)
    sizes = {t.data_ptr(): t.numel() for t in stored}
    outputs = len(RNN_OPS) - 1  # one of them is x itself, of skip_connect; each has a weight of one number
    assert sum(sizes.values()) == outputs * (x.numel() + 1)


@pytest.mark.parametrize("rnn_layers", [1, 2])
def test_every_weight_gets_a_gradient_and_the_genotype_builds_a_network(rnn_layers):
    network = make_network(RNN_OPS, rnn_layers)
    logits, *gradients = run(network)
    assert logits.shape == (3, 4)
    named = zip(dict(network.named_parameters()), gradients, strict=True)
    assert [name for name, d in named if not d.any()] == ["alphas.normal.0"]  # all CNN cells are reductions
    derived = AugmentNetwork(network.genotype(), Size(2, 2, rnn_layers, CHANNELS), 4)
    assert derived(torch.randn(3, 1, 8, 12)).shape == (3, 4)


def test_flag_nested_depth_shares_the_layers():
    size = {
        "layers": 1,
        "rnn_layers": 1,
        "init_channels": 2,
        "rnn_channels": 4,
        "cnn_nodes": 1,
        "rnn_nodes": 1,
    }

    def count_layers(nested_depth: bool) -> int:
        network = make_supernet(SearchConfig(**size, nested_depth=nested_depth), 4)
        return sum(module.num_layers for module in network.modules() if isinstance(module, nn.RNNBase))

    edges = 2  # of the one node
    assert count_layers(False) == edges * (10 + 10 + 3 + 3)
    assert count_layers(True) == edges * (4 + 4 + 2 + 2)
