"""A recorded step: that a step can be recorded at all, and that a replay does what the step does.

No GPU is needed but for the last test. A `Tape` stands for the CUDA graph: it notes every operation of a step with the
tensors and numbers that it had, and does these again, without Python.
"""

import importlib
import os
import signal
from collections.abc import Callable
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

CLASSES, SHAPE = 4, (16, 24)
VARIANTS = [
    {"order": "second"},
    {"order": "first"},
    {"order": "second", "recompute": "cells"},
    {"order": "second", "recompute": "ops", "nested_depth": True},
    {"order": "second", "w_momentum": 0.0, "dropout": 0.0},
]
READS = (
    "_local_scalar_dense",
    "item",
    "nonzero",
    "is_nonzero",
    "masked_select",
    "_unique2",
    "equal",
    "allclose",
)
"""Operations whose result, or whose shape, the host must wait for."""


@pytest.fixture(autouse=True)
def _the_cpu_is_like_a_gpu(monkeypatch):
    """A tape sees torch's operations alone; and PyTorch lets Adam keep its count of steps on GPUs alone."""
    compile_nothing(monkeypatch)
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda **_: ["cpu", "meta", "cuda"])


def searching(**flags: Any) -> SearchConfig:
    given = {"dropout": 0.3, "recompute": "none", "batch_size": 6, "cuda_graphs": True, **flags}
    return from_file(SearchConfig, ROOT / "configs" / "tiny.yaml", **given)


def problem(device: str = "cpu", **flags: Any) -> Architect:
    torch.manual_seed(0)
    config = searching(**flags)
    with torch.device(device):
        return Architect(config, make_supernet(config, CLASSES))


def batch(device: str = "cpu", n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 1, *SHAPE, device=device), torch.arange(n, device=device) % CLASSES


def state_of(problem: Architect) -> dict[str, Tensor]:
    """All tensors that a step changes, by name."""
    state = dict(problem.network.state_dict(keep_vars=True))
    for name, optimizer in (("weights", problem.weight_optimizer), ("alphas", problem.alpha_optimizer)):
        for i, moments in optimizer.state_dict()["state"].items():
            state |= {f"{name} {i} {moment}": tensor for moment, tensor in moments.items()}
    return state


# That a step can be recorded


class Operations(TorchDispatchMode):
    """Notes each operation, with the form of its tensors and the value of all else. None may cross between devices."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.namespace == "profiler":
            return out
        leaves = tree_leaves((args, kwargs, out))
        assert len({leaf.device for leaf in leaves if isinstance(leaf, Tensor)}) <= 1, (
            f"{func} crosses devices"
        )
        self.seen.append((str(func), *map(form, leaves)))
        return out

    def names(self) -> set[str]:
        return {entry[0].split(".")[1] for entry in self.seen}


def form(leaf: Any) -> Any:
    return (tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf


@pytest.mark.parametrize("flags", VARIANTS, ids=str)
def test_a_step_reads_nothing_and_stays_on_its_device(flags):
    """On a device without values whoever reads one fails; and all but the CPU's own code is as on a GPU."""
    problem_ = problem("meta", **flags)
    with Operations() as operations:
        problem_.step(batch("meta"), batch("meta"))
    assert not operations.names() & set(READS)
    assert len(operations.seen) > 1000


def test_the_probe_finds_what_reads():
    """As the first Adam that comes to mind does."""
    problem_ = problem(cuda_graphs=False)
    with Operations() as operations:
        problem_.step(batch(), batch())
    assert operations.names() & set(READS) == {"_local_scalar_dense"}
    with pytest.raises(AssertionError, match="crosses devices"), Operations():
        torch.ones(2).to("meta")


@pytest.mark.parametrize("flags", VARIANTS, ids=str)
def test_steps_are_the_same_operations_on_the_same_memory(flags):
    """From the second on: the first makes the momenta."""
    problem_, sequences, addresses = problem(**flags), [], []
    for _ in range(3):
        batches = batch(), batch()
        with Operations() as operations:
            problem_.step(*batches)
        sequences.append(operations.seen)
        addresses.append({name: tensor.data_ptr() for name, tensor in state_of(problem_).items()})
        assert not operations.names() & set(READS)
    assert sequences[1] == sequences[2]
    assert addresses[0] == addresses[1] == addresses[2]


def test_recurrent_modules_keep_weights_in_place(monkeypatch):
    """Where the weights of an LSTM are other tensors than before, it would move them; cuDNN likes them in a row."""
    moved = []
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda rnn: moved.append(rnn))
    problem_ = problem()
    moved.clear()
    problem_.step(batch(), batch())
    assert moved
    keep_weights_in_place(problem_.network)
    moved.clear()
    problem_.step(batch(), batch())
    assert not moved


# That a replay does what the step does


class Tape:
    """Records on a CPU. The step is done as it is noted: the first replay only hands out what it gave."""

    def __init__(self):
        self.recordings = self.replays = 0

    def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        self.recordings += 1
        with Noting() as tape:
            result = work()
        done = [True]

        def replay() -> Any:
            self.replays += 1
            if not done:
                tape.again()
            done.clear()
            return result

        return replay


