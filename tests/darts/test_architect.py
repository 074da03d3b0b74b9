"""The gradient of alpha against the exact one by double backward; what it must leave alone; its random numbers."""

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from oracle import compute_plainly
from torch import Tensor, nn
from torch.func import functional_call

from darts import architect
from darts.architect import Architect, Unrolled
from models.fused.rnn import stacked_cell as stacked
from models.joint_network import Size
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

CNN_OPS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "none")
RNN_OPS = ("lstm_1", "rnn_1", "lstm_att_1", "skip_connect", "none")
XI, MOMENTUM, DECAY = 0.5, 0.9, 0.01
"""A long step, so that the Hessian's term is as large as the rest."""


@dataclass
class Problem:
    """A tiny supernet in float64, its two batches, and the step to look ahead by."""

    network: SearchNetwork
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    step: Unrolled

    def architect(self, **other) -> Architect:
        return Architect(self.network, F.cross_entropy, **other)

    def second_order(self) -> list[Tensor]:
        return self.architect().second_order(self.train, self.val, self.step)


def problem(
    layers=2, nodes=1, rnn_layers=1, classes=2, dropout=0.0, xi=XI, seed=0, cnn_ops=CNN_OPS, recompute="none"
):
    torch.manual_seed(seed)
    space = SearchSpace(nodes, nodes, cnn_ops, RNN_OPS)
    network = (
        SearchNetwork(space, Size(layers, 2, rnn_layers, 3), classes, dropout, recompute).double().train()
    )
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha)
    nn.init.normal_(network.network.head.weight, std=1.5)
    train, val = (
        (torch.randn(6, 1, 7, 8, dtype=torch.float64), torch.arange(6) % classes),
        (torch.randn(6, 1, 7, 8, dtype=torch.float64), torch.arange(6) % classes),
    )
    buffers = {name: 0.05 * torch.randn_like(w) for name, w in network.weights().items()}
    return Problem(network, train, val, Unrolled(xi, MOMENTUM, DECAY, buffers))


PROBLEMS = [
    {"layers": 1, "nodes": 1, "classes": 2},
    {"layers": 1, "nodes": 2, "classes": 4},
    {"layers": 2, "nodes": 1, "classes": 4},
    {"layers": 2, "nodes": 2, "classes": 2},
    {"layers": 3, "nodes": 1, "classes": 4, "rnn_layers": 2},
    {"layers": 2, "nodes": 1, "classes": 2, "rnn_layers": 0},
]


class Masks:
    """Notes every dropout mask of a network, by forward pass; or imposes those of `imposed`, one after another."""

    def __init__(self, network: SearchNetwork):
        self.passes: list[list[Tensor]] = []
        self.imposed: list[Tensor] | None = None
        network.network.register_forward_pre_hook(lambda *_: self.passes.append([]))
        network.network.dropout.register_forward_hook(self._dropped)

    def _dropped(self, module, inputs, out):
        current = self.passes[-1]
        if self.imposed is None:
            current.append((out != 0).to(out.dtype) / (1 - module.p))
        else:
            current.append(self.imposed[len(current)])
        return inputs[0] * current[-1]


def flat(gradients) -> Tensor:
    return torch.cat([d.flatten() for d in gradients])


def distance(found, truth) -> float:
    return ((flat(found) - flat(truth)).norm() / flat(truth).norm()).item()


