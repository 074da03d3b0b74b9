"""A corpus need not fit in memory: a search takes about the same memory for ten times the utterances."""

import csv
import json
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment

from config import FrontEnd
from data.arrays import RowWriter
from data.store import COLUMNS, VERSION, Row

EMOTIONS = ("angry", "happy", "neutral", "sad")
SEARCH = f"""
import json, resource, sys
sys.path.insert(0, {str(ROOT)!r})
from config import SearchConfig
from search import run
run(SearchConfig(**json.loads(sys.argv[1])))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
SMALL_SEARCH = {
    "epochs": 1, "order": "first", "gpus": "none", "layers": 2, "rnn_layers": 1, "cnn_nodes": 1,
    "rnn_nodes": 1, "init_channels": 2, "rnn_channels": 8,
    "cnn_ops": ["max_pool_3x3", "skip_connect"], "rnn_ops": ["lstm_1", "skip_connect"],
}  # fmt: skip


def make_row(i: int) -> Row:
    speaker, session, emotion = f"S{i % 10}", str(i % 10 // 2), EMOTIONS[i // 10 % 4]
    return Row(f"{i:05d}", f"{i}.wav", speaker, session, emotion, "", 3.0, "", "", 0.0, "")


def make_store(folder: Path, size: int) -> None:
    """A feature store of noise by ten speakers, at the paper's 128 x 128."""
    folder.mkdir(parents=True)
    front_end = FrontEnd()
    rng = np.random.default_rng(0)
    features = RowWriter(folder / "features.npy", front_end.shape)
    for _ in range(size // 100):
        features.append(rng.standard_normal((100, *front_end.shape), np.float32))
    features.close()
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *(astuple(make_row(i)) for i in range(size))])
    (folder / "skipped.csv").write_text("file,reason\n")
    config = {"version": VERSION, "corpus": "noise", "classes": EMOTIONS, "front_end": front_end.model_dump()}
    (folder / "config.json").write_text(json.dumps(config))


def peak_of_search(cwd: Path, dataset: str) -> int:
    """The peak resident memory, in MB, of an epoch of a small search."""
    flags = {**SMALL_SEARCH, "name": dataset, "dataset": dataset}
    words = [sys.executable, "-c", SEARCH, json.dumps(flags)]
    pipes = {"capture_output": True, "text": True}
    done = subprocess.run(words, cwd=cwd, env=environment(), check=True, timeout=900, **pipes)
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_ten_thousand_utterances_take_the_memory_of_one_thousand(tmp_path: Path):
    peaks = {}
    for size in (1_000, 10_000):
        make_store(tmp_path / "features" / f"n{size}", size)
        peaks[size] = peak_of_search(tmp_path, f"n{size}")
    assert peaks[10_000] - peaks[1_000] < 500, peaks
