"""The one Cell of both worlds: relaxed cells against the plain oracle, projections, alignment of odd resolutions."""

import math

import pytest
import torch
from oracle import PlainCell, relative_error

from genotypes import CNN_OPS, RNN_OPS
from models.augment_network import DerivedNode
from models.cells import CELL_TYPES, CNN, SEQ, Cell, ProjectSequence, project_maps
from models.fused.cnn.cell import FusedCnnCell, MixedMaps
from models.mixed_ops import MixedNode
from models.ops import FactorizedReduce

INPUTS, CHANNELS = (5, 6), 4
N = 4
SEQUENCE_SCOPE = ("lstm_2", "rnn_1", "lstm_att_1", "rnn_att_2", "skip_connect", "none")


def relaxed_cell(kind, nodes, ops, reduction_prev):
    strides = [[2 if kind == "reduce" and source < 2 else 1 for source in range(i + 2)] for i in range(nodes)]
    make_cell, make_node = (Cell, MixedNode) if kind == "rnn" else (FusedCnnCell, MixedMaps)
    parts = [make_node(CELL_TYPES[kind], ops, CHANNELS, row) for row in strides]
    return make_cell(
        CELL_TYPES[kind], parts, range(2, nodes + 2), INPUTS, CHANNELS, reduction_prev, affine=False
    ).double()


def inputs_of(kind, reduction_prev, height=7, width=9):
    """The two inputs of a cell: where a reduction came before, the older one has twice the resolution."""
    sizes = [
        (height, width),
        (math.ceil(height / 2), math.ceil(width / 2)) if reduction_prev else (height, width),
    ]
    if kind == "rnn":
        return [torch.randn(N, t, c, dtype=torch.float64) for (_, t), c in zip(sizes, INPUTS, strict=True)]
    return [torch.randn(N, c, f, t, dtype=torch.float64) for (f, t), c in zip(sizes, INPUTS, strict=True)]


def random_alphas(nodes, ops):
    return [torch.randn(i + 2, len(ops), dtype=torch.float64, requires_grad=True) for i in range(nodes)]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("with_none", [True, False])
@pytest.mark.parametrize("reduction_prev", [False, True])
@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize("kind", ["normal", "reduce", "rnn"])
def test_relaxed_cell_equals_one_op_at_a_time(kind, nodes, reduction_prev, with_none):
    """In float64: the output, the gradient of the inputs, of every weight and of every alpha; the statistics."""
    torch.manual_seed(nodes)
    ops = (SEQUENCE_SCOPE if kind == "rnn" else CNN_OPS)[: None if with_none else -1]
    cell = relaxed_cell(kind, nodes, ops, reduction_prev)
    plain = PlainCell(kind, nodes, ops, INPUTS, CHANNELS, reduction_prev).double()
    plain.load_state_dict(cell.state_dict())
    inputs, alphas = [x.requires_grad_() for x in inputs_of(kind, reduction_prev)], random_alphas(nodes, ops)

    found = cell(*inputs, [alpha.softmax(dim=1) for alpha in alphas])
    truth = plain(*inputs, alphas)
    assert relative_error(found, truth) < 1e-10

    g = torch.randn_like(truth)
    names = ["s0", "s1", *(f"alpha {i}" for i in range(nodes)), *dict(cell.named_parameters())]
    found_gradients = torch.autograd.grad(found, [*inputs, *alphas, *cell.parameters()], g)
    true_gradients = torch.autograd.grad(truth, [*inputs, *alphas, *plain.parameters()], g)
    for name, d, true in zip(names, found_gradients, true_gradients, strict=True):
        assert relative_error(d, true) < 1e-10, name
    for (name, buffer), true in zip(cell.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, true, msg=name)


def test_all_sequence_ops_at_once_equal_one_op_at_a_time():
    torch.manual_seed(0)
    cell, plain = (
        relaxed_cell("rnn", 1, RNN_OPS, False),
        PlainCell("rnn", 1, RNN_OPS, INPUTS, CHANNELS, False).double(),
    )
    plain.load_state_dict(cell.state_dict())
    inputs, (alpha,) = inputs_of("rnn", False), random_alphas(1, RNN_OPS)
    found, truth = cell(*inputs, [alpha.softmax(dim=1)]), plain(*inputs, [alpha])
    assert relative_error(found, truth) < 1e-10
    (d,), (true,) = (torch.autograd.grad(out.square().sum(), alpha) for out in (found, truth))
    assert relative_error(d, true) < 1e-10


