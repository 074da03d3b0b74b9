"""The networks designed by hand: input sizes, numbers of weights, time as the axis of the sequence, and learning."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.baselines import BASELINES, Attention, MeanOverTime, OverFrames, pooled_shape

SHAPES = [(128, 128), (40, 64), (13, 29), (5, 3), (1, 1)]
every_baseline = pytest.mark.parametrize("name", BASELINES)
every_recurrent_baseline = pytest.mark.parametrize("name", [name for name in BASELINES if name != "cnn"])

WEIGHT_COUNTS = {  # for 128 x 128 inputs and four classes, by hand: a linear layer has m n + n, ...
    "cnn": (4 + 1) + (33 * 33 * 32 + 32) + (32 * 4 + 4),
    "rnn": (128 * 512 + 512 * 512 + 2 * 512) + 2 * (2 * 512 * 512 + 2 * 512) + (512 * 32 + 32) + (32 * 4 + 4),
    "lstm": 4 * (128 * 512 + 512 * 512 + 2 * 512) + (512 * 32 + 32) + (32 * 4 + 4),
    "cnn_lstm": (4 + 1) + 8 * (33 * 128 + 128 * 128 + 2 * 128) + (256 * 32 + 32) + (32 * 4 + 4),
    "cnn_lstm_att": (4 + 1) + 8 * (33 * 128 + 128 * 128 + 2 * 128) + (256 * 128 + 128) + 128 + (256 * 4 + 4),
    "acrnn": (9 * (32 + 32 * 64 + 64 * 64) + 2 * (32 + 64 + 64))
    + 8 * (1024 * 64 + 64 * 64 + 2 * 64)
    + (128 * 64 + 64)
    + 64
    + (128 * 4 + 4),
}


def build(name: str, shape=(13, 29), classes=4) -> nn.Module:
    torch.manual_seed(0)
    return BASELINES[name](classes, shape)


@torch.no_grad()
def build_sensitive(name: str, shape: tuple[int, int]) -> nn.Module:
    """A network in evaluation mode whose weights are so large that different utterances get different logits."""
    network = build(name, shape)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.mul_(3)
    return network.eval()


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_baseline
def test_input_of_any_size_gives_logits(name, shape, classes):
    logits = build(name, shape, classes)(torch.randn(3, 1, *shape))
    assert logits.shape == (3, classes)
    assert logits.isfinite().all()
    for dim in (0, 1):
        sums_to_one = torch.isclose(logits.sum(dim), torch.tensor(1.0), atol=1e-4).all()
        assert not sums_to_one, "probabilities, not logits"


def test_number_of_weights():
    counts = {}
    for name in BASELINES:
        counts[name] = sum(p.numel() for p in build(name, (128, 128)).parameters())
    assert counts == WEIGHT_COUNTS


@pytest.mark.parametrize("shape", [(13, 29), (40, 64)], ids=str)
@every_baseline
@torch.no_grad()
def test_logits_do_not_depend_on_the_rest_of_the_batch(name, shape):
    network = build_sensitive(name, shape)
    x = torch.randn(16, 1, *shape) * torch.linspace(0.3, 3, 16).view(-1, 1, 1, 1)
    alone = torch.cat([network(row[None]) for row in x])
    assert alone.std(dim=0).min() > 1e-3, "the logits are too similar for this test"
    order = torch.randperm(16)
    pairs = torch.cat([network(pair) for pair in x.split(2)])
    torch.testing.assert_close(pairs, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(x), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(x[order]), alone[order], atol=1e-5, rtol=1e-5)


@every_baseline
def test_every_weight_gets_a_gradient(name):
    network = build(name).train()
    (network(torch.randn(8, 1, 13, 29)) * torch.randn(8, 4)).sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def sequence_shape(name: str, shape: tuple[int, int]) -> tuple[int, int]:
    """(steps, width) of the sequence that the recurrent layers of a baseline read."""
    coefficients, frames = pooled_shape(shape) if name.startswith("cnn") else shape
    if name == "acrnn":
        coefficients, frames = 64 * math.ceil(shape[0] / 8), math.ceil(shape[1] / 4)
    return frames, coefficients


@every_recurrent_baseline
@torch.no_grad()
def test_steps_of_the_sequence_are_frames_in_order(name):
    network = build(name, (13, 29)).eval()
    layers = list(network)
    recurrence = next(layer for layer in layers if isinstance(layer, OverFrames))
    sequences = []
    recurrence.rnn.register_forward_pre_hook(lambda module, inputs: sequences.append(inputs[0]))
    x = torch.randn(2, 1, 13, 29)
    without_future = x.clone()
    without_future[..., 24:] = 0.0
    network(x)
    network(without_future)
    sequence, changed = sequences
    assert sequence.shape == (2, *sequence_shape(name, (13, 29)))
    past = sequence.shape[1] // 2
    torch.testing.assert_close(changed[:, :past], sequence[:, :past])
    assert not torch.allclose(changed, sequence)
    maps = network[: layers.index(recurrence)](x)
    torch.testing.assert_close(sequence[1, 3], maps[1, ..., 3].flatten())


@every_recurrent_baseline
@torch.no_grad()
def test_order_of_the_frames_changes_the_logits(name):
    network = build_sensitive(name, (40, 64))
    x = torch.randn(8, 1, 40, 64)
    order = torch.arange(64).view(-1, 4).flip(0).flatten()  # whole pooling windows change places
    assert (network(x[..., order]) - network(x)).abs().max() > 1e-3


@torch.no_grad()
def test_recurrence_takes_the_coefficients_of_all_channels_at_each_step():
    recurrence = OverFrames(nn.LSTM(6, 5, batch_first=True))
    x = torch.randn(3, 2, 3, 7)
    steps = torch.stack([torch.cat([x[:, 0, :, t], x[:, 1, :, t]], dim=1) for t in range(7)])  # (T, N, C F)
    expected = nn.LSTM(6, 5)
    expected.load_state_dict(recurrence.rnn.state_dict())
    torch.testing.assert_close(recurrence(x), expected(steps)[0].transpose(0, 1))


@torch.no_grad()
def test_attention_equals_a_loop_over_steps():
    torch.manual_seed(0)
    attention = Attention(6)
    attention.key.weight.mul_(5)
    h = torch.randn(2, 5, 6)
    for n in range(2):
        energies = [float(attention.score(torch.tanh(attention.key(step)))) for step in h[n]]
        shares = [math.exp(e) / sum(map(math.exp, energies)) for e in energies]
        assert max(shares) > 2 * min(shares), "too close to a plain mean for this test"
        expected = sum(share * step for share, step in zip(shares, h[n], strict=True))
        torch.testing.assert_close(attention(h)[n], expected)


def test_mean_over_time():
    x = torch.arange(24.0).view(2, 3, 4)
    assert MeanOverTime()(x).tolist() == [[4.0, 5.0, 6.0, 7.0], [16.0, 17.0, 18.0, 19.0]]


@every_baseline
def test_dropout_rates(name):
    rates = [module.p for module in build(name).modules() if isinstance(module, nn.Dropout) and module.p]
    assert rates == {"cnn": [0.3], "cnn_lstm": [0.3], "acrnn": [0.3, 0.3]}.get(name, [])


LEARNING_RATES = {
    "cnn": 1e-2,
    "rnn": 5e-4,
    "lstm": 2e-3,
    "cnn_lstm": 1e-2,
    "cnn_lstm_att": 1e-2,
    "acrnn": 1e-3,
}


def draw_ridges(n: int, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures with a ridge that rises (class 1) or falls (class 0) with time; their means over time are equal."""
    y = torch.randint(2, (n,), generator=generator)
    coefficients, frames = shape
    ramp = torch.linspace(0, coefficients - 1, frames)
    centres = torch.where(y[:, None] == 1, ramp, ramp.flip(0))  # (N, T)
    rows = torch.arange(coefficients)[None, :, None]
    ridges = torch.exp(-((rows - centres[:, None]) ** 2) / 4) * 2
    noise = torch.randn(n, *shape, generator=generator)
    return (ridges + 0.2 * noise)[:, None], y


@every_baseline
def test_learns_classes_that_differ_in_the_order_of_the_frames_alone(name):
    shape = (8, 12)
    generator = torch.Generator().manual_seed(0)
    network = build(name, shape, classes=2).train()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATES[name])
    for _ in range(60):
        x, y = draw_ridges(16, shape, generator)
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    x, y = draw_ridges(200, shape, generator)
    with torch.no_grad():
        assert (network.eval()(x).argmax(dim=1) == y).float().mean() > 0.95
