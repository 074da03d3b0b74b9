"""Signals that end a run: they are recorded and take effect after the current step."""

import signal

from training import distributed


class Interruption:
    """A context in which SIGINT, SIGTERM and SIGUSR1 are recorded instead of ending the process.

    Slurm's --signal=USR1@60 sends the last. Windows has SIGBREAK (Ctrl-Break) in its place.
    """

    SIGNALS = tuple(
        getattr(signal, name)
        for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK")
        if hasattr(signal, name)
    )

    def __init__(self) -> None:
        self.signal: int | None = None
        """The last signal that this process has received."""
        self.agreed: int | None = None
        """The signal that all processes of the run have agreed to end after."""

    def __enter__(self) -> "Interruption":
        self.handlers = {number: signal.signal(number, self._record) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def agree(self) -> int | None:
        """Return the signal that any process has received, or None.

        Every process calls this after every step, so that all of them end after the same step.
        """
        self.agreed = distributed.maximum(self.signal or 0) or None
        return self.agreed

    def _record(self, number: int, _: object) -> None:
        self.signal = number
