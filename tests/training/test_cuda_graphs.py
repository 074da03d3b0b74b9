"""CUDA graphs: that a step can be recorded, and that a replay computes the same as the step.

Only the last test needs a GPU. In the others, a `Tape` takes the place of the CUDA graph: it records every operation of
a step with its tensors and numbers, and repeats them without running Python.
"""

import importlib
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, compile_nothing, execute
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import search
from cli import from_file
from config import SearchConfig
from darts.architect import Architect
from darts.gradient_search import GradientSearch
from darts.supernet import make_supernet
from training import distributed
from training.cuda_graphs import (
    WARM_UP_STEPS,
    CudaRecorder,
    RecordedStep,
    keep_weights_in_place,
    make_recorder,
)
from utils import Interrupted, UserError

CLASSES = 4
SHAPE = (16, 24)
VARIANTS = [
    {"order": "second"},
    {"order": "first", "deltas": 2, "op_norm": True},
    {"order": "second", "recompute": "cells"},
    {"order": "second", "recompute": "ops", "nested_depth": True},
    {"order": "second", "w_momentum": 0.0, "dropout": 0.0},
]
PLAIN = {"order": "second", "fused": "off"}
"""The library's RNN changes the shapes of tensors in place (`transpose_`), which a `Tape` cannot repeat."""
every_variant = pytest.mark.parametrize("flags", [*VARIANTS, PLAIN], ids=str)
READING_OPERATIONS = {
    "_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "_unique2", "equal", "allclose"
}  # fmt: skip
"""Operations whose result, or whose shape, the host must wait for."""


@pytest.fixture(autouse=True)
def _compute_as_on_a_gpu(monkeypatch):
    """No compiled code, whose operations a tape cannot see; and Adam may count its steps on any device."""
    compile_nothing(monkeypatch)
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda **_: ["cpu", "meta", "cuda"])


def make_config(**flags: Any) -> SearchConfig:
    defaults = {"dropout": 0.3, "recompute": "none", "batch_size": 6, "cuda_graphs": True}
    return from_file(SearchConfig, ROOT / "configs" / "tiny.yaml", **{**defaults, **flags})


def make_architect(device: str = "cpu", **flags: Any) -> Architect:
    torch.manual_seed(0)
    config = make_config(**flags)
    with torch.device(device):
        return Architect(config, make_supernet(config, CLASSES))


def make_batches(device: str = "cpu", n: int = 6) -> list[tuple[Tensor, Tensor]]:
    """A batch of each half."""
    y = torch.arange(n, device=device) % CLASSES
    return [(torch.randn(n, 1, *SHAPE, device=device), y) for _ in range(2)]


def state_of(architect: Architect) -> dict[str, Tensor]:
    """All tensors that a step changes, by name."""
    state = dict(architect.network.state_dict(keep_vars=True))
    for name, optimizer in (("weights", architect.weight_optimizer), ("alphas", architect.alpha_optimizer)):
        for i, moments in optimizer.state_dict()["state"].items():
            state |= {f"{name} {i} {moment}": tensor for moment, tensor in moments.items()}
    return state


# ---------------------------------------------------------------- that a step can be recorded


