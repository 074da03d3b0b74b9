"""Trading time for memory: modules whose insides are computed again in the backward pass instead of stored."""

from typing import Any

from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def recompute_in_backward(module: nn.Module, *inputs: object) -> Any:
    """Return `module(*inputs)`, storing only the inputs. The module must not draw random numbers.

    The second forward pass uses the parameters of the first, even if the module is called with
    other weights in between, as the architect does. It writes running statistics into copies of the
    buffers, so that they are updated only once.
    """
    parameters = dict(module.named_parameters())
    first = True

    def run(*inputs: object) -> Any:
        nonlocal first
        buffers = {} if first else {name: buffer.clone() for name, buffer in module.named_buffers()}
        first = False
        return functional_call(module, {**parameters, **buffers}, inputs)

    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
