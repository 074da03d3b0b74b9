"""The supernet and the derived network: batches, sizes, alphas, heads, dropout and drop path."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import PlainNetwork, relative_error
from torch import Tensor, nn

from genotypes import BUILT_IN, CNN_OPS, RNN_OPS, Genotype
from models.augment_network import AugmentNetwork, DerivedNode, DropPath, set_drop_path
from models.auxiliary_head import PoolToQuarters, WholeConv
from models.cells import CELL_TYPES
from models.joint_network import JointNetwork, Size, to_sequence
from models.search_network import SearchNetwork
from models.search_space import SearchSpace

SEQUENCE_OPS = ("lstm_1", "rnn_2", "lstm_att_1", "rnn_att_1", "skip_connect", "none")
SMALL_CNN = ("max_pool_3x3", "sep_conv_3x3", "skip_connect", "none")
SMALL_RNN = ("lstm_1", "rnn_att_1", "none")
SIZE = Size(layers=3, init_channels=4, rnn_layers=2, rnn_channels=8)


def make_supernet(
    size=SIZE, nodes=(2, 2), cnn_ops=CNN_OPS, rnn_ops=SEQUENCE_OPS, seed=0, **options
) -> SearchNetwork:
    """`nodes`: of the CNN and of the SeqNN cells."""
    torch.manual_seed(seed)
    return SearchNetwork(SearchSpace(*nodes, cnn_ops, rnn_ops), size, 4, **options)


def make_cell(ops, nodes):
    """A cell whose nodes take these ops in turn, each from its two latest states."""
    turn = itertools.cycle(ops)
    return [[(next(turn), i + 1), (next(turn), i)] for i in range(nodes)]


def make_genotype(cnn_ops, rnn_ops, nodes=2) -> Genotype:
    concat = range(2, nodes + 2)
    normal, reduce, rnn = (
        make_cell(cnn_ops, nodes),
        make_cell(cnn_ops[::-1], nodes),
        make_cell(rnn_ops, nodes),
    )
    return Genotype(normal, concat, reduce, concat, rnn, concat)


GENOTYPE = make_genotype(("sep_conv_3x3", "skip_connect", "max_pool_3x3", "dil_conv_5x5"), ("lstm_1",))


def make_derived(size=SIZE, genotype=GENOTYPE, dropout=0.0, auxiliary=False, seed=0) -> AugmentNetwork:
    torch.manual_seed(seed)
    return AugmentNetwork(genotype, size, 4, dropout, auxiliary)


every_network = pytest.mark.parametrize("make", [make_supernet, make_derived])


@torch.no_grad()
def make_sensitive(network: nn.Module, height: int, width: int) -> nn.Module:
    """Use the statistics of a batch and larger weights, so that different inputs get different logits in evaluation."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(torch.randn(8, 1, height, width))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.weight.mul_(2)
    return network.eval()


@torch.no_grad()
def assert_independent_of_the_batch(network: nn.Module, height: int, width: int) -> None:
    """Compare the logits of 16 utterances: one by one, in pairs, together, and in another order."""
    make_sensitive(network, height, width)
    torch.manual_seed(3)
    x = torch.randn(16, 1, height, width) * torch.linspace(0.3, 3, 16).view(-1, 1, 1, 1)
    alone = torch.cat([network(row[None]) for row in x])
    assert alone.std(dim=0).min() > 1e-3, "the logits are too similar for this test"
    order = torch.randperm(16)
    pairs = torch.cat([network(pair) for pair in x.split(2)])
    torch.testing.assert_close(pairs, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(x), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(x[order]), alone[order], atol=1e-5, rtol=0)


# ---------------------------------------------------------------- both networks


@pytest.mark.parametrize(
    "rnn_op", ["lstm_1", "lstm_3", "rnn_1", "rnn_4", "lstm_att_1", "lstm_att_2", "rnn_att_2"]
)
def test_logits_of_derived_network_do_not_depend_on_the_rest_of_the_batch(rnn_op):
    genotype = make_genotype(("sep_conv_3x3", "avg_pool_3x3", "skip_connect"), (rnn_op,))
    assert_independent_of_the_batch(make_derived(genotype=genotype), 13, 29)


@pytest.mark.parametrize(
    "rnn_ops", [("lstm_1", "none"), ("rnn_2", "none"), ("lstm_att_2", "rnn_att_1"), RNN_OPS]
)
def test_logits_of_supernet_do_not_depend_on_the_rest_of_the_batch(rnn_ops):
    assert_independent_of_the_batch(make_supernet(cnn_ops=SMALL_CNN, rnn_ops=rnn_ops), 13, 29)


