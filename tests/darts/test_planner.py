"""The memory planner: its estimates against what a step takes, what it chooses, and that it changes nothing."""

import json
import weakref
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from conftest import succeed
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from config import SearchConfig
from darts.architect import Architect
from darts.planner import BATCH_SIZES, MEASURED, Demand, Planner, estimate, measure_largest
from darts.supernet import make_one_shot, make_supernet
from models.memory import CellMemory, measure_genotype
from training.steps import weight_step
from utils import UserError

CPU = torch.device("cpu")
SHAPE = 40, 48
BATCH_SIZE = 16
SMALL = {"layers": 3, "init_channels": 8, "cnn_nodes": 2, "rnn_layers": 3, "rnn_nodes": 2, "rnn_channels": 48}
SPACES = {
    "all ops": {},
    "no SeqNN": {"rnn_layers": 0},
    "LSTMs, one cell": {"rnn_layers": 1, "rnn_ops": "lstm"},
    "wide": {"cnn_nodes": 1, "init_channels": 16, "rnn_ops": "rnn_att"},
    "one node": {"cnn_nodes": 1, "rnn_layers": 2, "rnn_nodes": 1},
    "normalised ops": {"cnn_nodes": 1, "rnn_layers": 1, "op_norm": True},
    "one node, no SeqNN, deltas": {"cnn_nodes": 1, "rnn_layers": 0, "deltas": 2},
}


def slow(*values: object) -> object:
    """Parameters of a test that runs only with `-m slow`."""
    return pytest.param(*values, marks=pytest.mark.slow)