class Operations(TorchDispatchMode):
    """Records the operations, the shapes of their tensors and all other arguments; none may mix devices."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.namespace == "profiler":
            return out
        leaves = tree_leaves((args, kwargs, out))
        devices = {leaf.device for leaf in leaves if isinstance(leaf, Tensor)}
        assert len(devices) <= 1, f"{func} mixes devices"
        self.seen.append((str(func), *map(describe, leaves)))
        return out

    @property
    def reading(self) -> set[str]:
        """The operations that make the host wait."""
        return {entry[0].split(".")[1] for entry in self.seen} & READING_OPERATIONS


def describe(leaf: Any) -> Any:
    return (tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf


@every_variant
def test_step_reads_no_value_and_stays_on_its_device(flags):
    """The meta device has no values, so that reading one fails; and it runs the code of GPUs, not of the CPU."""
    architect = make_architect("meta", **flags)
    with Operations() as operations:
        architect.step(*make_batches("meta"))
    assert not operations.reading
    assert len(operations.seen) > 1000


def test_operations_that_read_a_value_or_mix_devices_are_found():
    """For example in Adam without --cuda_graphs, which counts its steps on the host."""
    architect = make_architect(cuda_graphs=False)
    with Operations() as operations:
        architect.step(*make_batches())
    assert operations.reading == {"_local_scalar_dense"}
    with pytest.raises(AssertionError, match="mixes devices"), Operations():
        torch.ones(2).to("meta")


@every_variant
def test_steps_do_the_same_operations_on_the_same_memory(flags):
    """From the second step on: the first creates the momentum buffers."""
    architect = make_architect(**flags)
    sequences, addresses = [], []
    for _ in range(3):
        batches = make_batches()
        with Operations() as operations:
            architect.step(*batches)
        assert not operations.reading
        sequences.append(operations.seen)
        addresses.append({name: tensor.data_ptr() for name, tensor in state_of(architect).items()})
    assert sequences[1] == sequences[2]
    assert addresses[0] == addresses[1] == addresses[2]


def test_keep_weights_in_place_shares_the_weights_and_never_moves_them(monkeypatch):
    moved = []
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda rnn: moved.append(rnn))
    architect = make_architect()
    moved.clear()
    architect.step(*make_batches())
    assert moved, "an ordinary recurrent module must try to move its weights"
    before = dict(architect.network.named_parameters())
    keep_weights_in_place(architect.network)
    after = dict(architect.network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    moved.clear()
    architect.step(*make_batches())
    assert not moved


# ---------------------------------------------------------------- that a replay computes the same as the step


class Tape:
    """A recorder for the CPU. It computes the step while recording, so the first replay only returns the result."""

    def __init__(self):
        self.recordings = 0
        self.replays = 0

    def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        self.recordings += 1
        with RecordedOperations() as operations:
            result = work()
        is_first = True

        def replay() -> Any:
            nonlocal is_first
            self.replays += 1
            if not is_first:
                operations.repeat()
            is_first = False
            return result

        return replay


class RecordedOperations(TorchDispatchMode):
    """Records operations with their arguments and results, and so keeps their memory."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.namespace != "profiler":
            self.operations.append((func, args, kwargs or {}, out, torch.is_grad_enabled()))
        return out

    def repeat(self) -> None:
        """Repeat the operations, and copy new results to the memory of the recorded ones."""
        for func, args, kwargs, results, with_gradients in self.operations:
            # below autograd, where the operations were recorded
            with torch.set_grad_enabled(with_gradients), torch._C._AutoDispatchBelowAutograd():
                new_results = func(*args, **kwargs)
            for old, new in zip(tree_leaves(results), tree_leaves(new_results), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)


STEPS = 8


