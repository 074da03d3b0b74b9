"""The supernet and the derived network as wholes: independence within a batch, any size, alphas, heads, drop path."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import PlainNetwork, relative_error
from torch import nn

from genotypes import BUILT_IN, CNN_OPS, RNN_OPS, Genotype
from models.augment_network import AugmentNetwork, DerivedNode, DropPath, set_drop_path
from models.cells import CELL_TYPES
from models.joint_network import JointNetwork, PoolToQuarters, Size, to_sequence
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

SEQUENCE_OPS = ("lstm_1", "rnn_2", "lstm_att_1", "rnn_att_1", "skip_connect", "none")
SMALL_CNN = ("max_pool_3x3", "sep_conv_3x3", "skip_connect", "none")
SMALL_RNN = ("lstm_1", "rnn_att_1", "none")


def supernet(
    size=None,
    cnn_nodes=2,
    rnn_nodes=2,
    cnn_ops=CNN_OPS,
    rnn_ops=SEQUENCE_OPS,
    classes=4,
    dropout=0.0,
    seed=0,
    recompute="none",
):
    torch.manual_seed(seed)
    space = SearchSpace(cnn_nodes, rnn_nodes, tuple(cnn_ops), tuple(rnn_ops))
    return SearchNetwork(space, size or Size(3, 4, 2, 8), classes, dropout, recompute)


def chain(ops, nodes):
    """A cell of `nodes` nodes that takes its ops in turn, each node from its two latest states."""
    turn = itertools.cycle(ops)
    return [[(next(turn), i + 1), (next(turn), i)] for i in range(nodes)]


def genotype_of(cnn_ops, rnn_ops, nodes=2):
    concat = range(2, nodes + 2)
    return Genotype(
        chain(cnn_ops, nodes), concat, chain(cnn_ops[::-1], nodes), concat, chain(rnn_ops, nodes), concat
    )


def derived(size=None, genotype=None, classes=4, dropout=0.0, auxiliary=False, seed=0):
    torch.manual_seed(seed)
    genotype = genotype or genotype_of(
        ("sep_conv_3x3", "skip_connect", "max_pool_3x3", "dil_conv_5x5"), ("lstm_1",)
    )
    return AugmentNetwork(genotype, size or Size(3, 4, 2, 8), classes, dropout, auxiliary)


def settled(network, height, width):
    """In evaluation mode, with running statistics of a batch, so that no signal dies on its way through."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(8, 1, height, width))
        for module in network.modules():  # louder differences between utterances
            if isinstance(module, nn.Linear):
                module.weight.mul_(2)
    return network.eval()


@torch.no_grad()
def assert_independent(network, height, width):
    """The logits of 16 utterances: each alone, in pairs, all together, all in another order."""
    torch.manual_seed(3)
    x = torch.randn(16, 1, height, width) * torch.linspace(0.3, 3, 16).view(-1, 1, 1, 1)
    alone = torch.cat([network(row[None]) for row in x])
    order = torch.randperm(16)
    assert alone.std(dim=0).min() > 1e-3, "the logits tell no utterance from another: the test would be void"
    torch.testing.assert_close(torch.cat([network(pair) for pair in x.split(2)]), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(x), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(x[order]), alone[order], atol=1e-5, rtol=0)


# The logits of an utterance are its own


@pytest.mark.parametrize(
    "rnn_op", ["lstm_1", "lstm_3", "rnn_1", "rnn_4", "lstm_att_1", "lstm_att_2", "rnn_att_2"]
)
def test_derived_network_treats_each_utterance_by_itself(rnn_op):
    network = derived(genotype=genotype_of(("sep_conv_3x3", "avg_pool_3x3", "skip_connect"), (rnn_op,)))
    assert_independent(settled(network, 13, 29), 13, 29)


@pytest.mark.parametrize(
    "rnn_ops", [("lstm_1", "none"), ("rnn_2", "none"), ("lstm_att_2", "rnn_att_1"), RNN_OPS]
)
def test_supernet_treats_each_utterance_by_itself(rnn_ops):
    assert_independent(settled(supernet(cnn_ops=SMALL_CNN, rnn_ops=rnn_ops), 13, 29), 13, 29)


