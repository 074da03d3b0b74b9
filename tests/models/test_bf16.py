"""Passes in 16 bits against those of float32: every op, every network; what must stay float32 does."""

import pytest
import torch
import torch.nn.functional as F
from darts.search_space import SearchSpace
from torch import Tensor, nn
from torch.func import functional_call

from genotypes import CNN_OPS, RNN_OPS, resolve
from models.augment_network import AugmentNetwork
from models.baselines import BASELINES
from models.bf16 import in_type, lowered
from models.joint_network import Size
from models.search_network import SearchNetwork

BF16 = torch.bfloat16
ACCURACY = 0.03  # of a cell: bfloat16 resolves 0.004 of a number, and an op rounds several times
THROUGH_A_NETWORK = 0.25  # and back: all alpha gradients are small differences of the ops' own


def supernet(cnn_ops=CNN_OPS, rnn_ops=RNN_OPS, **options) -> SearchNetwork:
    torch.manual_seed(0)
    network = SearchNetwork(SearchSpace(1, 1, cnn_ops, rnn_ops), Size(3, 4, 1, 16), 4, **options)
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha)
    return network


def alpha_gradients(network: SearchNetwork, dtype: torch.dtype | None) -> tuple[Tensor, list[Tensor]]:
    """The logits, and d/dalpha of a loss."""
    torch.manual_seed(1)
    x, y = torch.randn(16, 1, 12, 14), torch.arange(16) % 4
    logits = in_type(network, dtype)(x)
    return logits, list(
        torch.autograd.grad(F.cross_entropy(3 * logits, y), network.architecture_parameters())
    )


def distance(found: list[Tensor], truth: list[Tensor]) -> float:
    a, b = (torch.cat([t.flatten().double() for t in tensors]) for tensors in (found, truth))
    return ((a - b).norm() / b.norm()).item()


CELLS = [
    *((kind, op) for kind in ("normal", "reduce") for op in CNN_OPS[:-1]),
    *(("rnn", op) for op in RNN_OPS[:-1]),
]


def pass_of(kind: str, op: str, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(output, d/dw of half its squared norm by the ops' weights, running statistics) of a relaxed cell of one op."""
    ops = (op, "none") if op == "skip_connect" else (op, "skip_connect", "none")
    network = supernet(rnn_ops=ops) if kind == "rnn" else supernet(cnn_ops=ops)
    cell = {"normal": network.network.cnn_cells[0], "reduce": network.network.cnn_cells[1]}.get(kind)
    cell = cell or network.network.rnn_cells[0]
    torch.manual_seed(1)
    shapes = {"normal": [(12, 12, 14)] * 2, "reduce": [(12, 12, 14), (4, 12, 14)], "rnn": [(10, 8), (5, 16)]}
    inputs = [torch.randn(8, *shape) for shape in shapes[kind]]
    weights = [torch.rand(2, len(ops), requires_grad=True)]
    low = lowered(cell, dict(cell.named_parameters()), dtype)
    out = functional_call(cell, low, (*(x.to(dtype) for x in inputs), weights))
    (d,) = torch.autograd.grad(out, weights, out.detach())
    return out, d, list(cell.buffers())


@pytest.mark.parametrize(("kind", "op"), CELLS)
def test_every_op_in_16_bits_is_near_that_in_32(kind, op):
    """Output, gradients of the ops' weights, and running statistics, which stay float32."""
    (truth, d_truth, statistics), (found, d_found, moved) = pass_of(kind, op, None), pass_of(kind, op, BF16)
    assert (found.dtype, d_found.dtype) == (BF16, torch.float32)
    assert 1e-5 < distance([found], [truth]) < ACCURACY
    assert distance([d_found], [d_truth]) < ACCURACY
    for a, b in zip(moved, statistics, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=ACCURACY, atol=ACCURACY)


@pytest.mark.parametrize(
    "options", [{"recompute": "ops"}, {"recompute": "cells"}, {"nested_depth": True}], ids=str
)
def test_what_is_computed_again_is_computed_in_16_bits(options):
    truth, found = (alpha_gradients(supernet(**options), dtype)[1] for dtype in (None, BF16))
    assert distance(found, truth) < THROUGH_A_NETWORK


def test_stored_maps_take_half():
    """All that backward waits for, but for statistics and the cast weights themselves."""

    def stored(dtype):
        sizes, network = {}, supernet()
        kept = [p.untyped_storage().data_ptr() for p in network.parameters()]

        def note(t):
            if t.dim() >= 3 and t.untyped_storage().data_ptr() not in kept:
                sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            out = in_type(network, dtype)(torch.randn(64, 1, 16, 16))
        return sum(sizes.values()) if out is not None else 0

    assert stored(BF16) < 0.6 * stored(None)


def test_gradients_reach_the_float32_weights():
    network = supernet()
    weights = network.weights()
    loss = F.cross_entropy(in_type(network, BF16)(torch.randn(8, 1, 12, 14)), torch.arange(8) % 4)
    for w, d in zip(weights.values(), torch.autograd.grad(loss, list(weights.values())), strict=True):
        assert w.dtype == d.dtype == torch.float32
        assert d.isfinite().all()


def test_norms_and_logits_are_not_lowered():
    network = supernet()
    low = lowered(network, dict(network.named_parameters()), BF16)
    kept = {name for name, w in low.items() if w.dtype == torch.float32}
    assert {n for n in kept if "alphas" not in n} == {
        "network.stem.1.weight", "network.stem.1.bias", "network.head.weight", "network.head.bias"
    }  # fmt: skip
    assert lowered(network, network.weights(), None) == network.weights()


@pytest.mark.parametrize("kind", ["searched", *BASELINES])
def test_networks_that_are_retrained(kind):
    """Loss and gradients, with the auxiliary head."""

    def gradient(dtype):
        torch.manual_seed(0)
        if kind == "searched":
            network = AugmentNetwork(resolve("cnn_lstm"), Size(3, 4, 1, 8), 4, auxiliary=True)
        else:
            network = BASELINES[kind](4, (16, 24)).eval()  # no dropout
        out = in_type(network, dtype)(torch.randn(8, 1, 16, 24))
        outputs = out if isinstance(out, tuple) else (out,)
        assert all(logits.dtype == torch.float32 for logits in outputs)
        loss = sum(F.cross_entropy(logits, torch.arange(8) % 4) for logits in outputs)
        return torch.autograd.grad(loss, list(network.parameters()))

    assert 1e-5 < distance(gradient(BF16), gradient(None)) < 0.3
