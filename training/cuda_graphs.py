"""--cuda_graphs: a step that is recorded once as a CUDA graph and replayed, so that its kernels need no launches.

Python runs while a graph is recorded, but not when it is replayed. A graph holds the addresses of its tensors and the
values of its numbers. So whatever changes between steps must be in the batches, which are copied to the recorded
addresses, or in state that is changed in place.
"""

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from training import distributed
from utils import UserError

WARM_UP_STEPS = 3
"""Ordinary steps before the recording, as in torch.cuda.make_graphed_callables."""

Work = Callable[[], Any]


class Recorder(Protocol):
    """How a device records."""

    def run(self, work: Work) -> Any:
        """Do the work in the way in which it will be recorded."""

    def record(self, work: Work) -> Work:
        """Record the work without doing it; return a function that does it each time it is called."""


class CudaRecorder:
    """Records CUDA graphs on a side stream, where libraries allocate what they need before the recording."""

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
        # thread_local: the threads that fetch batches may pin memory during the recording
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            result = work()

        def replay() -> Any:
            graph.replay()
            return result

        return replay


def make_recorder(device: torch.device) -> Recorder:
    """The recorder of a device. Raises `UserError` if --cuda_graphs cannot be used."""
    if device.type != "cuda":
        raise UserError(
            f"--cuda_graphs needs a CUDA GPU, but this search runs on the {device.type}: leave it out"
        )
    if distributed.world_size() > 1:
        raise UserError("--cuda_graphs is for one process: leave it out, or choose one GPU by --gpus 0")
    return CudaRecorder(device)


class RecordedStep:
    """A function of batches that is replayed from a recording. Each call overwrites the results of the one before.

    The first calls are ordinary steps, which warm up libraries and let optimizers create their state.
    """

    def __init__(self, function: Callable[..., Any], recorder: Recorder):
        self.function = function
        self.recorder = recorder
        self.calls = 0
        self.replay: Work | None = None
        self.recorded_for: Any = None

    def __call__(self, *batches: tuple[Tensor, ...], constants: Any) -> Any:
        """Do a step. `constants` are the numbers that a recording holds; if they change, it is made anew."""
        self.calls += 1
        if self.calls <= WARM_UP_STEPS:
            return self.recorder.run(lambda: self.function(*batches))
        if self.calls == WARM_UP_STEPS + 1:
            self.batches = [tuple(torch.empty_like(tensor) for tensor in batch) for batch in batches]
        for recorded, given in zip(self.batches, batches, strict=True):
            for old, new in zip(recorded, given, strict=True):
                old.copy_(new)
        if self.replay is None or self.recorded_for != constants:
            self.replay = None  # frees the memory of the last recording
            self.replay = self.recorder.record(lambda: self.function(*self.batches))
            self.recorded_for = constants
        return self.replay()


def keep_weights_in_place(network: nn.Module) -> None:
    """Replace the recurrent modules of a network by ones that share their weights and never move them.

    An ordinary one moves its weights into one block of memory whenever they have been replaced, as every pass of the
    architect replaces them. A replay would read the weights from the addresses of the recording.
    """
    warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk of memory")
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.RNNBase):
            network.set_submodule(name, static_copy(module))


def static_copy(module: nn.RNNBase) -> nn.RNNBase:
    """A recurrent module of the same class with the same weights, which stay where they are."""

    class Static(type(module)):
        def flatten_parameters(self) -> None:
            """Do not move the weights."""

    with torch.device("meta"):  # takes no memory and draws no random numbers
        copy = Static(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            batch_first=True,
            bidirectional=module.bidirectional,
        )
    for name, weight in module.named_parameters():
        setattr(copy, name, weight)
    return copy
