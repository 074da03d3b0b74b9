"""Several processes that train one network: each computes its share of every batch.

torchrun starts the processes; torch.distributed connects them (gloo on CPUs, NCCL on CUDA GPUs). A single process needs
neither: then nothing is sent, and every function returns its input. All ranks must call the functions of this module in
the same order, or the others block.
"""

import atexit
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from training.devices import choose_devices
from utils import UserError


def start(gpus: str) -> torch.device:
    """Connect to the other processes of this run, if there are any, and return this process's device.

    Several GPUs take one process each: without torchrun, the command starts anew under it.
    Raises `UserError` if the machine lacks the devices of `--gpus`.
    """
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # these variables are set by torchrun
    processes = int(os.environ.get("WORLD_SIZE", 1))
    devices = choose_devices(gpus, local_processes, processes)
    launched = "LOCAL_RANK" in os.environ
    if not launched and len(devices) > 1:
        restart_under_torchrun(len(devices))
    device = devices[int(os.environ.get("LOCAL_RANK", 0))]
    if launched and processes > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend)
        atexit.register(dist.destroy_process_group)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def restart_under_torchrun(processes: int) -> None:
    """Replace this process by a torchrun that starts `processes` processes of the same command."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *torchrun, *sys.argv])


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is rank 0, the process that writes files and the log."""
    return rank() == 0


def gradient(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of the mean loss over all ranks with respect to `inputs`; zeros for unused inputs.

    The tensors do not share memory, so that they may be changed in place.
    """
    gradients = list(torch.autograd.grad(loss, inputs, materialize_grads=True))
    seen = set()
    for i, d in enumerate(gradients):
        # autograd returns one tensor for both terms of a sum, such as the biases of an RNN
        if d.data_ptr() in seen:
            gradients[i] = d.clone()
        seen.add(d.data_ptr())
    return mean(gradients)


def mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean over the ranks of each tensor, sent in one message. All must have the same dtype."""
    if world_size() == 1:
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.div_(world_size()).split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def maximum(number: int) -> int:
    """The maximum over the ranks, exchanged between CPUs so that no GPU waits.

    Raises `UserError` if another process has ended.
    """
    if world_size() == 1:
        return number
    shared = torch.tensor(number)
    try:
        dist.all_reduce(shared, dist.ReduceOp.MAX)
    except RuntimeError:
        raise UserError("another process of this run has ended, or cannot be reached") from None
    return int(shared)


def barrier() -> None:
    """Wait for all ranks. If one has ended instead, exit with code 2: it has printed the reason."""
    try:
        maximum(0)
    except UserError:
        sys.exit(2)


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Run the block on rank 0, then on all others."""
    if not is_first():
        barrier()
    yield
    if is_first():
        barrier()


def require_equal(data: bytes, message: str) -> None:
    """Stop all ranks unless they hold the same bytes: rank 0 raises `UserError(message)`, the
    others exit with code 2.
    """
    if world_size() == 1:
        return
    digest = torch.frombuffer(bytearray(hashlib.sha256(data).digest()), dtype=torch.uint8)
    digests = [torch.empty_like(digest) for _ in range(world_size())]
    dist.all_gather(digests, digest)
    if all(torch.equal(digest, other) for other in digests):
        return
    if is_first():
        raise UserError(message)
    barrier()  # torchrun ends all processes as soon as one ends: let rank 0 print the message first


def seed_step(seed: int, step: int) -> None:
    """With several ranks, seed each one's random generators differently for this step.

    The seeds depend only on (seed, rank, step), so that a resumed run draws the same numbers. A
    single process keeps its generator, whose state is in the checkpoint.
    """
    if world_size() > 1:
        own = np.random.SeedSequence([seed, rank(), step]).generate_state(1, np.uint64)
        torch.manual_seed(int(own[0]))
