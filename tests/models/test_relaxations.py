"""The relaxations against their formulas, computed by SciPy and NumPy in float64, and what one sample draws."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from models.joint_network import Size
from models.relaxations import RELAXATIONS, Sample, draw_weights
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

NAMES = list(RELAXATIONS)
ROWS = 20_000
SPACE = SearchSpace(
    2, 2, ("max_pool_3x3", "sep_conv_3x3", "none"), ("lstm_1", "rnn_1", "skip_connect", "none")
)


def make_alpha(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def elu(alpha: np.ndarray) -> np.ndarray:
    return np.where(alpha > 0, alpha, np.expm1(alpha))


def make_network(relaxation: str = "softmax") -> SearchNetwork:
    torch.manual_seed(0)
    return SearchNetwork(SPACE, Size(3, 2, 1, 4), 2, relaxation=relaxation).double()


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("softmax", lambda a: special.softmax(a, axis=1)),
        ("gumbel", lambda a: special.softmax(a, axis=1)),
        ("dirichlet", lambda a: (elu(a) + 1) / (elu(a) + 1).sum(axis=1, keepdims=True)),
    ],
)
def test_expected_weights_are_those_of_the_formula(name, formula):
    alpha = make_alpha(5, 4)
    np.testing.assert_allclose(RELAXATIONS[name].expected(alpha), formula(alpha.numpy()), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_have_the_expected_mean(name):
    alpha = make_alpha(1, 4)
    torch.manual_seed(0)
    weights = RELAXATIONS[name].draw(alpha.expand(ROWS, 4), 0.5)
    assert (weights >= 0).all()
    error = 5 * weights.std(dim=0) / ROWS**0.5 + 1e-12
    assert ((weights.mean(dim=0) - RELAXATIONS[name].expected(alpha)[0]).abs() <= error).all()


def test_dirichlet_weights_have_beta_marginals():
    alpha = make_alpha(1, 4)
    beta = elu(alpha.numpy()[0]) + 1
    torch.manual_seed(0)
    weights = RELAXATIONS["dirichlet"].draw(alpha.expand(ROWS, 4), 0.0).numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    for k in range(4):
        assert stats.kstest(weights[:, k], stats.beta(beta[k], beta.sum() - beta[k]).cdf).pvalue > 1e-3


def test_dirichlet_gradient_is_that_of_the_mean_on_average():
    """For a linear function of the weights, the mean of the pathwise gradients is the gradient of the mean."""
    alpha = make_alpha(1, 3).requires_grad_()
    slopes = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (truth,) = torch.autograd.grad(RELAXATIONS["dirichlet"].expected(alpha)[0] @ slopes, alpha)
    rows = alpha.detach().expand(ROWS, 3).clone().requires_grad_()
    torch.manual_seed(0)
    (found,) = torch.autograd.grad((RELAXATIONS["dirichlet"].draw(rows, 0.0) @ slopes).sum(), rows)
    error = 5 * found.std(dim=0) / ROWS**0.5
    assert ((found.mean(dim=0) - truth[0]).abs() < error).all()
    assert (error < 0.2 * truth.abs().max()).all()


@pytest.mark.parametrize(("progress", "tau"), [(0.0, 10.0), (0.5, 5.05), (1.0, 0.1)])
def test_gumbel_weights_are_one_hot_with_the_gradient_of_a_softmax_at_the_temperature(progress, tau):
    alpha = make_alpha(6, 4).requires_grad_()
    torch.manual_seed(3)
    weights = RELAXATIONS["gumbel"].draw(alpha, progress)
    torch.manual_seed(3)
    noise = -torch.empty_like(alpha).exponential_().log()
    soft = torch.exp((alpha.log_softmax(dim=1) + noise) / tau)
    soft = soft / soft.sum(dim=1, keepdim=True)
    torch.testing.assert_close(weights, torch.eye(4, dtype=torch.float64)[soft.argmax(dim=1)])
    slopes = make_alpha(6, 4, seed=1)
    (found,) = torch.autograd.grad((weights * slopes).sum(), alpha)
    (truth,) = torch.autograd.grad((soft * slopes).sum(), alpha)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-14)


def test_penalty_of_the_dirichlet_is_its_divergence_from_the_uniform_one():
    alphas = [make_alpha(2, 4), make_alpha(3, 4, seed=1)]
    truth = 0.0
    for b in np.concatenate([elu(alpha.numpy()) + 1 for alpha in alphas]):
        truth += special.gammaln(b.sum()) - special.gammaln(b).sum() - special.gammaln(len(b))
        truth += ((b - 1) * (special.digamma(b) - special.digamma(b.sum()))).sum()
    assert float(RELAXATIONS["dirichlet"].penalty(alphas)) == pytest.approx(1e-3 * truth, rel=1e-10)


def test_the_softmax_and_gumbel_have_no_penalty():
    assert RELAXATIONS["softmax"].penalty([make_alpha(2, 4)]) is None
    assert RELAXATIONS["gumbel"].penalty([make_alpha(2, 4)]) is None


@pytest.mark.parametrize("name", ["dirichlet", "gumbel"])
def test_a_sample_draws_the_same_weights_each_time_and_leaves_the_generator_alone(name):
    alphas = [make_alpha(20, 4), make_alpha(3, 4, seed=1)]
    before = torch.get_rng_state()
    first, again, other = (draw_weights(RELAXATIONS[name], alphas, Sample(seed, 0.5)) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


@pytest.mark.parametrize("name", NAMES)
def test_passes_use_the_sample_within_its_context_and_the_expected_weights_outside(name):
    network = make_network(name).train()
    seen = []
    network.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    with network.sampling(Sample(5, 0.5)):
        network(x)
    network(x)
    alphas = network.architecture_parameters()
    drawn = draw_weights(network.relaxation, alphas, Sample(5, 0.5))
    assert all(map(torch.equal, [w for nodes in seen[0].values() for w in nodes], drawn))
    expected = [network.relaxation.expected(alpha) for alpha in alphas]
    assert all(map(torch.equal, [w for nodes in seen[1].values() for w in nodes], expected))
