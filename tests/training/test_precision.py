"""--precision: the device's switches; what is refused; the passes at w+ and w- are of true float32 whatever it says."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import execute, succeed
from test_architect import problem

from darts.architect import Architect
from training import precision
from utils import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    precision.set_precision("float32", CPU)


def switches() -> set[bool]:
    """Whether each kind of product is of TF32, as torch's newer API tells."""
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    return {kind.fp32_precision == "tf32" for kind in kinds}


@pytest.mark.parametrize(("name", "value"), [("float32", False), ("bf16", False), ("tf32", True)])
def test_every_switch_is_set(monkeypatch, name, value):
    monkeypatch.setattr(precision, "has_tf32", lambda device: True)
    precision.set_precision(name, CPU)
    assert switches() == {value}
    with precision.ieee_float32():
        assert switches() == {False}
    assert switches() == {value}


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_tf32_is_refused_where_there_is_none(device):
    with pytest.raises(UserError, match=f"--precision tf32: there is no TF32 on {device}"):
        precision.set_precision("tf32", torch.device(device))


def test_the_finite_difference_is_of_ieee_float32(monkeypatch):
    """Of the four passes of a second-order gradient, the last two are cast to nothing, and see no TF32."""
    monkeypatch.setattr(precision, "has_tf32", lambda device: True)
    precision.set_precision("tf32", CPU)
    p, seen = problem(), []
    network = copy.deepcopy(p.network).float()
    train, val = ((x.float(), y) for x, y in (p.train, p.val))
    network.network.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].dtype, switches())))
    step = copy.copy(p.step)
    object.__setattr__(step, "buffers", {name: v.float() for name, v in p.step.buffers.items()})
    Architect(network, F.cross_entropy, dtype=torch.bfloat16).second_order(train, val, step)
    assert seen == [(torch.bfloat16, {True})] * 2 + [(torch.float32, {False})] * 2


def test_a_search_and_its_network_train_in_16_bits_and_in_nothing_else_once_begun(workspace):
    flags = ["--config", "tiny.yaml", "--name", "sixteen", "--epochs", 1]
    for command in ("search", "augment"):
        assert "precision bf16" in succeed(command, *flags, "--precision", "bf16", cwd=workspace)
    refused = execute("augment", *flags, "--resume", cwd=workspace)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: --precision is float32, but runs/sixteen/augment was started with bf16: "
    )
