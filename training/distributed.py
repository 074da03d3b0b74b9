"""What the processes of a run share. Each runs the same code on its own rows of every batch, and they stay one run.

A process alone has nothing to share: then nothing is sent, and every function gives back what it was given.
Whatever is shared must be shared by all processes, in the same order: one that does not come is waited for.
"""

import hashlib
import sys
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from utils import UserError


def world_size() -> int:
    """How many processes share this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean over the processes of tensors of one type, of any shapes: one message for all of them."""
    if world_size() == 1:
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.div_(world_size()).split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def maximum(number: int) -> int:
    """The highest of the processes' numbers. It goes from host to host: no GPU waits. `UserError` where one is gone."""
    if world_size() == 1:
        return number
    shared = torch.tensor(number)
    try:
        dist.all_reduce(shared, dist.ReduceOp.MAX)
    except RuntimeError:
        raise UserError("another process of this run has ended, or is out of reach") from None
    return int(shared)


def barrier() -> None:
    """Wait until all processes are here. Where one has ended instead, and said why, end as well: exit code 2."""
    try:
        maximum(0)
    except UserError:
        sys.exit(2)


def require_equal(what: bytes, otherwise: str) -> None:
    """Stop all processes unless they hold the same bytes: `UserError(otherwise)` in the first, which tells the user.

    The others leave with exit code 2 once the first has: a launcher ends all as soon as one has ended.
    """
    if world_size() == 1:
        return
    digest = torch.frombuffer(bytearray(hashlib.sha256(what).digest()), dtype=torch.uint8)
    digests = [torch.empty_like(digest) for _ in range(world_size())]
    dist.all_gather(digests, digest)
    if all(torch.equal(digest, other) for other in digests):
        return
    if rank() == 0:
        raise UserError(otherwise)
    barrier()


def seed_step(seed: int, step: int) -> None:
    """Let each of several processes draw random numbers of its own in a step: other masks for other rows.

    They follow from the seed, the rank and the step alone, so a resumed run draws them again. A process alone goes on
    with its generator, whose state its checkpoint holds.
    """
    if world_size() > 1:
        own = np.random.SeedSequence([seed, rank(), step]).generate_state(1, np.uint64)
        torch.manual_seed(int(own[0]))
