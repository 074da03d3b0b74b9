"""The compiled units of a derived network, against the plain modules in float64."""

import copy

import pytest
import torch
from conftest import compile_nothing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genotypes import CNN_OPS, Genotype
from models.augment_network import AugmentNetwork, set_drop_path
from models.cells import CELL_TYPES, CNN
from models.fused import FUSED_CELL_TYPES, stem_type, synchronise
from models.fused.cnn.units import Pooling, pointwise_norm
from models.fused.native import compiler
from models.fused.native import operations as native
from models.joint_network import Size, Stem
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

needs_compiler = pytest.mark.skipif(compiler.library() is None, reason="no C++ compiler, or not Linux")
FUSED = FUSED_CELL_TYPES["normal"]
OPS = [op for op in CNN_OPS if op != "none"]
SIZES = [(2, 6, 8), (1, 4, 1), (5, 33, 9)]
"""Utterances, coefficients, frames: less than a row of pixels, and several parts, the last one not whole."""


def pairs(channels, stride):
    """By name, each fused module and the plain module that it computes as; both with `channels` channels out."""
    modules = {op: (FUSED.ops[op](channels, stride, True), CNN.ops[op](channels, stride, True)) for op in OPS}
    for width in (3, channels, 36):
        modules[f"projection of {width}"] = (
            FUSED.project(width, channels, stride, True),
            CNN.project(width, channels, stride, True),
        )
    return modules


def randomise(module):
    """Affine parameters of both signs, one of them 0, and running statistics that differ from the initial ones."""
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, -1.5, 1.5)
        norm.weight.data[0] = 0
        nn.init.uniform_(norm.bias, -1, 1)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 1.5)
    return module


def run(module, x):
    """The output, the gradients with respect to x and all parameters, and the statistics."""
    module = copy.deepcopy(module)
    x = x.clone().requires_grad_()
    out = module(x)
    g = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad(out, [x, *module.parameters()], g), *module.buffers()]


def width_of(module):
    """The number of channels that a module reads."""
    convolutions = [m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [m.num_features for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    return next(iter(convolutions or norms), 5)


@pytest.fixture
def calls(monkeypatch):
    """The calls of the compiled BatchNorm."""
    made = []
    compiled = native.pointwise_norm
    monkeypatch.setattr(native, "pointwise_norm", lambda *a: (made.append(a), compiled(*a))[1])
    return made


@needs_compiler
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [3, 8, 12])
def test_units_equal_the_plain_modules(channels, stride, training, calls):
    torch.manual_seed(0)
    for name, (fused, plain) in pairs(channels, stride).items():
        plain = randomise(plain).double().train(training)
        fused = fused.double().train(training)
        fused.load_state_dict(plain.state_dict())
        for n, f, t in SIZES:
            x = torch.randn(n, width_of(plain), f, t, dtype=torch.float64)
            before = len(calls)
            torch.testing.assert_close(
                run(fused, x),
                run(plain, x),
                rtol=1e-9,
                atol=1e-9,
                msg=lambda text, name=name: f"{name}: {text}",
            )
            norms = sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
            assert len(calls) == before + norms, name


@needs_compiler
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("size", SIZES)
def test_the_stem_equals_the_plain_stem(size, channels, stride, training, calls):
    torch.manual_seed(0)
    plain = randomise(Stem(channels, 36, stride)).double().train(training)
    fused = stem_type(fused=True)(channels, 36, stride).double().train(training)
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(size[0], channels, *size[1:], dtype=torch.float64)
    torch.testing.assert_close(run(fused, x), run(plain, x), rtol=1e-9, atol=1e-9)
    assert len(calls) == 1


def by_autograd(z, weight, norm, relu):
    y = z.relu() if relu else z
    return norm(y if weight is None else torch.einsum("ca,naft->ncft", weight, y))


@needs_compiler
@settings(max_examples=40)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(2, 20),
    st.integers(1, 50),
    st.integers(1, 50),
    st.data(),
)
def test_norms_of_any_size_equal_autograd(images, rows, columns, width, channels, data):
    has_weight, relu, training = (data.draw(st.booleans()) for _ in range(3))
    torch.manual_seed(0)
    z = torch.randn(images, width, rows, columns, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(channels, width, dtype=torch.float64, requires_grad=True) if has_weight else None
    norm = randomise(nn.BatchNorm2d(channels if has_weight else width)).double().train(training)
    leaves = [each for each in (z, weight, *norm.parameters()) if each is not None]
    results = []
    for compute in (pointwise_norm, by_autograd):
        own = copy.deepcopy(norm)
        own.weight, own.bias = norm.weight, norm.bias
        out = compute(z, weight, own, relu and has_weight)
        g = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
        results.append([out, *torch.autograd.grad(out, leaves, g), *own.buffers()])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-8)


@needs_compiler
@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2]))
def test_pools_of_any_size_equal_the_library(images, channels, rows, columns, stride):
    """Many values are equal: the gradient of a maximum goes to the first of them."""
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (images, channels, rows, columns)).double().requires_grad_()
    x.data[0, 0, rows // 2, columns // 2] = torch.nan
    for is_max, library in (
        (True, nn.MaxPool2d(3, stride, padding=1)),
        (False, nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)),
    ):
        found, truth = Pooling.apply(x, stride, is_max), library(x)
        g = torch.linspace(-1, 2, truth.numel(), dtype=truth.dtype).view_as(truth)
        torch.testing.assert_close(found, truth, equal_nan=True)
        g[truth.isnan()] = 0
        d_found, d_truth = (torch.autograd.grad(out, x, g)[0] for out in (found, truth))
        torch.testing.assert_close(d_found, d_truth)


