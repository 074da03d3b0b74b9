"""Relaxed edges and nodes: the weighted sum of the single ops, `none` taking its share and giving zero."""

import pytest
import torch

from genotypes import CNN_OPS, RNN_OPS
from models.cells import CNN, SEQ
from models.fused.cnn import convolutions
from models.fused.cnn.cell import MixedMaps, Source
from models.fused.cnn.folded import fold, unfold
from models.mixed_ops import MixedNode, MixedOp
from models.ops import MAP_OPS, SEQUENCE_OPS, Pool

CELL_TYPES = {"maps": (CNN, CNN_OPS, (3, 4, 7, 6)), "sequences": (SEQ, RNN_OPS, (3, 6, 4))}
"""CellType, ops, and the shape of an input of 4 channels."""
CASES = [("maps", 1), ("maps", 2), ("sequences", 1)]


def edge_and_single_ops(cell_type, ops, stride):
    """A relaxed edge, and the ops of the table with the very same weights, by name."""
    torch.manual_seed(0)
    edge = MixedOp(CELL_TYPES[cell_type][0], ops, 4, stride).double()
    table = MAP_OPS if cell_type == "maps" else SEQUENCE_OPS
    singles = {op: table[op](4, stride, False).double() for op in ops if op != "none"}
    for single, trained in zip(singles.values(), edge.ops, strict=True):
        single.load_state_dict(trained.state_dict())
    return edge, singles


@pytest.mark.parametrize(("cell_type", "stride"), CASES)
def test_all_weight_on_one_op_is_that_op(cell_type, stride):
    _, ops, shape = CELL_TYPES[cell_type]
    edge, singles = edge_and_single_ops(cell_type, ops, stride)
    x = torch.randn(shape, dtype=torch.float64)
    for k, op in enumerate(ops[:-1]):
        one_hot = torch.zeros(len(ops), dtype=torch.float64)
        one_hot[k] = 1
        torch.testing.assert_close(edge(x, one_hot), singles[op](x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("cell_type", "stride"), CASES)
def test_all_weight_on_none_is_zero(cell_type, stride):
    _, ops, shape = CELL_TYPES[cell_type]
    edge, singles = edge_and_single_ops(cell_type, ops, stride)
    x = torch.randn(shape, dtype=torch.float64)
    one_hot = torch.tensor([0.0] * (len(ops) - 1) + [1.0], dtype=torch.float64)
    assert torch.equal(edge(x, one_hot), torch.zeros_like(singles["skip_connect"](x)))


@pytest.mark.parametrize("with_none", [True, False])
@pytest.mark.parametrize(("cell_type", "stride"), CASES)
def test_output_and_gradient_of_each_weight(cell_type, stride, with_none):
    """o(x) = sum_k w_k o_k(x), so that d<g, o>/dw_k = <g, o_k(x)>: for `none` exactly zero."""
    _, ops, shape = CELL_TYPES[cell_type]
    ops = ops if with_none else ops[:-1]
    edge, singles = edge_and_single_ops(cell_type, ops, stride)
    x = torch.randn(shape, dtype=torch.float64)
    outputs = [singles[op](x) if op != "none" else None for op in ops]
    outputs = [torch.zeros_like(outputs[0]) if out is None else out for out in outputs]
    weights = torch.randn(len(ops), dtype=torch.float64, requires_grad=True)
    found = edge(x, weights)
    truth = torch.einsum("k,k...->...", weights, torch.stack(outputs))
    torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-11)
    g = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, weights, g)
    torch.testing.assert_close(
        gradient, torch.stack([(g * out).sum() for out in outputs]), rtol=1e-11, atol=1e-11
    )
    assert not with_none or gradient[-1] == 0


@pytest.mark.parametrize("state", ["running_mean", "running_var"])
def test_batch_statistics_follow_each_op_by_itself(state):
    edge, singles = edge_and_single_ops("maps", CNN_OPS, 2)
    x = 3 + torch.randn(4, 4, 7, 6, dtype=torch.float64)
    edge(x, torch.full((8,), 1 / 8, dtype=torch.float64))
    for single, op in zip(singles.values(), edge.ops, strict=True):
        single(x)
        for name, buffer in single.named_buffers():
            if name.endswith(state):
                torch.testing.assert_close(op.get_buffer(name), buffer)


