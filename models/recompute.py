"""Memory for time: a module that stores only its inputs, and in backward computes itself again."""

from typing import Any

from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *inputs: object) -> Any:
    """`module(*inputs)`. The module must draw no random numbers.

    The second time it runs with the parameters of the first, whatever the module then holds (the passes of the
    architect lend it other weights), and on copies of the buffers, so that running statistics move only once.
    """
    parameters = dict(module.named_parameters())
    tries = []

    def run(*inputs: object) -> Any:
        tries.append(None)
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()} if len(tries) > 1 else {}
        return functional_call(module, {**parameters, **buffers}, inputs)

    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
