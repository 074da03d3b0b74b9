"""Export formats: every op and every baseline, odd sizes, batches of any size."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from genotypes import Genotype
from models.architecture import Architecture, BaselineArchitecture, SearchedArchitecture
from models.baselines import BASELINES
from models.export_formats import FORMATS, largest_difference, write_onnx
from models.fused.rnn.tanh_rnn import TanhRNN
from models.joint_network import Size
from models.ops import MAP_OPS, SEQUENCE_OPS
from models.saved import Standardised

BATCH_SIZES = 1, 2, 5, 7


def make_nodes(ops: list[str]) -> list[list[list]]:
    """Nodes of two ops each that contain all of these ops."""
    second = [*ops[1::2], ops[-1]]
    return [[[one, 0], [other, 1]] for one, other in zip(ops[::2], second, strict=False)]


def architecture_of_all_ops() -> SearchedArchitecture:
    """A normal cell and a reduction cell of all CNN ops, a SeqNN cell of all sequence ops, and deltas."""
    cnn = make_nodes(list(MAP_OPS))
    rnn = make_nodes(list(SEQUENCE_OPS))
    cnn_concat = list(range(2, 2 + len(cnn)))
    rnn_concat = list(range(2, 2 + len(rnn)))
    genotype = Genotype(cnn, cnn_concat, cnn, cnn_concat, rnn, rnn_concat)
    size = Size(layers=2, init_channels=3, rnn_layers=1, rnn_channels=5, deltas=2)
    return SearchedArchitecture(genotype, size)


def build(architecture: Architecture, shape: tuple[int, int]) -> nn.Module:
    """A network whose running statistics differ from the initial ones, with standardisation of its inputs."""
    torch.manual_seed(0)
    network = architecture.build(4)
    network(torch.randn(6, 1, *shape) + 1)
    return Standardised(network, torch.randn(shape[0]), torch.rand(shape[0]) + 0.5).eval()


NETWORKS = {
    "all ops": (architecture_of_all_ops(), (11, 13)),
    **{name: (BaselineArchitecture(name, (9, 14)), (9, 14)) for name in BASELINES},
    "acrnn": (BaselineArchitecture("acrnn", (9, 14), deltas=2), (9, 14)),
}
QUICK = [(kind, name) for kind in FORMATS for name in NETWORKS if (kind, name) != ("torch_export", "all ops")]
SLOW = pytest.param("torch_export", "all ops", marks=pytest.mark.slow)


@pytest.mark.parametrize(("kind", "name"), [*QUICK, SLOW])
def test_exported_network_gives_the_same_logits_for_any_batch(tmp_path: Path, kind: str, name: str):
    architecture, shape = NETWORKS[name]
    network = build(architecture, shape)
    file = tmp_path / "file"
    write, open_exported = FORMATS[kind]
    write(network, shape, {}, file)
    x = torch.randn(7, *shape) * 3
    assert largest_difference(network, open_exported(file), x, BATCH_SIZES) < 1e-5
    with torch.no_grad():
        assert network(x).std(dim=0).min() > 1e-4, "the logits are too similar for this test"


class MeanOfRnn(nn.Module):
    """A tanh RNN, and a mean over its steps that depends on their order."""

    def __init__(self, layers: int, bidirectional: bool):
        super().__init__()
        self.rnn = TanhRNN(4, 6, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.rnn(x)[0]
        return (steps * torch.arange(1, 6)[:, None]).mean(dim=1)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_tanh_rnn_is_exported_as_one_onnx_operator_per_layer(tmp_path, layers, bidirectional):
    torch.manual_seed(0)
    network = MeanOfRnn(layers, bidirectional)
    file = tmp_path / "rnn.onnx"
    note = json.dumps("ünïcode")
    write_onnx(network, (5, 4), {"note": note}, file)
    written = onnx.load(file)
    assert [node.op_type for node in written.graph.node].count("RNN") == layers
    assert {entry.key: entry.value for entry in written.metadata_props}["note"] == note
    assert largest_difference(network, FORMATS["onnx"][1](file), torch.randn(7, 5, 4), BATCH_SIZES) < 1e-6
    onnx.checker.check_model(written, full_check=True)


def test_largest_difference_is_over_all_batches_and_nan_if_one_is():
    x = torch.arange(3.0)[:, None]
    assert largest_difference(lambda x: x, lambda x: x + (len(x) == 1) * x, x, (1, 2)) == 2
    assert largest_difference(lambda x: x, lambda x: x + (len(x) == 2) * x, x, (1, 2)) == 1
    assert not largest_difference(lambda x: x, lambda x: x / x.abs(), x, (3,)) <= 1
