"""Every candidate op of both search spaces: shape, gradient, parameter count, and the arithmetic of each by hand."""

import itertools
import math

import pytest
import torch
from torch import nn

from genotypes import CNN_OPS, RNN_OPS
from models.ops import MAP_OPS, SEQUENCE_OPS, FactorizedReduce

RECURRENT = [op for op in SEQUENCE_OPS if op != "skip_connect"]
CAUSAL = [op for op in RECURRENT if "att" not in op]
ATTENTION = [op for op in RECURRENT if "att" in op]
POOLS = ["max_pool_3x3", "avg_pool_3x3"]
CONVS = {
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}
"""Name -> (kernel, dilation, repetitions)."""


def count(module):
    return sum(p.numel() for p in module.parameters())


def backward_from_random_weights(module, x):
    """The gradient of a random linear function of the output: no symmetry makes it vanish."""
    out = module(x)
    (out * torch.randn_like(out)).sum().backward()
    return out


def test_the_tables_are_the_ops_of_genotypes_without_none():
    assert set(MAP_OPS) == set(CNN_OPS) - {"none"}
    assert set(SEQUENCE_OPS) == set(RNN_OPS) - {"none"}


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 11), (8, 11), (7, 12), (1, 5), (2, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", MAP_OPS)
def test_map_op_keeps_channels_and_divides_the_size_rounding_up(name, stride, height, width, affine):
    out = MAP_OPS[name](6, stride, affine)(torch.randn(3, 6, height, width))
    assert out.shape == (3, 6, math.ceil(height / stride), math.ceil(width / stride))


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("name", SEQUENCE_OPS)
def test_sequence_op_keeps_its_shape(name, steps):
    assert SEQUENCE_OPS[name](6, 1, False)(torch.randn(3, steps, 6)).shape == (3, steps, 6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", MAP_OPS)
def test_gradient_reaches_input_and_every_parameter_of_a_map_op(name, stride):
    torch.manual_seed(0)
    op, x = MAP_OPS[name](4, stride, True), torch.randn(3, 4, 9, 8, requires_grad=True)
    backward_from_random_weights(op, x)
    assert all(x.grad[n, c].abs().sum() > 1e-3 for n in range(3) for c in range(4))
    assert all(p.grad is not None and p.grad.abs().sum() > 1e-3 for p in op.parameters())


@pytest.mark.parametrize("name", SEQUENCE_OPS)
def test_gradient_reaches_input_and_every_parameter_of_a_sequence_op(name):
    torch.manual_seed(0)
    op, x = SEQUENCE_OPS[name](4, 1, False), torch.randn(3, 7, 4, requires_grad=True)
    backward_from_random_weights(op, x)
    assert (x.grad.abs().sum(dim=2) > 1e-6).all()
    assert all(p.grad is not None and p.grad.abs().sum() > 1e-5 for p in op.parameters())


@pytest.mark.parametrize("channels", [4, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", MAP_OPS)
def test_map_op_has_the_parameters_of_its_formula(name, stride, channels):
    c = channels
    if name in POOLS:
        fixed, norms = 0, 1
    elif name == "skip_connect":
        fixed, norms = (c * c, 1) if stride == 2 else (0, 0)
    else:
        kernel, _, repetitions = CONVS[name]
        fixed, norms = repetitions * (kernel * kernel * c + c * c), repetitions
    assert count(MAP_OPS[name](c, stride, False)) == fixed
    assert count(MAP_OPS[name](c, stride, True)) == fixed + norms * 2 * c


@pytest.mark.parametrize("channels", [4, 7])
@pytest.mark.parametrize("name", SEQUENCE_OPS)
def test_sequence_op_has_the_parameters_of_its_formula(name, channels):
    c, expected = channels, 0
    if name != "skip_connect":
        gates, layers = (4 if name.startswith("lstm") else 1), int(name[-1])
        if name in ATTENTION:
            expected = 2 * gates * (c * c + c * c + 2 * c)  # first layer, both directions
            expected += (layers - 1) * 2 * gates * (2 * c * c + c * c + 2 * c)
            expected += (2 * c * c + c) + c + (4 * c * c + c)  # key, score, projection
        else:
            expected = layers * gates * (2 * c * c + 2 * c)
    assert count(SEQUENCE_OPS[name](c, 1, False)) == expected


# Feature maps: the arithmetic


def normalised(maps):
    """BatchNorm in evaluation mode with its first statistics, mean 0 and variance 1."""
    return maps / math.sqrt(1 + 1e-5)


def looped_pool(x, stride, reduce):
    """3 x 3 pooling by explicit loops; a window holds only what lies inside the map."""
    height, width = x.shape[2:]
    out = torch.empty(*x.shape[:2], math.ceil(height / stride), math.ceil(width / stride), dtype=x.dtype)
    for i, j in itertools.product(range(out.shape[2]), range(out.shape[3])):
        top, left = i * stride - 1, j * stride - 1
        out[:, :, i, j] = reduce(x[:, :, max(top, 0) : top + 3, max(left, 0) : left + 3].flatten(2))
    return out


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", POOLS)
def test_pool_looks_only_inside_the_map(name, stride, height, width):
    x = torch.randn(2, 3, height, width, dtype=torch.float64) - 5  # padded zeros would win every maximum
    reduce = (
        (lambda windows: windows.amax(dim=2))
        if name.startswith("max")
        else (lambda windows: windows.mean(dim=2))
    )
    found = MAP_OPS[name](3, stride, False).double().eval()(x)
    torch.testing.assert_close(found, normalised(looped_pool(x, stride, reduce)))


def looped_depthwise(x, weight, stride, dilation):
    """A depthwise convolution of half-kernel padding by explicit loops over positions and taps."""
    kernel, (height, width) = weight.shape[-1], x.shape[2:]
    out = torch.zeros(*x.shape[:2], math.ceil(height / stride), math.ceil(width / stride), dtype=x.dtype)
    for i, j in itertools.product(range(out.shape[2]), range(out.shape[3])):
        for a, b in itertools.product(range(kernel), repeat=2):
            row, column = i * stride + (a - kernel // 2) * dilation, j * stride + (b - kernel // 2) * dilation
            if 0 <= row < height and 0 <= column < width:
                out[:, :, i, j] += weight[:, 0, a, b] * x[:, :, row, column]
    return out


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", CONVS)
def test_convolution_equals_loops(name, stride, height, width):
    kernel, dilation, repetitions = CONVS[name]
    op = MAP_OPS[name](3, stride, False).double().eval()
    x = truth = torch.randn(2, 3, height, width, dtype=torch.float64)
    filters = [p.detach() for p in op.parameters()]
    assert len(filters) == 2 * repetitions
    for i, (depthwise, pointwise) in enumerate(zip(filters[::2], filters[1::2], strict=True)):
        assert depthwise.shape == (3, 1, kernel, kernel)
        maps = looped_depthwise(truth.clamp(min=0), depthwise, stride if i == 0 else 1, dilation)
        truth = normalised(torch.einsum("oi,nihw->nohw", pointwise[:, :, 0, 0], maps))
    torch.testing.assert_close(op(x), truth)


@pytest.mark.parametrize("channels_out", [4, 5])
@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 8), (6, 9), (7, 9), (1, 1)])
def test_factorized_reduce_equals_loops(height, width, channels_out):
    """Output (i, j): half of the channels see the point (2i, 2j), the others (2i+1, 2j+1), zero beyond the edge."""
    op = FactorizedReduce(3, channels_out, affine=False).double().eval()
    even, odd = op.even.weight.detach()[:, :, 0, 0], op.odd.weight.detach()[:, :, 0, 0]
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    rows, columns = math.ceil(height / 2), math.ceil(width / 2)
    truth = torch.zeros(2, channels_out, rows, columns, dtype=torch.float64)
    for n, i, j in itertools.product(range(2), range(rows), range(columns)):
        truth[n, : len(even), i, j] = even @ x[n, :, 2 * i, 2 * j].clamp(min=0)
        if 2 * i + 1 < height and 2 * j + 1 < width:
            truth[n, len(even) :, i, j] = odd @ x[n, :, 2 * i + 1, 2 * j + 1].clamp(min=0)
    torch.testing.assert_close(op(x), normalised(truth))


@pytest.mark.parametrize("name", MAP_OPS)
def test_no_pointwise_convolution_has_a_stride(name):
    """Its weights' gradient would be written beyond its memory (see `FactorizedReduce`)."""
    convolutions = [m for m in MAP_OPS[name](2, 2, True).modules() if isinstance(m, nn.Conv2d)]
    assert all(m.stride == (1, 1) for m in convolutions if m.kernel_size == (1, 1))


def test_skip_with_stride_one_is_the_identity_in_both_worlds():
    maps, sequence = torch.randn(2, 3, 5, 6), torch.randn(2, 5, 3)
    assert torch.equal(MAP_OPS["skip_connect"](3, 1, True)(maps), maps)
    assert torch.equal(SEQUENCE_OPS["skip_connect"](3, 1, True)(sequence), sequence)


@pytest.mark.parametrize("name", [op for op in MAP_OPS if op != "skip_connect"])
def test_map_op_ends_in_batch_normalisation(name):
    out = MAP_OPS[name](3, 1, False)(4 + 3 * torch.randn(8, 3, 9, 9))
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.var(dim=(0, 2, 3), unbiased=False), torch.ones(3), atol=1e-2, rtol=0)


# Sequences: time is the axis, and the arithmetic


@pytest.mark.parametrize("changed", [0, 3, 6])
@pytest.mark.parametrize("name", CAUSAL)
def test_unidirectional_op_is_causal(name, changed):
    torch.manual_seed(1)
    op, x = SEQUENCE_OPS[name](5, 1, False).double(), torch.randn(2, 7, 5, dtype=torch.float64)
    other = x.clone()
    other[:, changed] += 1
    difference = (op(other) - op(x)).abs().amax(dim=2)  # (N, T)
    assert torch.equal(difference[:, :changed], torch.zeros(2, changed, dtype=torch.float64))
    assert (difference[:, changed:] > 1e-12).all()


@pytest.mark.parametrize("changed", [0, 3, 6])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_op_sees_the_whole_sequence_at_every_step(name, changed):
    torch.manual_seed(1)
    op, x = SEQUENCE_OPS[name](5, 1, False).double(), torch.randn(2, 7, 5, dtype=torch.float64)
    other = x.clone()
    other[:, changed] += 1
    assert ((op(other) - op(x)).abs().amax(dim=2) > 1e-12).all()


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_op_treats_each_utterance_by_itself(name):
    op, x = SEQUENCE_OPS[name](5, 1, False).double(), torch.randn(4, 7, 5, dtype=torch.float64)
    other = x.clone()
    other[2] += 1
    unchanged = [0, 1, 3]
    assert torch.equal(op(other)[unchanged], op(x)[unchanged])
    torch.testing.assert_close(torch.cat([op(row[None]) for row in x]), op(x))


def looped_layer(rnn, x, suffix):
    """One direction of one layer over (T, C) of a single utterance, a step at a time."""
    w_in, w_state, b_in, b_state = (
        getattr(rnn, f"{part}_{suffix}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = c = torch.zeros(w_state.shape[1], dtype=x.dtype)
    out = [None] * len(x)
    for t in reversed(range(len(x))) if suffix.endswith("_reverse") else range(len(x)):
        pre = w_in @ x[t] + b_in + w_state @ h + b_state
        if isinstance(rnn, nn.LSTM):
            enter, forget, cell, leave = pre.chunk(4)
            c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(cell)
            h = torch.sigmoid(leave) * torch.tanh(c)
        else:
            h = torch.tanh(pre)
        out[t] = h
    return torch.stack(out)


def looped_layers(rnn, x, layers, both):
    for k in range(layers):
        suffixes = [f"l{k}", f"l{k}_reverse"] if both else [f"l{k}"]
        x = torch.cat([looped_layer(rnn, x, suffix) for suffix in suffixes], dim=1)
    return x


@pytest.mark.parametrize("name", CAUSAL)
def test_recurrent_op_equals_a_loop_over_steps(name):
    op, x = SEQUENCE_OPS[name](3, 1, False).double(), torch.randn(2, 6, 3, dtype=torch.float64)
    assert isinstance(op.rnn, nn.LSTM if name.startswith("lstm") else nn.RNN)
    truth = torch.stack([looped_layers(op.rnn, row, int(name[-1]), both=False) for row in x])
    torch.testing.assert_close(op(x), truth)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_op_equals_a_loop_over_steps(name):
    torch.manual_seed(2)
    op, x = SEQUENCE_OPS[name](3, 1, False).double(), 2 * torch.randn(2, 6, 3, dtype=torch.float64)
    made = op.requires_grad_(False).context
    for layer in (made.key, made.score):
        nn.init.normal_(layer.weight, std=5)  # attention far from uniform
    u, b, v = made.key.weight, made.key.bias, made.score.weight[0]
    truth = torch.empty_like(x)
    for n, row in enumerate(x):
        h = looped_layers(op.rnn, row, int(name[-1]), both=True)
        scores = [float(v @ torch.tanh(u @ step + b)) for step in h]
        shares = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
        assert max(shares) > 1.5 / 6
        context = sum(share * step for share, step in zip(shares, h, strict=True))
        for t, step in enumerate(h):
            truth[n, t] = (
                made.project.weight @ step + made.project_context.weight @ context + made.project.bias
            )
    torch.testing.assert_close(op(x), truth)


@pytest.mark.parametrize("name", ATTENTION)
def test_equal_scores_make_the_context_the_mean(name):
    op, x = SEQUENCE_OPS[name](3, 1, False).double(), torch.randn(2, 6, 3, dtype=torch.float64)
    made = op.context
    nn.init.zeros_(made.score.weight)
    h = op.rnn(x)[0]
    truth = made.project(h) + made.project_context(h.mean(dim=1, keepdim=True))
    torch.testing.assert_close(op(x), truth)
