"""The memory planner: what it foretells against what a step then takes; what it chooses; that it changes nothing."""

import json
import weakref
from dataclasses import replace
from itertools import product

import pytest
import torch
from conftest import succeed
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from config import SearchConfig
from darts.architect import Architect
from darts.planner import BATCH_SIZES, Demand, Planner, estimate
from darts.supernet import make_supernet
from models.fused.rnn import stacked_cell as stacked
from models.memory import CellMemory
from utils import UserError

CPU = torch.device("cpu")
SHAPE = 40, 48
SMALL = {"layers": 3, "init_channels": 8, "cnn_nodes": 2, "rnn_layers": 3, "rnn_nodes": 2, "rnn_channels": 48}
SPACES = {
    "all ops": {},
    "no SeqNN": {"rnn_layers": 0},
    "LSTMs, one cell": {"rnn_layers": 1, "rnn_ops": "lstm"},
    "wide": {"cnn_nodes": 1, "init_channels": 16, "rnn_ops": "rnn_att"},
    "one node": {"cnn_nodes": 1, "rnn_layers": 2, "rnn_nodes": 1},
    "one node, no SeqNN": {"cnn_nodes": 1, "rnn_layers": 0},
}


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that live, and the most there ever were: an independent truth."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.note(tensor.untyped_storage())
        return out

    def note(self, storage) -> None:
        if storage in self.known:
            return
        self.known.add(storage)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.gone, storage.nbytes())

    def gone(self, size: int) -> None:
        self.now -= size


def live_peak(config: SearchConfig) -> int:
    """The most bytes of tensors that two steps of a search hold."""

    def batch():
        return torch.randn(config.batch_size, 1, *SHAPE), torch.arange(config.batch_size) % 4

    batches = batch(), batch()
    with Live() as live:
        bilevel = Architect(config, make_supernet(config, 4))
        for _ in range(2):
            bilevel.step(*batches)
    return live.most


QUICK = {("one node", "ops", "second"), ("no SeqNN", "cells", "first")}
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in product(SPACES, ("none", "ops", "cells"), ("first", "second"))
]


@pytest.mark.parametrize(("space", "recompute", "order"), CASES)
def test_the_foretold_peak_is_within_a_tenth(space, recompute, order):
    assert_foretold(
        SearchConfig(**{**SMALL, **SPACES[space]}, batch_size=16, recompute=recompute, order=order)
    )


def assert_foretold(config: SearchConfig) -> None:
    foretold = replace(estimate(config, 4, SHAPE, CPU), program=0).peak(16, config.order, config.recompute)
    assert foretold == pytest.approx(live_peak(config), rel=0.1)


@pytest.mark.parametrize(
    "recompute", ["ops", *(pytest.param(r, marks=pytest.mark.slow) for r in ("none", "cells"))]
)
def test_with_stacked_recurrences_as_on_a_gpu_it_is_so_too(monkeypatch, recompute):
    monkeypatch.setattr(stacked, "use_stacked", lambda device: True)
    size = {
        "layers": 1,
        "init_channels": 8,
        "cnn_nodes": 1,
        "rnn_layers": 1,
        "rnn_nodes": 3,
        "rnn_channels": 64,
    }
    space = {**size, "rnn_ops": ("lstm_2", "lstm_att_1", "none")}
    assert_foretold(SearchConfig(**space, batch_size=16, recompute=recompute, order="first"))


@pytest.mark.parametrize(
    ("space", "recompute", "order"),
    [
        ("one node, no SeqNN", "none", "first"),
        pytest.param("all ops", "ops", "first", marks=pytest.mark.slow),
        pytest.param("all ops", "none", "second", marks=pytest.mark.slow),
        pytest.param("no SeqNN", "none", "first", marks=pytest.mark.slow),
        pytest.param("wide", "cells", "second", marks=pytest.mark.slow),
    ],
)
def test_in_16_bits_it_is_within_a_seventh(space, recompute, order):
    flags = {
        **SMALL,
        **SPACES[space],
        "precision": "bf16",
        "batch_size": 16,
        "recompute": recompute,
        "order": order,
    }
    config = SearchConfig(**flags)
    foretold = replace(estimate(config, 4, SHAPE, CPU), program=0).peak(16, order, recompute)
    assert foretold == pytest.approx(live_peak(config), rel=0.15)


