"""The SeqNN cell with stacked recurrences, against the plain cell in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from config import SearchConfig
from darts.architect import Architect
from darts.supernet import make_supernet
from genotypes import RNN_OPS
from models.cells import SEQ, Cell
from models.fused.rnn import stacked_cell, stacked_scan
from models.fused.rnn.stacked_cell import StackedRnnCell
from models.joint_network import Size
from models.mixed_ops import MixedNode, MixedOp
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

INPUTS = 3, 5


@pytest.fixture(autouse=True)
def stack_on_any_device(monkeypatch):
    monkeypatch.setattr(stacked_cell, "use_stacked", lambda device: True)


def make_cell(ops, nodes=2, channels=4, reduction_prev=False, recompute=False, norm=False):
    torch.manual_seed(0)
    parts = []
    for node in range(nodes):
        parts.append(MixedNode(MixedOp(SEQ, ops, channels, 1, recompute, norm) for _ in range(node + 2)))
    return StackedRnnCell(SEQ, parts, range(2, nodes + 2), INPUTS, channels, reduction_prev, affine=False)


def make_leaves(ops, nodes, utterances, steps, reduction_prev=False, dtype=torch.float64):
    """The two inputs of a cell, and its alphas."""
    lengths = [2 * steps if reduction_prev else steps, steps]
    inputs = [torch.randn(utterances, t, c, dtype=dtype) for t, c in zip(lengths, INPUTS, strict=True)]
    alphas = [torch.randn(node + 2, len(ops), dtype=dtype) for node in range(nodes)]
    return [x.requires_grad_() for x in inputs], [alpha.requires_grad_() for alpha in alphas]


def run(cell, inputs, alphas, forward=StackedRnnCell.forward):
    """The output, and its gradients with respect to all inputs, alphas and weights that require one."""
    out = forward(cell, *inputs, [alpha.softmax(dim=1) for alpha in alphas])
    g = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    leaves = [tensor for tensor in (*inputs, *alphas, *cell.parameters()) if tensor.requires_grad]
    return [out, *torch.autograd.grad(out, leaves, g)]


def assert_equal(found: Tensor, truth: Tensor, name: str) -> None:
    """Up to 1e-10 of its norm. If the truth is zero (attention over one step), only rounding is left."""
    assert found.shape == truth.shape, name
    assert (found - truth).norm() <= 1e-10 * truth.norm() + 1e-14, name


@settings(max_examples=25, derandomize=True)
@given(
    ops=st.sets(st.sampled_from(RNN_OPS[:-1]), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
    none=st.booleans(),
    nodes=st.integers(1, 4),
    utterances=st.integers(1, 3),
    steps=st.integers(1, 5),
    channels=st.integers(2, 6),
    reduction_prev=st.booleans(),
    recompute=st.booleans(),
    norm=st.booleans(),
)
def test_stacked_cell_equals_the_plain_cell(
    ops, none, nodes, utterances, steps, channels, reduction_prev, recompute, norm
):
    ops = (*ops, "none") if none else ops
    cell = make_cell(ops, nodes, channels, reduction_prev, recompute, norm).double()
    inputs, alphas = make_leaves(ops, nodes, utterances, steps, reduction_prev)
    found, truth = run(cell, inputs, alphas), run(cell, inputs, alphas, Cell.forward)
    alpha_names = [f"alpha {node}" for node in range(nodes)]
    names = ["output", "s0", "s1", *alpha_names, *dict(cell.named_parameters())]
    for name, a, b in zip(names, found, truth, strict=True):
        assert_equal(a, b, name)


def test_frozen_weights_do_not_change_the_other_gradients(monkeypatch):
    """As in the passes for the alphas alone, which compute no gradients of weights."""
    cell, leaves = make_cell(RNN_OPS).double(), make_leaves(RNN_OPS, 2, 3, 5)
    truth = run(cell, *leaves)
    cell.requires_grad_(False)
    monkeypatch.setattr(stacked_scan, "unstack_like", None)
    found = run(cell, *leaves)
    assert all(torch.equal(a, b) for a, b in zip(found, truth, strict=False))


def test_fixed_inputs_do_not_change_the_gradients_of_the_weights():
    """A first layer that reads a fixed sequence has no input gradient."""
    cell, (inputs, alphas) = make_cell(RNN_OPS).double(), make_leaves(RNN_OPS, 2, 3, 5)
    cell.project0.requires_grad_(False)
    cell.project1.requires_grad_(False)
    truth = run(cell, inputs, alphas)
    del truth[1:3]  # the gradients of the inputs
    found = run(cell, [x.detach() for x in inputs], alphas)
    assert all(torch.equal(a, b) for a, b in zip(found, truth, strict=True))


def count_stored(cell, inputs, alphas) -> int:
    """The numbers that a forward pass stores for backward, except weights, alphas and inputs."""
    weights = [alpha.softmax(dim=1) for alpha in alphas]
    given_tensors = {t.untyped_storage().data_ptr() for t in (*cell.parameters(), *inputs, *weights)}
    stored = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes() // tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = cell(*inputs, weights)  # noqa: F841  keeps the stored tensors alive
    return sum(size for pointer, size in stored.items() if pointer not in given_tensors)


def test_a_stack_stores_no_copy_of_a_weight():
    """With wide layers and short sequences, copies would take most of the memory."""
    cell = make_cell(RNN_OPS, channels=64)
    stored = count_stored(cell, *make_leaves(RNN_OPS, 2, 1, 1, dtype=torch.float32))
    assert stored < 0.02 * sum(w.numel() for w in cell.parameters())


@pytest.mark.parametrize("norm", [False, True])
def test_recomputed_edges_store_only_states_and_alphas(norm):
    cell = make_cell(RNN_OPS, recompute=True, norm=norm).double()
    inputs, alphas = make_leaves(RNN_OPS, 2, 3, 5)
    state, edges = 3 * 5 * 4, 5
    norms = 2 * (state + 2 * 3 * 5)  # LayerNorm stores its input, and two statistics per step
    sums = 2 * state  # the sums of the edges out of states 0 and 1 for the two nodes, in one tensor
    assert count_stored(cell, inputs, alphas) == norms + 2 * state + sums + edges * len(RNN_OPS)


def test_bfloat16_comes_close_to_float32():
    cell, leaves = make_cell(RNN_OPS), make_leaves(RNN_OPS, 2, 3, 5, dtype=torch.float32)
    truth = run(cell, *leaves)
    half = [[leaf.detach().bfloat16().requires_grad_() for leaf in group] for group in leaves]
    for a, b in zip(run(cell.bfloat16(), *half)[:3], truth, strict=False):
        assert (a.float() - b).norm() < 0.05 * b.norm()


def supernet(recompute="none", nested_depth=False):
    torch.manual_seed(0)
    space = SearchSpace(1, 2, ("skip_connect", "sep_conv_3x3", "none"), RNN_OPS)
    return SearchNetwork(space, Size(2, 4, 2, 4), 4, 0.0, recompute, nested_depth)


def gradients_of(network):
    torch.manual_seed(1)
    out = network(torch.randn(3, 1, 8, 12)).square().sum()
    return torch.autograd.grad(out, list(network.parameters()), materialize_grads=True)


@pytest.mark.parametrize("recompute", ["ops", "cells"])
def test_recomputing_a_supernet_does_not_change_a_bit(recompute):
    stored, recomputed = (gradients_of(supernet(how)) for how in ("none", recompute))
    assert all(torch.equal(a, b) for a, b in zip(stored, recomputed, strict=True))


def test_recurrences_are_not_stacked_on_a_cpu_or_with_nested_depth(monkeypatch):
    monkeypatch.setattr(stacked_cell, "StackedEdges", None)
    gradients_of(supernet(nested_depth=True))
    monkeypatch.undo()
    stacked = [stacked_cell.use_stacked(torch.device(name)) for name in ("cpu", "cuda", "mps")]
    assert stacked == [False, True, True]


@pytest.mark.parametrize(("order", "op_norm"), [("first", True), ("second", False), ("second", True)])
def test_search_steps_equal_those_of_the_plain_cell(monkeypatch, order, op_norm):
    """Gradients are views of stacks, and optimizers change them in place."""
    cnn = {"layers": 1, "init_channels": 4, "cnn_nodes": 1}
    rnn = {"rnn_layers": 2, "rnn_nodes": 2, "rnn_channels": 4}
    ops = "lstm_2", "rnn_1", "lstm_att_1", "rnn_att_2", "none"
    config = SearchConfig(**cnn, **rnn, rnn_ops=ops, order=order, dropout=0.0, op_norm=op_norm)
    torch.manual_seed(0)
    network = make_supernet(config, 4).double()
    train, val = ((torch.randn(4, 1, 8, 12).double(), torch.arange(4)) for _ in range(2))
    states = []
    for stacked in (True, False):
        monkeypatch.setattr(stacked_cell, "use_stacked", lambda device, stacked=stacked: stacked)
        architect = Architect(config, copy.deepcopy(network))
        for _ in range(2):
            architect.step(train, val)
        states.append(architect.network.state_dict())
    torch.testing.assert_close(*states, rtol=1e-6, atol=1e-9)