SIZES = [
    # layers, rnn_layers, nodes, height, width
    (1, 0, 1, 13, 29),
    (1, 1, 2, 13, 29),
    (2, 0, 3, 7, 5),
    (2, 3, 1, 13, 29),
    (3, 1, 4, 13, 29),
    (3, 3, 2, 40, 64),
    (5, 1, 1, 40, 64),
    (5, 3, 3, 13, 29),
    (5, 0, 2, 128, 128),
]


@pytest.mark.parametrize(("layers", "rnn_layers", "nodes", "height", "width"), SIZES)
def test_any_size_of_derived_network(layers, rnn_layers, nodes, height, width):
    genotype = genotype_of(("sep_conv_3x3", "max_pool_3x3", "skip_connect"), ("lstm_att_1", "rnn_1"), nodes)
    network = derived(Size(layers, 2, rnn_layers, 6), genotype)
    assert (len(network.network.cnn_cells), len(network.network.rnn_cells)) == (layers, rnn_layers)
    assert_independent(settled(network, height, width), height, width)


@pytest.mark.parametrize(("layers", "rnn_layers", "nodes", "height", "width"), SIZES)
def test_any_size_of_supernet(layers, rnn_layers, nodes, height, width):
    network = supernet(Size(layers, 2, rnn_layers, 6), nodes, nodes, SMALL_CNN, SMALL_RNN)
    assert_independent(settled(network, height, width), height, width)


@pytest.mark.parametrize(
    ("layers", "kinds"),
    [(1, "r"), (2, "rr"), (3, "nrr"), (4, "nrrn"), (5, "nrnrn"), (6, "nnrnrn"), (20, "nnnnnnrnnnnnnrnnnnnn")],
)
def test_reductions_stand_at_a_third_and_two_thirds(layers, kinds):
    network = derived(Size(layers, 2, 0, 4))
    assert "".join(kind[0] for kind in network.network.kinds) == kinds
    assert network.network.cnn_cells[-1].out_channels == 2 * 2 * 2 ** kinds.count(
        "r"
    )  # nodes x init_channels x doublings


def test_time_stays_time_at_the_seam():
    maps = torch.randn(2, 3, 4, 5)
    sequence = to_sequence(maps)
    assert sequence.shape == (2, 5, 3)
    for n, t, c in itertools.product(range(2), range(5), range(3)):
        torch.testing.assert_close(sequence[n, t, c], sum(maps[n, c, f, t] for f in range(4)) / 4)


def test_head_is_linear_in_the_mean_over_time_of_the_last_cell():
    network = derived(Size(2, 4, 1, 8)).eval().network
    seen = []
    network.rnn_cells[-1].register_forward_hook(lambda module, inputs, out: seen.append(out))
    logits = network(torch.randn(3, 1, 13, 29))
    (last,) = seen
    truth = last.sum(dim=1) / last.shape[1] @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(logits, truth)


# The supernet


@pytest.mark.parametrize("recompute", ["none", "ops", "cells"])
@pytest.mark.parametrize(("layers", "rnn_layers"), [(1, 1), (2, 0), (3, 2), (5, 1)])
def test_supernet_equals_the_plain_one(layers, rnn_layers, recompute):
    """In float64 and training mode: logits, the gradients of every weight and alpha, and running statistics."""
    size = Size(layers, 2, rnn_layers, 4)
    network = supernet(size, 2, 2, CNN_OPS, SEQUENCE_OPS, recompute=recompute).double().train()
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha)
    plain = PlainNetwork(network, layers, 2, rnn_layers, 4)
    x, g = torch.randn(3, 1, 13, 17, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    found, truth = network(x), plain(x)
    assert relative_error(found, truth) < 1e-10
    found.backward(g)
    truth.backward(g)
    true = {name: p.grad for name, p in plain.named_parameters()}
    for name, p in network.named_parameters():
        wanted = true.pop(name.removeprefix("network."))
        if wanted is None or not wanted.any():
            assert p.grad is None or not p.grad.any(), name
        else:
            assert relative_error(p.grad, wanted) < 1e-9, name
    assert not true
    statistics = dict(plain.named_buffers())
    assert statistics
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, statistics[name.removeprefix("network.")], rtol=1e-10, atol=1e-12)


