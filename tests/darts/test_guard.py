"""The guard of a search: its rules, and what it must not change."""

import copy
import itertools
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cli import from_file
from config import GUARD_EPOCHS, SearchConfig
from darts import guard
from darts.gradient_search import GradientSearch
from darts.guard import Guard, OpWeights, first_rise
from genotypes import CNN_OPS, RNN_OPS, Genotype
from models.augment_network import AugmentNetwork
from models.joint_network import Size
from models.search_space import KINDS, SearchSpace
from training.experiment import start_experiment
from training.run_folder import RunFolder, log

# ---------------------------------------------------------------- rules


class LocalAverages:
    """The rule of the authors' code (class EVLocalAvg), with a reading every epoch; epochs from 0, as there."""

    def __init__(self, values: list[float]):
        self.values = values

    def average(self, center: int) -> float:
        return float(np.mean(self.values[center - 2 : center + 3]))

    def stop(self) -> tuple[int, int] | None:
        """The epoch of the stop, and the one whose genotype is taken."""
        for epoch in range(len(self.values)):
            center = epoch - 2
            if center - 4 >= 10 and self.average(center) / self.average(center - 4) > 1.3:
                return epoch, center - 4
        return None


def test_rise_is_that_of_the_authors_code():
    rng = np.random.default_rng(0)
    fired = 0
    for _ in range(200):
        values = np.exp(np.cumsum(rng.normal(0.01, 0.1, size=30))).tolist()
        truth = LocalAverages(values).stop()
        epoch = first_rise(values)
        assert (epoch and (epoch - 1, guard.before_rise(epoch) - 1)) == truth
        fired += truth is not None
    assert 20 < fired < 180


def test_rise_of_the_first_epochs_does_not_count():
    values = [0.01 * 2.0 ** min(k, 11) for k in range(30)]  # it rises for 12 epochs, then no more
    assert first_rise(values[: GUARD_EPOCHS - 1]) is None
    assert first_rise([0.01, *[1.0] * 40]) is None
    assert first_rise(values) == GUARD_EPOCHS


SMALL_SPACE = SearchSpace(
    2, 1, ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "none"), ("skip_connect", "rnn_1")
)


@pytest.mark.parametrize("kind", ["normal", "rnn"])
def test_chance_of_a_majority_of_skips_by_enumeration(kind):
    nodes, ops = SMALL_SPACE.of(kind)
    cells = list(itertools.product([op for op in ops if op != "none"], repeat=2 * nodes))
    majorities = sum(cell.count("skip_connect") > nodes for cell in cells)
    assert guard.majority_chance(SMALL_SPACE, kind) == pytest.approx(majorities / len(cells))


@pytest.mark.parametrize("rnn_layers", [0, 2])
def test_op_weights_differ_as_the_weights_of_derived_networks_do(rnn_layers):
    space = SearchSpace(2, 2 if rnn_layers else 0, CNN_OPS, RNN_OPS)
    size = Size(4, 4, rnn_layers, 6, deltas=1)
    weights = OpWeights(space, size)
    others = set()
    for i in range(8):
        genotype = space.draw(i)
        with torch.device("meta"):
            network = AugmentNetwork(genotype, size, classes=3)
        others.add(sum(p.numel() for p in network.parameters()) - weights.of(genotype))
    assert len(others) == 1


def test_percentile_counts_equal_sizes_half():
    assert guard.percentile_of(5, [1, 5, 5, 9]) == 50
    assert guard.percentile_of(0, [1, 5, 5, 9]) == 0


def test_tau_is_that_of_the_pairs_of_ops():
    rng = np.random.default_rng(3)
    a, b = (torch.from_numpy(rng.normal(size=(4, 6))) for _ in range(2))
    pairs = list(itertools.combinations(range(6), 2))
    signs = [torch.sign((a[:, i] - a[:, j]) * (b[:, i] - b[:, j])) for i, j in pairs]
    assert guard.mean_tau(list(a), list(b)) == pytest.approx(float(torch.stack(signs).mean()))
    assert guard.mean_tau([torch.zeros(3)], [torch.ones(3)]) == 0