def run_steps(architect: Architect, step: Callable[..., Any], device: str = "cpu") -> list[Tensor]:
    """Do steps with different batches, the last two at a lower learning rate; all states and metrics after each."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    results = []
    for i in range(STEPS):
        if i == STEPS - 2:
            architect.weight_optimizer.param_groups[0]["lr"] *= 0.5
        x = torch.randn(2, 6, 1, *SHAPE, generator=generator).to(device)
        y = torch.randint(CLASSES, (2, 6), generator=generator).to(device)
        metrics = step((x[0], y[0]), (x[1], y[1]))
        tensors = (*state_of(architect).values(), *metrics.values())
        results += [tensor.detach().clone() for tensor in tensors]
    return results


def make_recorded_step(architect: Architect, recorder: Any) -> Callable[..., Any]:
    """The step of an architect, which is recorded anew whenever the learning rate changes."""
    recorded = RecordedStep(architect.step, recorder)
    group = architect.weight_optimizer.param_groups[0]
    return lambda *batches: recorded(*batches, constants=group["lr"])


@pytest.mark.parametrize("flags", VARIANTS, ids=str)
def test_replayed_steps_equal_the_steps_to_the_bit(flags):
    """With other batches, other dropout masks and another count of Adam at every step."""
    plain, recorded = make_architect(**flags), make_architect(**flags)
    tape = Tape()
    truth = run_steps(plain, plain.step)
    found = run_steps(recorded, make_recorded_step(recorded, tape))
    assert tape.recordings == 2
    assert tape.replays == STEPS - WARM_UP_STEPS
    assert len(truth) == len(found)
    assert all(torch.equal(a, b) for a, b in zip(truth, found, strict=True))


@pytest.mark.parametrize("forgotten", ["learning rate", "count of Adam"])
def test_replayed_steps_differ_if_a_changing_number_is_recorded(forgotten):
    """So the test above would find it."""
    flags = {"cuda_graphs": forgotten != "count of Adam"}
    plain, recorded = make_architect(**flags), make_architect(**flags)
    step = make_recorded_step(recorded, Tape())
    if forgotten == "learning rate":
        step = partial(RecordedStep(recorded.step, Tape()), constants=None)
    pairs = zip(run_steps(plain, plain.step), run_steps(recorded, step), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


# ---------------------------------------------------------------- a whole search


class NoTape(Tape):
    """Does the step itself at every replay."""

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        return work


def run_search(monkeypatch, name: str, tape: Tape, **flags: Any) -> tuple[bytes, ...]:
    """The results of a search of two epochs of 6 steps, recorded by a tape."""
    monkeypatch.setattr("darts.gradient_search.make_recorder", lambda device: tape)
    search.run(make_config(name=name, epochs=2, batch_size=36, **flags))
    folder = Path(f"runs/{name}/search")
    return tuple((folder / file).read_bytes() for file in ("genotype.json", "history.jsonl"))


def test_recorded_search_interrupted_or_not_equals_the_search_to_the_bit(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    truth = run_search(monkeypatch, "graphs-plain", NoTape())
    tape = Tape()
    assert run_search(monkeypatch, "graphs-taped", tape) == truth
    assert tape.recordings == 2  # once per epoch
    assert tape.replays == 2 * 6 - WARM_UP_STEPS

    step = GradientSearch.step

    def interrupt(task: GradientSearch, i: int) -> Any:
        if i == task.steps + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(task, i)

    with monkeypatch.context() as patch:
        patch.setattr(GradientSearch, "step", interrupt)
        with pytest.raises(Interrupted):
            run_search(monkeypatch, "graphs-cut", Tape())
    assert run_search(monkeypatch, "graphs-cut", Tape(), resume=True) == truth


def test_cuda_graphs_on_a_cpu_are_refused(workspace):
    done = execute("search", "--config", "tiny.yaml", "--name", "no-graphs", "--cuda_graphs", cwd=workspace)
    assert done.returncode == 2
    assert done.stderr == (
        "error: --cuda_graphs needs a CUDA GPU, but this search runs on the cpu: leave it out\n"
    )
    assert not (workspace / "runs" / "no-graphs").exists()


def test_cuda_graphs_in_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(UserError, match="--cuda_graphs is for one process"):
        make_recorder(torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@every_variant
def test_cuda_graph_replays_the_steps(flags):
    """Up to rounding: some kernels add in another order each time."""
    results = []
    for recorded in (False, True):
        architect = make_architect("cuda", **flags)
        keep_weights_in_place(architect.network)
        recorder = CudaRecorder(torch.device("cuda"))
        step = make_recorded_step(architect, recorder) if recorded else architect.step
        results.append(run_steps(architect, step, "cuda"))
    for plain, replayed in zip(*results, strict=True):
        torch.testing.assert_close(plain, replayed, rtol=1e-3, atol=1e-5)
