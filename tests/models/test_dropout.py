"""Dropout with replayable masks: its values and gradients, its rate, and recording and replaying."""

import pytest
import torch
from torch import Tensor

from models.dropout import Dropout

every_layout = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def make_maps(layout=torch.contiguous_format) -> Tensor:
    return torch.randn(4, 6, 5, 7, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()


def run(dropout: Dropout, x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of a function of it."""
    torch.manual_seed(seed)
    out = dropout(x)
    return out, torch.autograd.grad(out.square().sum(), x)[0]


@every_layout
@pytest.mark.parametrize("p", [0.1, 0.3, 0.7])
def test_with_the_same_mask_it_equals_dropout_of_pytorch(p, layout):
    """Values, gradients and strides."""
    x, dropout = make_maps(layout), Dropout(p)
    with dropout.record() as masks:
        out, gradient = run(dropout, x, seed=0)
    truth = torch.ops.aten.native_dropout_backward(x, masks[0].bool(), 1 / (1 - p))
    assert out.stride() == x.stride()
    torch.testing.assert_close(out, truth, rtol=1e-15, atol=0)
    torch.testing.assert_close(gradient, 2 * truth * masks[0] / (1 - p), rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.7])
def test_drops_units_at_its_rate_and_scales_the_rest(p, dtype):
    torch.manual_seed(0)
    count = 200_000
    out = Dropout(p)(torch.ones(count, dtype=dtype)).float()
    rate = (out == 0).float().mean().item()
    assert abs(rate - p) < 5 * (p * (1 - p) / count) ** 0.5  # five standard deviations
    assert out[out != 0].unique().item() == pytest.approx(1 / (1 - p), rel=4e-3)


@every_layout
def test_replayed_masks_give_identical_values_and_gradients_and_draw_nothing(layout):
    dropout = Dropout(0.3)
    inputs = [make_maps(layout) for _ in range(3)]
    with dropout.record() as masks:
        first = [run(dropout, x, seed) for seed, x in enumerate(inputs)]
    assert len(masks) == 3
    for _ in range(2):
        with dropout.replay(masks):
            again = [run(dropout, x, seed=9) for x in inputs]
            generator_state = torch.get_rng_state()
        for replayed, recorded in zip(again, first, strict=True):
            assert torch.equal(replayed[0], recorded[0])
            assert torch.equal(replayed[1], recorded[1])
        torch.manual_seed(9)
        assert torch.equal(generator_state, torch.get_rng_state())


def fail() -> None:
    raise RuntimeError("in a pass")


def test_after_a_failed_pass_it_draws_new_masks_and_records_none():
    dropout, x = Dropout(0.5), make_maps()
    with dropout.record() as masks:
        dropout(x)
    for context in (dropout.record(), dropout.replay(masks)):
        with pytest.raises(RuntimeError, match="in a pass"), context:
            fail()
    outputs = [dropout(x) for _ in range(2)]
    assert len(masks) == 1
    assert not torch.equal(*outputs)


@pytest.mark.parametrize("dropout", [Dropout(0.0).train(), Dropout(0.3).eval()], ids=["rate 0", "evaluation"])
def test_without_dropout_the_input_is_returned_and_nothing_is_drawn(dropout):
    x = make_maps()
    before = torch.get_rng_state()
    with dropout.record() as masks:
        assert dropout(x) is x
    assert not masks
    assert torch.equal(before, torch.get_rng_state())