def test_halves_are_disjoint_batches_of_the_rows():
    rows = np.arange(100, 160)
    first, second = guard.disjoint_batches(rows, 10, 2, seed=1)
    assert [len(batch) for batch in (*first, *second)] == [10] * 4
    assert len(np.unique(np.concatenate([*first, *second]))) == 40
    assert set(np.concatenate([*first, *second])) <= set(rows)
    first, second = guard.disjoint_batches(rows[:13], 10, 1, seed=1)
    assert (len(first[0]), len(second[0])) == (6, 6)


# ---------------------------------------------------------------- in a search


def make_search(**flags) -> GradientSearch:
    config = from_file(SearchConfig, Path("tiny.yaml"), **flags)
    return GradientSearch(config, start_experiment(config), RunFolder("search", config, writes=False))


@pytest.fixture
def search(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> GradientSearch:
    monkeypatch.chdir(workspace)
    return make_search(dropout=0.5)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.INFO, log.name)
    return lambda: [text for text in caplog.messages if text.startswith("guard")]


def read(task: GradientSearch, epoch: int) -> dict[str, float]:
    return task.guard.read(epoch, task.network.genotype())


def test_reading_changes_nothing_but_the_guard(search: GradientSearch):
    search.step(0)
    before = copy.deepcopy(
        {name: part.state_dict() for name, part in search.parts.items() if name != "guard"}
    )
    generator = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    read(search, 1)
    after = {name: search.parts[name].state_dict() for name in before}
    assert str(after) == str(before)
    assert all(torch.equal(after["network"][key], value) for key, value in before["network"].items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(p.grad is None for p in search.network.parameters())
    assert search.network.dropout.training


def test_readings_repeat_and_continue_from_the_state(search: GradientSearch):
    state = copy.deepcopy(search.guard.state_dict())
    first, second = read(search, 1), read(search, 2)
    assert first["guard/eigenvalue"] != second["guard/eigenvalue"]  # another start
    search.guard.load_state_dict(state)
    assert read(search, 1) == first
    other = make_search(dropout=0.5)
    other.network.load_state_dict(search.network.state_dict())
    other.guard.load_state_dict(copy.deepcopy(search.guard.state_dict()))
    assert read(other, 2) == second


def test_passes_are_float32_with_bf16(search: GradientSearch, workspace: Path):
    reading = read(search, 1)
    lower = make_search(dropout=0.5, precision="bf16")
    assert torch.equal(lower.guard.loss.alphas(), search.guard.loss.alphas())
    assert read(lower, 1) == reading


def set_ops(task: GradientSearch, kind: str, op: str) -> None:
    """Make an op the strongest of every edge of a kind of cell."""
    _, ops = task.network.space.of(kind)
    with torch.no_grad():
        for alpha in task.network.alphas[kind]:
            alpha.zero_()[:, ops.index(op)] = 2.0


def test_skip_connections_are_warned_of_once_and_at_the_end(workspace, monkeypatch, messages):
    monkeypatch.chdir(workspace)
    task = make_search(cnn_nodes=2, cnn_ops=CNN_OPS)
    for kind in ("normal", "reduce"):
        set_ops(task, kind, "sep_conv_3x3")
    read(task, 1)
    assert messages() == []
    set_ops(task, "normal", "skip_connect")
    record = read(task, 2)
    assert record["guard/skips_normal"] == 4
    read(task, 3)
    assert messages() == []
    read(task, 4)
    begun = messages()
    assert [text.split(" (")[0] for text in begun] == [
        "guard     epoch 4: Normal cell: all edges are skip connections"
    ]
    assert "nothing is done: try " in begun[0]
    read(task, 5)
    assert messages() == begun
    final = task.network.genotype()
    assert task.guard.choose(final) == final
    assert messages()[1:] == [begun[0].replace("epoch 4", "since epoch 2")]
    set_ops(task, "normal", "sep_conv_3x3")
    read(task, 6)
    set_ops(task, "normal", "skip_connect")
    read(task, 7)
    assert len(messages()) == 2
    task.guard.choose(final)  # a sign of the result is said, however new it is
    assert messages()[2:] == [begun[0].replace("epoch 4", "since epoch 7")]
    set_ops(task, "normal", "sep_conv_3x3")
    read(task, 8)
    task.guard.choose(final)
    assert messages()[3:] == ["guard     no sign of a collapse"]


def test_smallest_network_is_warned_of(search: GradientSearch, messages):
    for kind, op in (("normal", "skip_connect"), ("reduce", "max_pool_3x3"), ("rnn", "lstm_1")):
        set_ops(search, kind, op)
    smallest = min(search.guard.random_sizes)
    assert search.guard.size.of(search.network.genotype()) <= smallest
    search.guard.random_sizes = [smallest + 1] * 200  # in this space of 8 ops, many are as small
    assert all(read(search, epoch)["guard/size_percentile"] == 0 for epoch in (1, 2, 3))
    assert any("fewer weights than 100.0% of random genotypes" in text for text in messages())


@pytest.mark.parametrize("action", ["warn", "keep"])
def test_rise_keeps_the_genotype_before_it_if_asked(workspace, monkeypatch, messages, action):
    monkeypatch.chdir(workspace)
    task = make_search(epochs=20, guard=action)
    readings = iter([1.0] * 14 + [1.0, 1.0, 9.0, 9.0, 9.0, 9.0])
    monkeypatch.setattr(Guard, "read_gradients", lambda self: {"guard/eigenvalue": next(readings)})
    genotypes = [task.network.space.draw(i) for i in range(20)]
    for epoch, genotype in enumerate(genotypes, start=1):
        task.guard.read(epoch, genotype)
    rises = [text for text in messages() if "eigenvalue" in text]
    assert len(rises) == 1
    assert rises[0].startswith(
        "guard     epoch 17: the largest eigenvalue of the alphas' Hessian rose from 1 to 2.6"
    )
    assert ("the genotype of epoch 11 is kept" in rises[0]) == (action == "keep")
    assert task.guard.choose(genotypes[-1]) == genotypes[10 if action == "keep" else -1]
    assert isinstance(genotypes[10], Genotype)


def test_flags_that_are_advised_exist():
    text = Path(guard.__file__).read_text()
    advised = set(re.findall(r"--(\w+)", text))
    assert advised == {"guard", "w_weight_decay", "epochs", "op_norm", "alpha_start"}
    assert advised <= set(SearchConfig.model_fields)


def test_every_kind_has_its_readings(search: GradientSearch):
    record = read(search, 1)
    names = ("skips", "tau", "entropy")
    expected = {f"guard/{name}_{kind}" for name in names for kind in KINDS}
    assert record.keys() == expected | {"guard/eigenvalue", "guard/size_percentile"}
    assert all(type(value) is float for value in record.values())  # TensorBoard shows floats alone
    alphas = search.network.op_weights()["rnn"]
    p = torch.cat(alphas).detach().double()
    assert record["guard/entropy_rnn"] == pytest.approx(float(-(p * p.log()).sum(1).mean() / np.log(3)))


def test_off_measures_nothing(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    task = make_search(guard="off")
    assert "guard" not in task.parts
    task.step(0)
    assert not [key for key in task.after_epoch(1) if key.startswith("guard")]


def test_search_of_a_single_op_is_read(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    task = make_search(cnn_ops=["sep_conv_3x3"], rnn_ops=["lstm_1"])
    record = read(task, 1)
    assert (record["guard/eigenvalue"], record["guard/entropy_rnn"], record["guard/tau_rnn"]) == (0, 0, 0)
    assert record["guard/size_percentile"] == 50
