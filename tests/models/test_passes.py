"""Passes in bfloat16 against those in float32: every op, every network, and what must stay float32."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from oracle import relative_error
from torch import Tensor, nn
from torch.func import functional_call

from genotypes import CNN_OPS, RNN_OPS, resolve
from models import passes
from models.augment_network import AugmentNetwork
from models.baselines import BASELINES
from models.joint_network import Size
from models.passes import cast_weights
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

BF16 = torch.bfloat16
CELL_TOLERANCE = 0.03
"""Of one cell: bfloat16 has a relative precision of 0.004, and an op rounds several times."""
NETWORK_TOLERANCE = 0.25
"""Of the alpha gradients of a network, which are small differences between ops."""


def make_supernet(cnn_ops=CNN_OPS, rnn_ops=RNN_OPS, **options) -> SearchNetwork:
    torch.manual_seed(0)
    network = SearchNetwork(SearchSpace(1, 1, cnn_ops, rnn_ops), Size(3, 4, 1, 16), 4, **options)
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha)
    return network


def distance(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """The relative error of all tensors together."""
    return relative_error(*(torch.cat([t.flatten().double() for t in tensors]) for tensors in (found, truth)))


CELLS = [
    *((kind, op) for kind in ("normal", "reduce") for op in CNN_OPS[:-1]),
    *(("rnn", op) for op in RNN_OPS[:-1]),
]


def run_cell(kind: str, op: str, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A relaxed cell of one op: (its output, a gradient of the op's weight, its running statistics)."""
    ops = (op, "none") if op == "skip_connect" else (op, "skip_connect", "none")
    if kind == "rnn":
        cell = make_supernet(rnn_ops=ops).network.rnn_cells[0]
    else:
        cell = make_supernet(cnn_ops=ops).network.cnn_cells[0 if kind == "normal" else 1]
    torch.manual_seed(1)
    shapes = {"normal": [(12, 12, 14)] * 2, "reduce": [(12, 12, 14), (4, 12, 14)], "rnn": [(10, 8), (5, 16)]}
    inputs = [torch.randn(8, *shape) for shape in shapes[kind]]
    op_weights = [torch.rand(2, len(ops), requires_grad=True)]
    weights = cast_weights(cell, dict(cell.named_parameters()), dtype)
    output = functional_call(cell, weights, (*(x.to(dtype) for x in inputs), op_weights))
    [gradient] = torch.autograd.grad(output, op_weights, output.detach())
    return output, gradient, list(cell.buffers())


@pytest.mark.parametrize(("kind", "op"), CELLS)
def test_every_op_in_bf16_is_close_to_float32(kind, op):
    truth, true_gradient, true_statistics = run_cell(kind, op, None)
    found, gradient, statistics = run_cell(kind, op, BF16)
    assert found.dtype == BF16
    assert gradient.dtype == torch.float32
    assert 1e-5 < distance([found], [truth]) < CELL_TOLERANCE
    assert distance([gradient], [true_gradient]) < CELL_TOLERANCE
    for a, b in zip(statistics, true_statistics, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=CELL_TOLERANCE, atol=CELL_TOLERANCE)


@pytest.mark.parametrize(
    "options", [{"recompute": "ops"}, {"recompute": "cells"}, {"nested_depth": True}, {"op_norm": True}]
)
def test_alpha_gradients_in_bf16_are_close_to_float32(options):
    gradients = []
    for dtype in (BF16, None):
        network = make_supernet(**options)
        torch.manual_seed(1)
        logits = passes.forward_with(network, torch.randn(16, 1, 12, 14), dtype=dtype)
        loss = F.cross_entropy(3 * logits, torch.arange(16) % 4)
        gradients.append(torch.autograd.grad(loss, network.architecture_parameters()))
    assert distance(*gradients) < NETWORK_TOLERANCE


def test_stored_maps_take_half_the_memory():
    """All that is stored for the backward pass, without statistics and weights."""

    def stored_bytes(dtype):
        network = make_supernet()
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        sizes = {}

        def note(tensor):
            storage = tensor.untyped_storage()
            if tensor.dim() >= 3 and storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            kept = passes.forward_with(network, torch.randn(64, 1, 16, 16), dtype=dtype)  # noqa: F841
        return sum(sizes.values())

    assert stored_bytes(BF16) < 0.6 * stored_bytes(None)


def test_gradients_reach_the_float32_weights():
    network = make_supernet()
    weights = list(network.weights().values())
    logits = passes.forward_with(network, torch.randn(8, 1, 12, 14), dtype=BF16)
    loss = F.cross_entropy(logits, torch.arange(8) % 4)
    for w, d in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        assert w.dtype == d.dtype == torch.float32
        assert d.isfinite().all()


def test_batchnorm_logits_and_alphas_stay_float32():
    network = make_supernet()
    cast = cast_weights(network, dict(network.named_parameters()), BF16)
    float32 = {
        name for name, w in cast.items() if w.dtype == torch.float32 and not name.startswith("alphas.")
    }
    assert float32 == {
        "network.stem.1.weight", "network.stem.1.bias", "network.head.weight", "network.head.bias"
    }  # fmt: skip
    assert all(cast[name].dtype == torch.float32 for name in cast if name.startswith("alphas."))
    assert cast_weights(network, network.weights(), None) == network.weights()


@pytest.mark.parametrize("name", ["searched", *BASELINES])
def test_gradients_of_retrained_networks_in_bf16_are_close_to_float32(name):
    """With the auxiliary head; all logits are float32."""

    def gradients(dtype):
        torch.manual_seed(0)
        if name == "searched":
            network = AugmentNetwork(resolve("cnn_lstm"), Size(3, 4, 1, 8), 4, auxiliary=True)
        else:
            network = BASELINES[name](4, (16, 24)).eval()  # no dropout
        outputs = passes.forward_with(network, torch.randn(8, 1, 16, 24), dtype=dtype)
        if name != "searched":
            outputs = (outputs,)
        assert all(logits.dtype == torch.float32 for logits in outputs)
        loss = sum(F.cross_entropy(logits, torch.arange(8) % 4) for logits in outputs)
        return torch.autograd.grad(loss, list(network.parameters()))

    assert 1e-5 < distance(gradients(BF16), gradients(None)) < 0.3
