"""The alpha gradients against the exact ones by double backward, what they must not change, and the bilevel step."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from oracle import relative_error
from torch import Tensor, nn
from torch.func import functional_call

from config import SearchConfig
from darts import architect
from darts.architect import Architect, UnrolledStep
from models.joint_network import Size
from models.relaxations import Sample
from models.search_network import SearchNetwork
from models.search_space import SearchSpace
from training import distributed, precision

CPU = torch.device("cpu")
CNN_OPS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "none")
RNN_OPS = ("lstm_1", "rnn_1", "lstm_att_1", "skip_connect", "none")
XI = 0.5
"""A long unrolled step, so that the term with the Hessian is as large as the rest."""
MOMENTUM = 0.9
DECAY = 0.01


@dataclass
class Problem:
    """A tiny supernet in float64, a plain network of the same weights, two batches, and the unrolled step."""

    network: SearchNetwork
    plain: SearchNetwork
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    unrolled: UnrolledStep

    @property
    def alphas(self) -> list[nn.Parameter]:
        return self.network.architecture_parameters()

    def first_order(self) -> list[Tensor]:
        return Architect(SearchConfig(), self.network).first_order(self.val)

    def second_order(self) -> list[Tensor]:
        return Architect(SearchConfig(), self.network).second_order(self.train, self.val, self.unrolled)


def make_problem(
    layers=2, nodes=1, rnn_layers=1, classes=2, seed=0, cnn_ops=CNN_OPS, deltas=0, **options
) -> Problem:
    torch.manual_seed(seed)
    space = SearchSpace(nodes, nodes, cnn_ops, RNN_OPS)
    size = Size(layers, 2, rnn_layers, 3, deltas=deltas)
    network = SearchNetwork(space, size, classes, **options).double().train()
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha)
    nn.init.normal_(network.network.head.weight, std=1.5)
    y = torch.arange(6) % classes
    train = torch.randn(6, 1, 7, 8, dtype=torch.float64), y
    val = torch.randn(6, 1, 7, 8, dtype=torch.float64), y
    buffers = {name: 0.05 * torch.randn_like(w) for name, w in network.weights().items()}
    plain = SearchNetwork(space, size, classes, **{**options, "fused": False}).double().train()
    plain.load_state_dict(network.state_dict())
    return Problem(network, plain, train, val, UnrolledStep(XI, MOMENTUM, DECAY, buffers))


SIZES = [
    {"layers": 1, "nodes": 1, "classes": 2},
    {"layers": 1, "nodes": 2, "classes": 4},
    {"layers": 2, "nodes": 1, "classes": 4},
    {"layers": 2, "nodes": 2, "classes": 2},
    {"layers": 3, "nodes": 1, "classes": 4, "rnn_layers": 2},
    {"layers": 2, "nodes": 1, "classes": 2, "rnn_layers": 0},
]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


class Masks:
    """Records the dropout masks of each forward pass of a network, or replaces them by `imposed` ones."""

    def __init__(self, network: SearchNetwork):
        self.passes: list[list[Tensor]] = []
        self.imposed: list[Tensor] | None = None
        network.register_forward_pre_hook(lambda *_: self.passes.append([]))
        network.dropout.register_forward_hook(self.apply)

    def apply(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        current = self.passes[-1]
        mask = (output != 0).to(output.dtype) / (1 - module.p)
        if self.imposed is not None:
            mask = self.imposed[len(current)]
        current.append(mask)
        return inputs[0] * mask

    @property
    def flat_passes(self) -> list[Tensor]:
        return [flat(masks) for masks in self.passes]


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def distance(found: Iterable[Tensor], truth: Iterable[Tensor]) -> float:
    """The relative error of all gradients together."""
    return relative_error(flat(found), flat(truth))


def difference(first: Iterable[Tensor], second: Iterable[Tensor]) -> list[Tensor]:
    return [a - b for a, b in zip(first, second, strict=True)]


def exact(p: Problem, masks: Sequence[list[Tensor]] | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """d/dalpha of L_val(w'(alpha), alpha) by double backward through the unrolled step: (all, the part by w').

    `masks` are the dropout masks of the passes of L_train and of L_val.
    """
    network = p.plain
    w = network.weights()
    alphas = network.architecture_parameters()
    imposed = Masks(network)
    train_masks, val_masks = masks or (None, None)

    def loss(weights, batch, masks_of_pass):
        imposed.imposed = masks_of_pass
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        logits = functional_call(network, {**weights, **buffers}, (batch[0],))
        return F.cross_entropy(logits, batch[1])

    d_train = torch.autograd.grad(loss(w, p.train, train_masks), list(w.values()), create_graph=True)
    w_unrolled = {}
    for (name, value), d in zip(w.items(), d_train, strict=True):
        direction = p.unrolled.momentum * p.unrolled.buffers[name] + d + p.unrolled.decay * value
        w_unrolled[name] = value - p.unrolled.xi * direction
    total = torch.autograd.grad(loss(w_unrolled, p.val, val_masks), alphas, materialize_grads=True)
    fixed = {name: value.detach() for name, value in w_unrolled.items()}
    direct = torch.autograd.grad(loss(fixed, p.val, val_masks), alphas, materialize_grads=True)
    return list(total), difference(total, direct)


def relative_errors(p: Problem, masks: Masks | None = None) -> tuple[float, float]:
    """The relative errors of the second-order gradient, and of its term with the Hessian alone."""
    found = p.second_order()
    total, hessian_term = exact(p, masks and masks.passes[:2])
    assert flat(hessian_term).norm() > 0.1 * flat(total).norm(), "too small a term to test"
    direct = difference(total, hessian_term)
    return distance(found, total), distance(difference(found, direct), hessian_term)


# ---------------------------------------------------------------- the values


@pytest.fixture
def small_epsilon(monkeypatch):
    """So small a finite difference that it crosses no kink of a ReLU or a maximum, where the exact gradient jumps."""
    monkeypatch.setattr(architect, "EPSILON", 1e-5)


@pytest.mark.parametrize("size", [*SIZES, {"deltas": 2}], ids=str)
def test_second_order_equals_the_exact_gradient(size, small_epsilon):
    assert max(relative_errors(make_problem(**size))) < 1e-4


@pytest.mark.parametrize("relaxation", ["dirichlet", "gumbel"])
def test_second_order_of_a_sample_equals_the_exact_gradient_of_the_same_sample(relaxation, small_epsilon):
    p = make_problem(nodes=2, relaxation=relaxation)
    sample = Sample(3, 0.9)
    with p.network.sampling(sample), p.plain.sampling(sample):
        assert max(relative_errors(p)) < 1e-4


@pytest.mark.parametrize("order", ["first", "second"])
def test_step_of_the_alphas_adds_the_gradient_of_the_penalty(order):
    p = make_problem(relaxation="dirichlet")
    config = SearchConfig(relaxation="dirichlet", order=order, w_lr=XI, alpha_weight_decay=0.0)
    searcher = Architect(config, p.network)
    sample = Sample(3, 0.9)
    with p.network.sampling(sample):
        if order == "second":
            found = searcher.second_order(p.train, p.val, searcher.unrolled_step())
        else:
            found = searcher.first_order(p.val)
    penalty = torch.autograd.grad(p.network.relaxation.penalty(p.alphas), p.alphas)
    given = []
    searcher.alpha_optimizer.register_step_pre_hook(
        lambda *_: given.extend(alpha.grad.clone() for alpha in p.alphas)
    )
    searcher.step(p.train, p.val, (sample, Sample(4, 0.9)))
    truth = [d + each for d, each in zip(found, penalty, strict=True)]
    assert distance(given, truth) < 1e-12
    assert distance(given, found) > 1e-6


@every_size
def test_error_falls_with_the_square_of_epsilon_in_a_smooth_network(size, monkeypatch):
    """Softplus for ReLU and no max-pooling: the only error is that of the difference, which must be a central one."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
    p = make_problem(**size, cnn_ops=CNN_OPS[1:], fused=False)
    assert architect.EPSILON == 0.01
    assert max(relative_errors(p)) < 1e-2
    monkeypatch.setattr(architect, "EPSILON", 1e-3)
    coarse = relative_errors(p)
    monkeypatch.setattr(architect, "EPSILON", 1e-4)
    fine = relative_errors(p)
    assert max(coarse) < 1e-4
    for before, after in zip(coarse, fine, strict=True):
        assert after < before / 50