def test_computing_again_changes_no_bit():
    """In float32: so that a run may be gone on with under another --recompute."""
    found = []
    for recompute in ("none", "ops", "cells"):
        network = supernet(Size(4, 4, 2, 8), cnn_ops=CNN_OPS, rnn_ops=SEQUENCE_OPS, recompute=recompute)
        torch.manual_seed(1)
        out = network(torch.randn(4, 1, 16, 17))
        found.append(
            [out, *torch.autograd.grad(out.square().sum(), list(network.parameters()), allow_unused=True)]
        )
    for none, *others in zip(*found, strict=True):
        assert all(none is other or torch.equal(none, other) for other in others)


@pytest.mark.parametrize("with_none", [True, False])
@pytest.mark.parametrize(("cnn_nodes", "rnn_nodes"), [(1, 4), (2, 3), (4, 1)])
@pytest.mark.parametrize("rnn_layers", [0, 2])
def test_number_of_alphas(cnn_nodes, rnn_nodes, rnn_layers, with_none):
    end = None if with_none else -1
    network = supernet(Size(3, 2, rnn_layers, 4), cnn_nodes, rnn_nodes, SMALL_CNN[:end], SMALL_RNN[:end])
    cnn = sum(i + 2 for i in range(cnn_nodes)) * (3 + with_none)
    rnn = sum(i + 2 for i in range(rnn_nodes)) * (2 + with_none) if rnn_layers else 0
    assert sum(alpha.numel() for alpha in network.architecture_parameters()) == 2 * cnn + rnn


def test_alphas_start_near_zero_and_differ():
    alphas = torch.cat([a.flatten() for a in supernet(cnn_nodes=4, rnn_nodes=4).architecture_parameters()])
    assert 0.8e-3 < alphas.std() < 1.2e-3
    assert abs(alphas.mean()) < 2e-4
    assert len(alphas.unique()) == len(alphas)


def test_weights_and_alphas_part_the_parameters():
    network = supernet()
    weights, alphas = network.weights(), network.architecture_parameters()
    named = dict(network.named_parameters())
    assert all(named[name] is p for name, p in weights.items())
    ids = [id(p) for p in [*weights.values(), *alphas]]
    assert len(ids) == len(set(ids)) == len(named)
    assert set(ids) == {id(p) for p in named.values()}
    assert all(any(a is b for b in network.alphas.parameters()) for a in alphas)


def test_every_weight_and_alpha_of_the_supernet_learns():
    network = supernet(Size(4, 4, 2, 8), 1, 1).train()
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha)
    (network(torch.randn(4, 1, 13, 29)) * torch.randn(4, 4)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_cells_of_one_kind_share_their_alphas():
    network = supernet(Size(4, 2, 2, 4), 1, 1, SMALL_CNN, SMALL_RNN)
    assert len(network.architecture_parameters()) == 3
    assert {name: len(nodes) for name, nodes in network.alphas.items()} == {
        "normal": 1,
        "reduce": 1,
        "rnn": 1,
    }


def best_edges_by_hand(alphas, ops):
    nodes = []
    for alpha in alphas:
        candidates = []  # (strength, edge, op) of the strongest op of each edge but `none`
        for edge, row in enumerate(alpha.tolist()):
            exps = [2.718281828459045**a for a in row]
            strengths = {op: e / sum(exps) for op, e in zip(ops, exps, strict=True) if op != "none"}
            op = max(strengths, key=strengths.get)
            candidates.append((strengths[op], edge, op))
        candidates.sort(reverse=True)
        nodes.append(tuple((op, edge) for _, edge, op in candidates[:2]))
    return tuple(nodes)


@pytest.mark.parametrize("rnn_layers", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_genotype_is_the_one_found_by_hand(seed, rnn_layers):
    """The shares decide, after the softmax over all ops: a strong `none` weakens its edge."""
    network = supernet(Size(1, 2, rnn_layers, 4), 4, 3, seed=seed)
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha, std=2)
    genotype = network.genotype()
    assert genotype.normal == best_edges_by_hand(network.alphas["normal"], CNN_OPS)
    assert genotype.reduce == best_edges_by_hand(network.alphas["reduce"], CNN_OPS)
    assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5)
    if rnn_layers:
        assert genotype.rnn == best_edges_by_hand(network.alphas["rnn"], SEQUENCE_OPS)
        assert genotype.rnn_concat == (2, 3, 4)
    else:
        assert (genotype.rnn, genotype.rnn_concat) == ((), ())


