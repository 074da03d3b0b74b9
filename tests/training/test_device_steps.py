"""What a step asks of its device: no value, for which it would have to wait, and nothing that Apple's GPU has not.

No GPU is needed. torch's "meta" device computes shapes alone and has no values, so whatever asks for one fails there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ranks
import torch
import torchgen
import yaml
from conftest import compile_nothing
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from augment import Augment, find_genotype
from config import AugmentConfig
from data import batches
from models.ops import MAP_OPS, SEQUENCE_OPS
from training.checkpoints import Schedule
from training.experiment import start_experiment
from training.interruption import Interruption
from training.loop import Progress, run_steps, snapshot, tensors_in

CPU, META = torch.device("cpu"), torch.device("meta")
EVERYTHING = {
    "batch_size": 144, "layers": 3, "mixup": 0.2, "cutout_length": 4, "freq_mask": 3, "time_mask": 3,
    "drop_path_prob": 0.3, "print_freq": 1000,
}  # fmt: skip
NETWORKS = [
    {"genotype": "cnn_lstm"},
    {"genotype": "darts_v2", "rnn_layers": 0, "balance": "sampling"},
    {"genotype": None, "model": "cnn_lstm_att", "balance": "none"},
]


@pytest.fixture(autouse=True)
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)


def augment_on(device: torch.device, config: AugmentConfig) -> Augment:
    """The training of a network on a device, before its first step."""
    one = SimpleNamespace(device=device, global_rank=0, world_size=1, is_global_zero=True)
    return Augment(config, replace(start_experiment(config), fabric=one), *find_genotype(config))


def epoch(task: Augment) -> Progress:
    """The second epoch, in which paths are dropped, up to its averages."""
    position = Progress(epoch=1)
    run_steps(position, task, Interruption(), Schedule("0"))
    return position


@pytest.mark.parametrize(
    ("network", "resident"),
    [*((network, 2**30) for network in NETWORKS), (NETWORKS[2], 0)],
    ids=["cnn_lstm", "darts_v2", "by hand", "features on disk"],
)
def test_an_epoch_of_augment_waits_for_nothing(monkeypatch, network: dict[str, Any], resident: int):
    """Batches, masks, mixup, drop paths, losses, clipping, the optimiser, and the sums of the metrics."""
    monkeypatch.setitem(batches.RESIDENT_BYTES, "else", resident)
    task = augment_on(META, ranks.augmenting(**EVERYTHING | network))
    position = epoch(task)
    assert position.step == task.steps > 1
    assert all(total.is_meta for total in position.totals.values())
    assert all(p.is_meta for p in task.network.parameters())


@pytest.mark.parametrize(
    "ask",
    [float, bool, Tensor.item, Tensor.cpu, Tensor.tolist, Tensor.nonzero, Tensor.unique, lambda x: x[x > 0],
     lambda x: x.masked_select(x > 0), lambda x: torch.empty(1).copy_(x), lambda x: range(x.int())],
)  # fmt: skip
def test_a_device_without_values_gives_none(ask: Callable[[Tensor], Any]):
    """So the test above can fail."""
    with pytest.raises((RuntimeError, NotImplementedError)):
        ask(torch.ones(1, device=META))


# Apple's GPU


@dataclass
class Record(TorchDispatchMode):
    """The operations called while it is active: all, those that make float64, copies that are not waited for."""

    names: set[str] = field(default_factory=set)
    doubles: set[str] = field(default_factory=set)
    overlapping: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = op(*args, **(kwargs or {}))
        name = str(op).removeprefix("aten.").removesuffix(".default")
        self.names.add(name)
        if any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(out)):
            self.doubles.add(name)
        if (kwargs or {}).get("non_blocking") or (op is torch.ops.aten.copy_.default and True in args[2:]):
            self.overlapping.add(name)
        return out


@pytest.fixture(scope="module")
def recorded(workspace: Path) -> Record:
    """All ops of both spaces, steps of a second-order search and of augment, and an evaluation."""
    with pytest.MonkeyPatch.context() as patch, Record() as record:
        patch.chdir(workspace)
        compile_nothing(patch)
        for task in steps_of_every_kind():
            doubles = [t for t in tensors_in(snapshot(task.parts, CPU)) if t.dtype == torch.float64]
            assert not doubles, "a checkpoint is loaded onto the device"
        for make, x in ops_on_meta():
            make(x).sum().backward()
    return record


def steps_of_every_kind() -> Iterator[Any]:
    search = ranks.task_of(ranks.searching(batch_size=16, order="second", cnn_ops="all", rnn_ops="all"))
    search.step(0)
    search.after_epoch(1)
    yield search
    for network in NETWORKS:
        augment = augment_on(META, ranks.augmenting(**EVERYTHING | network))
        epoch(augment)
        yield augment
    augment = augment_on(CPU, ranks.augmenting())
    augment.predict(augment.picking_rows)


def ops_on_meta() -> Iterator[tuple[torch.nn.Module, Tensor]]:
    """Each op on a device that is no CPU: there an RNN and an LSTM take other ways."""
    for make in MAP_OPS.values():
        yield make(8, 2, True).to(META), torch.ones(2, 8, 6, 7, device=META, requires_grad=True)
    for make in SEQUENCE_OPS.values():
        yield make(8, 1, True).to(META), torch.ones(2, 7, 8, device=META, requires_grad=True)


def test_nothing_is_in_float64(recorded: Record):
    """Which Apple's GPU has not."""
    assert recorded.doubles == set()


def test_every_copy_is_waited_for_where_the_device_is_not_cuda(recorded: Record):
    """A copy to Apple's GPU may else read memory that is freed meanwhile (github.com/pytorch/pytorch/issues/189690)."""
    assert recorded.overlapping == set()


OF_THE_CPU = {
    "_sample_dirichlet",  # mixup draws its one share there
    "mkldnn_rnn_layer",  # an LSTM's, which on Apple's GPU is _lstm_mps
    "mkldnn_rnn_layer_backward",
}


def test_apples_gpu_has_every_operation(recorded: Record):
    """By the table of kernels that this version of torch is built from. What each is given may still be more than it
    can do."""
    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    table = {entry["func"].split("(")[0]: entry for entry in yaml.load(path.read_text(), yaml.CSafeLoader)}

    def is_there(name: str) -> bool:
        entry = table[name]
        if "structured_delegate" in entry:
            return is_there(entry["structured_delegate"])
        keys = {key.strip() for keys in entry.get("dispatch", {"Composite": ""}) for key in keys.split(",")}
        return any(key == "MPS" or key.startswith("Composite") for key in keys)

    used = {name for name in recorded.names if not name.startswith("profiler.")}
    assert len(used) > 80
    assert {name for name in used if not is_there(name)} == OF_THE_CPU