def exact(p: Problem, masks: Masks | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """d/dalpha of L_val(w'(alpha), alpha) by backward through the step itself: (all of it, what the Hessian adds).

    `masks`: those noted in an Architect's call; its first pass was of L_train at w, its second of L_val.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        compute_plainly(monkeypatch)
        return exact_plainly(p, masks)


def exact_plainly(p: Problem, masks: Masks | None) -> tuple[list[Tensor], list[Tensor]]:
    network, w = p.network, p.network.weights()
    alphas = network.architecture_parameters()
    train_masks, val_masks = masks.passes[:2] if masks else (None, None)

    def loss(weights, batch, imposed):
        if masks is not None:
            masks.imposed = imposed
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        return F.cross_entropy(functional_call(network, {**weights, **buffers}, (batch[0],)), batch[1])

    g = torch.autograd.grad(loss(w, p.train, train_masks), list(w.values()), create_graph=True)
    ahead = {}
    for (name, value), d in zip(w.items(), g, strict=True):
        v = p.step.buffers.get(name, torch.zeros_like(value))
        ahead[name] = value - p.step.xi * (p.step.momentum * v + d + p.step.decay * value)
    whole = torch.autograd.grad(loss(ahead, p.val, val_masks), alphas, materialize_grads=True)
    held = {name: value.detach() for name, value in ahead.items()}
    direct = torch.autograd.grad(loss(held, p.val, val_masks), alphas, materialize_grads=True)
    return list(whole), [a - b for a, b in zip(whole, direct, strict=True)]


def state_of(p: Problem) -> dict[str, Tensor]:
    """A copy of all that a call must not touch."""
    state = {f"state {name}": t for name, t in p.network.state_dict().items()}
    state |= {f"gradient {name}": w.grad for name, w in p.network.named_parameters() if w.grad is not None}
    state |= {f"momentum {name}": t for name, t in p.step.buffers.items()}
    state |= {f"batch {i}": t for i, t in enumerate((*p.train, *p.val))}
    return {name: t.detach().clone() for name, t in state.items()}


# The value


@pytest.fixture
def short(monkeypatch):
    """A finite difference too short to step over a kink of ReLU or of a maximum: there the two truly differ."""
    monkeypatch.setattr(architect, "EPSILON", 1e-5)


@pytest.fixture
def smooth(monkeypatch):
    """No kinks at all: softplus for every ReLU, and no maximum. The error is that of the difference alone."""
    compute_plainly(monkeypatch)
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
    return CNN_OPS[1:]


def errors(p: Problem) -> tuple[float, float]:
    """The relative error of the whole gradient, and of the Hessian's term by itself: a wrong scale shows in both."""
    whole, hessian = exact(p)
    assert flat(hessian).norm() > 0.1 * flat(whole).norm(), "a term so small that its scale would not show"
    found = p.second_order()
    direct = [a - b for a, b in zip(whole, hessian, strict=True)]
    return distance(found, whole), distance([a - b for a, b in zip(found, direct, strict=True)], hessian)


@pytest.mark.parametrize("given", PROBLEMS, ids=str)
def test_second_order_equals_the_exact_gradient(given, short):
    assert max(errors(problem(**given))) < 1e-4


@pytest.mark.parametrize("given", PROBLEMS, ids=str)
def test_second_order_at_the_published_epsilon_equals_the_exact_gradient_of_a_smooth_network(given, smooth):
    assert architect.EPSILON == 0.01
    assert max(errors(problem(**given, cnn_ops=smooth))) < 1e-2


@pytest.mark.parametrize("given", PROBLEMS, ids=str)
def test_the_error_falls_with_the_square_of_epsilon(given, smooth, monkeypatch):
    """So it is a central difference: a one-sided one would fall with epsilon itself."""
    p = problem(**given, cnn_ops=smooth)
    monkeypatch.setattr(architect, "EPSILON", 1e-3)
    coarse = errors(p)
    monkeypatch.setattr(architect, "EPSILON", 1e-4)
    for before, after in zip(coarse, errors(p), strict=True):
        assert before < 1e-4
        assert after < before / 50


@pytest.mark.parametrize("given", PROBLEMS, ids=str)
def test_second_order_is_the_difference_of_two_moved_networks(given):
    """The formula once more, kinks and all, by really moving the weights of copies by 0.01 along the gradient."""
    p = problem(**given)

    def alpha_gradient(weights, batch):
        network = copy.deepcopy(p.network)
        with torch.no_grad():
            for name, w in network.weights().items():
                w.copy_(weights[name])
        loss = F.cross_entropy(network(batch[0]), batch[1])
        loss.backward()
        zero = torch.zeros(())
        return (
            torch.cat(
                [(zero.expand_as(a) if a.grad is None else a.grad).flatten() for a in alphas_of(network)]
            ),
            {name: w.grad for name, w in network.weights().items()},
        )

    w = {name: value.detach() for name, value in p.network.weights().items()}
    _, g = alpha_gradient(w, p.train)
    ahead = {name: w[name] - XI * (MOMENTUM * p.step.buffers[name] + g[name] + DECAY * w[name]) for name in w}
    direct, d = alpha_gradient(ahead, p.val)
    eps = 0.01 / sum(float(part.square().sum()) for part in d.values()) ** 0.5
    plus, _ = alpha_gradient({name: w[name] + eps * d[name] for name in w}, p.train)
    minus, _ = alpha_gradient({name: w[name] - eps * d[name] for name in w}, p.train)
    torch.testing.assert_close(
        flat(p.second_order()), direct - XI * (plus - minus) / (2 * eps), rtol=1e-8, atol=1e-10
    )


def alphas_of(network: SearchNetwork) -> list[Tensor]:
    return [alpha for kind in network.alphas.values() for alpha in kind]


@pytest.mark.parametrize("given", PROBLEMS, ids=str)
def test_second_order_is_not_the_first(given):
    p = problem(**given)
    assert distance(p.second_order(), p.architect().first_order(p.val)) > 0.1


@pytest.mark.parametrize("given", PROBLEMS, ids=str)
def test_first_order_is_the_plain_gradient(given):
    p = problem(**given)
    found = p.architect().first_order(p.val)
    loss = F.cross_entropy(p.network(p.val[0]), p.val[1])
    alphas = p.network.architecture_parameters()
    truth = torch.autograd.grad(loss, alphas, materialize_grads=True)
    assert [d.shape for d in found] == [a.shape for a in alphas]
    for d, true in zip(found, truth, strict=True):
        torch.testing.assert_close(d, true, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("recompute", ["ops", "cells"])
def test_recomputed_passes_give_the_same_gradients(order, recompute):
    """Each pass computes again with its own weights, not with those that the network holds by then."""
    found = []
    for stored_or_not in ("none", recompute):
        p = problem(layers=2, nodes=2, dropout=0.3, recompute=stored_or_not)
        torch.manual_seed(1)
        found.append(p.second_order() if order == "second" else p.architect().first_order(p.val))
    assert distance(*found) < 1e-10


def test_without_a_step_second_order_is_the_first():
    p = problem(xi=0.0)
    for second, first in zip(p.second_order(), p.architect().first_order(p.val), strict=True):
        torch.testing.assert_close(second, first, rtol=1e-12, atol=0)


def test_alphas_of_cells_that_the_network_lacks_get_a_zero_gradient():
    p = problem(layers=1)  # the one CNN cell is a reduction
    normal = next(
        i for i, a in enumerate(p.network.architecture_parameters()) if a is p.network.alphas["normal"][0]
    )
    for gradients in (p.second_order(), p.architect().first_order(p.val)):
        assert not gradients[normal].any()
        assert all(d.any() for i, d in enumerate(gradients) if i != normal)


def test_the_step_ahead_is_that_of_sgd():
    """w' against torch's own optimiser, with momentum buffers from a step before."""
    p = problem()
    w = p.network.weights()
    sgd = torch.optim.SGD(w.values(), XI, momentum=MOMENTUM, weight_decay=DECAY)
    for _ in range(2):
        before = {name: value.detach().clone() for name, value in w.items()}
        buffers = {
            name: sgd.state[value]["momentum_buffer"].clone()
            for name, value in w.items()
            if value in sgd.state
        }
        for value in w.values():
            value.grad = torch.randn_like(value)
        sgd.step()
    step = Unrolled(XI, MOMENTUM, DECAY, buffers)
    assert buffers
    for name, value in w.items():
        torch.testing.assert_close(
            step(name, before[name], value.grad), value.detach(), rtol=1e-12, atol=1e-14
        )


@pytest.mark.parametrize("missing", ["all", "every other"])
def test_a_missing_momentum_buffer_is_zero(missing):
    p = problem()
    names = list(p.step.buffers)[:: 1 if missing == "all" else 2]
    without = {name: v for name, v in p.step.buffers.items() if name not in names}
    zeros = {name: torch.zeros_like(v) if name in names else v for name, v in p.step.buffers.items()}
    found = problem_with(p, without).second_order()
    assert distance(found, problem_with(p, zeros).second_order()) == 0
    assert distance(found, p.second_order()) > 1e-3


def problem_with(p: Problem, buffers) -> Problem:
    return Problem(p.network, p.train, p.val, Unrolled(p.step.xi, p.step.momentum, p.step.decay, buffers))


# What it leaves alone


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("order", ["first", "second"])
def test_weights_statistics_momentum_and_gradients_stay_to_the_bit(order, dropout):
    p = problem(dropout=dropout)
    for value in [*p.network.weights().values(), *p.network.architecture_parameters()][::2]:
        value.grad = torch.randn_like(value)
    identities = {name: id(w) for name, w in p.network.named_parameters()}
    before = state_of(p)
    assert any(name.endswith("running_mean") for name in before)
    assert any(name.endswith("num_batches_tracked") for name in before)
    if order == "first":
        p.architect().first_order(p.val)
    else:
        p.second_order()
    after = state_of(p)
    assert list(after) == list(before)
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []
    assert {name: id(w) for name, w in p.network.named_parameters()} == identities
    assert all(w.requires_grad and w.is_leaf for w in p.network.parameters())
    assert p.network.training


def test_the_network_is_as_usable_after_as_before():
    """The recurrent modules cache their weights: what they use afterwards are the network's own."""
    p = problem()
    untouched = copy.deepcopy(p.network)
    p.second_order()
    x, y = p.train
    F.cross_entropy(p.network(x), y).backward()
    F.cross_entropy(untouched(x), y).backward()
    for (name, w), twin in zip(p.network.named_parameters(), untouched.parameters(), strict=True):
        assert (w.grad is None) == (twin.grad is None), name
        assert w.grad is None or torch.equal(w.grad, twin.grad), name


class Spy:
    """A `gradient` that notes, per pass, what was asked for and which leaves the loss could give gradients to."""

    def __init__(self):
        self.asked, self.leaves = [], []

    def __call__(self, loss, inputs):
        self.asked.append([id(t) for t in inputs])
        self.leaves.append(leaves_of(loss))
        return local_gradient(loss, inputs)


def leaves_of(loss) -> dict[int, Tensor]:
    """Every leaf that the graph of a loss leads back to."""
    found, seen, todo = {}, set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        todo.extend(child for child, _ in node.next_functions)
    return found


def test_passes_for_alpha_alone_have_no_weight_to_give_gradients_to():
    p, spy = problem(), Spy()
    alphas = {id(a) for a in p.network.architecture_parameters()}
    weights = {id(w) for w in p.network.weights().values()}
    p.architect(gradient=spy).second_order(p.train, p.val, p.step)
    assert len(spy.asked) == 4
    assert set(spy.asked[0]) == weights
    assert set(spy.asked[1]) > alphas
    assert len(spy.asked[1]) == len(alphas) + len(weights)
    assert not set(spy.leaves[1]) & weights, "the gradient at w' is that of w' held fixed"
    for asked, leaves in zip(spy.asked[2:], spy.leaves[2:], strict=True):
        assert set(asked) == alphas >= set(leaves) > set()


def test_first_order_is_one_pass_for_alpha_alone():
    p, spy = problem(), Spy()
    p.architect(gradient=spy).first_order(p.val)
    alphas = {id(a) for a in p.network.architecture_parameters()}
    assert [set(asked) for asked in spy.asked] == [alphas]
    assert alphas >= set(spy.leaves[0]) > set()


def test_stacked_recurrences_as_on_a_gpu_give_the_gradient_of_one_op_at_a_time(monkeypatch):
    p = problem(layers=2, nodes=2, rnn_layers=2)
    truth = p.second_order()
    monkeypatch.setattr(stacked, "use_stacked", lambda device: True)
    assert distance(p.second_order(), truth) < 1e-9


# Dropout and the random generators


def test_the_three_passes_of_the_training_loss_drop_the_same_units():
    p = problem(dropout=0.3)
    masks = Masks(p.network)
    p.second_order()
    at_w, at_val, at_plus, at_minus = (flat(masks_of_pass) for masks_of_pass in masks.passes)
    assert torch.equal(at_plus, at_minus)
    assert torch.equal(at_w, at_plus)
    assert not torch.equal(at_w, at_val)


@pytest.mark.parametrize("seed", range(3))
def test_second_order_with_dropout_equals_the_exact_gradient_with_the_same_masks(seed, short):
    p = problem(dropout=0.3, seed=seed)
    masks = Masks(p.network)
    found = p.second_order()
    whole, hessian = exact(p, masks)
    direct = [a - b for a, b in zip(whole, hessian, strict=True)]
    assert distance(found, whole) < 1e-3
    assert distance([a - b for a, b in zip(found, direct, strict=True)], hessian) < 1e-3


def test_second_order_with_dropout_is_reproducible_and_random():
    p = problem(dropout=0.3)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append((flat(p.second_order()), torch.rand(10)))
    (first, next_draw), (again, next_again), (other, next_other) = results
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert torch.equal(next_draw, next_again)
    assert not torch.equal(first, other)
    assert not torch.equal(next_draw, next_other)


def test_masks_after_a_call_are_none_of_those_inside():
    p = problem(dropout=0.3)
    masks = Masks(p.network)
    p.second_order()
    p.second_order()
    p.network(p.train[0])
    first, second, after = masks.passes[:4], masks.passes[4:8], masks.passes[8]
    inside = [flat(masks_of_pass) for masks_of_pass in (*first, *second)]
    assert not any(torch.equal(flat(after), mask) for mask in inside)
    assert not any(torch.equal(a, b) for a in inside[:4] for b in inside[4:])


def test_only_the_passes_at_w_and_ahead_draw_masks():
    """The generator moves on by them, and nothing sets it: a CUDA graph could not."""
    p = problem(dropout=0.3)
    torch.manual_seed(5)
    p.second_order()
    after = torch.get_rng_state()
    torch.manual_seed(5)
    for batch in (p.train, p.val):
        p.network(batch[0])
    assert torch.equal(after, torch.get_rng_state())


def test_first_order_takes_its_draws_from_the_generator_and_moves_it_on():
    p = problem(dropout=0.3)
    masks = Masks(p.network)
    torch.manual_seed(5)
    for _ in range(2):
        p.architect().first_order(p.val)
    assert not torch.equal(flat(masks.passes[0]), flat(masks.passes[1]))
