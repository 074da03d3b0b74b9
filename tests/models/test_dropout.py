"""Dropout that keeps its masks: against PyTorch's own, and against itself."""

import pytest
import torch
from torch import Tensor, nn

from models.dropout import Dropout

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def maps(layout=torch.contiguous_format) -> Tensor:
    return torch.randn(4, 6, 5, 7, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()


def dropped(dropout: nn.Module, x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of a function of it."""
    torch.manual_seed(seed)
    out = dropout(x)
    return out, torch.autograd.grad(out.square().sum(), x)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("p", [0.1, 0.3, 0.7])
def test_it_is_pytorchs_dropout_with_masks_of_its_own(p, layout):
    """With a mask that is known, values, gradients and strides are those of PyTorch's function."""
    x, dropout = maps(layout), Dropout(p)
    with dropout.record() as masks:
        out, gradient = dropped(dropout, x)
    truth = torch.ops.aten.native_dropout_backward(x, masks[0].bool(), 1 / (1 - p))
    assert out.stride() == x.stride()
    torch.testing.assert_close(out, truth, rtol=1e-15, atol=0)
    torch.testing.assert_close(gradient, 2 * truth * masks[0] / (1 - p), rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.7])
def test_as_many_units_are_dropped_as_it_says_and_the_mean_stays(p, dtype):
    torch.manual_seed(0)
    count = 200_000
    out = Dropout(p)(torch.ones(count, dtype=dtype)).float()
    share = (out == 0).float().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / count) ** 0.5  # five standard deviations
    assert out[out != 0].unique().item() == pytest.approx(1 / (1 - p), rel=4e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_that_were_kept_drop_the_same_again(layout):
    """Forward and backward, to the bit, and no generator is asked."""
    dropout, xs = Dropout(0.3), [maps(layout) for _ in range(3)]
    with dropout.record() as masks:
        first = [dropped(dropout, x, seed) for seed, x in enumerate(xs)]
    assert len(masks) == 3
    for _ in range(2):
        with dropout.replay(masks):
            again = [dropped(dropout, x, seed=9) for x in xs]
            untouched = torch.get_rng_state()
        for mine, truth in zip(again, first, strict=True):
            assert torch.equal(mine[0], truth[0])
            assert torch.equal(mine[1], truth[1])
        torch.manual_seed(9)
        assert torch.equal(untouched, torch.get_rng_state())


def failing(x: Tensor) -> None:
    """A pass that ends in the middle."""
    raise RuntimeError("in a pass")


def test_after_a_pass_that_failed_it_draws_again_and_keeps_nothing():
    dropout, x = Dropout(0.5), maps()
    with dropout.record() as masks:
        dropout(x)
    for context in (dropout.record(), dropout.replay(masks)):
        with pytest.raises(RuntimeError, match="in a pass"), context:
            failing(x)
    drawn = [dropout(x) for _ in range(2)]
    assert len(masks) == 1
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("dropout", [Dropout(0.0).train(), Dropout(0.3).eval()])
def test_where_nothing_is_dropped_nothing_is_drawn(dropout):
    x = maps()
    before = torch.get_rng_state()
    with dropout.record() as masks:
        assert dropout(x) is x
    assert not masks
    assert torch.equal(before, torch.get_rng_state())