# ---------------------------------------------------------------- the estimate


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and their peak."""

    def __init__(self):
        super().__init__()
        self.now = 0
        self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf.untyped_storage())
        return out

    def add(self, storage) -> None:
        if storage in self.known:
            return
        self.known.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.remove, storage.nbytes())

    def remove(self, size: int) -> None:
        self.now -= size


def measured_peak(config: SearchConfig) -> int:
    """The largest number of bytes that the tensors of two steps of a search hold."""
    y = torch.arange(BATCH_SIZE) % 4
    train = torch.randn(BATCH_SIZE, 1, *SHAPE), y
    val = torch.randn(BATCH_SIZE, 1, *SHAPE), y
    with LiveMemory() as memory:
        architect = Architect(config, make_supernet(config, 4))
        for _ in range(2):
            architect.step(train, val)
    return memory.peak


def assert_estimated(tolerance: float, **flags) -> None:
    """The estimate must be within a relative tolerance of the measured peak."""
    config = SearchConfig(**flags, batch_size=BATCH_SIZE)
    demand = replace(estimate(config, 4, SHAPE, CPU), program=0)
    estimated = demand.peak(BATCH_SIZE, config.order, config.recompute)
    assert estimated == pytest.approx(measured_peak(config), rel=tolerance)


QUICK = {("one node", "ops", "second"), ("no SeqNN", "cells", "first"), ("normalised ops", "ops", "first")}
CASES = [
    case if case in QUICK else slow(*case)
    for case in product(SPACES, ("none", "ops", "cells"), ("first", "second"))
]


@pytest.mark.parametrize(("space", "recompute", "order"), CASES)
def test_estimate_is_within_ten_percent(space, recompute, order):
    assert_estimated(0.1, **{**SMALL, **SPACES[space]}, recompute=recompute, order=order)


@pytest.mark.parametrize("op_norm", [False, True])
@pytest.mark.parametrize("recompute", ["ops", slow("none"), slow("cells")])
def test_estimate_is_within_ten_percent_with_stacked_recurrences(monkeypatch, recompute, op_norm):
    """As a GPU computes them."""
    monkeypatch.setattr("models.fused.rnn.stacked_cell.use_stacked", lambda device: True)
    cnn = {"layers": 1, "init_channels": 8, "cnn_nodes": 1}
    rnn = {"rnn_layers": 1, "rnn_nodes": 3, "rnn_channels": 64, "rnn_ops": ("lstm_2", "lstm_att_1", "none")}
    assert_estimated(0.1, **cnn, **rnn, recompute=recompute, order="first", op_norm=op_norm)


@pytest.mark.parametrize(
    ("space", "recompute", "order"),
    [
        ("one node, no SeqNN, deltas", "none", "first"),
        slow("all ops", "ops", "first"),
        slow("all ops", "none", "second"),
        slow("no SeqNN", "none", "first"),
        slow("wide", "cells", "second"),
    ],
)
def test_estimate_is_within_fifteen_percent_in_bf16(space, recompute, order):
    flags = {**SMALL, **SPACES[space], "precision": "bf16"}
    assert_estimated(0.15, **flags, recompute=recompute, order=order)


@pytest.mark.parametrize("space", ["one node", slow("all ops"), slow("no SeqNN"), "wide"])
def test_estimate_of_the_evolution_is_within_fifteen_percent_of_the_largest_genotype(space):
    """Of the genotypes that the planner measures, for the steps that train only these."""
    config = SearchConfig(**{**SMALL, **SPACES[space]}, batch_size=BATCH_SIZE, strategy="evolution")
    demand = replace(estimate(config, 4, SHAPE, CPU), program=0)
    x, y = torch.randn(BATCH_SIZE, 1, *SHAPE), torch.arange(BATCH_SIZE) % 4
    with LiveMemory() as memory:
        network = make_one_shot(config, 4)
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        for p in network.parameters():  # as after many genotypes
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        for i in range(MEASURED):
            network.genotype = network.space.draw(i)
            weight_step(network, optimizer, (x, y), F.cross_entropy, 5.0, None, network.weights_in_use())
    assert demand.peak(BATCH_SIZE, "first", "none") == pytest.approx(memory.peak, rel=0.15)


def test_peak_of_two_cells_by_hand():
    """When the backward pass reaches the first cell, it holds the gradients of the second, but not its activations."""
    first = CellMemory(1000, {"none": 500.0, "ops": 50.0, "cells": 5.0}, working=7.0)
    second = CellMemory(4000, {"none": 100.0, "ops": 10.0, "cells": 1.0}, working=3.0)
    demand = Demand([first, second], program=1e6)
    base = 1e6 + 2 * 5000
    peak = base + max(10 * (600 + 3), 10 * (500 + 7) + 4000)
    assert demand.peak(10, "first", "none") == peak
    assert demand.peak(10, "second", "none") == peak + 5000
    with_cells = base + max(10 * (6 + 100 + 3), 10 * (5 + 500 + 7) + 4000)
    assert demand.peak(10, "first", "cells") == with_cells
    assert demand.peak(1, "first", "ops") == base + 5000  # small batch: the gradients at the end are the peak


def test_weights_that_a_pass_does_not_use_have_no_gradient():
    """Small batch: the peak is at the end of the backward pass, with the gradients of all weights in use."""
    cells = [
        CellMemory(1000, {"none": 5.0}, working=1.0, unused=700),
        CellMemory(4000, {"none": 5.0}, working=1.0),
    ]
    assert Demand(cells).peak(1, "first", "none") == 2 * 5000 + 300 + 4000


def test_the_evolution_is_planned_by_the_genotype_that_stores_the_most():
    config = SearchConfig(**{**SMALL, **SPACES["one node"]}, strategy="evolution")
    network = make_one_shot(config, 4)
    drawn = [measure_genotype(network, network.space.draw(i), SHAPE) for i in range(MEASURED)]
    stored = [sum(cell.stored["none"] for cell in cells) for cells in drawn]
    assert sum(cell.stored["none"] for cell in measure_largest(network, SHAPE)) == max(stored) > min(stored)


def test_peak_in_bf16_by_hand():
    """A 16-bit copy of the weights; in the second order, float32 passes without weight gradients."""
    float32 = CellMemory(1000, {"none": 500.0}, working=8.0)
    bf16 = CellMemory(1000, {"none": 250.0}, working=4.0)
    demand = Demand([float32], bf16_cells=[bf16])
    assert demand.peak(10, "first", "none") == 2 * 1000 + 500 + 10 * 254
    assert demand.peak(10, "second", "none") == 3 * 1000 + 10 * 508


# ---------------------------------------------------------------- the choice


def make_planner(free: float, usable: float = 1.0, edge: float = 0.0, **flags) -> Planner:
    """For one cell with 1 MB of weights, which stores 10 MB per utterance, 4 with "ops", 1 with "cells".

    In the second order, its peak for n utterances is, in MB: 3 + 10 n with "none" and 3 + 4 n with "ops"; with "cells"
    it is 3 + (1 + 10) n, because everything inside the cell is recomputed. If it has an `edge` of e MB, which is
    recomputed by itself, the peaks are 3 + (4 + 1.3 e) n with "ops", and 3 + (1 + 1.9 e + 4) n with "cells".
    """
    cell = CellMemory(10**6, {"none": 10e6, "ops": 4e6, "cells": 1e6}, working=0.0, edge=edge * 1e6)
    return Planner(SearchConfig(**flags), Demand([cell]), free=free, usable=usable, rows=100)


@pytest.mark.parametrize(
    ("free", "flags", "chosen"),
    [
        (1e9, {}, (64, "none")),
        (600e6, {}, (64, "ops")),
        (200e6, {"recompute": "ops", "batch_size": 32}, (32, "ops")),
        (1e9, {"batch_size": "auto", "recompute": "none"}, (64, "none")),
        (500e6, {"batch_size": "auto", "recompute": "none"}, (32, "none")),
        (500e6, {"batch_size": "auto"}, (64, "ops")),
        (100e6, {"batch_size": "auto"}, (16, "ops")),
    ],
)
def test_chooses_the_largest_batch_that_fits_and_the_least_recomputation(free, flags, chosen):
    config = make_planner(free, **flags).choose().config
    assert (config.batch_size, config.recompute) == chosen


REFUSED = [
    # 3 + 4 * 64 = 259 MB; of the smaller batches, 3 + 4 * 16 = 67 MB fit into 100
    ({}, "ops --order second takes about 0.3 GB of memory, and 0.1 GB are free", "16 --recompute ops"),
    # 3 + (4 + 1.3 * 3) * 64 = 509 MB; 3 + (4 + 1.3 * 3) * 8 = 66 MB fit
    ({"edge": 3}, "ops --order second takes about 0.5 GB", "8 --recompute ops"),
    # the user's choice, 3 + (1 + 10) * 64 = 707 MB; with "ops" the same as above
    ({"recompute": "cells"}, "cells --order second takes about 0.7 GB", "16 --recompute ops"),
]


@pytest.mark.parametrize(("flags", "problem", "advice"), REFUSED, ids=["auto", "edges", "cells"])
def test_error_names_the_smallest_peak_and_flags_that_fit(flags, problem, advice):
    with pytest.raises(UserError) as error:
        make_planner(100e6, **flags).choose()
    message = str(error.value)
    assert message.startswith(f"--batch_size 64 --recompute {problem}")
    assert message.endswith(f": pass --batch_size {advice} --order second, or see --plan")


def test_error_advises_a_smaller_space_if_no_flags_fit():
    with pytest.raises(UserError, match="choose fewer --rnn_nodes"):
        make_planner(1e6).choose()


def test_flags_of_the_user_may_fill_all_free_memory():
    """`auto` leaves a reserve: 3 + 10 * 64 = 643 MB are more than half of 645."""
    planner = make_planner(645e6, usable=0.5, recompute="none")
    assert planner.choose().config.recompute == "none"
    with pytest.raises(UserError, match="see --plan"):
        replace(planner, free=640e6).choose()


def test_estimate_leaves_the_random_generator_unchanged():
    before = torch.get_rng_state()
    estimate(SearchConfig(**SMALL, dropout=0.5), 4, SHAPE, CPU)
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------- the command


def test_plan_prints_a_table_and_starts_no_run(workspace):
    flags = ["--config", "tiny.yaml", "--name", "planned", "--plan", "--cnn_nodes", 2]
    printed = succeed("search", *flags, cwd=workspace)
    assert "--batch_size 64" in printed
    assert "free on cpu" in printed
    assert not (workspace / "runs" / "planned").exists()


def test_resumed_run_keeps_the_batch_size_that_auto_chose(workspace):
    def run(name: str, batch_size: object) -> dict:
        """The flags that config.json holds after a run, started or resumed."""
        flags = [
            "--config",
            "tiny.yaml",
            "--epochs",
            1,
            "--resume",
            "--name",
            name,
            "--batch_size",
            batch_size,
        ]
        assert "GB at the peak" in succeed("search", *flags, cwd=workspace)
        return json.loads((workspace / "runs" / name / "search" / "config.json").read_text())

    chosen = run("auto", "auto")
    assert chosen["batch_size"] in set(BATCH_SIZES) - {16}
    assert chosen["recompute"] == "none"
    assert run("auto16", 16)["batch_size"] == 16
    assert run("auto16", "auto")["batch_size"] == 16
