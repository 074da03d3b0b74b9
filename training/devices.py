"""Devices: which ones `--gpus` means, how much memory is free, the state of their random generators."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from torch import Tensor

from utils import UserError

CPU = torch.device("cpu")
OUT_OF_MEMORY = "can't allocate memory", "MPS backend out of memory"
"""Messages of the CPU's and of Apple's allocators, which raise a plain `RuntimeError`."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, in bytes."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within this context, glibc keeps all freed memory for the next tensors. It does nothing on other systems.

    By default glibc returns the memory of large tensors to the system, which clears every page of it before it gives it
    back: a tenth of a step of a derived network. The peak is the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:  # the values that glibc reaches by itself as large tensors are freed
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**26)


def choose_device(gpus: str) -> torch.device:
    """The device that `--gpus` means for a single process. Raises `UserError` if the machine lacks it."""
    return choose_devices(gpus)[0]


def choose_devices(gpus: str, processes: int = 1, world_size: int = 1) -> list[torch.device]:
    """The devices of the processes on this machine, one each, of a run with `world_size` processes in all.

    `gpus` is "auto" (a GPU if there is one), "none" or "cpu", "cuda" or "mps" (the first GPU of that kind), "all", or
    indices such as "0,1". Several processes take the CPU together, or the GPUs in their order.
    Raises `UserError` if the machine lacks what is asked for.
    """
    kind, count = available_gpus()
    if gpus in ("none", "cpu") or (gpus == "auto" and count == 0):
        return [CPU] * processes
    if gpus in ("cuda", "mps") and gpus != kind:
        raise UserError(f"--device {gpus}: torch finds none on this machine; --device cpu runs on the CPU")
    if count == 0:
        raise UserError(f"--gpus {gpus}: torch finds no GPU on this machine; --gpus none runs on the CPU")
    if kind == "mps" and world_size > 1:
        if gpus == "auto":
            return [CPU] * processes
        raise UserError(f"--gpus {gpus}: Apple's GPU takes one process; --gpus none runs several on the CPU")
    if gpus in ("auto", kind):
        indices = list(range(processes))
    elif gpus == "all":
        indices = list(range(count))
    else:
        indices = sorted({int(index) for index in gpus.split(",")})
    if indices[-1] >= count:
        raise UserError(f"--gpus {gpus}: there is no GPU {indices[-1]}; this machine has 0 to {count - 1}")
    if len(indices) < processes:
        raise UserError(
            f"--gpus {gpus}: {processes} processes need as many GPUs, and this gives {len(indices)}"
        )
    return [torch.device(kind, index) for index in indices]


def available_gpus() -> tuple[str, int]:
    """("cuda", number of GPUs), ("mps", 1), or ("cpu", 0)."""
    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count()
    if torch.backends.mps.is_available():
        return "mps", 1
    return "cpu", 0


def free_memory(device: torch.device) -> int:
    """The bytes that this process can still allocate on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free = min([psutil.virtual_memory().available, *control_group_limits()])
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def control_group_limits() -> Iterator[int]:
    """The free bytes of each Linux control group of this process, by which containers and Slurm limit memory."""
    try:
        name = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::/")[2].strip()
        group = Path("/sys/fs/cgroup") / name
        for folder in (group, *group.parents[:-3]):
            limit = (folder / "memory.max").read_text(encoding="ascii").strip()
            if limit != "max":
                yield int(limit) - int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return


@contextmanager
def out_of_memory_advice(advice: str) -> Iterator[None]:
    """Turn out-of-memory errors within this context into a `UserError` that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise UserError(f"out of memory: {advice}") from None
    except RuntimeError as error:
        if any(message in str(error) for message in OUT_OF_MEMORY):
            raise UserError(f"out of memory: {advice}") from None
        raise


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators that a network on `device` uses."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore a `random_state`; the state of another kind of device is ignored."""
    torch.set_rng_state(state["cpu"])
    if device.type in state and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type])
