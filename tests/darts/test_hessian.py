"""The largest eigenvalue of the Hessian in the alphas against double backward through the plain cells in float64."""

import pytest
import torch
import torch.nn.functional as F
from test_architect import SIZES, Problem, make_problem
from torch import Tensor
from torch.func import functional_call

from config import SearchConfig
from darts.architect import Architect
from darts.hessian import RADIUS, AlphaLoss, flatten, largest_eigenvalue, random_vector


def exact_hessian(p: Problem) -> Tensor:
    """The Hessian (D, D) of the loss on `p.val` in the alphas, by double backward through the plain cells."""
    alphas = p.plain.architecture_parameters()
    buffers = {name: buffer.clone() for name, buffer in p.plain.named_buffers()}
    loss = F.cross_entropy(functional_call(p.plain, buffers, (p.val[0],)), p.val[1])
    first = torch.autograd.grad(loss, alphas, create_graph=True, materialize_grads=True)
    rows = [torch.autograd.grad(d, alphas, retain_graph=True, materialize_grads=True) for d in flatten(first)]
    return torch.stack([flatten(row) for row in rows])


def read_eigenvalue(p: Problem, products: int) -> tuple[float, Tensor]:
    loss = AlphaLoss(Architect(SearchConfig(), p.network))
    alphas = loss.alphas()
    start = loss.without_shifts(random_vector(alphas))
    with loss.fixed():
        return largest_eigenvalue(lambda v: loss.hessian_product(v, alphas, [p.val]), start, products)


@pytest.mark.parametrize("size", [*SIZES, {"recompute": "cells"}, {"fused": False}], ids=str)
def test_eigenvalue_is_that_of_the_exact_hessian(size, monkeypatch):
    """So short a difference that it crosses no kink of a ReLU or a maximum; dropout is left out of both."""
    monkeypatch.setattr("darts.hessian.RADIUS", 1e-5)
    p = make_problem(**size, dropout=0.5)
    p.plain.dropout.p = 0
    hessian = exact_hessian(p)
    value, vector = read_eigenvalue(p, products=len(hessian))
    assert value == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-5)
    torch.testing.assert_close(hessian @ vector, value * vector, rtol=0, atol=1e-3 * value)


def test_radius_of_the_guard_is_close_to_the_limit_in_a_smooth_network(monkeypatch):
    """Softplus for ReLU and no max-pooling: what is left is the error of the difference."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
    p = make_problem(nodes=2, cnn_ops=("avg_pool_3x3", "skip_connect", "sep_conv_3x3", "none"), fused=False)
    exact = float(torch.linalg.eigvalsh(exact_hessian(p))[-1])
    assert read_eigenvalue(p, products=30)[0] == pytest.approx(exact, rel=0.15)
    monkeypatch.setattr("darts.hessian.RADIUS", RADIUS / 4)  # an error 16 times smaller
    assert read_eigenvalue(p, products=30)[0] == pytest.approx(exact, rel=0.02)


def test_gradient_is_the_mean_over_the_batches():
    p = make_problem(nodes=2)
    loss = AlphaLoss(Architect(SearchConfig(), p.network))
    both = loss.gradient(loss.alphas(), [p.train, p.val])
    x, y = (torch.cat(pair) for pair in zip(p.train, p.val, strict=True))
    assert not torch.allclose(both, loss.gradient(loss.alphas(), [(x, y)]))  # BatchNorm sees other batches
    means = [flatten(Architect(SearchConfig(), p.network).first_order(b)) for b in (p.train, p.val)]
    torch.testing.assert_close(both, (means[0] + means[1]) / 2)


def symmetric(values: list[float]) -> Tensor:
    """A matrix with these eigenvalues."""
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(1)))
    return q @ torch.diag(torch.tensor(values)) @ q.T


def test_largest_eigenvalue_is_the_largest_and_not_the_farthest_from_zero():
    matrix = symmetric([-9.0, -1.0, 0.0, 1.0, 2.0, 4.0])
    value, vector = largest_eigenvalue(lambda v: matrix @ v, torch.ones(6), 6)
    assert value == pytest.approx(4, rel=1e-5)
    torch.testing.assert_close(matrix @ vector, 4 * vector, rtol=0, atol=1e-4)


def test_two_products_a_reading_suffice_when_each_starts_from_the_last_vector():
    matrix = symmetric([float(k) for k in range(-10, 10)] + [12.0])
    vector = torch.ones(21)
    values = []
    for _ in range(12):
        value, vector = largest_eigenvalue(lambda v: matrix @ v, vector, 2)
        values.append(value)
    assert values == sorted(values)
    assert values[0] < 9 < 11.9 < values[-1] < 12.01


@pytest.mark.parametrize("start", [torch.zeros(3), torch.ones(3)], ids=["no direction", "no curvature"])
def test_no_curvature_is_zero(start):
    value, vector = largest_eigenvalue(lambda v: 0 * v, start, 3)
    assert value == 0
    assert vector.isfinite().all()
