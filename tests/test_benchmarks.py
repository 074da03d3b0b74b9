"""`benchmarks/gpu.py` on a CPU and small inputs, so that it cannot rot unseen."""

import math
import sys

import pytest
from conftest import ROOT

from cli import from_file
from config import SearchConfig


@pytest.fixture
def gpu(monkeypatch):
    """The benchmark, at inputs of 16 x 24; neither it nor its neighbours stay among the modules."""
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


def test_a_line_of_the_table(gpu):
    config = from_file(SearchConfig, ROOT / "configs" / "tiny.yaml", recompute="none", rnn_layers=0)
    second, _, first, _ = gpu.variants(config, [4])
    assert (second.order, first.order, second.batch_size) == ("second", "first", 4)
    assert [variant.precision for variant in gpu.variants(config, [4])] == ["float32", "bf16"] * 2
    row = gpu.measure(first, "ours", 1)
    assert row.launches > 1000
    assert 0 < row.products < 1
    assert 0 < row.bandwidth < 1
    assert "nan" not in gpu.line(first, "ours", [row])
    assert gpu.demanded(second, gpu.choose_device("none")) == tuple(
        pytest.approx(number * factor)
        for number, factor in zip(
            gpu.demanded(first, gpu.choose_device("none")), (13 / 5, 5 / 2), strict=True
        )
    )


def test_the_time_of_a_search(gpu):
    config = from_file(SearchConfig, ROOT / "configs" / "tiny.yaml", rnn_layers=0, batch_size=4)
    seconds = gpu.search_seconds(config, 16, measured=2)
    assert len(seconds) == 2
    assert all(math.isfinite(s) and s > 0 for s in seconds)
