"""Cells: relaxed cells against the oracle, the projections of their inputs, and the alignment of odd resolutions."""

import math

import pytest
import torch
from conftest import compile_nothing
from oracle import PlainCell, relative_error
from torch import Tensor

from genotypes import CNN_OPS, RNN_OPS
from models.augment_network import DerivedNode
from models.cells import CELL_TYPES, Cell, ProjectSequence, project_maps
from models.fused import cell_types
from models.mixed_ops import MixedNode, MixedOp
from models.ops import FactorizedReduce

INPUTS = (5, 6)
CHANNELS = 4
N = 4
SEQUENCE_OPS = ("lstm_2", "rnn_1", "lstm_att_1", "rnn_att_2", "skip_connect", "none")
every_kind = pytest.mark.parametrize("kind", CELL_TYPES)


@pytest.fixture(params=["compiled", "by library", "plain"])
def fused(request, monkeypatch) -> bool:
    """--fused auto with and without a C++ compiler, and --fused off."""
    if request.param == "by library":
        compile_nothing(monkeypatch)
    return request.param != "plain"


def make_cell(kind: str, nodes: int, ops: tuple[str, ...], reduction_prev: bool, fused=True) -> Cell:
    """A relaxed cell."""
    cell_type = cell_types(fused)[kind]

    def make_edge(source: int) -> MixedOp:
        return MixedOp(cell_type, ops, CHANNELS, 2 if kind == "reduce" and source < 2 else 1)

    relaxed_nodes = [MixedNode(make_edge(source) for source in range(i + 2)) for i in range(nodes)]
    concat = range(2, nodes + 2)
    cell = cell_type.relaxed_cell(
        cell_type, relaxed_nodes, concat, INPUTS, CHANNELS, reduction_prev, affine=False
    )
    return cell.double()


def make_inputs(kind: str, reduction_prev: bool, height=7, width=9) -> list[Tensor]:
    """The two inputs of a cell. After a reduction, the older one has twice the resolution of the other."""
    halved = (math.ceil(height / 2), math.ceil(width / 2))
    sizes = [(height, width), halved if reduction_prev else (height, width)]
    inputs = []
    for (f, t), channels in zip(sizes, INPUTS, strict=True):
        shape = (N, t, channels) if kind == "rnn" else (N, channels, f, t)
        inputs.append(torch.randn(shape, dtype=torch.float64))
    return inputs


def assert_equals_oracle(kind: str, nodes: int, ops: tuple[str, ...], reduction_prev: bool, fused: bool):
    """In float64: the output, the gradients of inputs, weights and alphas, and the running statistics."""
    torch.manual_seed(nodes)
    cell = make_cell(kind, nodes, ops, reduction_prev, fused)
    oracle = PlainCell(kind, nodes, ops, INPUTS, CHANNELS, reduction_prev).double()
    oracle.load_state_dict(cell.state_dict())
    inputs = [x.requires_grad_() for x in make_inputs(kind, reduction_prev)]
    alphas = [torch.randn(i + 2, len(ops), dtype=torch.float64, requires_grad=True) for i in range(nodes)]

    found = cell(*inputs, [alpha.softmax(dim=1) for alpha in alphas])
    truth = oracle(*inputs, alphas)
    assert relative_error(found, truth) < 1e-10

    g = torch.randn_like(truth)
    names = ["s0", "s1", *(f"alpha {i}" for i in range(nodes)), *dict(cell.named_parameters())]
    gradients = torch.autograd.grad(found, [*inputs, *alphas, *cell.parameters()], g)
    true_gradients = torch.autograd.grad(truth, [*inputs, *alphas, *oracle.parameters()], g)
    for name, d, true in zip(names, gradients, true_gradients, strict=True):
        assert relative_error(d, true) < 1e-10, name
    for (name, buffer), true in zip(cell.named_buffers(), oracle.buffers(), strict=True):
        torch.testing.assert_close(buffer, true, msg=name)


