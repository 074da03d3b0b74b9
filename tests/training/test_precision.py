"""--precision: the switches of the device, and what is refused. (Its passes: tests/darts/test_architect.py.)"""

import pytest
import torch
from conftest import execute, succeed

from training import precision
from utils import UserError

CPU = torch.device("cpu")


@pytest.fixture
def with_tf32(monkeypatch):
    """A device that has TF32. Afterwards, TF32 is switched off again."""
    monkeypatch.setattr(precision, "has_tf32", lambda device: True)
    yield
    precision.set_precision("float32", CPU)


def tf32_switches() -> set[bool]:
    """Whether each kind of product may use TF32, as torch's newer API reports it."""
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    return {kind.fp32_precision == "tf32" for kind in kinds}


@pytest.mark.parametrize(("name", "tf32"), [("float32", False), ("bf16", False), ("tf32", True)])
def test_precision_sets_every_switch_and_ieee_float32_clears_them(with_tf32, name, tf32):
    precision.set_precision(name, CPU)
    assert tf32_switches() == {tf32}
    with precision.ieee_float32():
        assert tf32_switches() == {False}
    assert tf32_switches() == {tf32}


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_tf32_is_refused_on_devices_that_lack_it(device):
    with pytest.raises(UserError, match=f"--precision tf32: {device} has no TF32"):
        precision.set_precision("tf32", torch.device(device))


def test_search_and_augment_train_in_bf16_and_refuse_to_resume_in_float32(workspace):
    flags = ["--config", "tiny.yaml", "--name", "sixteen", "--epochs", 1]
    for command in ("search", "augment"):
        assert "precision bf16" in succeed(command, *flags, "--precision", "bf16", cwd=workspace)
    refused = execute("augment", *flags, "--resume", cwd=workspace)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: --precision is float32, but runs/sixteen/augment was started with bf16: "
    )
