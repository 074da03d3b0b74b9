"""Devices: what --gpus means on other machines than this one, memory, and the state of the random generators."""

import ctypes
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from conftest import ROOT

from training import devices
from training.devices import (
    available_gpus,
    choose_device,
    choose_devices,
    free_memory,
    random_state,
    set_random_state,
)
from utils import UserError

CPU = torch.device("cpu")
NO_GPU = ("cpu", 0)
ONE_GPU = ("cuda", 1)
TWO_GPUS = ("cuda", 2)
FOUR_GPUS = ("cuda", 4)
APPLE = ("mps", 1)


@pytest.fixture
def on_machine(monkeypatch):
    """A function that sets what `available_gpus` returns."""
    return lambda machine: monkeypatch.setattr(devices, "available_gpus", lambda: machine)


@pytest.mark.parametrize(
    ("machine", "gpus", "expected"),
    [
        (TWO_GPUS, "auto", "cuda:0"), (TWO_GPUS, "0", "cuda:0"), (TWO_GPUS, "1", "cuda:1"),
        (TWO_GPUS, "0,1", "cuda:0 cuda:1"), (TWO_GPUS, "1,0", "cuda:0 cuda:1"),
        (TWO_GPUS, "1,1", "cuda:1"), (TWO_GPUS, "all", "cuda:0 cuda:1"), (TWO_GPUS, "none", "cpu"),
        (TWO_GPUS, "cpu", "cpu"), (TWO_GPUS, "cuda", "cuda:0"), (ONE_GPU, "all", "cuda:0"),
        (APPLE, "auto", "mps:0"), (APPLE, "all", "mps:0"), (APPLE, "0", "mps:0"),
        (APPLE, "mps", "mps:0"), (APPLE, "none", "cpu"), (APPLE, "cpu", "cpu"),
        (NO_GPU, "auto", "cpu"), (NO_GPU, "none", "cpu"), (NO_GPU, "cpu", "cpu"),
    ],
)  # fmt: skip
def test_devices_without_torchrun(on_machine, machine: tuple[str, int], gpus: str, expected: str):
    on_machine(machine)
    assert [str(device) for device in choose_devices(gpus)] == expected.split()
    assert str(choose_device(gpus)) == expected.split()[0]


@pytest.mark.parametrize(
    ("machine", "gpus", "processes", "world_size", "expected"),
    [
        (NO_GPU, "auto", 1, 1, "cpu"), (NO_GPU, "auto", 2, 2, "cpu cpu"),
        (NO_GPU, "auto", 1, 3, "cpu"), (TWO_GPUS, "none", 3, 3, "cpu cpu cpu"),
        (TWO_GPUS, "cpu", 2, 2, "cpu cpu"), (TWO_GPUS, "auto", 2, 2, "cuda:0 cuda:1"),
        (TWO_GPUS, "all", 2, 2, "cuda:0 cuda:1"), (TWO_GPUS, "0,1", 2, 2, "cuda:0 cuda:1"),
        (TWO_GPUS, "cuda", 2, 2, "cuda:0 cuda:1"),
        (FOUR_GPUS, "auto", 4, 8, "cuda:0 cuda:1 cuda:2 cuda:3"), (ONE_GPU, "auto", 1, 2, "cuda:0"),
        (ONE_GPU, "cuda", 1, 2, "cuda:0"), (APPLE, "auto", 2, 2, "cpu cpu"),
        (APPLE, "auto", 1, 2, "cpu"),
    ],
)  # fmt: skip
def test_devices_of_processes_under_torchrun(on_machine, machine, gpus, processes, world_size, expected):
    on_machine(machine)
    chosen = choose_devices(gpus, processes, world_size)
    assert [str(device) for device in chosen] == expected.split()