@pytest.mark.parametrize("size", [(7, 9), (8, 9), (8, 8), (1, 1), (13, 29)])
@pytest.mark.parametrize("kind", ["normal", "reduce", "rnn"])
def test_cell_after_a_reduction_aligns_any_resolution(kind, size):
    cell = relaxed_cell(kind, 2, ("skip_connect", "none"), reduction_prev=True)
    out = cell(*inputs_of(kind, True, *size), [torch.rand(i + 2, 2, dtype=torch.float64) for i in range(2)])
    f, t = (math.ceil(n / 2) for n in size)  # that of the newer input
    expected = {
        "normal": (N, 2 * CHANNELS, f, t),
        "reduce": (N, 2 * CHANNELS, math.ceil(f / 2), math.ceil(t / 2)),
        "rnn": (N, t, 2 * CHANNELS),
    }[kind]
    assert out.shape == expected
    assert cell.out_channels == 2 * CHANNELS


@pytest.mark.parametrize("kind", ["normal", "reduce", "rnn"])
def test_concat_chooses_the_states_of_the_output(kind):
    """A derived cell of two skips whose second node alone is the output."""
    nodes = [
        DerivedNode(CELL_TYPES[kind], [("skip_connect", 0), ("skip_connect", 1)], CHANNELS, kind == "reduce")
    ]
    nodes.append(
        DerivedNode(CELL_TYPES[kind], [("skip_connect", 2), ("skip_connect", 1)], CHANNELS, kind == "reduce")
    )
    cell = Cell(CELL_TYPES[kind], nodes, [3], INPUTS, CHANNELS, False, affine=False).double()
    s0, s1 = inputs_of(kind, False)
    p0, p1 = cell.project0(s0), cell.project1(s1)
    if kind == "reduce":
        (a, b), c = nodes[0].ops, nodes[1].ops[1]
        truth = a(p0) + b(p1) + c(p1)
    else:
        truth = p0 + p1 + p1
    torch.testing.assert_close(cell(s0, s1), truth)
    assert cell.out_channels == CHANNELS


def test_both_worlds_are_the_same_class_with_other_tables():
    normal, rnn = (
        relaxed_cell("normal", 1, ("skip_connect",), False),
        relaxed_cell("rnn", 1, ("skip_connect",), False),
    )
    assert isinstance(normal, Cell)
    assert isinstance(rnn, Cell)
    assert CELL_TYPES == {"normal": CNN, "reduce": CNN, "rnn": SEQ}


@pytest.mark.parametrize("affine", [False, True])
def test_map_projection_is_relu_pointwise_convolution_and_norm(affine):
    project = project_maps(5, 4, 1, affine).double().eval()
    x, weight = (
        torch.randn(2, 5, 3, 4, dtype=torch.float64),
        next(p for p in project.parameters() if p.dim() == 4),
    )
    truth = torch.einsum("oi,nift->noft", weight[:, :, 0, 0], x.clamp(min=0)) / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(project(x), truth)
    assert sum(p.numel() for p in project.parameters()) == 5 * 4 + affine * 2 * 4
    assert isinstance(project_maps(5, 4, 2, affine), FactorizedReduce)


@pytest.mark.parametrize("steps", [1, 2, 5, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_sequence_projection_averages_pairs_then_maps_and_norms_each_step(stride, steps):
    project = ProjectSequence(5, 4, stride, affine=False).double()
    x = torch.randn(2, steps, 5, dtype=torch.float64)
    out = project(x)
    assert out.shape == (2, math.ceil(steps / stride), 4)
    for n in range(2):
        for t in range(out.shape[1]):
            present = x[n, t * stride : (t + 1) * stride]  # at the end of an odd sequence a single step
            y = project.linear.weight @ (present.sum(dim=0) / len(present)) + project.linear.bias
            truth = (y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt()
            torch.testing.assert_close(out[n, t], truth)