@every_size
def test_second_order_equals_its_formula_computed_with_moved_copies_of_the_network(size):
    """At epsilon 0.01 with ReLUs and maxima: copies of the network whose weights are really moved by it."""
    p = make_problem(**size)

    def gradients(weights, batch):
        network = copy.deepcopy(p.network)
        own = network.weights()
        with torch.no_grad():
            for name, w in own.items():
                w.copy_(weights[name])
        loss = F.cross_entropy(network(batch[0]), batch[1])
        inputs = [*network.architecture_parameters(), *own.values()]
        found = torch.autograd.grad(loss, inputs, materialize_grads=True)
        return flat(found[: -len(own)]), dict(zip(own, found[-len(own) :], strict=True))

    w = {name: value.detach() for name, value in p.network.weights().items()}
    _, d_train = gradients(w, p.train)
    direction = {name: MOMENTUM * p.unrolled.buffers[name] + d_train[name] + DECAY * w[name] for name in w}
    direct, d_w = gradients({name: w[name] - XI * direction[name] for name in w}, p.val)
    eps = 0.01 / flat(d_w.values()).norm()
    plus, _ = gradients({name: w[name] + eps * d_w[name] for name in w}, p.train)
    minus, _ = gradients({name: w[name] - eps * d_w[name] for name in w}, p.train)
    expected = direct - XI * (plus - minus) / (2 * eps)
    torch.testing.assert_close(flat(p.second_order()), expected, rtol=1e-8, atol=1e-10)