@pytest.mark.parametrize(
    ("layers", "rnn_layers", "nodes", "height", "width"),
    [
        (1, 0, 1, 13, 29), (1, 1, 2, 13, 29), (2, 0, 3, 7, 5), (2, 3, 1, 13, 29), (3, 1, 4, 13, 29),
        (3, 3, 2, 40, 64), (5, 1, 1, 40, 64), (5, 3, 3, 13, 29), (5, 0, 2, 128, 128),
    ],
)  # fmt: skip
def test_networks_of_any_size_take_inputs_of_any_size(layers, rnn_layers, nodes, height, width):
    size = Size(layers, 2, rnn_layers, 6)
    genotype = make_genotype(("sep_conv_3x3", "max_pool_3x3", "skip_connect"), ("lstm_att_1", "rnn_1"), nodes)
    for network in (make_derived(size, genotype), make_supernet(size, (nodes, nodes), SMALL_CNN, SMALL_RNN)):
        assert len(network.network.cnn_cells) == layers
        assert len(network.network.rnn_cells) == rnn_layers
        assert_independent_of_the_batch(network, height, width)


@pytest.mark.parametrize(
    ("layers", "kinds"),
    [(1, "r"), (2, "rr"), (3, "nrr"), (4, "nrrn"), (5, "nrnrn"), (6, "nnrnrn"), (20, "nnnnnnrnnnnnnrnnnnnn")],
)
def test_reduction_cells_are_at_one_and_two_thirds(layers, kinds):
    joint = make_derived(Size(layers, 2, 0, 4)).network
    assert "".join(kind[0] for kind in joint.kinds) == kinds
    nodes, init_channels = 2, 2
    assert joint.cnn_cells[-1].out_channels == nodes * init_channels * 2 ** kinds.count("r")


def test_sequence_is_the_mean_over_frequency_at_each_frame():
    maps = torch.randn(2, 3, 4, 5)
    sequence = to_sequence(maps)
    assert sequence.shape == (2, 5, 3)
    for n, t, c in itertools.product(range(2), range(5), range(3)):
        torch.testing.assert_close(sequence[n, t, c], sum(maps[n, c, f, t] for f in range(4)) / 4)


@pytest.mark.parametrize(("rows", "bands"), [(10, 5), (5, 5), (7, 3), (3, 5), (4, 1)])
def test_sequence_of_several_bands_is_that_of_adaptive_pooling(rows: int, bands: int):
    maps = torch.randn(2, 3, rows, 5)
    pooled = F.adaptive_avg_pool2d(maps, (bands, 5))  # (N, C, B, T)
    torch.testing.assert_close(to_sequence(maps, bands), pooled.permute(0, 3, 2, 1).flatten(2))


@pytest.mark.parametrize(("rnn_layers", "width"), [(1, 8), (0, 3 * 2 * 4 * 2)])
def test_bands_reach_the_seqnn_or_the_classifier(rnn_layers: int, width: int):
    """Two reductions of a width of 2, two nodes, three bands."""
    joint = make_derived(Size(2, 2, rnn_layers, 4, rnn_bands=3)).eval().network
    assert joint.head.weight.shape[1] == width
    x = torch.randn(2, 1, 20, 12)
    flipped = joint(x.flip(2)) - joint(x)
    assert flipped.abs().max() > 1e-4


def test_head_is_linear_in_the_mean_over_time_of_the_last_cell():
    joint = make_derived(Size(2, 4, 1, 8)).eval().network
    outputs = []
    joint.rnn_cells[-1].register_forward_hook(lambda module, inputs, out: outputs.append(out))
    logits = joint(torch.randn(3, 1, 13, 29))
    [last] = outputs
    truth = last.sum(dim=1) / last.shape[1] @ joint.head.weight.T + joint.head.bias
    torch.testing.assert_close(logits, truth)


@every_network
def test_state_dict_restores_the_logits(make):
    first = make_sensitive(make(seed=0), 13, 29)
    second = make(seed=1).eval()
    x = torch.randn(2, 1, 13, 29)
    assert not torch.allclose(first(x), second(x), atol=1e-3)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@every_network
def test_dropout_acts_after_each_cell_in_training_only(make):
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


def test_both_networks_use_the_same_joint_network():
    assert type(make_supernet().network) is type(make_derived().network) is JointNetwork


# ---------------------------------------------------------------- the supernet


