"""The networks designed by hand: every one of them at any size, with time as its axis, and able to learn."""

import math

import pytest
import torch
from torch import nn

from models.baselines import BASELINES, Attention, MeanOverTime, Recurrence, pooled_shape

SHAPES = [(128, 128), (40, 64), (13, 29), (5, 3), (1, 1)]
SEQUENTIAL = [name for name in BASELINES if name != "cnn"]

PUBLISHED_SIZE = {  # weights for 128 x 128 inputs and four classes, counted on paper: linear layers m n + n, ...
    "cnn": (4 + 1) + (33 * 33 * 32 + 32) + (32 * 4 + 4),
    "rnn": (128 * 512 + 512 * 512 + 2 * 512) + 2 * (2 * 512 * 512 + 2 * 512) + (512 * 32 + 32) + (32 * 4 + 4),
    "lstm": 4 * (128 * 512 + 512 * 512 + 2 * 512) + (512 * 32 + 32) + (32 * 4 + 4),
    "cnn_lstm": (4 + 1) + 8 * (33 * 128 + 128 * 128 + 2 * 128) + (256 * 32 + 32) + (32 * 4 + 4),
    "cnn_lstm_att": (4 + 1) + 8 * (33 * 128 + 128 * 128 + 2 * 128) + (256 * 128 + 128) + 128 + (256 * 4 + 4),
}


def build(name, shape=(13, 29), classes=4, seed=0):
    torch.manual_seed(seed)
    return BASELINES[name](classes, shape)


def louder(network):
    """In evaluation mode, with larger weights, so that utterances are told apart clearly."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.mul_(3)
    return network.eval()


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BASELINES)
def test_any_size_of_input_gives_logits(name, shape, classes):
    logits = build(name, shape, classes)(torch.randn(3, 1, *shape))
    assert logits.shape == (3, classes)
    assert logits.isfinite().all()
    for dim in (0, 1):
        assert not torch.isclose(logits.sum(dim), torch.tensor(1.0), atol=1e-4).all(), "probabilities"


@pytest.mark.parametrize("name", BASELINES)
def test_number_of_weights(name):
    assert PUBLISHED_SIZE.keys() == BASELINES.keys()
    assert sum(p.numel() for p in build(name, (128, 128)).parameters()) == PUBLISHED_SIZE[name]


@pytest.mark.parametrize("shape", [(13, 29), (40, 64)], ids=str)
@pytest.mark.parametrize("name", BASELINES)
@torch.no_grad()
def test_an_utterance_is_treated_by_itself(name, shape):
    network = louder(build(name, shape))
    x = torch.randn(16, 1, *shape) * torch.linspace(0.3, 3, 16).view(-1, 1, 1, 1)
    alone, order = torch.cat([network(row[None]) for row in x]), torch.randperm(16)
    assert alone.std(dim=0).min() > 1e-3, "the logits tell no utterance from another: the test would be void"
    torch.testing.assert_close(torch.cat([network(pair) for pair in x.split(2)]), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(x), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(x[order]), alone[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_every_weight_learns(name):
    network = build(name).train()
    (network(torch.randn(8, 1, 13, 29)) * torch.randn(8, 4)).sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", SEQUENTIAL)
@torch.no_grad()
def test_time_is_the_axis_of_the_sequence(name):
    """The recurrent network is given frames in order, whatever is done to the picture before."""
    network, x = build(name, (13, 29)).eval(), torch.randn(2, 1, 13, 29)
    given = []
    recurrence = next(module for module in network if isinstance(module, Recurrence))
    recurrence.rnn.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    network(x)
    coefficients, frames = pooled_shape((13, 29)) if name.startswith("cnn") else (13, 29)
    assert given[0].shape == (2, frames, coefficients)
    first, *later = network[: list(network).index(recurrence)], x.clone()
    later[0][..., 16:] = 0.0  # the future
    network(later[0])
    past = frames // 2
    torch.testing.assert_close(given[1][:, :past], given[0][:, :past])
    assert not torch.allclose(given[1], given[0])
    maps = first(x)
    torch.testing.assert_close(given[0][1, 3], maps[1, 0, :, 3])


@pytest.mark.parametrize("name", SEQUENTIAL)
@torch.no_grad()
def test_the_order_of_the_frames_matters(name):
    network, x = louder(build(name, (40, 64))), torch.randn(8, 1, 40, 64)
    blocks = torch.arange(64).view(-1, 4).flip(0).flatten()  # whole pooling windows change places
    assert (network(x[..., blocks]) - network(x)).abs().max() > 1e-3


@torch.no_grad()
def test_recurrence_takes_the_frames_of_all_channels_as_steps():
    recurrence, x = Recurrence(nn.LSTM(6, 5, batch_first=True)), torch.randn(3, 2, 3, 7)
    by_hand = torch.stack([torch.cat([x[:, 0, :, t], x[:, 1, :, t]], dim=1) for t in range(7)])  # (T, N, C F)
    expected = nn.LSTM(6, 5)
    expected.load_state_dict(recurrence.rnn.state_dict())
    torch.testing.assert_close(recurrence(x), expected(by_hand)[0].transpose(0, 1))


@torch.no_grad()
def test_attention_equals_a_loop_over_steps():
    attention, h = Attention(6), torch.randn(2, 5, 6)
    attention.key.weight.mul_(5)
    for n in range(2):
        energies = [float(attention.score(torch.tanh(attention.key(step)))) for step in h[n]]
        shares = [math.exp(e) / sum(map(math.exp, energies)) for e in energies]
        assert max(shares) > 2 * min(shares), "attention that is nearly a mean would prove nothing"
        expected = sum(share * step for share, step in zip(shares, h[n], strict=True))
        torch.testing.assert_close(attention(h)[n], expected)


def test_mean_over_time():
    x = torch.arange(24.0).view(2, 3, 4)
    assert MeanOverTime()(x).tolist() == [[4.0, 5.0, 6.0, 7.0], [16.0, 17.0, 18.0, 19.0]]


@pytest.mark.parametrize("name", BASELINES)
def test_dropout_is_where_it_was_published(name):
    found = [module.p for module in build(name).modules() if isinstance(module, nn.Dropout) and module.p]
    assert found == ([0.3] if name in ("cnn", "cnn_lstm") else [])


RATES = {"cnn": 1e-2, "rnn": 5e-4, "lstm": 2e-3, "cnn_lstm": 1e-2, "cnn_lstm_att": 1e-2}


def rising(n, shape, generator):
    """Pictures with a ridge that rises or falls with time (class 1, 0): their coefficients' means are alike."""
    y = torch.randint(2, (n,), generator=generator)
    coefficients, frames = shape
    ramp = torch.linspace(0, coefficients - 1, frames)
    centres = torch.where(y[:, None] == 1, ramp, ramp.flip(0))  # (N, T)
    rows = torch.arange(coefficients)[None, :, None]
    x = torch.exp(-((rows - centres[:, None]) ** 2) / 4) * 2 + 0.2 * torch.randn(
        n, *shape, generator=generator
    )
    return x[:, None], y


@pytest.mark.parametrize("name", BASELINES)
def test_learns_what_only_the_order_of_the_frames_tells(name):
    shape, generator = (8, 12), torch.Generator().manual_seed(0)
    network = build(name, shape, classes=2).train()
    optimizer = torch.optim.Adam(network.parameters(), RATES[name])
    for _ in range(60):
        x, y = rising(16, shape, generator)
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    x, y = rising(200, shape, generator)
    with torch.no_grad():
        assert (network.eval()(x).argmax(dim=1) == y).float().mean() > 0.95
