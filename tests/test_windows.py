"""The commands under a stand-in for Windows (tests/windows.py), which runs them in one process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, environment

FRONT_END = "--sample_rate 8000 --n_fft 256 --hop_length 128 --n_mels 16 --n_mfcc 8 --duration 0.5 --frames 8"
TRAINING = "--config tiny.yaml --dataset my --epochs 1 --batch_size 8"
LINES = [
    f"prepare --root my.csv {FRONT_END}",
    f"prepare --root more.csv --out features/my {FRONT_END}",
    f"search {TRAINING}",
    f"search {TRAINING} --overwrite",
    f"augment {TRAINING}",
    f"augment {TRAINING} --resume",
    "predict --model runs/demo --gpus none wav/0.wav wav",
    "evaluate --model runs/demo --dataset my --gpus none --out results",
    "visualize runs/demo/search/search.log",
]


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in looks into /proc")
def test_all_commands_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "wav").mkdir()
    lines = ["file,speaker,emotion"]
    for number in range(60):
        soundfile.write(tmp_path / "wav" / f"{number}.wav", rng.normal(0, 0.1, 4000), 8000)
        lines.append(f"wav/{number}.wav,S{number % 5},{('angry', 'sad')[number // 5 % 2]}")
    (tmp_path / "my.csv").write_text("\n".join(lines[:-1]))
    (tmp_path / "more.csv").write_text("\n".join(lines))
    (tmp_path / "tiny.yaml").write_text((ROOT / "configs" / "tiny.yaml").read_text())
    words = " then ".join(LINES).split()
    options = ["-X", "warn_default_encoding", "-W", "always::EncodingWarning"]
    command = [sys.executable, *options, str(ROOT / "tests" / "windows.py"), *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "text without an encoding" not in done.stdout
    assert "no name on Windows" not in done.stdout
    assert "up to date   59 files" in done.stdout
    assert (tmp_path / "results" / "metrics.json").exists()
    assert done.stdout.count("wav/0.wav") == 2