@pytest.mark.parametrize("with_none", [True, False])
@pytest.mark.parametrize("reduction_prev", [False, True])
@pytest.mark.parametrize("nodes", [1, 2, 4])
@every_kind
def test_relaxed_cell_equals_the_oracle(kind, nodes, reduction_prev, with_none, fused):
    ops = SEQUENCE_OPS if kind == "rnn" else CNN_OPS
    assert_equals_oracle(kind, nodes, ops if with_none else ops[:-1], reduction_prev, fused)


def test_relaxed_cell_of_all_sequence_ops_equals_the_oracle(fused):
    assert_equals_oracle("rnn", 1, RNN_OPS, False, fused)


@pytest.mark.parametrize("size", [(7, 9), (8, 9), (8, 8), (1, 1), (13, 29)])
@every_kind
def test_cell_after_a_reduction_takes_any_resolution(kind, size):
    cell = make_cell(kind, 2, ("skip_connect", "none"), reduction_prev=True)
    weights = [torch.rand(i + 2, 2, dtype=torch.float64) for i in range(2)]
    out = cell(*make_inputs(kind, True, *size), weights)
    f, t = (math.ceil(n / 2) for n in size)  # of the newer input
    expected = {
        "normal": (N, 2 * CHANNELS, f, t),
        "reduce": (N, 2 * CHANNELS, math.ceil(f / 2), math.ceil(t / 2)),
        "rnn": (N, t, 2 * CHANNELS),
    }
    assert out.shape == expected[kind]
    assert cell.out_channels == 2 * CHANNELS


@every_kind
def test_concat_chooses_the_states_of_the_output(kind):
    """A derived cell of skip connections, whose output is its second node alone."""
    cell_type = CELL_TYPES[kind]
    edges = [[("skip_connect", 0), ("skip_connect", 1)], [("skip_connect", 2), ("skip_connect", 1)]]
    nodes = [DerivedNode(cell_type, pair, CHANNELS, kind == "reduce") for pair in edges]
    cell = Cell(cell_type, nodes, [3], INPUTS, CHANNELS, False, affine=False).double()
    s0, s1 = make_inputs(kind, False)
    p0, p1 = cell.project0(s0), cell.project1(s1)
    truth = p0 + p1 + p1
    if kind == "reduce":
        (a, b), c = nodes[0].ops, nodes[1].ops[1]
        truth = a(p0) + b(p1) + c(p1)
    torch.testing.assert_close(cell(s0, s1), truth)
    assert cell.out_channels == CHANNELS


@pytest.mark.parametrize("affine", [False, True])
def test_map_projection_is_relu_pointwise_convolution_and_batchnorm(affine):
    project = project_maps(5, 4, 1, affine).double().eval()
    weight = next(p for p in project.parameters() if p.dim() == 4)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    truth = torch.einsum("oi,nift->noft", weight[:, :, 0, 0], x.clamp(min=0)) / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(project(x), truth)
    assert sum(p.numel() for p in project.parameters()) == 5 * 4 + affine * 2 * 4
    assert isinstance(project_maps(5, 4, 2, affine), FactorizedReduce)


@pytest.mark.parametrize("steps", [1, 2, 5, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_sequence_projection_averages_steps_then_maps_and_normalises_each(stride, steps):
    project = ProjectSequence(5, 4, stride, affine=False).double()
    x = torch.randn(2, steps, 5, dtype=torch.float64)
    out = project(x)
    assert out.shape == (2, math.ceil(steps / stride), 4)
    for n in range(2):
        for t in range(out.shape[1]):
            window = x[n, t * stride : (t + 1) * stride]  # one step at the end of an odd sequence
            y = project.linear.weight @ (window.sum(dim=0) / len(window)) + project.linear.bias
            truth = (y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt()
            torch.testing.assert_close(out[n, t], truth)