def test_genotype_of_a_supernet_builds_a_network():
    network = supernet(Size(3, 2, 1, 4), 3, 2)
    assert derived(Size(3, 2, 1, 4), network.genotype())(torch.randn(2, 1, 13, 29)).shape == (2, 4)


@pytest.mark.parametrize("make", [supernet, derived])
def test_state_dict_round_trip(make):
    first, second = settled(make(seed=0), 13, 29), make(seed=1).eval()
    x = torch.randn(2, 1, 13, 29)
    assert not torch.allclose(first(x), second(x), atol=1e-3)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("make", [supernet, derived])
def test_dropout_acts_after_each_cell_and_only_in_training(make):
    network = make(dropout=0.3)
    calls = []
    network.network.dropout.register_forward_hook(lambda module, inputs, out: calls.append((inputs[0], out)))
    network.train()(torch.randn(4, 1, 13, 29))
    assert len(calls) == 5  # 3 CNN cells and 2 SeqNN cells
    for before, after in calls:
        assert 0.2 < (after[before != 0] == 0).float().mean() < 0.4
    calls.clear()
    network.eval()(torch.randn(4, 1, 13, 29))
    assert all(torch.equal(before, after) for before, after in calls)


# The derived network


@st.composite
def cells(draw, ops):
    count = draw(st.integers(1, 4))
    nodes = []
    for i in range(count):
        sources = draw(st.lists(st.integers(0, i + 1), min_size=2, max_size=2, unique=True))
        nodes.append([(draw(st.sampled_from(ops[:-1])), source) for source in sources])
    return nodes, draw(st.lists(st.integers(2, count + 1), min_size=1, unique=True))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(cells(CNN_OPS), cells(CNN_OPS), cells(RNN_OPS), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_any_genotype_builds_and_runs(normal, reduce, rnn, layers, rnn_layers, auxiliary):
    genotype = Genotype(*normal, *reduce, *rnn)
    network = derived(Size(layers, 2, rnn_layers, 3), genotype, classes=3, dropout=0.1, auxiliary=auxiliary)
    set_drop_path(network, 0.2)
    x = torch.randn(2, 1, 9, 11)
    outputs = network.train()(x)
    outputs = outputs if auxiliary else (outputs,)
    assert len(outputs) == 1 + auxiliary
    assert all(out.shape == (2, 3) and out.isfinite().all() for out in outputs)
    sum(out.sum() for out in outputs).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert network.eval()(x).isfinite().all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_genotype_runs(name):
    genotype = BUILT_IN[name]
    network = derived(Size(3, 2, 1 if genotype.rnn else 0, 4), genotype)
    assert network(torch.randn(2, 1, 13, 29)).isfinite().all()


@pytest.mark.parametrize("nodes", [1, 3])
def test_derived_node_is_the_sum_of_its_two_edges(nodes):
    node = DerivedNode(CELL_TYPES["normal"], [("sep_conv_3x3", nodes), ("skip_connect", 0)], 4, False).eval()
    states = [torch.randn(2, 4, 5, 6) for _ in range(nodes + 1)]
    torch.testing.assert_close(node(states), node.ops[0](states[nodes]) + states[0])


def test_only_the_edges_from_a_cells_inputs_are_strided_in_a_reduction():
    network = derived(genotype=genotype_of(("avg_pool_3x3",), ("rnn_1",), nodes=3))
    reduction = network.network.cnn_cells[1]
    strides = [
        (source, module.stride)
        for node in reduction.nodes
        for source, op in zip(node.sources, node.ops, strict=True)
        for module in op.modules()
        if isinstance(module, nn.AvgPool2d)
    ]
    assert strides == [(1, 2), (0, 2), (2, 1), (1, 2), (3, 1), (2, 1)]


@pytest.mark.parametrize(("height", "width"), [(13, 29), (40, 64), (128, 128), (5, 3), (1, 1)])
@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_auxiliary_head_at_any_size(layers, height, width):
    network = derived(
        Size(layers, 2, 1, 4), genotype_of(("sep_conv_3x3", "skip_connect"), ("rnn_1",)), auxiliary=True
    )
    x = torch.randn(2, 1, height, width)
    logits, auxiliary = network.train()(x)
    assert logits.shape == auxiliary.shape == (2, 4)
    assert isinstance(network.eval()(x), torch.Tensor)


@pytest.mark.parametrize(("height", "width"), itertools.product((1, 2, 3, 4, 7, 32), repeat=2))
def test_quarters_are_those_of_adaptive_pooling(height: int, width: int):
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    found, truth = PoolToQuarters()(x), nn.AdaptiveAvgPool2d(2)(x)
    torch.testing.assert_close(found, truth)
    g = torch.randn_like(truth)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, g) for out in (found, truth)))


