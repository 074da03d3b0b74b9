"""The result that `make demo` promises. It takes minutes: pytest -m slow."""

import json
from pathlib import Path
from statistics import mean

import pytest
from conftest import ROOT, succeed


@pytest.mark.slow
def test_the_searched_network_reaches_60_percent_on_unseen_speakers(tmp_path: Path):
    """The mean UA of three seeds; chance is 25 %."""
    config = ROOT / "configs" / "demo.yaml"
    scores = []
    for seed in (2, 3, 4):
        name = f"seed{seed}"
        for command in ("search", "augment"):
            flags = "--config", config, "--name", name, "--seed", seed
            succeed(command, *flags, cwd=tmp_path, timeout=900)
        metrics = json.loads((tmp_path / "runs" / name / "augment" / "metrics.json").read_text())
        scores.append(metrics["ua"])
    print("UA by seed:", scores)
    assert mean(scores) >= 0.60
