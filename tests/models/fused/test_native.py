"""The compiled code: against the library and autograd in float64, on any number of threads, and without a compiler."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fused import native
from models.fused.cnn import kernels, sums
from models.fused.cnn.folded import copies
from models.fused.native import compiler
from models.fused.native import maps as native_maps
from models.fused.native import sequences as native_sequences
from models.fused.rnn import tanh_rnn as scan

needs_compiler = pytest.mark.skipif(compiler.library() is None, reason="no C++ compiler, or not Linux")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of compiled code, and nothing loaded yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler.library.cache_clear()
    yield tmp_path / "emodarts"
    compiler.library.cache_clear()


def maps(*size, dtype=torch.float64):
    return torch.randn(*size, dtype=dtype).contiguous(memory_format=torch.channels_last)


def by_library(x, weight, stride, dilation):
    return F.conv2d(
        F.relu(x), weight, None, stride, dilation * (weight.shape[-1] // 2), dilation, groups=len(weight)
    )


def by_autograd(g, x, weight, stride, dilation):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    return torch.autograd.grad(by_library(x, weight, stride, dilation), [x, weight], g)


def case(seed, images, channels, rows, columns, side, stride, dilation, dtype=torch.float64):
    torch.manual_seed(seed)
    g = maps(images, channels, -(-rows // stride), -(-columns // stride), dtype=dtype)
    weight = torch.randn(channels, 1, side, side, dtype=dtype)
    return g, maps(images, channels, rows, columns, dtype=dtype), weight, stride, dilation


CASES = st.builds(
    case,
    st.integers(0, 9),
    st.integers(1, 3),
    st.sampled_from([8, 16, 24, 32]),
    st.integers(1, 21),
    st.integers(1, 21),
    st.sampled_from([3, 5]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
)


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(CASES)
def test_compiled_convolutions_are_the_librarys(drawn):
    found = native_maps.depthwise(*drawn[1:])
    torch.testing.assert_close(found, by_library(*drawn[1:]), rtol=1e-10, atol=1e-10)
    assert found.is_contiguous(memory_format=torch.channels_last)


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(CASES)
def test_compiled_gradients_are_those_of_autograd(drawn):
    found = native_maps.gradients(*drawn, True, True)
    for mine, its in zip(found, by_autograd(*drawn), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)


@needs_compiler
def test_compiled_gradients_of_float32_and_of_any_number_of_threads_are_the_same():
    drawn = case(0, 3, 32, 37, 29, 5, 1, 2, torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = native_maps.gradients(*drawn, True, True)
        torch.set_num_threads(3)
        together = native_maps.gradients(*drawn, True, True)
    finally:
        torch.set_num_threads(threads)
    for a, b, its in zip(alone, together, by_autograd(*drawn), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, its, rtol=1e-4, atol=1e-3)


FOLDED = st.tuples(st.sampled_from([1, 2, 3, 4]), st.sampled_from([8, 16, 24]))
"""The fold m, and mC a multiple of both."""


def several(count, m, channels, images, rows, columns, dtype=torch.float64):
    return [maps(images, channels * m, rows, columns, dtype=dtype) for _ in range(count)]


def both(compute):
    """What is computed by compiled code, and by the library."""
    compiled = compute()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "library", lambda: None)
        return compiled, compute()


SIZES = st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), FOLDED, FOLDED, *SIZES)
def test_compiled_moments_are_the_librarys(count, first, second, images, rows, columns):
    m = first[0]
    xs, ys = (several(count, m, c, images, rows, columns) for c in (first[1], second[1]))
    torch.testing.assert_close(*both(lambda: sums.moments(xs, ys, m)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(*both(lambda: sums.means_and_moments(xs, m)), rtol=1e-10, atol=1e-10)


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), FOLDED, *SIZES)
def test_compiled_means_are_the_librarys(count, folded, images, rows, columns):
    m, channels = folded
    x, *ys = several(1 + count, m, channels, images, rows, columns)
    torch.testing.assert_close(*both(lambda: sums.means(x, ys, m)), rtol=1e-10, atol=1e-10)


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=4), FOLDED, FOLDED, *SIZES)
def test_compiled_weighted_sums_are_the_librarys(matrices, folded, other, images, rows, columns):
    (m, channels), (_, others) = folded, other
    constant = copies(torch.randn(channels, dtype=torch.float64), m)
    terms = []
    for is_matrix in matrices:
        (x,) = several(1, m, others if is_matrix else channels, images, rows, columns)
        factor = torch.randn(*([others] if is_matrix else [m]), channels, dtype=torch.float64)
        terms.append((x, factor if is_matrix else factor.flatten()))
    compiled, its = both(lambda: sums.affine(constant, terms, m))
    torch.testing.assert_close(compiled, its, rtol=1e-10, atol=1e-10)
    assert compiled.is_contiguous(memory_format=torch.channels_last)


@needs_compiler
def test_compiled_sums_of_any_number_of_threads_are_the_same():
    x, y = several(2, 2, 8, 3, 37, 29, torch.float32)
    terms = [(x, torch.randn(8, 8)), (y, torch.randn(16))]
    compute = (lambda: sums.means_and_moments([x, y], 2)[1], lambda: sums.means(x, [y], 2),
               lambda: sums.affine(torch.randn(16), terms, 2))  # fmt: skip
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            torch.manual_seed(0)
            found.append([each() for each in compute])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.sampled_from([8, 16, 24, 40, 72, 128]))
def test_compiled_recurrences_are_the_librarys(steps, utterances, channels):
    z, g, u = (
        torch.randn(*size, dtype=torch.float64)
        for size in ([steps, utterances, channels],) * 2 + ([channels] * 2,)
    )

    def compute():
        leaves = z.clone().requires_grad_(), (u / 4).requires_grad_()
        h = scan.Scan.apply(*leaves)
        return h, *torch.autograd.grad(h, leaves, g)

    torch.testing.assert_close(*both(compute), rtol=1e-10, atol=1e-10)


@needs_compiler
def test_compiled_tanh_is_exact_to_a_few_units_in_the_last_place():
    x = torch.cat(
        [torch.linspace(-12, 12, 80_001), torch.logspace(-30, 1.2, 1000), torch.tensor([0.0, 1e30, -1e30])]
    )
    x = x[: len(x) // 8 * 8].view(1, 1, -1)
    found = native_sequences.recurred(x, torch.zeros(1, 1))
    torch.testing.assert_close(found.double(), x.double().tanh(), rtol=5e-7, atol=0)
    assert torch.isnan(native_sequences.recurred(torch.full((1, 1, 8), torch.nan), torch.zeros(1, 1))).all()


@needs_compiler
def test_what_nobody_asks_for_is_not_computed():
    drawn = case(0, 1, 16, 5, 6, 3, 1, 1)
    d_x, d_weight = native_maps.gradients(*drawn, True, True)
    assert torch.equal(native_maps.gradients(*drawn, True, False)[0], d_x)
    assert torch.equal(native_maps.gradients(*drawn, False, True)[1], d_weight)
    assert native_maps.gradients(*drawn, False, False) == (None, None)


@needs_compiler
def test_maps_in_any_memory_format_are_understood():
    g, x, weight, stride, dilation = case(0, 2, 16, 9, 7, 3, 2, 1)
    theirs = native_maps.gradients(g, x, weight, stride, dilation, True, True)
    for a, b in zip(
        native_maps.gradients(g.contiguous(), x.contiguous(), weight, stride, dilation, True, True),
        theirs,
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
def test_without_a_compiler_the_library_computes_the_same(side, dilation, stride, monkeypatch):
    monkeypatch.setattr(compiler, "library", lambda: None)
    drawn = case(0, 2, 16, 9, 12, side, stride, dilation)
    torch.testing.assert_close(kernels.depthwise(*drawn[1:]), by_library(*drawn[1:]), rtol=1e-10, atol=1e-10)
    for mine, its in zip(kernels.gradients(*drawn, True, True), by_autograd(*drawn), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)


def test_what_does_not_fill_vectors_is_left_to_the_library():
    assert not native_maps.usable(maps(1, 12, 4, 4))
    assert not native_maps.usable(maps(1, 16, 4, 4), side=7)
    assert not native_maps.usable(maps(1, 16, 4, 4, dtype=torch.bfloat16))


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is compiled elsewhere")
def test_no_compiler_is_no_error_but_told(cache, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler.library() is None
    assert native.name() is None
    assert native.wanting(torch.device("cpu"))
    assert not native.wanting(torch.device("cuda"))


def test_a_compiler_that_fails_is_no_error(cache, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    assert compiler.library() is None


@needs_compiler
def test_code_is_compiled_once(cache, monkeypatch):
    assert compiler.library() is not None
    (made,) = cache.iterdir()
    assert native.name() == made.stem
    run, asked = subprocess.run, []
    monkeypatch.setattr(
        subprocess, "run", lambda command, **how: asked.append(command) or run(command, **how)
    )
    compiler.library.cache_clear()
    assert compiler.library() is not None
    assert [command[1:] for command in asked] == [["--version"]]
    assert list(cache.iterdir()) == [made]
