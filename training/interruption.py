"""Signals that end a run, noted until its step is done."""

import signal

from training import distributed


class Interruption:
    """While active, SIGINT, SIGTERM and SIGUSR1 are noted in `signal` instead of ending the process."""

    SIGNALS = (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGUSR1,
    )  # the last is what a cluster's --signal=USR1@60 sends

    def __init__(self) -> None:
        self.signal: int | None = None
        self.agreed: int | None = None  # upon by all processes

    def __enter__(self) -> "Interruption":
        self.before = {s: signal.signal(s, self._note) for s in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def agree(self) -> int | None:
        """The signal that any process has noted. All ask after every step, so all end after the same one."""
        self.agreed = distributed.maximum(self.signal or 0) or None
        return self.agreed

    def _note(self, number: int, _: object) -> None:
        self.signal = number