@pytest.mark.parametrize(
    ("machine", "gpus", "processes", "message"),
    [
        (TWO_GPUS, "2", 1, "--gpus 2: there is no GPU 2; this machine has 0 to 1"),
        (TWO_GPUS, "0,7", 1, "--gpus 0,7: there is no GPU 7"),
        (APPLE, "1", 1, "--gpus 1: there is no GPU 1"),
        (NO_GPU, "0", 1, "--gpus 0: torch finds no GPU on this machine"),
        (NO_GPU, "all", 1, "--gpus none runs on the CPU"),
        (NO_GPU, "cuda", 1, "--device cuda: torch finds none on this machine; --device cpu runs on the CPU"),
        (NO_GPU, "mps", 1, "--device mps: torch finds none on this machine; --device cpu runs on the CPU"),
        (APPLE, "cuda", 1, "--device cuda: torch finds none on this machine; --device cpu runs on the CPU"),
        (TWO_GPUS, "mps", 1, "--device mps: torch finds none on this machine; --device cpu runs on the CPU"),
        (APPLE, "mps", 2, "--gpus mps: Apple's GPU takes one process"),
        (APPLE, "all", 2, "--gpus all: Apple's GPU takes one process"),
        (APPLE, "0", 2, "--gpus 0: Apple's GPU takes one process"),
        (TWO_GPUS, "1", 2, "--gpus 1: 2 processes need as many GPUs, and this gives 1"),
        (TWO_GPUS, "all", 3, "--gpus all: 3 processes need as many GPUs, and this gives 2"),
        (TWO_GPUS, "auto", 3, "--gpus auto: there is no GPU 2; this machine has 0 to 1"),
    ],
)
def test_missing_gpus_are_a_user_error(on_machine, machine, gpus, processes, message):
    on_machine(machine)
    with pytest.raises(UserError) as error:
        choose_devices(gpus, processes, processes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, False, ("cuda", 3)), (False, True, ("mps", 1)), (False, False, ("cpu", 0))],
)
def test_available_gpus_are_those_that_torch_finds(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert available_gpus() == expected


@pytest.mark.parametrize(("limits", "free"), [([], 1000), ([600, 800], 600)])
def test_processes_share_the_free_memory_of_the_machine_and_of_its_control_groups(monkeypatch, limits, free):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(devices, "control_group_limits", lambda: iter(limits))
    assert free_memory(CPU) == free
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU) == free // 4


def test_control_group_limits_are_read_from_the_group_and_its_parents(monkeypatch):
    files = {
        "/proc/self/cgroup": "0::/job/step\n",
        "/sys/fs/cgroup/job/step/memory.max": "max\n",
        "/sys/fs/cgroup/job/memory.max": "5000\n",
        "/sys/fs/cgroup/job/memory.current": "1200\n",
        "/sys/fs/cgroup/memory.max": "max\n",
    }

    monkeypatch.setattr(Path, "read_text", lambda path, encoding: files[str(path)])
    assert list(devices.control_group_limits()) == [3800]
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=FileNotFoundError))
    assert list(devices.control_group_limits()) == []


def test_random_state_restores_the_generators():
    state = random_state(CPU)
    expected = torch.rand(5)
    torch.rand(100)
    set_random_state(state, CPU)
    assert torch.equal(torch.rand(5), expected)


def test_random_state_of_another_kind_of_device_is_ignored():
    state = {**random_state(CPU), "cuda": torch.zeros(16, dtype=torch.uint8)}
    expected = torch.rand(3)
    set_random_state(state, CPU)
    assert torch.equal(torch.rand(3), expected)


FRESH_PAGES = """
import resource
import torch
from training.devices import freed_memory_kept

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(10_000_000) for _ in range(3)]  # 40 MB each: glibc always gives these back
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print([fresh_pages() for _ in range(4)][-1])
with freed_memory_kept():
    print([fresh_pages() for _ in range(4)][-1])
"""


def fresh_pages_without_and_within() -> tuple[int, int]:
    """How many pages three tensors take from the system, the last of several times, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    without, within = map(int, done.stdout.split())
    return without, within


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_kept_for_the_next_tensors():
    """In one of three processes: where the system places other memory beside the heap, the heap cannot grow."""
    whole = 3 * 10_000_000 * 4 / resource.getpagesize()
    found = [fresh_pages_without_and_within() for _ in range(3)]
    assert min(without for without, _ in found) > 0.5 * whole
    assert min(within for _, within in found) < 0.1 * whole