class Noting(TorchDispatchMode):
    """Notes operations; no memory of theirs is given to others."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.namespace != "profiler":
            self.operations.append((func, args, kwargs or {}, out, torch.is_grad_enabled()))
        return out

    def again(self) -> None:
        """Do them once more: what was made anew goes to where it went then."""
        for func, args, kwargs, then, graded in self.operations:
            with (
                torch.set_grad_enabled(graded),
                torch._C._AutoDispatchBelowAutograd(),
            ):  # where they were noted
                now = func(*args, **kwargs)
            for old, new in zip(tree_leaves(then), tree_leaves(now), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)


def steps(problem: Architect, step: Callable[..., Any], count: int = 8) -> list[Tensor]:
    """So many steps on other batches each, the last few at another learning rate: all states and metrics after each."""
    generator, found = torch.Generator().manual_seed(1), []
    torch.manual_seed(2)
    for i in range(count):
        if i == count - 2:
            problem.weight_optimizer.param_groups[0]["lr"] *= 0.5
        x = torch.randn(2, 6, 1, *SHAPE, generator=generator)
        y = torch.randint(CLASSES, (2, 6), generator=generator)
        metrics = step((x[0], y[0]), (x[1], y[1]))
        found.append([tensor.detach().clone() for tensor in (*state_of(problem).values(), *metrics.values())])
    return [tensor for state in found for tensor in state]


def recorded(problem: Architect, tape: Tape) -> RecordedStep:
    return Recorded(problem.step, tape, lambda: problem.weight_optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("flags", VARIANTS, ids=str)
def test_replayed_steps_are_the_steps_to_the_bit(flags):
    """Weights, statistics, momenta, alphas, metrics; another batch, other masks, one more for Adam at every step."""
    one, other, tape = problem(**flags), problem(**flags), Tape()
    plain, replayed = steps(one, one.step), steps(other, recorded(other, tape))
    assert tape.recordings == 2
    assert tape.replays == 8 - WARM_UP_STEPS
    assert len(plain) == len(replayed)
    assert all(torch.equal(a, b) for a, b in zip(plain, replayed, strict=True))


@pytest.mark.parametrize("forgotten", ["the learning rate", "Adam's count"])
def test_what_a_recording_holds_does_not_change(forgotten):
    """So the tape would find a number that changes from step to step."""
    flags = {"cuda_graphs": forgotten != "Adam's count"}
    one, other = problem(**flags), problem(**flags)
    replay = recorded(other, Tape())
    if forgotten == "the learning rate":
        replay.numbers = lambda: None
    found = zip(steps(one, one.step), steps(other, replay), strict=True)
    assert not all(torch.equal(a, b) for a, b in found)


# A search


class NoTape(Tape):
    """Every replay is the step itself."""

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        return work


def run_search(monkeypatch, name: str, tape: Tape, **flags: Any) -> tuple[bytes, ...]:
    """A search of two epochs of 6 steps, which a tape records; its results."""
    monkeypatch.setattr(bilevel, "recorder", lambda device: tape)
    config = searching(name=name, epochs=2, batch_size=36, **flags)
    search.run(config)
    return tuple(
        Path(f"runs/{name}/search/{file}").read_bytes() for file in ("genotype.json", "history.jsonl")
    )


def test_a_recorded_search_interrupted_or_not_is_the_search_to_the_bit(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    truth, tape = run_search(monkeypatch, "graphs-plain", NoTape()), Tape()
    assert run_search(monkeypatch, "graphs-taped", tape) == truth
    assert tape.recordings == 2  # once an epoch
    assert tape.replays == 2 * 6 - WARM_UP_STEPS

    step = search.Search.step

    def cut(task: search.Search, i: int) -> Any:
        if i == task.steps + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(task, i)

    monkeypatch.setattr(search.Search, "step", cut)
    with pytest.raises(Interrupted):
        run_search(monkeypatch, "graphs-cut", Tape())
    monkeypatch.setattr(search.Search, "step", step)
    assert run_search(monkeypatch, "graphs-cut", Tape(), resume=True) == truth


def test_no_other_device_records(workspace):
    done = execute("search", "--config", "tiny.yaml", "--name", "no-graphs", "--cuda_graphs", cwd=workspace)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: --cuda_graphs needs a CUDA GPU, and this search runs on the cpu: leave it out"
    ]
    assert not (workspace / "runs" / "no-graphs").exists()


def test_several_processes_do_not_record(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(UserError, match="--cuda_graphs is for one process"):
        make_recorder(torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("flags", VARIANTS, ids=str)
def test_a_cuda_graph_replays_the_steps(flags):
    """To rounding: some kernels add in another order each time."""
    found = []
    for graphs in (False, True):
        problem_ = problem("cuda", **flags)
        keep_weights_in_place(problem_.network)
        record = recorded(problem_, CudaRecorder(torch.device("cuda")))
        step = record if graphs else problem_.step
        found.append(
            steps(problem_, lambda *batches, step=step: step(*[[t.cuda() for t in b] for b in batches]))
        )
    for plain, replayed in zip(*found, strict=True):
        torch.testing.assert_close(plain, replayed, rtol=1e-3, atol=1e-5)
