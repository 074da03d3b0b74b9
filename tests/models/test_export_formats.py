"""Networks as files of other programs: every op and every baseline, odd sizes, any batch."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from genotypes import Genotype
from models.architecture import Architecture, Designed, Searched
from models.baselines import BASELINES
from models.export_formats import FORMATS, largest_difference, write_onnx
from models.fused.rnn.tanh_rnn import recur
from models.joint_network import Size
from models.ops import MAP_OPS, SEQUENCE_OPS
from models.saved import Standardised

SIZES = 1, 2, 5, 7


def in_twos(ops: list[str]) -> list[list[list]]:
    """Nodes of two ops each; the last op comes twice where they are odd."""
    return [[[one, 0], [other, 1]] for one, other in zip(ops[::2], [*ops[1::2], ops[-1]], strict=False)]


def every_op() -> Searched:
    """A network in which every op occurs, behind a normal and a reducing cell, in small and in odd sizes."""
    maps, sequences = (in_twos(list(ops)) for ops in (MAP_OPS, SEQUENCE_OPS))
    ends = [list(range(2, 2 + len(nodes))) for nodes in (maps, sequences)]
    genotype = Genotype(maps, ends[0], maps, ends[0], sequences, ends[1])
    return Searched(genotype, Size(layers=2, init_channels=3, rnn_layers=1, rnn_channels=5))


def trained(architecture: Architecture, shape: tuple[int, int]) -> nn.Module:
    """A network whose running statistics are those of no fresh one, behind a standardisation."""
    torch.manual_seed(0)
    network = architecture.build(4)
    network(torch.randn(6, 1, *shape) + 1)
    return Standardised(network, torch.randn(shape[0]), torch.rand(shape[0]) + 0.5).eval()


CASES = [(every_op(), (11, 13)), *((Designed(name, (9, 14)), (9, 14)) for name in BASELINES)]


@pytest.mark.parametrize(
    ("kind", "architecture", "shape"),
    [
        pytest.param(
            kind, *case, id=f"{kind}-{name}", marks=pytest.mark.slow if kind != "onnx" and not i else ()
        )
        for kind in FORMATS
        for i, (name, case) in enumerate(zip(["every op", *BASELINES], CASES, strict=True))
    ],
)
def test_every_network_answers_alike_for_any_batch(
    tmp_path: Path, kind: str, architecture: Architecture, shape: tuple[int, int]
):
    network, file, (write, open_again) = trained(architecture, shape), tmp_path / "file", FORMATS[kind]
    write(network, shape, {}, file)
    x = torch.randn(7, *shape) * 3
    assert largest_difference(network, open_again(file), x, SIZES) < 1e-5
    with torch.no_grad():
        assert network(x).std(dim=0).min() > 1e-4  # answers that are all alike would prove nothing


class Rnn(nn.Module):
    """A tanh RNN by itself, with the mean over its steps for logits."""

    def __init__(self, layers: int, bidirectional: bool):
        super().__init__()
        self.rnn = nn.RNN(4, 6, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = recur(self.rnn, x)
        return (steps * torch.arange(1, 6)[:, None]).mean(dim=1)  # the order of the steps counts


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_tanh_rnn_is_one_operator_a_layer_however_many_its_steps(
    tmp_path: Path, layers: int, bidirectional: bool
):
    torch.manual_seed(0)
    network, file = Rnn(layers, bidirectional), tmp_path / "rnn.onnx"
    write_onnx(network, (5, 4), {"note": json.dumps("ünïcode")}, file)
    written = onnx.load(file)
    assert [node.op_type for node in written.graph.node].count("RNN") == layers
    assert {each.key: each.value for each in written.metadata_props}["note"] == json.dumps("ünïcode")
    assert largest_difference(network, FORMATS["onnx"][1](file), torch.randn(7, 5, 4), SIZES) < 1e-6
    onnx.checker.check_model(written, full_check=True)


def test_a_difference_is_the_largest_of_any_batch_and_nan_is_none_that_passes():
    x = torch.arange(3.0)[:, None]
    assert largest_difference(lambda x: x, lambda x: x + (len(x) == 1) * x, x, (1, 2)) == 2
    assert largest_difference(lambda x: x, lambda x: x + (len(x) == 2) * x, x, (1, 2)) == 1
    assert not largest_difference(lambda x: x, lambda x: x / x.abs(), x, (3,)) <= 1
