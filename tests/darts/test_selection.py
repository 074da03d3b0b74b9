"""--selection perturbation: with a loss whose answer is known, and with that of a supernet."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from config import SearchConfig
from darts.architect import Architect
from darts.hessian import AlphaLoss
from darts.selection import Selection, select
from darts.supernet import make_supernet

SIZE = {"layers": 3, "init_channels": 2, "cnn_nodes": 3, "rnn_layers": 1, "rnn_nodes": 2, "rnn_channels": 4}
OPS = {
    "cnn_ops": ("max_pool_3x3", "skip_connect", "sep_conv_3x3", "none"),
    "rnn_ops": ("lstm_1", "rnn_1", "none"),
}
CLASSES = 3


def make_architect(seed: int = 0, **flags) -> Architect:
    torch.manual_seed(seed)
    config = SearchConfig(**{**SIZE, **OPS, **flags}, seed=seed)
    architect = Architect(config, make_supernet(config, CLASSES).double(), F.cross_entropy)
    with torch.no_grad():
        for alpha in architect.network.architecture_parameters():
            alpha.normal_()
    return architect


def make_batches(sizes=(6, 5)) -> list:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 1, 10, 12, dtype=torch.float64, generator=generator), torch.arange(n) % CLASSES)
        for n in sizes
    ]


class AdditiveLoss:
    """Minus the sum of the ops' weights, each times its importance: without an op, the loss rises by that product."""

    def __init__(self, architect: Architect):
        self.architect = architect
        self.network = architect.network
        rng = np.random.default_rng(5)
        self.importance = {
            kind: [torch.from_numpy(rng.uniform(size=tuple(w.shape))) for w in nodes]
            for kind, nodes in self.network.op_weights().items()
        }

    def value(self, batches: object) -> float:
        given = self.network.given
        parts = [
            (w * v).sum() for kind in given for w, v in zip(given[kind], self.importance[kind], strict=True)
        ]
        return -float(sum(parts))


@pytest.mark.parametrize("seed", range(3))
def test_each_edge_keeps_the_op_and_each_node_the_edges_whose_removal_hurts_most(seed):
    loss = AdditiveLoss(make_architect(seed))
    network = loss.network
    genotype = Selection(loss, []).genotype()
    for kind, nodes in network.op_weights().items():
        ops = network.space.of(kind)[1]
        for i, w in enumerate(nodes):
            value = loss.importance[kind][i]
            best = (w * value)[:, :-1].argmax(dim=1)  # without `none`
            strength = value[torch.arange(len(w)), best]  # the weights of the ops that are left are 1
            kept = sorted(strength.argsort(descending=True)[:2].tolist())
            found = sorted(getattr(genotype, kind)[i], key=lambda edge: edge[1])
            assert found == [(ops[best[source]], source) for source in kept]


@torch.no_grad()
def test_decisions_are_those_of_passes_with_these_weights_in_the_order_of_the_seed():
    """One node a cell: every edge is kept, and each decision is made anew with plain passes of the network."""
    architect = make_architect(4, cnn_nodes=1, rnn_nodes=1, fused="off")
    network, batches = architect.network, make_batches()
    found = select(architect, batches)
    network.dropout.eval()
    weights = {kind: [w.detach().clone() for w in nodes] for kind, nodes in network.op_weights().items()}
    edges = [(kind, edge) for kind in weights for edge in range(2)]
    for i in np.random.default_rng(4).permutation(len(edges)):
        kind, edge = edges[i]
        losses = []
        for k in range(weights[kind][0].shape[1] - 1):
            without = {key: [w.clone() for w in nodes] for key, nodes in weights.items()}
            without[kind][0][edge, k] = 0
            losses.append(
                sum(
                    float(F.cross_entropy(network.network(x, without), y, reduction="sum"))
                    for x, y in batches
                )
            )
        weights[kind][0][edge] = F.one_hot(torch.tensor(np.argmax(losses)), weights[kind][0].shape[1])
    for kind in weights:
        ops = network.space.of(kind)[1]
        expected = [(ops[weights[kind][0][edge].argmax()], edge) for edge in range(2)]
        assert sorted(getattr(found, kind)[0], key=lambda edge: edge[1]) == expected


def test_selection_changes_neither_the_network_nor_the_random_generator():
    architect = make_architect(dropout=0.5, cnn_nodes=1, rnn_nodes=1)
    before = {name: value.clone() for name, value in architect.network.state_dict().items()}
    state = torch.get_rng_state()
    first, again = select(architect, make_batches()), select(architect, make_batches())
    assert first == again
    assert torch.equal(state, torch.get_rng_state())
    assert architect.network.given is None
    assert architect.network.dropout.training
    for name, value in architect.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_value_is_the_mean_loss_over_the_utterances():
    architect = make_architect()
    batches = make_batches()
    loss = AlphaLoss(architect)
    with loss.fixed(), torch.no_grad():
        found = loss.value(batches)
        losses = [F.cross_entropy(architect.network(x), y, reduction="sum") for x, y in batches]
    assert found == pytest.approx(float(sum(losses)) / 11, rel=1e-10)