@pytest.mark.parametrize(
    ("fused", "recompute"), [(True, "none"), (True, "ops"), (True, "cells"), (False, "none"), (False, "ops")]
)
@pytest.mark.parametrize(
    ("layers", "rnn_layers", "op_norm"),
    [(1, 1, False), (2, 0, False), (3, 2, True), (3, 2, False), (5, 1, False)],
)
def test_supernet_equals_the_oracle(layers, rnn_layers, op_norm, fused, recompute):
    """In float64 and training mode: logits, the gradients of weights and alphas, and running statistics."""
    size = Size(layers, 2, rnn_layers, 4)
    network = make_supernet(size, recompute=recompute, fused=fused, op_norm=op_norm).double().train()
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha)
    oracle = PlainNetwork(network, size)
    x = torch.randn(3, 1, 13, 17, dtype=torch.float64)
    g = torch.randn(3, 4, dtype=torch.float64)
    found = network(x)
    truth = oracle(x)
    assert relative_error(found, truth) < 1e-10
    found.backward(g)
    truth.backward(g)
    true_gradients = {name: p.grad for name, p in oracle.named_parameters()}
    for name, p in network.named_parameters():
        true = true_gradients.pop(name.removeprefix("network."))
        if true is None or not true.any():
            assert p.grad is None or not p.grad.any(), name
        else:
            assert relative_error(p.grad, true) < 1e-9, name
    assert not true_gradients
    statistics = dict(oracle.named_buffers())
    assert statistics
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, statistics[name.removeprefix("network.")], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("op_norm", [False, True])
def test_recomputation_changes_no_bit(op_norm):
    """In float32: a run may be resumed with another --recompute."""
    results = []
    for recompute in ("none", "ops", "cells"):
        network = make_supernet(Size(4, 4, 2, 8), recompute=recompute, op_norm=op_norm)
        torch.manual_seed(1)
        logits = network(torch.randn(4, 1, 16, 17))
        parameters = list(network.parameters())
        results.append([logits, *torch.autograd.grad(logits.square().sum(), parameters, allow_unused=True)])
    for stored, *recomputed in zip(*results, strict=True):
        assert all(stored is other or torch.equal(stored, other) for other in recomputed)


@pytest.mark.parametrize("with_none", [True, False])
@pytest.mark.parametrize("nodes", [(1, 4), (2, 3), (4, 1)])
@pytest.mark.parametrize("rnn_layers", [0, 2])
def test_number_of_alphas(nodes, rnn_layers, with_none):
    """Cells of one kind share their alphas, so that the number of cells does not count."""
    end = None if with_none else -1
    network = make_supernet(Size(3, 2, rnn_layers, 4), nodes, SMALL_CNN[:end], SMALL_RNN[:end])
    cnn = sum(i + 2 for i in range(nodes[0])) * (3 + with_none)
    rnn = sum(i + 2 for i in range(nodes[1])) * (2 + with_none) if rnn_layers else 0
    assert sum(alpha.numel() for alpha in network.architecture_parameters()) == 2 * cnn + rnn


def test_initial_alphas_are_small_and_differ():
    network = make_supernet(nodes=(4, 4))
    alphas = torch.cat([alpha.flatten() for alpha in network.architecture_parameters()])
    assert 0.8e-3 < alphas.std() < 1.2e-3
    assert abs(alphas.mean()) < 2e-4
    assert len(alphas.unique()) == len(alphas)


def test_every_parameter_is_a_weight_or_an_alpha():
    network = make_supernet()
    weights, alphas = network.weights(), network.architecture_parameters()
    parameters = dict(network.named_parameters())
    assert all(parameters[name] is p for name, p in weights.items())
    ids = [id(p) for p in [*weights.values(), *alphas]]
    assert len(ids) == len(set(ids)) == len(parameters)
    assert set(ids) == {id(p) for p in parameters.values()}
    assert {id(alpha) for alpha in alphas} == {id(p) for p in network.alphas.parameters()}


