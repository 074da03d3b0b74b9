"""Whether a state may be gone on from: a checkpoint may be anyone's, and PyTorch's parts take nearly everything."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

CHANGING = {"lr", "last_epoch", "_step_count", "_last_lr", "epoch", "rank"}
"""What a run changes in its optimisers, schedulers and best network; all else follows from its flags."""


def load(part: Any, state: Any) -> None:
    """Put a part into a state. An error of any kind where it is none of this part; then the part is as it was."""
    if isinstance(part, torch.optim.Optimizer):
        require_alike(state, {**part.state_dict(), "state": moments(part)})
        if any(moment["step"] < 1 for moment in state["state"].values() if "step" in moment):
            raise ValueError("fewer than one step")
    elif isinstance(part, LRScheduler):
        require_alike(state, part.state_dict())
    part.load_state_dict(state)


def moments(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """Tensors of the form of what SGD, or Adam, remembers of its weights once it has made a step."""
    names = ("exp_avg", "exp_avg_sq")
    count = {"step": torch.zeros(())}
    if isinstance(optimizer, torch.optim.SGD):
        names, count = ("momentum_buffer",), {}
        if not optimizer.param_groups[0]["momentum"]:
            return {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return {i: {**count, **dict.fromkeys(names, weight)} for i, weight in enumerate(weights)}


def require_alike(state: Any, own: Any, changing: bool = False) -> None:
    """`ValueError` where a state is not of the form of a part's own, or differs in what a run does not change."""
    if isinstance(own, Tensor):
        right = isinstance(state, Tensor) and state.shape == own.shape and state.dtype == own.dtype
        # one that is expanded cannot be written to
        right = right and all(step or n < 2 for step, n in zip(state.stride(), state.shape, strict=True))
    elif type(state) is not type(own):
        right = False
    elif isinstance(own, Mapping):
        right = state.keys() == own.keys()
    elif isinstance(own, list | tuple):
        right = len(state) == len(own)
    else:
        right = state == own or (changing and (isinstance(own, float) or 0 <= state < 2**31))
    if not right:
        raise ValueError("a state of something else")
    if isinstance(own, Mapping):
        for key in own:
            require_alike(state[key], own[key], key in CHANGING)
    elif isinstance(own, list | tuple):
        for one, other in zip(state, own, strict=True):
            require_alike(one, other, changing)