@needs_compiler
def test_float32_norms_are_precise_far_from_zero_and_the_same_on_any_number_of_threads():
    torch.manual_seed(0)
    x = 3000 + 0.1 * torch.randn(4, 12, 37, 29)
    x[:, 3] = 7  # constant
    norm = nn.BatchNorm2d(12)
    truth = copy.deepcopy(norm).double()(x.double())
    unit = FUSED.ops["dil_conv_3x3"](12, 1, True)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append([*run(unit, x), pointwise_norm(x, None, norm, False)])
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(results[0][-1].double(), truth, rtol=1e-2, atol=1e-2)
    assert results[0][-1][:, 3].abs().max() < 1e-3
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# ---------------------------------------------------------------- the derived network

NODES = [
    (("sep_conv_3x3", 0), ("max_pool_3x3", 1)),
    (("dil_conv_5x5", 1), ("skip_connect", 2)),
    (("avg_pool_3x3", 0), ("dil_conv_3x3", 3)),
]
RNN_NODES = [(("rnn_2", 0), ("lstm_att_1", 1))]
GENOTYPE = Genotype(NODES, (2, 3, 4), NODES, (2, 3, 4), RNN_NODES, (2,))


def derived(fused):
    """A derived network with dropout, drop path and an auxiliary head."""
    torch.manual_seed(0)
    network = AugmentNetwork(
        GENOTYPE, Size(3, 12, 1, 16), 4, dropout=0.2, auxiliary=True, fused=fused
    ).double()
    set_drop_path(network, 0.3)
    return randomise(network)


def one_step(network, x):
    """Outputs and gradients in training, all statistics, and the logits in evaluation."""
    torch.manual_seed(1)
    outputs = network.train()(x)
    loss = sum(out.square().sum() for out in outputs)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    with torch.no_grad():
        return [*outputs, *gradients, *network.buffers(), network.eval()(x)]


@needs_compiler
def test_a_derived_network_equals_the_plain_one_with_the_same_dropout_and_drop_path(calls):
    x = torch.randn(6, 1, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    plain = one_step(derived(fused=False), x)
    assert not calls
    network = derived(fused=True)
    fused = one_step(network, x)
    norms = [name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(calls) == 2 * sum("auxiliary" not in name for name in norms)  # in training and in evaluation
    torch.testing.assert_close(fused, plain, rtol=1e-7, atol=1e-7)


@needs_compiler
@pytest.mark.parametrize("case", ["bf16", "meta", "no compiler", "synchronised", "export", "no utterances"])
def test_where_the_compiled_code_does_not_apply_the_plain_modules_compute(case, calls, monkeypatch):
    torch.manual_seed(0)
    fused, plain = pairs(8, 2)["sep_conv_3x3"]
    fused.load_state_dict(randomise(plain).state_dict())
    x = torch.randn(2, 8, 6, 8)
    if case == "bf16":
        x, fused, plain = x.bfloat16(), *(m.to(torch.bfloat16) for m in (fused, plain))
        for norm in (m for each in (fused, plain) for m in each.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.float()
    if case == "meta":
        x, fused, plain = x.to("meta"), fused.to("meta"), plain.to("meta")
    if case == "no compiler":
        compile_nothing(monkeypatch)
    if case == "synchronised":
        synchronise(fused, 2), synchronise(plain, 2)
        fused, plain = fused.eval(), plain.eval()
    if case == "export":
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    if case == "no utterances":
        x, fused, plain = x[:0], fused.eval(), plain.eval()
    found, truth = fused(x), plain(x)
    assert found.shape == truth.shape
    assert found.is_meta or torch.equal(found, truth)
    assert not calls


@needs_compiler
def test_a_second_derivative_is_refused():
    x = torch.randn(2, 8, 6, 8, requires_grad=True)
    out = FUSED.ops["dil_conv_3x3"](8, 1, True)(x)
    (g,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


@needs_compiler
@pytest.mark.parametrize("op", ["max_pool_3x3", "dil_conv_3x3"])
def test_only_the_gradients_that_are_needed_are_computed(op):
    fused = FUSED.ops[op](8, 1, True)
    x = torch.randn(2, 8, 6, 8)
    fused(x).sum().backward()
    assert fused.norm.bias.grad.tolist() == pytest.approx([96] * 8)
    fused.requires_grad_(False)
    x.requires_grad_()
    fused(x).square().sum().backward()
    assert x.grad.any()


@needs_compiler
def test_a_search_computes_what_it_did_before(calls):
    """Its BatchNorms are not affine, and its stem is the plain one: its results do not change by a bit."""
    space = SearchSpace(2, 1, CNN_OPS, ("lstm_1", "none"))
    network = SearchNetwork(space, Size(3, 4, 1, 8), 4)
    assert type(network.network.stem) is Stem
    network(torch.randn(4, 1, 8, 8)).sum().backward()
    assert not calls


def test_state_dicts_have_the_same_names():
    fused, plain = (AugmentNetwork(GENOTYPE, Size(3, 12, 1, 16), 4, fused=f) for f in (True, False))
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert CELL_TYPES["normal"] is CNN
