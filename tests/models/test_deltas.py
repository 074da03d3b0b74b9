"""Deltas as input channels: their values, and the networks that make them."""

from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import relative_error
from torch import Tensor, nn

from genotypes import BUILT_IN
from models.architecture import BaselineArchitecture, SearchedArchitecture
from models.deltas import AppendDeltas, delta
from models.joint_network import Size
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

SHAPE = (9, 14)
Make = Callable[[int], nn.Module]
"""A number of deltas -> a network of four classes."""
counts = pytest.mark.parametrize("count", [1, 2])


def slope(row: np.ndarray, t: int) -> float:
    """The slope of the line that fits the five frames around t; beyond the ends, the last frame is repeated."""
    frames = [row[min(max(t + n, 0), len(row) - 1)] for n in range(-2, 3)]
    return np.polyfit(range(-2, 3), frames, deg=1)[0]


def channels_by_hand(x: Tensor, count: int) -> Tensor:
    """(N, 1, F, T) -> (N, 1 + count, F, T)."""
    channels = [x.numpy()]
    for _ in range(count):
        slopes = [[slope(row, t) for t in range(len(row))] for row in channels[-1].reshape(-1, x.shape[-1])]
        channels.append(np.sqrt(10) * np.reshape(slopes, x.shape))
    return torch.from_numpy(np.concatenate(channels, axis=1)).to(x.dtype)


@counts
def test_deltas_equal_those_of_librosa(count: int):
    x = np.random.default_rng(0).normal(size=(5, 30))
    expected = x
    for _ in range(count):
        expected = np.sqrt(10) * librosa.feature.delta(expected, width=5, mode="nearest")
    found = AppendDeltas(count)(torch.from_numpy(x)[None, None])[0]
    np.testing.assert_allclose(found[-1], expected, atol=1e-12)


@settings(max_examples=40)
@given(frames=st.integers(1, 8), count=st.integers(1, 3), seed=st.integers(0, 99))
def test_deltas_are_slopes_also_at_the_ends_and_of_short_inputs(frames: int, count: int, seed: int):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 1, 3, frames)))
    torch.testing.assert_close(AppendDeltas(count)(x), channels_by_hand(x, count))


def test_delta_of_noise_has_the_variance_of_the_noise():
    noise = torch.randn(1, 1, 100, 5000, generator=torch.Generator().manual_seed(0))
    first = delta(noise)
    assert first.var().item() == pytest.approx(1, abs=0.02)
    assert delta(first).var().item() == pytest.approx(1.98, abs=0.04)


def test_gradients_pass_through():
    x = torch.randn(2, 1, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(AppendDeltas(2), x)


@counts
def test_deltas_in_bf16_are_close_to_float32(count: int):
    x = torch.randn(2, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = AppendDeltas(count)(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert 1e-5 < relative_error(found[:, -1].float(), AppendDeltas(count)(x)[:, -1]) < 0.01


# ---------------------------------------------------------------- networks


def make_supernet(deltas: int) -> SearchNetwork:
    space = SearchSpace(1, 1, ("max_pool_3x3", "sep_conv_3x3", "none"), ("lstm_1", "rnn_att_1", "none"))
    return SearchNetwork(space, Size(2, 3, 1, 5, deltas=deltas), 4)


def make_derived(deltas: int) -> nn.Module:
    return SearchedArchitecture(BUILT_IN["cnn_lstm"], Size(2, 3, 1, 5, deltas=deltas)).build(4)


def make_acrnn(deltas: int) -> nn.Module:
    return BaselineArchitecture("acrnn", SHAPE, deltas).build(4)


every_network = pytest.mark.parametrize("make", [make_supernet, make_derived, make_acrnn])


def of_channels(network: nn.Module) -> nn.Module:
    """The part of a network that takes the channels."""
    if isinstance(network, nn.Sequential):
        return network[1:]
    network.network.deltas = nn.Identity()
    return network


@counts
@every_network
@torch.no_grad()
def test_network_with_deltas_equals_a_plain_one_on_channels_made_by_hand(make: Make, count: int):
    torch.manual_seed(0)
    network = make(count).eval()
    x = torch.randn(3, 1, *SHAPE)
    found = network(x)
    plain = of_channels(network)
    torch.testing.assert_close(found, plain(channels_by_hand(x, count)))
    zeros = torch.zeros(3, count, *SHAPE)
    assert (plain(torch.cat([x, zeros], dim=1)) - found).abs().max() > 1e-4, "the deltas have no effect"


@every_network
def test_only_the_first_convolution_has_more_weights(make: Make):
    plain, wider = ([tuple(p.shape) for p in make(count).parameters()] for count in (0, 2))
    [(one, other)] = [pair for pair in zip(plain, wider, strict=True) if pair[0] != pair[1]]
    assert (one[1], other[1]) == (1, 3)
    assert other == (one[0], 3, 3, 3)


@every_network
def test_network_without_deltas_has_no_module_for_them(make: Make):
    """So the names of its weights, and what it computes, are those of earlier versions."""
    network = make(0)
    assert not any(isinstance(module, AppendDeltas) for module in network.modules())
    first = next(name for name in network.state_dict() if not name.startswith("alphas"))
    assert first in ("network.stem.0.weight", "0.weight")