def test_auxiliary_head_stands_at_two_thirds_of_the_cnn():
    network = derived(Size(6, 2, 1, 4), auxiliary=True).train()
    network(torch.randn(4, 1, 13, 29))[1].sum().backward()
    taught = [any(p.grad is not None for p in cell.parameters()) for cell in network.network.cnn_cells]
    assert taught == [True] * 5 + [False]  # cells 0 to 4 = 2 * 6 / 3
    assert all(p.grad is None for p in network.network.rnn_cells.parameters())


def test_auxiliary_head_leaves_the_logits_as_they_are():
    with_head, without = derived(auxiliary=True).eval(), derived(seed=1).eval()
    kept = {name: t for name, t in with_head.state_dict().items() if ".auxiliary." not in name}
    without.load_state_dict(kept)
    x = torch.randn(2, 1, 13, 29)
    assert torch.equal(with_head(x), without(x))
    assert not any("auxiliary" in name for name in without.state_dict())


# Drop path


def drop(probability):
    module = DropPath()
    module.probability = probability
    return module


@pytest.mark.parametrize("shape", [(4000, 3, 2, 2), (4000, 5, 3)])
def test_drop_path_keeps_its_ratio_and_is_unbiased(shape):
    torch.manual_seed(0)
    x = torch.rand(shape) + 1
    ratios = (drop(0.3)(x) / x).flatten(1)
    torch.testing.assert_close(
        ratios.amin(dim=1), ratios.amax(dim=1)
    )  # an utterance is dropped whole or not at all
    kept = ratios[:, 0] > 0
    torch.testing.assert_close(ratios[kept], torch.full_like(ratios[kept], 1 / 0.7))
    assert abs(kept.float().mean() - 0.7) < 0.03  # four standard errors
    assert abs(ratios[:, 0].mean() - 1) < 0.03 / 0.7


def test_drop_path_is_the_identity_at_zero_and_in_evaluation():
    x = torch.randn(50, 3, 2, 2)
    assert torch.equal(drop(0.0)(x), x)
    assert torch.equal(drop(0.9).eval()(x), x)


def test_drop_path_of_a_network_acts_in_training_only():
    network, x = settled(derived(), 13, 29), torch.randn(8, 1, 13, 29)
    quiet = network(x)
    set_drop_path(network, 0.5)
    assert {m.probability for m in network.modules() if isinstance(m, DropPath)} == {0.5}
    assert torch.equal(network(x), quiet)
    network.train()
    for module in network.modules():  # the statistics stay: any difference is the drop path's
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert not torch.allclose(network(x), quiet, atol=1e-3)
    set_drop_path(network, 0.0)
    assert torch.equal(network(x), quiet)


@pytest.mark.parametrize(
    ("kind", "op"), [("normal", op) for op in CNN_OPS[:-1]] + [("rnn", op) for op in RNN_OPS[:-1]], ids=str
)
def test_drop_path_spares_skip_connect_and_nothing_else(kind, op):
    torch.manual_seed(0)
    node = DerivedNode(CELL_TYPES[kind], [(op, 0), ("skip_connect", 1)], 4, reduction=False).train()
    for module in node.modules():
        if isinstance(module, DropPath):
            module.probability = 1 - 1e-6
    states = [torch.randn(6, 4, 5, 7) if kind == "normal" else torch.randn(6, 7, 4) for _ in range(2)]
    expected = states[0] + states[1] if op == "skip_connect" else states[1]
    assert torch.equal(node(states), expected)


def test_two_networks_do_not_share_their_drop_path():
    first, second = derived(), derived()
    set_drop_path(first, 0.4)
    assert {m.probability for m in second.modules() if isinstance(m, DropPath)} == {0.0}


def test_both_networks_stand_around_the_same_joint_network():
    assert type(supernet().network) is type(derived().network) is JointNetwork