@pytest.mark.parametrize("strides", [[1, 1], [2, 2, 1], [2, 2, 1, 1]])
def test_node_sums_its_edges(strides):
    torch.manual_seed(0)
    node = MixedNode(CNN, CNN_OPS, 4, strides).double()
    states = [
        torch.randn(2, 4, *((7, 6) if s == max(strides) else (4, 3)), dtype=torch.float64) for s in strides
    ]
    weights = torch.rand(len(strides), len(CNN_OPS), dtype=torch.float64)
    truth = 0
    for edge, state, row in zip(node.edges, states, weights, strict=True):
        truth = truth + edge(state, row)
    torch.testing.assert_close(node(states, weights), truth)


def test_node_refuses_weights_of_another_number_of_edges():
    node, states = MixedNode(SEQ, ("rnn_1", "none"), 4, [1, 1]), [torch.randn(2, 5, 4)] * 2
    with pytest.raises(ValueError, match="zip"):
        node(states, torch.rand(3, 2))


# The fused node of the CNN against the plain one


def both_nodes(ops, strides, channels):
    """The fused node and the plain one, with the same weights."""
    torch.manual_seed(0)
    fused, plain = (kind(CNN, ops, channels, strides).double() for kind in (MixedMaps, MixedNode))
    for name, value in fused.state_dict().items():
        if name.endswith(("running_mean", "running_var")):  # evaluation must not see the values of the start
            value.uniform_(0.5, 1.5)
    share_pool_statistics(fused)
    plain.load_state_dict(fused.state_dict())
    return fused, plain


def share_pool_statistics(node):
    """As after any training: the pools out of one state have seen the same batches."""
    first = {}
    for module in node.modules():
        if isinstance(module, Pool):
            shared = first.setdefault(type(module.pooling), module)
            module.load_state_dict(shared.state_dict())


def run(node, states, weights, g, sources):
    """(output, gradients of the states, of the ops' weights and of all parameters, running statistics) of a node."""
    leaves = [x.clone().requires_grad_() for x in states], weights.clone().requires_grad_()
    m = 16 // states[0].shape[1] if sources else 1
    made = [Source(fold(x, m), x.shape[1]) for x in leaves[0]] if sources else leaves[0]
    out = node(made, leaves[1])
    out = unfold(out, states[0].shape[1]) if sources else out
    gradients = torch.autograd.grad(
        out, [*leaves[0], leaves[1], *node.parameters()], g, materialize_grads=True
    )
    return [out, *gradients, *node.buffers()]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [8, 16])
@pytest.mark.parametrize("size", [(6, 8), (7, 9), (8, 5), (2, 1)])
@pytest.mark.parametrize("ops", [*CNN_OPS[:-1], CNN_OPS], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_fused_node_equals_the_plain_one(ops, stride, size, channels, training):
    """Output, gradients of states, weights and alphas, statistics; folded (8 channels) or not; any size of map."""
    ops = (ops, "none") if isinstance(ops, str) else ops
    fused, plain = (node.train(training) for node in both_nodes(ops, [stride], channels))
    states = [torch.randn(4, channels, *size, dtype=torch.float64)]
    weights = torch.rand(1, len(ops), dtype=torch.float64)
    g = torch.randn_like(plain(states, weights))
    plain.load_state_dict(fused.state_dict())
    found, truth = run(fused, states, weights, g, sources=True), run(plain, states, weights, g, sources=False)
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_a_map_computed_again_changes_no_bit(stride, training):
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        node = MixedMaps(CNN, CNN_OPS, 8, [stride], recompute).train(training)
        states, weights = [torch.randn(4, 8, 6, 8)], torch.rand(1, len(CNN_OPS))
        found.append(
            run(node, states, weights, 1.0 + torch.zeros(4, 8, 6 // stride, 8 // stride), sources=True)
        )
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_fused_node_asks_for_no_gradient_that_nobody_wants(monkeypatch):
    """With frozen weights and states, a gradient of the alphas needs neither convolutions nor their gradients."""
    node, _ = both_nodes(CNN_OPS, [1, 1], 16)
    node.requires_grad_(False)
    weights = torch.rand(2, len(CNN_OPS), dtype=torch.float64, requires_grad=True)
    out = node([Source(torch.randn(2, 16, 6, 8, dtype=torch.float64), 16) for _ in range(2)], weights)
    monkeypatch.setattr(convolutions, "gradients", None)
    out.sum().backward()
    assert weights.grad[:, :-1].any(dim=1).all()
