"""Where the work runs: devices and processes through Lightning Fabric; gradients; the state of the generators."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor

from training import distributed
from utils import UserError

Gradient = Callable[[Tensor, Sequence[Tensor]], list[Tensor]]
"""(loss, inputs) -> d loss / d inputs; zero for an input that the loss does not depend on."""


def make_fabric(gpus: str) -> Fabric:
    """The engine for `--gpus`: "auto" (a GPU where there is one), "none" or "cpu", "cuda" or "mps" (the first GPU of
    that kind), "all", or indices such as "0,1".

    More than one GPU, or `torchrun`, means one process each; every process sees its own share of each batch.
    """
    accelerator, devices = accelerator_for(gpus)
    here, everywhere = (
        int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE")
    )  # of torchrun
    if accelerator == "mps" and everywhere > 1:
        if gpus != "auto":
            raise UserError(
                f"--gpus {gpus}: Apple's GPU is for one process; --gpus none runs several on the CPU"
            )
        accelerator, devices = "cpu", 1
    if here > 1 and gpus in ("auto", "none", "cpu", "cuda"):
        devices = here
    if everywhere == 1 and not (isinstance(devices, list) and len(devices) > 1):
        return Fabric(accelerator=accelerator, devices=devices)
    strategy = DDPStrategy(process_group_backend="cpu:gloo,cuda:nccl" if accelerator == "cuda" else "gloo")
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=everywhere // here, strategy=strategy)


def accelerator_for(gpus: str) -> tuple[str, int | list[int]]:
    """Fabric's accelerator and devices for the flag; a `UserError` where the machine has not what it asks for."""
    kind, count = available_gpus()
    if gpus in ("none", "cpu") or (gpus == "auto" and count == 0):
        return "cpu", 1
    if gpus in ("cuda", "mps") and gpus != kind:
        raise UserError(
            f"--device {gpus}: this machine has none that torch can use; --device cpu runs on the CPU"
        )
    if count == 0:
        raise UserError(
            f"--gpus {gpus}: this machine has no GPU that torch can use; --gpus none runs on the CPU"
        )
    named = {"auto": [0], kind: [0], "all": list(range(count))}
    wanted = named.get(gpus) or sorted({int(index) for index in gpus.split(",")})
    if wanted[-1] >= count:
        raise UserError(f"--gpus {gpus}: there is no GPU {wanted[-1]}; this machine has 0 to {count - 1}")
    return kind, 1 if kind == "mps" else wanted


def available_gpus() -> tuple[str, int]:
    """("cuda", how many), ("mps", 1), or ("cpu", 0)."""
    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count()
    return ("mps", 1) if torch.backends.mps.is_available() else ("cpu", 0)


def free_memory(device: torch.device) -> float:
    """Bytes that this process may still take; the least of all processes' answers, so that they choose alike."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        free = min(psutil.virtual_memory().available, *_limits()) // int(
            os.environ.get("LOCAL_WORLD_SIZE", 1)
        )
    return -distributed.maximum(-int(free))


def _limits() -> Iterator[float]:
    """What the control groups of this process leave of their memory, as containers and Slurm set them on Linux."""
    yield float("inf")
    try:
        group = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().rpartition("::/")[2].strip()
        for folder in (group, *group.parents[:-3]):
            limit = (folder / "memory.max").read_text().strip()
            if limit != "max":
                yield int(limit) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return


@contextmanager
def memory_advice(what_to_do: str) -> Iterator[None]:
    """Tell a user what to do where the device, or the machine, runs out of memory."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        said = "can't allocate memory", "MPS backend out of memory"  # by a CPU's allocator and by Apple's
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
            s in str(error) for s in said
        ):
            raise
        raise UserError(f"out of memory: {what_to_do}") from None


def local_gradient(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of this process's batch alone. Each tensor has memory of its own, and may be changed in place."""
    gradients, taken = list(torch.autograd.grad(loss, inputs, materialize_grads=True)), set()
    for i, d in enumerate(gradients):
        if d.data_ptr() in taken:  # of a sum, autograd gives both terms one tensor: the two biases of an RNN
            gradients[i] = d.clone()
        taken.add(d.data_ptr())
    return gradients


def mean_gradient(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of the whole batch: the mean of what every process computes on its share."""
    return distributed.mean(local_gradient(loss, inputs))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the generators that a network on `device` draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Continue from a `random_state`; a state of another kind of device is left out."""
    torch.set_rng_state(state["cpu"])
    if device.type in state and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type])
