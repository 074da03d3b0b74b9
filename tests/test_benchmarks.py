"""`benchmarks/gpu.py` on a CPU with small inputs, so that the CPU tests notice if it breaks."""

import math
import sys

import pytest
from conftest import ROOT

from cli import from_file
from config import SearchConfig

TINY = ROOT / "configs" / "tiny.yaml"


@pytest.fixture
def gpu(monkeypatch):
    """The benchmark with inputs of 16 x 24. Its modules are removed again after the test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    before = set(sys.modules)
    import gpu
    import search_step

    monkeypatch.setattr(search_step, "COEFFICIENTS", 16)
    monkeypatch.setattr(search_step, "FRAMES", 24)
    monkeypatch.setattr(gpu, "SHAPE", (16, 24))
    yield gpu
    for name in {"gpu", "search_step", "floor", "original", "launches"} - before:
        del sys.modules[name]


def test_measures_a_step_of_each_variant(gpu):
    config = from_file(SearchConfig, TINY, recompute="none", rnn_layers=0)
    variants = list(gpu.variants(config, [4]))
    assert [variant.precision for variant in variants] == ["float32", "bf16"] * 2
    second, _, first, _ = variants
    assert (second.order, first.order, second.batch_size) == ("second", "first", 4)
    row = gpu.measure(first, "ours", 1)
    assert row.launches > 1000
    assert 0 < row.products < 1
    assert 0 < row.bandwidth < 1
    assert "nan" not in gpu.format_line(first, "ours", [row])
    device = gpu.choose_device("none")
    operations, moved = gpu.step_demand(first, device)
    expected = operations * 13 / 5, moved * 5 / 2
    assert gpu.step_demand(second, device) == tuple(pytest.approx(number) for number in expected)


def test_measures_the_epochs_of_a_search(gpu):
    config = from_file(SearchConfig, TINY, rnn_layers=0, batch_size=4)
    seconds = gpu.time_epochs(config, 16, epochs=2)
    assert len(seconds) == 2
    assert all(math.isfinite(s) and s > 0 for s in seconds)