# What it chooses


def planner_of(free: float, **flags) -> Planner:
    """One for a supernet of one cell: 1 MB of weights, 10 MB an utterance stored, 4 with ops, 1 with cells."""
    cell = CellMemory(10**6, {"none": 10e6, "ops": 4e6, "cells": 1e6}, working=0.0)
    return Planner(SearchConfig(**flags), Demand([cell]), free=free, usable=1.0, rows=100)


def test_the_peak_written_out():
    """Two cells: where backward comes to the first, the second's gradients are there and what it stored is gone."""
    first = CellMemory(1000, {"none": 500.0, "ops": 50.0, "cells": 5.0}, working=7.0)
    second = CellMemory(4000, {"none": 100.0, "ops": 10.0, "cells": 1.0}, working=3.0)
    needs = Demand([first, second], program=1e6)
    assert needs.peak(10, "first", "none") == 1e6 + 2 * 5000 + max(10 * (600 + 3), 10 * (500 + 7) + 4000)
    assert needs.peak(10, "second", "none") == needs.peak(10, "first", "none") + 5000
    assert needs.peak(10, "first", "cells") == 1e6 + 2 * 5000 + max(
        10 * (6 + 100 + 3), 10 * (5 + 500 + 7) + 4000
    )
    assert (
        needs.peak(1, "first", "ops") == 1e6 + 3 * 5000
    )  # a small batch: the gradients at the end are the most


def test_the_peak_with_passes_of_16_bits_written_out():
    """A copy of the weights a pass; in the second order, passes of float32 without gradients of the weights."""
    exact, low = (
        CellMemory(1000, {"none": 500.0}, working=8.0),
        CellMemory(1000, {"none": 250.0}, working=4.0),
    )
    needs = Demand([exact], bf16_cells=[low])
    assert needs.peak(10, "first", "none") == 2 * 1000 + 500 + 10 * 254
    assert needs.peak(10, "second", "none") == 3 * 1000 + 10 * 508


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
def test_the_largest_batch_that_fits_and_the_least_computed_again(free, flags, chosen):
    settled = planner_of(free, **flags).choose().config
    assert (settled.batch_size, settled.recompute) == chosen


def test_what_fits_in_no_way_is_refused_with_a_way_out():
    with pytest.raises(
        UserError, match=r"--batch_size 64 --recompute cells .* takes about 0.7 GB .* --batch_size 8 "
    ):
        planner_of(100e6).choose()
    with pytest.raises(UserError, match="choose fewer --rnn_nodes"):
        planner_of(1e6).choose()


def test_a_users_choice_may_fill_what_auto_would_spare():
    tight = replace(planner_of(645e6, recompute="none"), usable=0.5)
    assert tight.choose().config.recompute == "none"
    with pytest.raises(UserError, match="see --plan"):
        replace(tight, free=640e6).choose()


def test_looking_ahead_draws_no_random_number():
    before = torch.get_rng_state()
    estimate(SearchConfig(**SMALL, dropout=0.5), 4, SHAPE, CPU)
    assert torch.equal(before, torch.get_rng_state())


# On the command line


def test_a_plan_is_a_table_and_nothing_else(workspace):
    flags = ["--config", "tiny.yaml", "--name", "planned", "--plan", "--cnn_nodes", "2"]
    printed = succeed("search", *flags, cwd=workspace)
    assert "--batch_size 64" in printed
    assert "free on cpu" in printed
    assert not (workspace / "runs" / "planned").exists()


def test_auto_is_settled_once_and_for_all(workspace):
    """The run notes the batch size that was chosen, and keeps it when it is gone on with."""
    flags = ["--config", "tiny.yaml", "--epochs", "1", "--resume"]

    def noted(name: str, batch_size: object) -> dict:
        assert "GB at the peak" in succeed(
            "search", *flags, "--name", name, "--batch_size", batch_size, cwd=workspace
        )
        return json.loads((workspace / "runs" / name / "search" / "config.json").read_text())

    chosen = noted("auto", "auto")
    assert chosen["batch_size"] in set(BATCH_SIZES) - {16}
    assert chosen["recompute"] == "none"
    assert noted("auto16", 16)["batch_size"] == noted("auto16", "auto")["batch_size"] == 16