def test_every_weight_and_alpha_gets_a_gradient():
    network = make_supernet(Size(4, 4, 2, 8), (1, 1)).train()
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha)
    (network(torch.randn(4, 1, 13, 29)) * torch.randn(4, 4)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def discretise_by_hand(alphas, ops):
    """For each node, the two edges whose strongest op but `none` has the largest share of the softmax."""
    nodes = []
    for alpha in alphas:
        candidates = []
        for edge, row in enumerate(alpha.tolist()):
            total = sum(math.exp(a) for a in row)
            shares = {op: math.exp(a) / total for op, a in zip(ops, row, strict=True) if op != "none"}
            op = max(shares, key=shares.get)
            candidates.append((shares[op], edge, op))
        candidates.sort(reverse=True)
        nodes.append(tuple((op, edge) for _, edge, op in candidates[:2]))
    return tuple(nodes)


@pytest.mark.parametrize("rnn_layers", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_genotype_has_the_edges_with_the_largest_softmaxed_alphas(seed, rnn_layers):
    """The softmax is over all ops: a strong `none` weakens its edge."""
    size = Size(1, 2, rnn_layers, 4)
    network = make_supernet(size, (4, 3), seed=seed)
    for alpha in network.architecture_parameters():
        nn.init.normal_(alpha, std=2)
    genotype = network.genotype()
    assert genotype.normal == discretise_by_hand(network.alphas["normal"], CNN_OPS)
    assert genotype.reduce == discretise_by_hand(network.alphas["reduce"], CNN_OPS)
    assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5)
    rnn = discretise_by_hand(network.alphas["rnn"], SEQUENCE_OPS) if rnn_layers else ()
    assert genotype.rnn == rnn
    assert genotype.rnn_concat == ((2, 3, 4) if rnn_layers else ())
    assert make_derived(size, genotype)(torch.randn(2, 1, 13, 29)).shape == (2, 4)


# ---------------------------------------------------------------- the derived network


@st.composite
def cells(draw, ops):
    """(nodes, concat) of any cell."""
    count = draw(st.integers(1, 4))
    nodes = []
    for i in range(count):
        sources = draw(st.lists(st.integers(0, i + 1), min_size=2, max_size=2, unique=True))
        nodes.append([(draw(st.sampled_from(ops[:-1])), source) for source in sources])
    return nodes, draw(st.lists(st.integers(2, count + 1), min_size=1, unique=True))


@settings(max_examples=30, derandomize=True)
@given(cells(CNN_OPS), cells(CNN_OPS), cells(RNN_OPS), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_any_genotype_builds_and_trains(normal, reduce, rnn, layers, rnn_layers, auxiliary):
    genotype = Genotype(*normal, *reduce, *rnn)
    network = make_derived(Size(layers, 2, rnn_layers, 3), genotype, dropout=0.1, auxiliary=auxiliary)
    set_drop_path(network, 0.2)
    x = torch.randn(2, 1, 9, 11)
    outputs = network.train()(x)
    if not auxiliary:
        outputs = (outputs,)
    assert [logits.shape for logits in outputs] == [(2, 4)] * (1 + auxiliary)
    assert all(logits.isfinite().all() for logits in outputs)
    sum(logits.sum() for logits in outputs).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert network.eval()(x).isfinite().all()


@pytest.mark.parametrize("genotype", BUILT_IN.values(), ids=BUILT_IN)
def test_built_in_genotype_runs(genotype):
    network = make_derived(Size(3, 2, 1 if genotype.rnn else 0, 4), genotype)
    assert network(torch.randn(2, 1, 13, 29)).isfinite().all()


@pytest.mark.parametrize("nodes", [1, 3])
def test_derived_node_is_the_sum_of_its_two_edges(nodes):
    edges = [("sep_conv_3x3", nodes), ("skip_connect", 0)]
    node = DerivedNode(CELL_TYPES["normal"], edges, 4, False).eval()
    states = [torch.randn(2, 4, 5, 6) for _ in range(nodes + 1)]
    torch.testing.assert_close(node(states), node.ops[0](states[nodes]) + states[0])


def test_only_edges_from_the_inputs_of_a_reduction_cell_have_stride_2():
    network = make_derived(genotype=make_genotype(("avg_pool_3x3",), ("rnn_1",), nodes=3))
    strides = []
    for node in network.network.cnn_cells[1].nodes:
        pools = [module for module in node.modules() if isinstance(module, nn.AvgPool2d)]
        strides += [(source, pool.stride) for source, pool in zip(node.sources, pools, strict=True)]
    assert strides == [(1, 2), (0, 2), (2, 1), (1, 2), (3, 1), (2, 1)]


# ---------------------------------------------------------------- the auxiliary head


@pytest.mark.parametrize(("height", "width"), [(13, 29), (40, 64), (128, 128), (5, 3), (1, 1)])
@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_auxiliary_head_gives_logits_in_training_for_any_size(layers, height, width):
    genotype = make_genotype(("sep_conv_3x3", "skip_connect"), ("rnn_1",))
    network = make_derived(Size(layers, 2, 1, 4), genotype, auxiliary=True)
    x = torch.randn(2, 1, height, width)
    logits, auxiliary_logits = network.train()(x)
    assert logits.shape == auxiliary_logits.shape == (2, 4)
    assert isinstance(network.eval()(x), Tensor)


@pytest.mark.parametrize(("height", "width"), itertools.product((1, 2, 3, 4, 7, 32), repeat=2))
def test_pool_to_quarters_equals_adaptive_pooling(height: int, width: int):
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    found = PoolToQuarters()(x)
    truth = nn.AdaptiveAvgPool2d(2)(x)
    torch.testing.assert_close(found, truth)
    g = torch.randn_like(truth)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, g) for out in (found, truth)))


