"""What a step needs from its device: no value that the host must wait for, and no operation that Apple's GPU lacks.

No GPU is needed: torch's "meta" device computes shapes alone, so that reading a value from it fails.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torchgen
import yaml
from conftest import compile_nothing
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from augment import find_genotype
from config import AugmentConfig
from data import batches
from models.fused import cell_types
from models.ops import MAP_OPS
from training.checkpoints import Schedule
from training.experiment import start_experiment
from training.interruption import Interruption
from training.loop import Progress, run_steps, snapshot, tensors_in
from training.retraining import Retraining

CPU = torch.device("cpu")
META = torch.device("meta")
ALL_AUGMENTATIONS = {
    "batch_size": 144, "layers": 3, "mixup": 0.2, "cutout_length": 4, "freq_mask": 3, "time_mask": 3,
    "drop_path_prob": 0.3, "print_freq": 1000,
}  # fmt: skip
NETWORKS = {
    "cnn_lstm": {"genotype": "cnn_lstm"},
    "darts_v2": {"genotype": "darts_v2", "rnn_layers": 0, "balance": "sampling"},
    "baseline": {"genotype": None, "model": "cnn_lstm_att", "balance": "none"},
}


@pytest.fixture(autouse=True)
def _in_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)


def make_augment(device: torch.device, config: AugmentConfig) -> Retraining:
    """The training of a network on a device, before its first step."""
    experiment = replace(start_experiment(config), device=device)
    return Retraining(config, experiment, find_genotype(config)[0])


def run_second_epoch(task: Retraining) -> Progress:
    """The steps of the second epoch, in which paths are dropped."""
    progress = Progress(epoch=1)
    run_steps(progress, task, Interruption(), Schedule("0"))
    return progress


@pytest.mark.parametrize(
    ("network", "resident_bytes"), [*((name, 2**30) for name in NETWORKS), ("baseline", 0)]
)
def test_epoch_of_augment_reads_no_value_from_the_device(monkeypatch, network: str, resident_bytes: int):
    """Batches, masks, mixup, drop paths, losses, clipping, the optimizer and the sums of the metrics."""
    monkeypatch.setitem(batches.RESIDENT_BYTES, "else", resident_bytes)  # 0: features stay on the disk
    task = make_augment(META, ranks.augment_config(**ALL_AUGMENTATIONS | NETWORKS[network]))
    progress = run_second_epoch(task)
    assert progress.step == task.steps > 1
    assert all(total.is_meta for total in progress.totals.values())
    assert all(p.is_meta for p in task.network.parameters())


@pytest.mark.parametrize(
    "read",
    [
        float, bool, Tensor.item, Tensor.cpu, Tensor.tolist, Tensor.nonzero, Tensor.unique,
        lambda x: x[x > 0], lambda x: x.masked_select(x > 0), lambda x: torch.empty(1).copy_(x),
        lambda x: range(x.int()),
    ],
)  # fmt: skip
def test_reading_a_value_from_the_meta_device_fails(read: Callable[[Tensor], Any]):
    """Otherwise the test above could not fail."""
    with pytest.raises((RuntimeError, NotImplementedError)):
        read(torch.ones(1, device=META))


# ---------------------------------------------------------------- Apple's GPU


@dataclass
class Operations(TorchDispatchMode):
    """The names of the operations called: all, those that return float64, and those that copy asynchronously."""

    names: set[str] = field(default_factory=set)
    float64: set[str] = field(default_factory=set)
    asynchronous: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out = op(*args, **kwargs)
        name = str(op).removeprefix("aten.").removesuffix(".default")
        self.names.add(name)
        if any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(out)):
            self.float64.add(name)
        is_copy = op is torch.ops.aten.copy_.default
        if kwargs.get("non_blocking") or (is_copy and True in args[2:]):
            self.asynchronous.add(name)
        return out


@pytest.fixture(scope="module")
def operations(workspace: Path) -> Operations:
    """Of all ops of both search spaces, of steps of a second-order search and of augment, and of an evaluation."""
    with pytest.MonkeyPatch.context() as patch, Operations() as operations:
        patch.chdir(workspace)
        compile_nothing(patch)
        for task in run_every_kind_of_step():
            tensors = tensors_in(snapshot(task.parts, CPU))
            assert all(t.dtype != torch.float64 for t in tensors), "a checkpoint is loaded onto the device"
        for op, x in make_ops_on_meta():
            op(x).sum().backward()
    return operations


def run_every_kind_of_step() -> Iterator[Any]:
    for fused in ("auto", "off"):
        flags = {"order": "second", "cnn_ops": "all", "rnn_ops": "all", "fused": fused}
        search = ranks.make_task(ranks.search_config(batch_size=16, **flags))
        search.step(0)
        search.after_epoch(1)
        yield search
    for network in NETWORKS.values():
        augment = make_augment(META, ranks.augment_config(**ALL_AUGMENTATIONS | network))
        run_second_epoch(augment)
        yield augment
    augment = make_augment(CPU, ranks.augment_config())
    augment.predict(augment.picking_rows)


def make_ops_on_meta() -> Iterator[tuple[nn.Module, Tensor]]:
    """Each op on a device that is not a CPU, where RNNs and LSTMs are computed otherwise."""
    for make in MAP_OPS.values():
        yield make(8, 2, True).to(META), torch.ones(2, 8, 6, 7, device=META, requires_grad=True)
    for fused in (True, False):
        for make in cell_types(fused)["rnn"].ops.values():
            yield make(8, 1, True).to(META), torch.ones(2, 7, 8, device=META, requires_grad=True)


def test_nothing_is_computed_in_float64(operations: Operations):
    """Apple's GPU has no float64."""
    assert operations.float64 == set()


def test_copies_to_devices_other_than_cuda_are_synchronous(operations: Operations):
    """A copy to Apple's GPU could read memory that is freed meanwhile (github.com/pytorch/pytorch/issues/189690)."""
    assert operations.asynchronous == set()


CPU_ONLY = {
    "_sample_dirichlet",  # mixup draws its share on the CPU
    "mkldnn_rnn_layer",  # of an LSTM; on Apple's GPU this is _lstm_mps
    "mkldnn_rnn_layer_backward",
}


def test_apples_gpu_has_every_operation(operations: Operations):
    """By the table of kernels of this version of torch. A kernel may still not support some arguments."""
    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    table = {entry["func"].split("(")[0]: entry for entry in yaml.load(path.read_text(), yaml.CSafeLoader)}

    def is_supported(name: str) -> bool:
        entry = table[name]
        if "structured_delegate" in entry:
            return is_supported(entry["structured_delegate"])
        keys = ",".join(entry.get("dispatch", {"Composite": ""})).replace(" ", "").split(",")
        return any(key == "MPS" or key.startswith("Composite") for key in keys)

    used = {name for name in operations.names if not name.startswith("profiler.")}
    assert len(used) > 80
    assert {name for name in used if not is_supported(name)} == CPU_ONLY
