"""What several test files share: the commands as a user runs them, and a folder with the demo corpus prepared small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TINY = """
prepare: {sample_rate: 8000, n_fft: 256, hop_length: 128, n_mels: 20, n_mfcc: 16, duration: 1.5, frames: 24}
search:
  {epochs: 4, batch_size: 36, layers: 2, rnn_layers: 1, cnn_nodes: 1, rnn_nodes: 1, init_channels: 2, rnn_channels: 8,
   cnn_ops: [max_pool_3x3, skip_connect, sep_conv_3x3, none], rnn_ops: [lstm_1, rnn_att_1, none], gpus: none}
augment:
  {epochs: 4, batch_size: 48, layers: 2, rnn_layers: 1, init_channels: 4, rnn_channels: 8, cutout_length: 4,
   drop_path_prob: 0.3, gpus: none}
predict: {gpus: none}
"""


def line(command: str, *arguments: object) -> list[str]:
    """The words of a command line."""
    return [sys.executable, str(ROOT / f"{command}.py"), *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread a process: the tests run side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def execute(command: str, *arguments: object, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run a command of this repository to its end, as a user does."""
    options = {"env": environment(), "capture_output": True, "text": True, "check": False, "timeout": timeout}
    return subprocess.run(line(command, *arguments), cwd=cwd, **options)


def succeed(command: str, *arguments: object, cwd: Path, timeout: float = 240) -> str:
    """Run a command that must succeed; return what it printed."""
    done = execute(command, *arguments, cwd=cwd, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo corpus is prepared and `tiny.yaml` keeps every run to seconds."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "tiny.yaml").write_text(TINY)
    succeed("prepare", "--corpus", "demo", "--config", "tiny.yaml", cwd=folder)
    return folder
