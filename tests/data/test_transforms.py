"""Cutout and SpecAugment set the right values to 0 and change no others; mixup blends the right inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.transforms import cutout, mixup, spec_augment


@settings(max_examples=100)
@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12), st.integers(1, 20), st.integers(0, 10_000))
def test_cutout_sets_one_square_of_each_utterance_to_zero(n: int, f: int, t: int, length: int, seed: int):
    torch.manual_seed(seed)
    x = torch.rand(n, 1, f, t) + 1  # never zero
    original = x.clone()
    result = cutout(x, length)
    assert torch.equal(x, original), "the input has changed"
    for before, after in zip(x[:, 0], result[:, 0], strict=True):
        blank = after == 0
        assert torch.equal(after[~blank], before[~blank])
        rows, columns = np.flatnonzero(blank.any(dim=1)), np.flatnonzero(blank.any(dim=0))
        assert blank[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "not a full rectangle"
        assert int(blank.sum()) == len(rows) * len(columns)
        for extent, lines in ((f, rows), (t, columns)):
            assert len(lines) <= length
            if lines[0] > 0 and lines[-1] < extent - 1:  # inside the edges
                assert len(lines) == length


def test_cutout_of_length_0_changes_nothing():
    x = torch.rand(3, 1, 4, 5)
    assert torch.equal(cutout(x, 0), x)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_centre_of_a_cutout_is_uniform_over_the_input(length: int):
    """The share of zeros at a place is the share of centres whose square covers the place."""
    torch.manual_seed(0)
    n, f, t = 40_000, 6, 9
    share = (cutout(torch.ones(n, 1, f, t), length) == 0).float().mean(dim=(0, 1)).numpy()

    def covered(extent: int) -> np.ndarray:
        first = np.arange(extent) - length // 2  # start of the square, for each centre
        places = np.arange(extent)[:, None]
        return ((places >= first) & (places < first + length)).mean(axis=1)

    expected = np.outer(covered(f), covered(t))
    assert (share > 0).all()
    np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(0.25 / n))


def test_cutout_differs_between_utterances_and_calls_but_not_for_the_same_seed():
    x = torch.ones(50, 1, 16, 16)
    torch.manual_seed(0)
    first, second = cutout(x, 4), cutout(x, 4)
    assert len({tuple(picture.flatten().tolist()) for picture in first}) > 30
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(cutout(x, 4), first)


@settings(max_examples=100)
@given(
    size=st.tuples(*[st.integers(4, 12)] * 2),
    widths=st.tuples(*[st.integers(0, 4)] * 2),
    seed=st.integers(0, 99),
)
def test_spec_augment_masks_at_most_one_band_of_each_axis(size: tuple, widths: tuple, seed: int):
    torch.manual_seed(seed)
    (f, t), (band, stretch) = size, widths
    x = torch.rand(1 + seed % 5, 1, f, t) + 1  # never zero
    for before, after in zip(x[:, 0], spec_augment(x, band, stretch)[:, 0], strict=True):
        blank = after == 0
        assert torch.equal(after[~blank], before[~blank])
        rows, columns = np.flatnonzero(blank.all(dim=1)), np.flatnonzero(blank.all(dim=0))
        assert len(rows) <= max(band - 1, 0) or len(columns) == t
        assert len(columns) <= max(stretch - 1, 0)
        for lines in (rows, columns):
            assert list(lines) == list(range(lines[0], lines[-1] + 1)) if len(lines) else True
        assert int(blank.sum()) == len(rows) * t + len(columns) * f - len(rows) * len(columns)


def test_spec_augment_masks_every_line_but_the_last_and_differs_between_utterances():
    """torchaudio rounds the start and the width of a mask down, so that a mask ends before the last line."""
    torch.manual_seed(0)
    blank = spec_augment(torch.ones(2000, 1, 9, 7), 4, 3)[:, 0] == 0
    bands, stretches = blank.all(dim=2), blank.all(dim=1)
    assert bands.any(dim=0)[:-1].all()
    assert stretches.any(dim=0)[:-1].all()
    assert len({tuple(row.tolist()) for row in bands}) > 10
    assert {int(width) for width in bands.sum(dim=1)} == {0, 1, 2, 3}
    assert {int(width) for width in stretches.sum(dim=1)} == {0, 1, 2}


def test_spec_augment_of_width_0_changes_nothing():
    x = torch.rand(3, 1, 4, 5)
    assert spec_augment(x, 0, 0) is x


@settings(max_examples=60)
@given(st.integers(1, 9), st.sampled_from([1e-3, 0.2, 1.0, 50.0]), st.integers(0, 10_000))
def test_mixup_blends_each_input_with_a_partner(n: int, alpha: float, seed: int):
    torch.manual_seed(seed)
    x = torch.randn(n, 1, 3, 4)
    before = x.clone()
    blends, partner, share = mixup(x, alpha)
    assert sorted(partner.tolist()) == list(range(n)), "not a permutation"
    assert share.shape == ()
    assert 0 <= float(share) <= 1
    expected = float(share) * before.double() + (1 - float(share)) * before.double()[partner.tolist()]
    torch.testing.assert_close(blends, expected.float(), rtol=1e-6, atol=1e-6)
    assert torch.equal(x, before), "the input has changed"


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_share_of_mixup_has_the_moments_of_its_beta_distribution(alpha: float):
    torch.manual_seed(0)
    shares = np.array([float(mixup(torch.zeros(2, 1, 1, 1), alpha)[2]) for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_mixup_depends_on_the_seed_and_the_step():
    x, drawn = torch.randn(40, 1, 2, 2), []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append([mixup(x, 0.2) for _ in range(2)])
    for first, again in zip(*drawn, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    (_, partner, share), (_, next_partner, next_share) = drawn[0]
    assert not torch.equal(partner, next_partner)
    assert share != next_share
