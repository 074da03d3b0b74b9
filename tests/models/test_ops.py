"""Every candidate op: shapes, gradients, numbers of parameters, and its arithmetic by hand."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from genotypes import CNN_OPS, RNN_OPS
from models.fused import cell_types
from models.ops import MAP_OPS, SEQUENCE_OPS, FactorizedReduce

RECURRENT = [op for op in SEQUENCE_OPS if op != "skip_connect"]
CAUSAL = [op for op in RECURRENT if "att" not in op]
ATTENTION = [op for op in RECURRENT if "att" in op]
POOLS = ["max_pool_3x3", "avg_pool_3x3"]
CONVS = {
    "sep_conv_3x3": ((3, 3), 1, 2),
    "sep_conv_5x5": ((5, 5), 1, 2),
    "dil_conv_3x3": ((3, 3), 2, 1),
    "dil_conv_5x5": ((5, 5), 2, 1),
    "sep_conv_7x1": ((7, 1), 1, 2),
    "sep_conv_1x7": ((1, 7), 1, 2),
}
"""Name -> (kernel, dilation, repetitions)."""
every_map_op = pytest.mark.parametrize("name", MAP_OPS)
every_sequence_op = pytest.mark.parametrize("name", SEQUENCE_OPS)
every_stride = pytest.mark.parametrize("stride", [1, 2])


@pytest.fixture(params=[True, False], ids=["fused", "plain"])
def sequence_ops(request):
    """The ops of the SeqNN with --fused auto and off."""
    return cell_types(request.param)["rnn"].ops


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def backward(module: nn.Module, x: Tensor) -> None:
    """Backpropagate a random linear function of the output, whose gradient vanishes by no symmetry."""
    out = module(x)
    (out * torch.randn_like(out)).sum().backward()


def random_sequences(n: int, steps: int, channels: int) -> Tensor:
    return torch.randn(n, steps, channels, dtype=torch.float64)


def test_every_op_but_none_has_a_module():
    assert set(MAP_OPS) == set(CNN_OPS) - {"none"}
    assert set(SEQUENCE_OPS) == set(RNN_OPS) - {"none"}


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 11), (8, 11), (7, 12), (1, 5), (2, 1)])
@every_stride
@every_map_op
def test_map_op_keeps_channels_and_divides_the_size_rounding_up(name, stride, height, width, affine):
    out = MAP_OPS[name](6, stride, affine)(torch.randn(3, 6, height, width))
    assert out.shape == (3, 6, math.ceil(height / stride), math.ceil(width / stride))


@pytest.mark.parametrize("steps", [1, 2, 9])
@every_sequence_op
def test_sequence_op_keeps_the_shape(name, steps, sequence_ops):
    assert sequence_ops[name](6, 1, False)(torch.randn(3, steps, 6)).shape == (3, steps, 6)


@every_stride
@every_map_op
def test_gradient_of_map_op_reaches_the_input_and_every_parameter(name, stride):
    torch.manual_seed(0)
    op = MAP_OPS[name](4, stride, True)
    x = torch.randn(3, 4, 9, 8, requires_grad=True)
    backward(op, x)
    assert (x.grad.abs().sum(dim=(2, 3)) > 1e-3).all()
    assert all(p.grad is not None and p.grad.abs().sum() > 1e-3 for p in op.parameters())


@every_sequence_op
def test_gradient_of_sequence_op_reaches_the_input_and_every_parameter(name, sequence_ops):
    torch.manual_seed(0)
    op = sequence_ops[name](4, 1, False)
    x = torch.randn(3, 7, 4, requires_grad=True)
    backward(op, x)
    assert (x.grad.abs().sum(dim=2) > 1e-6).all()
    assert all(p.grad is not None and p.grad.abs().sum() > 1e-5 for p in op.parameters())


@pytest.mark.parametrize("channels", [4, 7])
@every_stride
@every_map_op
def test_number_of_parameters_of_map_op(name, stride, channels):
    c = channels
    weights, norms = 0, 1
    if name == "skip_connect":
        weights, norms = (c * c, 1) if stride == 2 else (0, 0)
    elif name in CONVS:
        kernel, _, norms = CONVS[name]
        weights = norms * (math.prod(kernel) * c + c * c)
    assert count_parameters(MAP_OPS[name](c, stride, False)) == weights
    assert count_parameters(MAP_OPS[name](c, stride, True)) == weights + norms * 2 * c


@pytest.mark.parametrize("channels", [4, 7])
@every_sequence_op
def test_number_of_parameters_of_sequence_op(name, channels):
    c, expected = channels, 0
    if name in RECURRENT:
        gates = 4 if name.startswith("lstm") else 1
        layers = int(name[-1])
        expected = layers * gates * (2 * c * c + 2 * c)
    if name in ATTENTION:
        expected = 2 * gates * (c * c + c * c + 2 * c)  # first layer, both directions
        expected += (layers - 1) * 2 * gates * (2 * c * c + c * c + 2 * c)
        expected += (2 * c * c + c) + c + (4 * c * c + c)  # key, score, projections
    assert count_parameters(SEQUENCE_OPS[name](c, 1, False)) == expected


# ---------------------------------------------------------------- feature maps: the arithmetic


def normalise(maps: Tensor) -> Tensor:
    """BatchNorm in evaluation mode with its initial statistics, mean 0 and variance 1."""
    return maps / math.sqrt(1 + 1e-5)


def pool_by_loops(x: Tensor, stride: int, kind: str) -> Tensor:
    """3 x 3 pooling of the values inside the map."""
    height, width = x.shape[2:]
    out = torch.empty(*x.shape[:2], math.ceil(height / stride), math.ceil(width / stride), dtype=x.dtype)
    for i, j in itertools.product(range(out.shape[2]), range(out.shape[3])):
        top, left = i * stride - 1, j * stride - 1
        window = x[:, :, max(top, 0) : top + 3, max(left, 0) : left + 3].flatten(2)
        out[:, :, i, j] = window.amax(dim=2) if kind == "max" else window.mean(dim=2)
    return out


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5)])
@every_stride
@pytest.mark.parametrize("name", POOLS)
def test_pool_ignores_the_padding(name, stride, height, width):
    x = torch.randn(2, 3, height, width, dtype=torch.float64) - 5  # zeros of the padding would be the maximum
    found = MAP_OPS[name](3, stride, False).double().eval()(x)
    torch.testing.assert_close(found, normalise(pool_by_loops(x, stride, name[:3])))


def depthwise_by_loops(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """A depthwise convolution, whose output has the size of the input divided by the stride."""
    rows, columns = weight.shape[2:]
    height, width = x.shape[2:]
    out = torch.zeros(*x.shape[:2], math.ceil(height / stride), math.ceil(width / stride), dtype=x.dtype)
    for i, j in itertools.product(range(out.shape[2]), range(out.shape[3])):
        for a, b in itertools.product(range(rows), range(columns)):
            row = i * stride + (a - rows // 2) * dilation
            column = j * stride + (b - columns // 2) * dilation
            if 0 <= row < height and 0 <= column < width:
                out[:, :, i, j] += weight[:, 0, a, b] * x[:, :, row, column]
    return out


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5)])
@every_stride
@pytest.mark.parametrize("name", CONVS)
def test_convolution_equals_loops(name, stride, height, width):
    kernel, dilation, repetitions = CONVS[name]
    op = MAP_OPS[name](3, stride, False).double().eval()
    x = truth = torch.randn(2, 3, height, width, dtype=torch.float64)
    filters = [p.detach() for p in op.parameters()]
    assert len(filters) == 2 * repetitions
    for i, (depthwise, pointwise) in enumerate(zip(filters[::2], filters[1::2], strict=True)):
        assert depthwise.shape == (3, 1, *kernel)
        maps = depthwise_by_loops(truth.clamp(min=0), depthwise, stride if i == 0 else 1, dilation)
        truth = normalise(torch.einsum("oi,nihw->nohw", pointwise[:, :, 0, 0], maps))
    torch.testing.assert_close(op(x), truth)


@pytest.mark.parametrize("channels_out", [4, 5])
@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 8), (6, 9), (7, 9), (1, 1)])
def test_factorized_reduce_equals_loops(height, width, channels_out):
    """Half of the channels of output (i, j) see input (2i, 2j), the others (2i+1, 2j+1), or zero beyond the edge."""
    op = FactorizedReduce(3, channels_out, affine=False).double().eval()
    even = op.even.weight.detach()[:, :, 0, 0]
    odd = op.odd.weight.detach()[:, :, 0, 0]
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    rows, columns = math.ceil(height / 2), math.ceil(width / 2)
    truth = torch.zeros(2, channels_out, rows, columns, dtype=torch.float64)
    for n, i, j in itertools.product(range(2), range(rows), range(columns)):
        truth[n, : len(even), i, j] = even @ x[n, :, 2 * i, 2 * j].clamp(min=0)
        if 2 * i + 1 < height and 2 * j + 1 < width:
            truth[n, len(even) :, i, j] = odd @ x[n, :, 2 * i + 1, 2 * j + 1].clamp(min=0)
    torch.testing.assert_close(op(x), normalise(truth))


@every_map_op
def test_pointwise_convolutions_have_stride_1(name):
    """The weight gradient of a strided one would be written outside its memory (see `FactorizedReduce`)."""
    convolutions = [m for m in MAP_OPS[name](2, 2, True).modules() if isinstance(m, nn.Conv2d)]
    assert all(m.stride == (1, 1) for m in convolutions if m.kernel_size == (1, 1))


def test_skip_connect_with_stride_1_is_the_identity():
    maps, sequence = torch.randn(2, 3, 5, 6), torch.randn(2, 5, 3)
    assert torch.equal(MAP_OPS["skip_connect"](3, 1, True)(maps), maps)
    assert torch.equal(SEQUENCE_OPS["skip_connect"](3, 1, True)(sequence), sequence)


@pytest.mark.parametrize("name", [op for op in MAP_OPS if op != "skip_connect"])
def test_map_op_ends_in_batchnorm(name):
    out = MAP_OPS[name](3, 1, False)(4 + 3 * torch.randn(8, 3, 9, 9))
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.var(dim=(0, 2, 3), unbiased=False), torch.ones(3), atol=5e-2, rtol=0)


# ---------------------------------------------------------------- sequences: the axis of time, and the arithmetic


def changes_by_step(op: nn.Module, step: int) -> Tensor:
    """How much each step of the output changes with one step of the input: (N, T)."""
    x = random_sequences(2, 7, 5)
    other = x.clone()
    other[:, step] += 1
    return (op(other) - op(x)).abs().amax(dim=2)


@pytest.mark.parametrize("step", [0, 3, 6])
@pytest.mark.parametrize("name", RECURRENT)
def test_step_of_the_input_changes_later_steps_and_with_attention_all(name, step, sequence_ops):
    torch.manual_seed(1)
    changes = changes_by_step(sequence_ops[name](5, 1, False).double(), step)
    first = step if name in CAUSAL else 0
    assert not changes[:, :first].any()
    assert (changes[:, first:] > 1e-12).all()


@pytest.mark.parametrize("name", RECURRENT)
def test_output_of_recurrent_op_does_not_depend_on_the_rest_of_the_batch(name, sequence_ops):
    op = sequence_ops[name](5, 1, False).double()
    x = random_sequences(4, 7, 5)
    other = x.clone()
    other[2] += 1
    unchanged = [0, 1, 3]
    assert torch.equal(op(other)[unchanged], op(x)[unchanged])
    torch.testing.assert_close(torch.cat([op(row[None]) for row in x]), op(x))


def layer_by_loops(rnn: nn.RNNBase, x: Tensor, suffix: str) -> Tensor:
    """One direction of a layer for one utterance (T, C), step by step."""
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_in, w_state, b_in, b_state = (getattr(rnn, f"{part}_{suffix}") for part in parts)
    h = c = torch.zeros(w_state.shape[1], dtype=x.dtype)
    out = [None] * len(x)
    for t in reversed(range(len(x))) if suffix.endswith("_reverse") else range(len(x)):
        z = w_in @ x[t] + b_in + w_state @ h + b_state
        if isinstance(rnn, nn.LSTM):
            i, f, g, o = z.chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        else:
            h = torch.tanh(z)
        out[t] = h
    return torch.stack(out)


def rnn_by_loops(rnn: nn.RNNBase, x: Tensor) -> Tensor:
    """All layers for one utterance (T, C)."""
    for layer in range(rnn.num_layers):
        suffixes = [f"l{layer}", f"l{layer}_reverse"][: 1 + rnn.bidirectional]
        x = torch.cat([layer_by_loops(rnn, x, suffix) for suffix in suffixes], dim=1)
    return x


def assert_has_rnn(name: str, rnn: nn.RNNBase) -> None:
    """The op's name says the class, the number of layers and the directions of its recurrent module."""
    assert isinstance(rnn, nn.LSTM if name.startswith("lstm") else nn.RNN)
    assert rnn.num_layers == int(name[-1])
    assert rnn.bidirectional == (name in ATTENTION)