@every_size
def test_first_order_is_the_gradient_of_the_validation_loss(size):
    p = make_problem(**size)
    found = p.first_order()
    assert distance(p.second_order(), found) > 0.1
    loss = F.cross_entropy(p.network(p.val[0]), p.val[1])
    truth = torch.autograd.grad(loss, p.alphas, materialize_grads=True)
    assert [d.shape for d in found] == [alpha.shape for alpha in p.alphas]
    for d, expected in zip(found, truth, strict=True):
        torch.testing.assert_close(d, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("recompute", ["ops", "cells"])
def test_recomputed_passes_give_the_same_gradients(order, recompute):
    """Each pass is recomputed with its own weights, not with those that the network holds by then."""
    gradients = []
    for choice in ("none", recompute):
        p = make_problem(layers=2, nodes=2, dropout=0.3, recompute=choice)
        torch.manual_seed(1)
        gradients.append(p.second_order() if order == "second" else p.first_order())
    assert distance(*gradients) < 1e-10


def test_stacked_recurrences_give_the_same_gradient(monkeypatch):
    """A GPU computes recurrences in stacks, and a CPU one op at a time."""
    p = make_problem(layers=2, nodes=2, rnn_layers=2)
    truth = p.second_order()
    monkeypatch.setattr("models.fused.rnn.stacked_cell.use_stacked", lambda device: True)
    assert distance(p.second_order(), truth) < 1e-9


def test_second_order_equals_first_order_without_an_unrolled_step():
    p = make_problem()
    p.unrolled = replace(p.unrolled, xi=0.0)
    for second, first in zip(p.second_order(), p.first_order(), strict=True):
        torch.testing.assert_close(second, first, rtol=1e-12, atol=0)


def test_alphas_of_absent_cells_get_a_zero_gradient():
    p = make_problem(layers=1)  # its only CNN cell is a reduction cell
    absent = [any(alpha is other for other in p.network.alphas["normal"]) for alpha in p.alphas]
    assert sum(absent) == 1
    for gradients in (p.second_order(), p.first_order()):
        assert [not d.any() for d in gradients] == absent


def test_unrolled_step_is_that_of_sgd():
    """w' against torch's own optimizer, whose momentum buffers are from the step before."""
    p = make_problem()
    w = p.network.weights()
    sgd = torch.optim.SGD(w.values(), XI, momentum=MOMENTUM, weight_decay=DECAY)
    for _ in range(2):
        before = {name: value.detach().clone() for name, value in w.items()}
        stepped = {name: sgd.state[value] for name, value in w.items() if value in sgd.state}
        buffers = {name: state["momentum_buffer"].clone() for name, state in stepped.items()}
        for value in w.values():
            value.grad = torch.randn_like(value)
        sgd.step()
    assert buffers
    unrolled = UnrolledStep(XI, MOMENTUM, DECAY, buffers)
    for name, value in w.items():
        found = unrolled.apply(name, before[name], value.grad)
        torch.testing.assert_close(found, value.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("every", [1, 2])
def test_missing_momentum_buffer_is_zero(every):
    p = make_problem()
    buffers = p.unrolled.buffers
    missing = list(buffers)[::every]
    without = {name: v for name, v in buffers.items() if name not in missing}
    zeros = {name: torch.zeros_like(v) if name in missing else v for name, v in buffers.items()}
    found, expected, other = (
        replace(p, unrolled=UnrolledStep(XI, MOMENTUM, DECAY, chosen)).second_order()
        for chosen in (without, zeros, buffers)
    )
    assert distance(found, expected) == 0
    assert distance(found, other) > 1e-3


# ---------------------------------------------------------------- what the gradients must not change


def state_of(p: Problem) -> dict[str, Tensor]:
    """Copies of everything that an alpha gradient must not change."""
    state = dict(p.network.state_dict())
    state |= {f"gradient {name}": w.grad for name, w in p.network.named_parameters() if w.grad is not None}
    state |= {f"momentum {name}": buffer for name, buffer in p.unrolled.buffers.items()}
    state |= {f"batch {i}": tensor for i, tensor in enumerate((*p.train, *p.val))}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("order", ["first", "second"])
def test_weights_statistics_momentum_and_gradients_are_unchanged(order, dropout):
    p = make_problem(dropout=dropout)
    parameters = dict(p.network.named_parameters())
    for parameter in list(parameters.values())[::2]:
        parameter.grad = torch.randn_like(parameter)
    before = state_of(p)
    assert any(name.endswith("running_mean") for name in before)
    assert any(name.endswith("num_batches_tracked") for name in before)
    if order == "first":
        p.first_order()
    else:
        p.second_order()
    after = state_of(p)
    assert list(after) == list(before)
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []
    assert all(w is parameters[name] for name, w in p.network.named_parameters())
    assert all(w.requires_grad and w.is_leaf for w in p.network.parameters())
    assert p.network.training


def test_network_trains_as_before_afterwards():
    """Recurrent modules cache their weights: afterwards they must use the network's own."""
    p = make_problem()
    untouched = copy.deepcopy(p.network)
    p.second_order()
    x, y = p.train
    F.cross_entropy(p.network(x), y).backward()
    F.cross_entropy(untouched(x), y).backward()
    for (name, w), other in zip(p.network.named_parameters(), untouched.parameters(), strict=True):
        assert (w.grad is None) == (other.grad is None), name
        assert w.grad is None or torch.equal(w.grad, other.grad), name


def leaves_of(loss: Tensor) -> set[int]:
    """The ids of all leaves of the graph of a loss."""
    leaves, seen, todo = set(), set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        todo.extend(child for child, _ in node.next_functions)
    return leaves


def ids(tensors: Iterable[Tensor]) -> set[int]:
    return {id(tensor) for tensor in tensors}


@pytest.fixture
def gradient_calls(monkeypatch) -> list[tuple[set[int], set[int]]]:
    """For each call of `gradient`: the ids of its inputs, and of the leaves of its loss."""
    calls = []

    def spy(loss, inputs):
        calls.append((ids(inputs), leaves_of(loss)))
        return distributed.gradient(loss, inputs)

    monkeypatch.setattr("darts.architect.gradient", spy)
    return calls


def test_second_order_computes_weight_gradients_only_at_w_and_ahead(gradient_calls):
    p = make_problem()
    alphas = ids(p.alphas)
    weights = ids(p.network.weights().values())
    p.second_order()
    at_w, ahead, *differences = gradient_calls
    assert at_w[0] == weights
    assert ahead[0] > alphas
    assert len(ahead[0]) == len(alphas) + len(weights)
    assert not ahead[1] & weights, "w' must be held fixed"
    assert len(differences) == 2
    for inputs, leaves in differences:
        assert inputs == alphas >= leaves > set()


def test_first_order_computes_no_weight_gradients(gradient_calls):
    p = make_problem()
    p.first_order()
    [(inputs, leaves)] = gradient_calls
    assert inputs == ids(p.alphas) >= leaves > set()


def test_only_the_passes_of_the_finite_difference_are_ieee_float32(monkeypatch):
    """With TF32 and bf16 asked for, the passes at w and w' use them, and those at w+ and w- do not."""
    p = make_problem()
    network = copy.deepcopy(p.network).float()
    train, val = ((x.float(), y) for x, y in (p.train, p.val))
    buffers = {name: buffer.float() for name, buffer in p.unrolled.buffers.items()}
    passes = []

    def note(module, inputs):
        tf32 = {torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32}
        passes.append((inputs[0].dtype, tf32))

    network.register_forward_pre_hook(note)
    monkeypatch.setattr(precision, "has_tf32", lambda device: True)
    precision.set_precision("tf32", CPU)
    try:
        with_bf16 = Architect(SearchConfig(precision="bf16"), network)
        with_bf16.second_order(train, val, replace(p.unrolled, buffers=buffers))
    finally:
        precision.set_precision("float32", CPU)
    assert passes == [(torch.bfloat16, {True})] * 2 + [(torch.float32, {False})] * 2


# ---------------------------------------------------------------- dropout and the random generator


def test_passes_of_the_training_loss_share_their_dropout_masks():
    p = make_problem(dropout=0.3)
    masks = Masks(p.network)
    p.second_order()
    at_w, ahead, at_plus, at_minus = masks.flat_passes
    assert torch.equal(at_plus, at_minus)
    assert torch.equal(at_w, at_plus)
    assert not torch.equal(at_w, ahead)


@pytest.mark.parametrize("seed", range(3))
def test_second_order_with_dropout_equals_the_exact_gradient_with_the_same_masks(seed, small_epsilon):
    p = make_problem(dropout=0.3, seed=seed)
    assert max(relative_errors(p, Masks(p.network))) < 1e-3


def test_second_order_with_dropout_depends_on_the_seed_alone():
    p = make_problem(dropout=0.3)

    def run(seed):
        torch.manual_seed(seed)
        return torch.cat([flat(p.second_order()), torch.rand(10)])

    first, again, other = run(1), run(1), run(2)
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.equal(first[:-10], other[:-10])
    assert not torch.equal(first[-10:], other[-10:])


def test_every_call_and_later_pass_draws_new_masks():
    p = make_problem(dropout=0.3)
    masks = Masks(p.network)
    p.second_order()
    p.second_order()
    p.first_order()
    p.first_order()
    p.network(p.train[0])
    passes = masks.flat_passes
    drawn = [passes[i] for i in (0, 1, 4, 5, 8, 9, 10)]  # passes 2, 3, 6 and 7 replay those of 0 and 4
    assert len(torch.stack(drawn).unique(dim=0)) == len(drawn)


def test_only_the_passes_at_w_and_ahead_draw_masks():
    """They advance the random generator, and nothing resets it, which would be impossible in a CUDA graph."""
    p = make_problem(dropout=0.3)
    torch.manual_seed(5)
    p.second_order()
    after = torch.get_rng_state()
    torch.manual_seed(5)
    for batch in (p.train, p.val):
        p.network(batch[0])
    assert torch.equal(after, torch.get_rng_state())


# ---------------------------------------------------------------- the bilevel step


@pytest.mark.parametrize("order", ["first", "second"])
def test_step_updates_the_alphas_with_adam_and_then_the_weights_with_sgd(order):
    """Two steps, against the gradients above and the optimizers of torch; the unrolled step is that of the weights."""
    p = make_problem()
    flags = {"w_lr": 0.3, "w_momentum": 0.8, "w_weight_decay": 0.02, "w_grad_clip": 1.0, "alpha_lr": 0.1}
    found = Architect(SearchConfig(order=order, **flags), p.network)
    network = copy.deepcopy(p.network)
    weights = network.weights()
    alphas = network.architecture_parameters()
    sgd = torch.optim.SGD(weights.values(), 0.3, momentum=0.8, weight_decay=0.02)
    adam = torch.optim.Adam(alphas, 0.1, betas=(0.5, 0.999), weight_decay=1e-3)
    x, y = p.train
    for i in range(2):
        buffers = {name: sgd.state[w]["momentum_buffer"].clone() for name, w in weights.items()} if i else {}
        expected = replace(p, network=network, unrolled=UnrolledStep(0.3, 0.8, 0.02, buffers))
        gradients = expected.second_order() if order == "second" else expected.first_order()
        for alpha, d in zip(alphas, gradients, strict=True):
            alpha.grad = d
        adam.step()
        sgd.zero_grad()
        logits = network(x)
        loss = F.cross_entropy(logits, y)
        for w, d in zip(weights.values(), torch.autograd.grad(loss, weights.values()), strict=True):
            w.grad = d.clone()
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        sgd.step()
        metrics = found.step(p.train, p.val)
        torch.testing.assert_close(metrics["train/loss"], loss.detach())
        assert metrics["train/wa"] == (logits.argmax(dim=1) == y).float().mean()
    for name, tensor in p.network.state_dict().items():
        torch.testing.assert_close(tensor, network.state_dict()[name], rtol=1e-10, atol=1e-12)
    assert all(w.grad is None for w in p.network.parameters())
