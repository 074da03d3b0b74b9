"""Time and memory: what an epoch takes, and a limit on the time spent on optional work.

The numbers differ from run to run, so they go to TensorBoard and the log, never into the history or
a checkpoint.
"""

import sys
import time
from dataclasses import asdict, dataclass

import psutil
import torch

try:
    import resource
except ImportError:  # Windows
    resource = None

MB = 10**6
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; the unit of ru_maxrss


@dataclass(frozen=True)
class Usage:
    """Averages over the steps of an epoch, and the peak memory of the process so far."""

    step_seconds: float
    data_wait_share: float
    """Share of the time of the steps in which they waited for batches."""
    utterances_per_second: float
    host_memory_mb: float
    device_memory_mb: float | None
    """None if the device has no memory of its own."""

    def scalars(self) -> dict[str, float]:
        """Return the numbers by their TensorBoard names."""
        return {f"machine/{name}": value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        text = (
            f"{three_digits(self.step_seconds)} s a step, "
            f"{three_digits(self.utterances_per_second)} utterances/s, "
            f"data {100 * self.data_wait_share:.1f} %, process {self.host_memory_mb:,.0f} MB"
        )
        if self.device_memory_mb is None:
            return text
        return f"{text}, {self.device_memory_mb:,.0f} MB on the device"


def three_digits(number: float) -> str:
    """Format a number with three significant digits."""
    return f"{float(f'{number:.3g}'):,g}"


class Meter:
    """Measures the steps of an epoch on this process. It never synchronises with the device."""

    def __init__(self, batch_size: int, device: torch.device):
        """`batch_size`: utterances a step."""
        self.batch_size = batch_size
        self.device = device
        self._reset()

    def _reset(self) -> None:
        self.steps = 0
        self.seconds = 0.0
        self.waited = 0.0

    def start(self, waited: float) -> None:
        """Start the clock; `waited`: seconds that the run has waited for batches so far."""
        self.start_time = time.perf_counter()
        self.waited_before = waited

    def stop(self, steps: int, waited: float) -> None:
        """Stop the clock after `steps` steps, which the device must have finished."""
        self.steps += steps
        self.seconds += time.perf_counter() - self.start_time
        self.waited += waited - self.waited_before

    def read(self) -> Usage:
        """Return the usage since the last call, and start a new epoch."""
        usage = Usage(
            step_seconds=self.seconds / self.steps,
            data_wait_share=self.waited / self.seconds,
            utterances_per_second=self.batch_size * self.steps / self.seconds,
            host_memory_mb=host_memory(),
            device_memory_mb=device_memory(self.device),
        )
        self._reset()
        return usage


def host_memory() -> float:
    """Return the peak resident set size of this process, in MB."""
    if resource is None:
        return psutil.Process().memory_info().peak_wset / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / MB


def device_memory(device: torch.device) -> float | None:
    """Return the MB taken from a device: the peak on CUDA, the present amount on MPS, None on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / MB
    return torch.mps.driver_allocated_memory() / MB if device.type == "mps" else None


class Throttle:
    """Limits optional work, such as drawing, to a share of the run's time.

    `if throttle.due: with throttle: ...` does the work if enough other time has passed since the
    last time.
    """

    def __init__(self, share: float = 0.1):
        """`share`: of the whole time that the work may take."""
        self.pause = 1 / share - 1  # seconds of other work for each second of this work
        self.next_time = 0.0

    @property
    def due(self) -> bool:
        return time.perf_counter() >= self.next_time

    def __enter__(self) -> None:
        self.start_time = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        now = time.perf_counter()
        self.next_time = now + self.pause * (now - self.start_time)