@pytest.mark.parametrize("name", CAUSAL)
def test_recurrent_op_equals_a_loop_over_steps(name, sequence_ops):
    op = sequence_ops[name](3, 1, False).double()
    assert_has_rnn(name, op.rnn)
    x = random_sequences(2, 6, 3)
    torch.testing.assert_close(op(x), torch.stack([rnn_by_loops(op.rnn, row) for row in x]))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_op_equals_a_loop_over_steps(name, sequence_ops):
    torch.manual_seed(2)
    op = sequence_ops[name](3, 1, False).double().requires_grad_(False)
    assert_has_rnn(name, op.rnn)
    x = 2 * random_sequences(2, 6, 3)
    context = op.context
    for layer in (context.key, context.score):
        nn.init.normal_(layer.weight, std=5)  # attention far from uniform
    u, b, v = context.key.weight, context.key.bias, context.score.weight[0]
    truth = torch.empty_like(x)
    for n, row in enumerate(x):
        h = rnn_by_loops(op.rnn, row)
        scores = [float(v @ torch.tanh(u @ step + b)) for step in h]
        shares = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
        assert max(shares) > 1.5 / 6, "too close to a plain mean for this test"
        summary = sum(share * step for share, step in zip(shares, h, strict=True))
        truth[n] = h @ context.project.weight.T + context.project_context.weight @ summary
        truth[n] += context.project.bias
    torch.testing.assert_close(op(x), truth)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_with_equal_scores_is_the_mean(name, sequence_ops):
    op = sequence_ops[name](3, 1, False).double()
    nn.init.zeros_(op.context.score.weight)
    x = random_sequences(2, 6, 3)
    h = op.rnn(x)[0]
    truth = op.context.project(h) + op.context.project_context(h.mean(dim=1, keepdim=True))
    torch.testing.assert_close(op(x), truth)
