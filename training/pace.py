"""Work that a run can do without, such as its pictures, held to a share of the run's time."""

import time


class Pace:
    """`with pace: ...` does the work; `pace.due` says whether there has been enough other time since the last."""

    def __init__(self, share: float = 0.1):
        """`share`: of the whole time, that the work may take."""
        self.others = 1 / share - 1  # seconds of other work to a second of this one
        self.next = 0.0

    @property
    def due(self) -> bool:
        return time.perf_counter() >= self.next

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        now = time.perf_counter()
        self.next = now + self.others * (now - self.began)
