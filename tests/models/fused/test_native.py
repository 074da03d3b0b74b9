"""The compiled code: equal to the library and to autograd in float64, on any number of threads; optional."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import compile_nothing
from hypothesis import given, settings
from hypothesis import strategies as st

from models import fused
from models.fused.cnn import depthwise, sums
from models.fused.cnn.layout import Layout, repeat_channels
from models.fused.native import compiler
from models.fused.native import operations as native
from models.fused.rnn.tanh_rnn import TanhScan

needs_compiler = pytest.mark.skipif(compiler.library() is None, reason="no C++ compiler, or not Linux")

SIZES = st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)
"""Images, rows, columns."""
CHANNELS = st.sampled_from([8, 16, 24, 32])
FOLDS = st.sampled_from([1, 2, 3, 4])
ONE_OR_TWO = st.sampled_from([1, 2])


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache of compiled code, and no library loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler.library.cache_clear()
    yield tmp_path / "emodarts"
    compiler.library.cache_clear()


def random_maps(*size, dtype=torch.float64):
    return torch.randn(*size, dtype=dtype).contiguous(memory_format=torch.channels_last)


def compiled_and_library(compute):
    """The results of a function with the compiled code, and without it."""
    compiled = compute()
    with pytest.MonkeyPatch.context() as patch:
        compile_nothing(patch)
        return compiled, compute()


def assert_same_on_any_number_of_threads(compute):
    """Call a function on 1 and on 3 threads; it returns a list of tensors."""
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(compute())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def make_case(images, rows, columns, channels, side, stride, dilation, dtype=torch.float64):
    """The arguments of `depthwise_gradients`; without the first, those of `depthwise`."""
    torch.manual_seed(0)
    g = random_maps(images, channels, -(-rows // stride), -(-columns // stride), dtype=dtype)
    x = random_maps(images, channels, rows, columns, dtype=dtype)
    return g, x, torch.randn(channels, 1, side, side, dtype=dtype), stride, dilation


def by_autograd(g, x, weight, stride, dilation):
    """The convolution of relu(x), and its gradients with respect to x and the weights."""
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    padding = dilation * (weight.shape[-1] // 2)
    z = F.conv2d(F.relu(leaves[0]), leaves[1], None, stride, padding, dilation, groups=len(weight))
    return [z, *torch.autograd.grad(z, leaves, g)]


def assert_equals_autograd(module, case, rtol=1e-10, atol=1e-10):
    """Compare a module that has `depthwise` and `depthwise_gradients` with autograd."""
    z = module.depthwise(*case[1:])
    assert z.is_contiguous(memory_format=torch.channels_last)
    found = [z, *module.depthwise_gradients(*case, True, True)]
    torch.testing.assert_close(found, by_autograd(*case), rtol=rtol, atol=atol)


@needs_compiler
@settings(max_examples=60)
@given(st.builds(make_case, *SIZES, CHANNELS, st.sampled_from([3, 5]), ONE_OR_TWO, ONE_OR_TWO))
def test_compiled_convolutions_equal_autograd(case):
    assert_equals_autograd(native, case)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
def test_convolutions_without_a_compiler_equal_autograd(side, dilation, stride, monkeypatch):
    compile_nothing(monkeypatch)
    assert_equals_autograd(depthwise, make_case(2, 9, 12, 16, side, stride, dilation))


@needs_compiler
def test_compiled_convolutions_of_float32_are_the_same_on_any_number_of_threads():
    case = make_case(3, 37, 29, 32, 5, 1, 2, torch.float32)
    assert_equals_autograd(native, case, rtol=1e-4, atol=1e-3)
    assert_same_on_any_number_of_threads(lambda: native.depthwise_gradients(*case, True, True))


@needs_compiler
def test_compiled_gradients_do_not_depend_on_the_memory_format_or_on_which_are_needed():
    g, x, *others = make_case(2, 9, 7, 16, 3, 2, 1)
    d_x, d_weight = native.depthwise_gradients(g, x, *others, True, True)
    case = g.contiguous(), x.contiguous(), *others
    assert torch.equal(native.depthwise_gradients(*case, True, False)[0], d_x)
    assert torch.equal(native.depthwise_gradients(*case, False, True)[1], d_weight)
    assert native.depthwise_gradients(*case, False, False) == (None, None)


@needs_compiler
@settings(max_examples=40)
@given(st.integers(1, 3), FOLDS, CHANNELS, CHANNELS, *SIZES)
def test_compiled_means_equal_the_library(count, m, channels_x, channels_y, images, rows, columns):
    xs, zs = ([random_maps(images, m * channels_x, rows, columns) for _ in range(count)] for _ in range(2))
    ys = [random_maps(images, m * channels_y, rows, columns) for _ in range(count)]
    layout = Layout(fold=m)

    def compute():
        return (
            sums.product_means(xs, ys, layout),
            sums.first_and_second_moments(xs, layout),
            sums.channel_mean(xs[0], layout),
            sums.channel_means(xs[0], zs, layout),
        )

    torch.testing.assert_close(*compiled_and_library(compute), rtol=1e-10, atol=1e-10)


@needs_compiler
@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=4), FOLDS, CHANNELS, CHANNELS, *SIZES)
def test_compiled_weighted_sums_equal_the_library(are_matrices, m, channels, others, images, rows, columns):
    constant = repeat_channels(torch.randn(channels, dtype=torch.float64), m)
    terms = []
    for is_matrix in are_matrices:
        x = random_maps(images, m * (others if is_matrix else channels), rows, columns)
        size = (others, channels) if is_matrix else (m * channels,)
        terms.append((x, torch.randn(size, dtype=torch.float64)))
    found, truth = compiled_and_library(lambda: sums.weighted_sum(constant, terms, Layout(fold=m)))
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-10)
    assert found.is_contiguous(memory_format=torch.channels_last)


@needs_compiler
def test_compiled_sums_are_the_same_on_any_number_of_threads():
    x, y = (random_maps(3, 16, 37, 29, dtype=torch.float32) for _ in range(2))
    constant, matrix, factors = torch.randn(16), torch.randn(8, 8), torch.randn(16)
    layout = Layout(fold=2)

    def compute():
        return [
            *sums.first_and_second_moments([x, y], layout),
            sums.channel_means(x, [y], layout),
            sums.weighted_sum(constant, [(x, matrix), (y, factors)], layout),
        ]

    assert_same_on_any_number_of_threads(compute)


@needs_compiler
@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 9), st.sampled_from([8, 16, 24, 40, 72, 128]))
def test_compiled_recurrences_equal_the_library(steps, utterances, channels):
    z, g = (torch.randn(steps, utterances, channels, dtype=torch.float64) for _ in range(2))
    u = torch.randn(channels, channels, dtype=torch.float64) / 4

    def compute():
        leaves = z.clone().requires_grad_(), u.clone().requires_grad_()
        h = TanhScan.apply(*leaves)
        return h, *torch.autograd.grad(h, leaves, g)

    torch.testing.assert_close(*compiled_and_library(compute), rtol=1e-10, atol=1e-10)


@needs_compiler
def test_compiled_tanh_is_exact_to_a_few_units_in_the_last_place():
    special = torch.tensor([0.0, 1e30, -1e30])
    x = torch.cat([torch.linspace(-12, 12, 80_001), torch.logspace(-30, 1.2, 1000), special])
    x = x[: len(x) // 8 * 8].view(1, 1, -1)
    found = native.tanh_scan(x, torch.zeros(1, 1))
    torch.testing.assert_close(found.double(), x.double().tanh(), rtol=5e-7, atol=0)
    assert native.tanh_scan(torch.full((1, 1, 8), torch.nan), torch.zeros(1, 1)).isnan().all()


def test_the_library_computes_what_the_compiled_code_does_not_support():
    assert not native.supports(random_maps(1, 12, 4, 4))
    assert not native.supports(random_maps(1, 16, 4, 4), side=7)
    assert not native.supports(random_maps(1, 16, 4, 4, dtype=torch.bfloat16))


@pytest.mark.skipif(sys.platform != "linux", reason="code is compiled on Linux only")
@pytest.mark.parametrize("compiler_name", ["no-such-compiler", "false"], ids=["missing", "failing"])
def test_a_missing_or_failing_compiler_is_reported_but_no_error(compiler_name, empty_cache, monkeypatch):
    monkeypatch.setenv("CXX", compiler_name)
    assert compiler.library() is None
    assert fused.library_name() is None
    assert fused.compiler_missing(torch.device("cpu"))
    assert not fused.compiler_missing(torch.device("cuda"))


@needs_compiler
def test_code_is_compiled_once(empty_cache, monkeypatch):
    assert compiler.library() is not None
    (path,) = empty_cache.iterdir()
    assert fused.library_name() == path.stem
    run, commands = subprocess.run, []

    def record(command, **options):
        commands.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", record)
    compiler.library.cache_clear()
    assert compiler.library() is not None
    assert [command[1:] for command in commands] == [["--version"]]
    assert list(empty_cache.iterdir()) == [path]
