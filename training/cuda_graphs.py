"""A step recorded once and replayed: on a GPU as a CUDA graph, which launches all of its kernels at one go.

A recording holds addresses and numbers; Python runs while it is made, and not in a replay. So what differs from step to
step must be in the batches, which are copied to where the recorded ones were, or in state that is changed in place.
"""

import warnings
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from training import distributed
from utils import UserError

WARM_UP = 3  # steps before a recording, as torch.cuda.make_graphed_callables has them
Work = Callable[[], Any]


class Recorder(Protocol):
    """How a device records."""

    def run(self, work: Work) -> Any:
        """Do the work, in the way in which it will be recorded."""

    def record(self, work: Work) -> Work:
        """Note the work, but do not do it; return what does it, as often as it is called."""


class CudaGraphs:
    """All on one side stream, for which libraries have what they need before a recording begins.

    What the work allocates comes from the graph's own memory, and goes with the graph.
    """

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)

    def run(self, work: Work) -> Any:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = work()
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # thread_local: the threads that fetch batches ahead may pin memory meanwhile
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            result = work()

        def replay() -> Any:
            graph.replay()
            return result

        return replay


def recorder(device: torch.device) -> Recorder:
    """That of a device; `UserError` where it has none."""
    if device.type != "cuda":
        raise UserError(
            f"--cuda_graphs needs a CUDA GPU, and this search runs on the {device.type}: leave it out"
        )
    if distributed.world_size() > 1:
        raise UserError("--cuda_graphs is for one process: leave it out, or choose one GPU by --gpus 0")
    return CudaGraphs(device)


def hold_still(network: nn.Module) -> None:
    """Let recurrent modules leave their weights where they are.

    Whenever they find other weights than before, as in every pass of the architect, they move them side by side for
    cuDNN: a replay would take the weights of the recording from where they were. cuDNN copies them, and warns of it.
    """
    warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk of memory")
    for module in network.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters = lambda: None


class Recorded:
    """A function of batches, replayed. Its results lie where the next call puts its own.

    The first calls are made in the ordinary way. They warm up libraries and let optimisers make their state, and are
    steps like any other, so that nothing has to be put back.
    """

    def __init__(self, function: Callable[..., Any], recorder: Recorder, numbers: Callable[[], Hashable]):
        """`numbers` that a recording holds, and that change now and then: it is made anew when they do."""
        self.function, self.recorder, self.numbers = function, recorder, numbers
        self.calls, self.replay, self.held = 0, None, None

    def __call__(self, *batches: tuple[Tensor, ...]) -> Any:
        self.calls += 1
        if self.calls <= WARM_UP:
            return self.recorder.run(lambda: self.function(*batches))
        if self.calls == WARM_UP + 1:
            self.batches = [tuple(torch.empty_like(tensor) for tensor in batch) for batch in batches]
        for own, given in zip(self.batches, batches, strict=True):
            for mine, new in zip(own, given, strict=True):
                mine.copy_(new)
        if self.replay is None or self.held != self.numbers():
            self.replay = None  # lets go of the memory of the last one
            self.replay, self.held = (
                self.recorder.record(lambda: self.function(*self.batches)),
                self.numbers(),
            )
        return self.replay()