def test_a_convolution_of_whole_maps_equals_the_library():
    conv = WholeConv(3, 5, 2, bias=False).double()
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    found, truth = conv(x), nn.functional.conv2d(x, conv.weight)
    torch.testing.assert_close(found, truth)
    g = torch.randn_like(truth)
    torch.testing.assert_close(*(torch.autograd.grad(out, [x, conv.weight], g) for out in (found, truth)))


def test_auxiliary_head_is_at_two_thirds_of_the_cnn():
    network = make_derived(Size(6, 2, 1, 4), auxiliary=True).train()
    network(torch.randn(4, 1, 13, 29))[1].sum().backward()
    trained = [any(p.grad is not None for p in cell.parameters()) for cell in network.network.cnn_cells]
    assert trained == [True] * 5 + [False]  # cells 0 to 4 = 2 * 6 / 3
    assert all(p.grad is None for p in network.network.rnn_cells.parameters())


def test_auxiliary_head_does_not_change_the_logits():
    with_head = make_derived(auxiliary=True).eval()
    without = make_derived(seed=1).eval()
    state = {name: t for name, t in with_head.state_dict().items() if ".auxiliary." not in name}
    without.load_state_dict(state)
    x = torch.randn(2, 1, 13, 29)
    assert torch.equal(with_head(x), without(x))
    assert not any("auxiliary" in name for name in without.state_dict())


# ---------------------------------------------------------------- drop path


def drop_probabilities(network: nn.Module) -> set[float]:
    return {module.probability for module in network.modules() if isinstance(module, DropPath)}


@pytest.mark.parametrize("shape", [(4000, 3, 2, 2), (4000, 5, 3)])
def test_drop_path_drops_whole_utterances_at_its_rate_and_scales_the_rest(shape):
    torch.manual_seed(0)
    drop_path = DropPath()
    set_drop_path(drop_path, 0.3)
    x = torch.rand(shape) + 1
    ratios = (drop_path(x) / x).flatten(1)
    torch.testing.assert_close(ratios.amin(dim=1), ratios.amax(dim=1))
    kept = ratios[:, 0] > 0
    torch.testing.assert_close(ratios[kept], torch.full_like(ratios[kept], 1 / 0.7))
    assert abs(kept.float().mean() - 0.7) < 0.03  # four standard errors
    assert abs(ratios[:, 0].mean() - 1) < 0.03 / 0.7


def test_drop_path_is_the_identity_at_zero_and_in_evaluation():
    drop_path = DropPath()
    x = torch.randn(50, 3, 2, 2)
    assert torch.equal(drop_path(x), x)
    set_drop_path(drop_path, 0.9)
    assert torch.equal(drop_path.eval()(x), x)


def test_drop_path_of_a_network_acts_in_training_only():
    network = make_sensitive(make_derived(), 13, 29)
    x = torch.randn(8, 1, 13, 29)
    logits = network(x)
    set_drop_path(network, 0.5)
    assert drop_probabilities(network) == {0.5}
    assert drop_probabilities(make_derived()) == {0.0}, "networks must not share their drop path"
    assert torch.equal(network(x), logits)
    network.train()
    for module in network.modules():  # keeps the statistics, so that only the drop path makes a difference
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert not torch.allclose(network(x), logits, atol=1e-3)
    set_drop_path(network, 0.0)
    assert torch.equal(network(x), logits)


@pytest.mark.parametrize(
    ("kind", "op"), [*(("normal", op) for op in CNN_OPS[:-1]), *(("rnn", op) for op in RNN_OPS[:-1])]
)
def test_drop_path_spares_only_skip_connect(kind, op):
    torch.manual_seed(0)
    node = DerivedNode(CELL_TYPES[kind], [(op, 0), ("skip_connect", 1)], 4, reduction=False).train()
    set_drop_path(node, 1 - 1e-6)
    shape = (6, 4, 5, 7) if kind == "normal" else (6, 7, 4)
    states = [torch.randn(shape) for _ in range(2)]
    expected = states[0] + states[1] if op == "skip_connect" else states[1]
    assert torch.equal(node(states), expected)
