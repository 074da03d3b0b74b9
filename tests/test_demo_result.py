"""What `make demo` promises of its result; minutes long, so on demand: pytest -m slow."""

import json
from pathlib import Path
from statistics import mean

import pytest
from conftest import ROOT, succeed


@pytest.mark.slow
def test_the_searched_network_reaches_60_percent_on_unseen_speakers(tmp_path: Path):
    """Mean UA of three seeds, chance being 0.25."""
    config, found = ("--config", ROOT / "configs" / "demo.yaml"), []
    for seed in (2, 3, 4):
        for command in ("search", "augment"):
            succeed(command, *config, "--name", f"seed{seed}", "--seed", seed, cwd=tmp_path, timeout=900)
        found.append(
            json.loads((tmp_path / "runs" / f"seed{seed}" / "augment" / "metrics.json").read_text())["ua"]
        )
    print("UA by seed:", found)
    assert mean(found) >= 0.60
