"""What an epoch costs the machine: seconds a step, how much of that was waiting for batches, utterances, memory.

These numbers are never the same twice: they go to TensorBoard and the log, not into the history or a checkpoint.
"""

import resource
import sys
import time
from dataclasses import asdict, dataclass

import torch

MB = 10**6
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, in which the system tells the peak


@dataclass(frozen=True)
class Cost:
    """The averages of an epoch's steps, and the most memory that the process has taken so far."""

    step_seconds: float
    data_wait_share: float  # of the time of the steps
    utterances_per_second: float
    host_memory_mb: float
    device_memory_mb: float | None  # where the device has memory of its own

    def scalars(self) -> dict[str, float]:
        """The numbers by their names in TensorBoard."""
        return {f"machine/{name}": value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        on_device = (
            "" if self.device_memory_mb is None else f", {self.device_memory_mb:,.0f} MB on the device"
        )
        return (
            f"{brief(self.step_seconds)} s a step, {brief(self.utterances_per_second)} utterances/s, "
            f"data {100 * self.data_wait_share:.1f} %, {self.host_memory_mb:,.0f} MB{on_device}"
        )


def brief(number: float) -> str:
    """A number in three digits."""
    return f"{float(f'{number:.3g}'):,g}"


class Meter:
    """The host's clock over an epoch's steps, as far as this process does them. It never asks the device anything."""

    def __init__(self, batch_size: int, device: torch.device):
        """`batch_size`: utterances a step."""
        self.batch_size, self.device = batch_size, device
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0

    def start(self, waited: float) -> None:
        """Begin to count; `waited`: seconds that the run has waited for batches so far."""
        self.began, self.waited_before = time.perf_counter(), waited

    def stop(self, steps: int, waited: float) -> None:
        """Count the steps since `start`, which the device must have done."""
        self.steps += steps
        self.seconds += time.perf_counter() - self.began
        self.waited += waited - self.waited_before

    def read(self) -> Cost:
        """The cost of what was counted; the next epoch is counted from nothing."""
        cost = Cost(
            step_seconds=self.seconds / self.steps,
            data_wait_share=self.waited / self.seconds,
            utterances_per_second=self.batch_size * self.steps / self.seconds,
            host_memory_mb=host_memory(),
            device_memory_mb=device_memory(self.device),
        )
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0
        return cost


def host_memory() -> float:
    """The largest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / MB


def device_memory(device: torch.device) -> float | None:
    """MB taken from a device: on CUDA the most so far, on MPS those of now; None for the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / MB
    return torch.mps.driver_allocated_memory() / MB if device.type == "mps" else None
