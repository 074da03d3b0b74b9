"""The SeqNN cell with stacked recurrences, in float64 against the oracle's: one op at a time, by the library."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import PlainCell
from torch import Tensor

from config import SearchConfig
from darts.architect import Architect
from darts.supernet import make_supernet
from genotypes import RNN_OPS
from models.cells import SEQ
from models.fused.rnn import stacked_cell as stacked
from models.fused.rnn import stacked_scan
from models.fused.rnn.stacked_cell import StackedRnnCell
from models.joint_network import Size
from models.mixed_ops import MixedNode
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

INPUTS = 3, 5


@pytest.fixture(autouse=True)
def on_any_device(monkeypatch):
    monkeypatch.setattr(stacked, "pays", lambda device: True)


def relaxed_cell(ops, nodes=2, channels=4, reduction_prev=False, recompute=False):
    torch.manual_seed(0)
    parts = [MixedNode(SEQ, ops, channels, [1] * (node + 2), recompute) for node in range(nodes)]
    return StackedRnnCell(SEQ, parts, range(2, nodes + 2), INPUTS, channels, reduction_prev, affine=False)


def leaves(ops, nodes, utterances, steps, reduction_prev=False, dtype=torch.float64):
    """The two inputs of a cell and its alphas."""
    lengths = [2 * steps if reduction_prev else steps, steps]
    inputs = [torch.randn(utterances, t, c, dtype=dtype) for t, c in zip(lengths, INPUTS, strict=True)]
    alphas = [torch.randn(node + 2, len(ops), dtype=dtype) for node in range(nodes)]
    return [x.requires_grad_() for x in inputs], [alpha.requires_grad_() for alpha in alphas]


def run(cell, inputs, alphas, forward=StackedRnnCell.forward):
    """The output, and the gradients of the inputs, of the alphas and of the weights that ask for one."""
    out = forward(cell, *inputs, [alpha.softmax(dim=1) for alpha in alphas])
    g = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    asking = [*inputs, *alphas, *(w for w in cell.parameters() if w.requires_grad)]
    return [out, *torch.autograd.grad(out, asking, g)]


def assert_equal(found: Tensor, truth: Tensor, name: str) -> None:
    """To 1e-10 of its norm. Where the truth is zero (attention over one step), rounding is all there is."""
    assert found.shape == truth.shape, name
    assert (found - truth).norm() <= 1e-10 * truth.norm() + 1e-14, name


op_sets = st.sets(st.sampled_from(RNN_OPS[:-1]), min_size=1).map(lambda chosen: tuple(sorted(chosen)))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    ops=op_sets,
    none=st.booleans(),
    nodes=st.integers(1, 4),
    utterances=st.integers(1, 3),
    steps=st.integers(1, 5),
    channels=st.integers(2, 6),
    reduction_prev=st.booleans(),
    recompute=st.booleans(),
)
def test_any_cell_equals_one_op_at_a_time(
    ops, none, nodes, utterances, steps, channels, reduction_prev, recompute
):
    """The output, and the gradients of both inputs, of every weight and of every alpha."""
    ops = (*ops, "none") if none else ops
    cell = relaxed_cell(ops, nodes, channels, reduction_prev, recompute).double()
    plain = PlainCell("rnn", nodes, ops, INPUTS, channels, reduction_prev).double()
    plain.load_state_dict(cell.state_dict())
    inputs, alphas = leaves(ops, nodes, utterances, steps, reduction_prev)
    found = run(cell, inputs, alphas)
    truth = run(plain, inputs, alphas, lambda cell, s0, s1, _: cell(s0, s1, alphas))
    names = [
        "output",
        "s0",
        "s1",
        *(f"alpha {node}" for node in range(nodes)),
        *dict(cell.named_parameters()),
    ]
    for name, a, b in zip(names, found, truth, strict=True):
        assert_equal(a, b, name)


def test_frozen_weights_leave_the_other_gradients_and_cost_none_of_their_own(monkeypatch):
    """As in the passes for the alphas alone."""
    cell, (inputs, alphas) = relaxed_cell(RNN_OPS).double(), leaves(RNN_OPS, 2, 3, 5)
    whole = run(cell, inputs, alphas)
    cell.requires_grad_(False)
    monkeypatch.setattr(stacked_scan, "apart", None)
    for found, truth in zip(run(cell, inputs, alphas), whole, strict=False):
        assert torch.equal(found, truth)


def test_weights_alone_learn_from_fixed_inputs():
    """A first layer that reads a fixed sequence has no gradient to hand on."""
    cell, (inputs, alphas) = relaxed_cell(RNN_OPS).double(), leaves(RNN_OPS, 2, 3, 5)
    cell.project0.requires_grad_(False)
    cell.project1.requires_grad_(False)
    whole = run(cell, inputs, alphas)[3:]
    out = cell(*(x.detach() for x in inputs), [alpha.softmax(dim=1) for alpha in alphas])
    g = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    asking = [*alphas, *(w for w in cell.parameters() if w.requires_grad)]
    for found, truth in zip(torch.autograd.grad(out, asking, g), whole, strict=True):
        assert torch.equal(found, truth)


def stored(cell, inputs, alphas) -> int:
    """The numbers that a forward pass keeps for backward, beside weights, alphas and inputs."""
    weights, known = [alpha.softmax(dim=1) for alpha in alphas], {}
    own = {t.untyped_storage().data_ptr() for t in (*cell.parameters(), *inputs, *weights)}

    def note(tensor):
        known[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = cell(*inputs, weights)  # noqa: F841
    return sum(size for storage, size in known.items() if storage not in own)


def test_a_stack_stores_no_copy_of_a_weight():
    """With wide layers and short sequences it would be most of all."""
    cell = relaxed_cell(RNN_OPS, channels=64)
    assert stored(cell, *leaves(RNN_OPS, 2, 1, 1, dtype=torch.float32)) < 0.02 * sum(
        w.numel() for w in cell.parameters()
    )


def test_of_what_is_computed_again_only_states_and_shares_are_stored():
    cell, (inputs, alphas) = relaxed_cell(RNN_OPS, recompute=True).double(), leaves(RNN_OPS, 2, 3, 5)
    state, edges = 3 * 5 * 4, 5
    norms = 2 * (state + 2 * 3 * 5)  # what LayerNorm stores: its input, and two statistics a step
    sums = 2 * state  # what states 0 and 1 bring to the two nodes, in one tensor
    assert stored(cell, inputs, alphas) == norms + 2 * state + sums + edges * len(RNN_OPS)


def test_bfloat16_comes_close_to_float32():
    cell, (inputs, alphas) = relaxed_cell(RNN_OPS), leaves(RNN_OPS, 2, 3, 5, dtype=torch.float32)
    truth = run(cell, inputs, alphas)
    half = [[leaf.detach().bfloat16().requires_grad_() for leaf in group] for group in (inputs, alphas)]
    for a, b in zip(run(cell.bfloat16(), *half)[:3], truth, strict=False):
        assert (a.float() - b).norm() < 0.05 * b.norm()


@pytest.mark.parametrize("recompute", ["ops", "cells"])
def test_computing_again_changes_no_bit(recompute):
    """In float32, of a whole supernet."""
    stored, again = ([*gradients_of(supernet(recompute=how))] for how in ("none", recompute))
    assert all(torch.equal(a, b) for a, b in zip(stored, again, strict=True))


def supernet(recompute="none", nested_depth=False):
    torch.manual_seed(0)
    space = SearchSpace(1, 2, ("skip_connect", "sep_conv_3x3", "none"), RNN_OPS)
    return SearchNetwork(space, Size(2, 4, 2, 4), 4, 0.0, recompute, nested_depth)


def gradients_of(network):
    torch.manual_seed(1)
    out = network(torch.randn(3, 1, 8, 12)).square().sum()
    return torch.autograd.grad(out, list(network.parameters()), materialize_grads=True)


def test_on_a_cpu_and_with_nested_depth_every_op_runs_by_itself(monkeypatch):
    monkeypatch.setattr(stacked, "Edges", None)
    gradients_of(supernet(nested_depth=True))
    monkeypatch.undo()
    assert [stacked.pays(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [False, True, True]


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_step_of_the_search_is_that_of_one_op_at_a_time(monkeypatch, order):
    """Gradients are views of stacks here, and optimisers change them in place."""
    flags = {
        "layers": 1,
        "init_channels": 4,
        "cnn_nodes": 1,
        "rnn_layers": 2,
        "rnn_nodes": 2,
        "rnn_channels": 4,
    }
    ops = "lstm_2", "rnn_1", "lstm_att_1", "rnn_att_2", "none"
    config = SearchConfig(**flags, rnn_ops=ops, order=order, dropout=0.0)
    torch.manual_seed(0)
    network = make_supernet(config, 4).double()
    train, val = ((torch.randn(4, 1, 8, 12).double(), torch.arange(4)) for _ in range(2))
    found = []
    for stacks in (True, False):
        monkeypatch.setattr(stacked, "pays", lambda device, stacks=stacks: stacks)
        bilevel = Architect(config, copy.deepcopy(network))
        for _ in range(2):
            bilevel.step(train, val)
        found.append(bilevel.network.state_dict())
    for name, truth in found[1].items():
        torch.testing.assert_close(found[0][name], truth, rtol=1e-6, atol=1e-9, msg=name)
