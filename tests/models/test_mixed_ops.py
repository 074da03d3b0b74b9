"""Relaxed edges and nodes against the single ops: the sum weighted by the softmaxed alphas; `none` adds zero."""

import pytest
import torch

from genotypes import CNN_OPS, RNN_OPS
from models.cells import CNN, SEQ
from models.mixed_ops import MixedNode, MixedOp

CELL_TYPES = {"maps": (CNN, CNN_OPS, (3, 4, 7, 6)), "sequences": (SEQ, RNN_OPS, (3, 6, 4))}
"""The cell type, its ops, and the shape of an input of 4 channels."""


def edge_and_single_ops(kind, ops, stride):
    """A relaxed edge, and its ops one by one with the same weights, by name."""
    torch.manual_seed(0)
    cell_type = CELL_TYPES[kind][0]
    edge = MixedOp(cell_type, ops, 4, stride).double()
    singles = {op: cell_type.ops[op](4, stride, False).double() for op in ops if op != "none"}
    for single, op in zip(singles.values(), edge.ops, strict=True):
        single.load_state_dict(op.state_dict())
    return edge, singles


@pytest.mark.parametrize("with_none", [True, False])
@pytest.mark.parametrize(("kind", "stride"), [("maps", 1), ("maps", 2), ("sequences", 1)])
def test_edge_is_the_weighted_sum_of_its_ops(kind, stride, with_none):
    """o(x) = sum_k w_k o_k(x), so that d<g, o>/dw_k = <g, o_k(x)>; for `none`, both are exactly zero."""
    _, ops, shape = CELL_TYPES[kind]
    ops = ops if with_none else ops[:-1]
    edge, singles = edge_and_single_ops(kind, ops, stride)
    x = torch.randn(shape, dtype=torch.float64)
    outputs = [op(x) for op in singles.values()]
    if with_none:
        outputs.append(torch.zeros_like(outputs[0]))
    outputs = torch.stack(outputs)
    for weights in (torch.randn(len(ops)), *torch.eye(len(ops))):
        weights = weights.double().requires_grad_()
        found = edge(x, weights)
        truth = torch.einsum("k,k...->...", weights, outputs)
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)
    if with_none:
        assert torch.equal(found, outputs[-1])  # all weight is on `none`
    g = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, weights, g)
    truth = torch.einsum("...,k...->k", g, outputs)
    torch.testing.assert_close(gradient, truth, rtol=1e-11, atol=1e-11)
    assert not with_none or gradient[-1] == 0


def test_norm_gives_every_op_of_a_sequence_the_same_scale():
    """o(x) = sum_k w_k LN(o_k(x)), where LN subtracts the mean over the channels and divides by the deviation."""
    torch.manual_seed(0)
    edge = MixedOp(SEQ, RNN_OPS, 4, 1, norm=True).double()
    assert dict(edge.state_dict()).keys() == dict(MixedOp(SEQ, RNN_OPS, 4, 1).state_dict()).keys()
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    for k, weights in enumerate(torch.eye(len(RNN_OPS), dtype=torch.float64)):
        output = edge.ops[k](x) if RNN_OPS[k] != "none" else torch.zeros_like(x)
        deviation = (output.var(dim=2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        truth = (output - output.mean(dim=2, keepdim=True)) / deviation
        torch.testing.assert_close(edge(x, weights), truth, rtol=1e-11, atol=1e-12)


def test_recomputed_op_with_a_norm_stores_only_its_input_and_output():
    x = torch.randn(3, 6, 4, requires_grad=True)
    weights = torch.rand(len(RNN_OPS), requires_grad=True)
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):
        MixedOp(SEQ, RNN_OPS, 4, 1, recompute=True, norm=True)(x, weights)
    outputs = len(RNN_OPS) - 1
    assert sum({t.data_ptr(): t.numel() for t in stored}.values()) == (1 + outputs) * x.numel() + outputs


def test_running_statistics_are_those_of_each_op_alone():
    edge, singles = edge_and_single_ops("maps", CNN_OPS, 2)
    x = 3 + torch.randn(4, 4, 7, 6, dtype=torch.float64)
    edge(x, torch.full((8,), 1 / 8, dtype=torch.float64))
    for single, op in zip(singles.values(), edge.ops, strict=True):
        single(x)
        for name, buffer in single.named_buffers():
            torch.testing.assert_close(op.get_buffer(name), buffer)


@pytest.mark.parametrize("strides", [[1, 1], [2, 2, 1], [2, 2, 1, 1]])
def test_node_sums_its_edges(strides):
    torch.manual_seed(0)
    node = MixedNode(MixedOp(CNN, CNN_OPS, 4, stride) for stride in strides).double()
    sizes = [(7, 6) if stride == max(strides) else (4, 3) for stride in strides]
    states = [torch.randn(2, 4, *size, dtype=torch.float64) for size in sizes]
    weights = torch.rand(len(strides), len(CNN_OPS), dtype=torch.float64)
    truth = sum(edge(x, w) for edge, x, w in zip(node.edges, states, weights, strict=True))
    torch.testing.assert_close(node(states, weights), truth)


def test_node_refuses_weights_for_another_number_of_edges():
    node = MixedNode(MixedOp(SEQ, ("rnn_1", "none"), 4, 1) for _ in range(2))
    with pytest.raises(ValueError, match="zip"):
        node([torch.randn(2, 5, 4)] * 2, torch.rand(3, 2))
