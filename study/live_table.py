"""The live table of a cross-validation; where there is no terminal, a line for each trial that ends."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from config import CrossvalConfig
from report.trials import Key
from study.runner import folder_of, stage
from utils import UserError

ROWS = 30
"""Trials that a table has room for; those under way come first."""


class Board:
    """Shows what became of every trial, while it is a context."""

    def __init__(self, keys: Sequence[Key], config: CrossvalConfig, console: Console | None = None):
        self.outcomes: dict[Key, str] = dict.fromkeys(keys, "")
        self.config = config
        self.console = console or Console()
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Board":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.live.stop()

    def end(self, key: Key, outcome: Any) -> None:
        """Note that a trial has ended, with its metrics or with an exception."""
        text = told(outcome) if isinstance(outcome, BaseException) else f"UA {outcome['ua']:.1%}"
        self.outcomes[key] = text
        count = sum(map(bool, self.outcomes.values()))
        line = f"{count:>3}/{len(self.outcomes)}  {key.method:12}  fold {key.fold}  seed {key.seed}  {text}"
        self.console.print(line, highlight=False, markup=False)

    def refresh(self) -> None:
        """Draw the table anew."""
        if self.live.is_started:
            self.live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """The trials that have not ended."""
        ended = sum(map(bool, self.outcomes.values()))
        table = Table(title=f"{ended} of {len(self.outcomes)} trials done", title_justify="left", box=None)
        for name in ("method", "fold", "seed", ""):
            table.add_column(name)
        left = [
            (key, stage(folder_of(key, self.config))) for key, outcome in self.outcomes.items() if not outcome
        ]
        for key, how_far in sorted(left, key=lambda pair: pair[1] == "waiting")[:ROWS]:
            table.add_row(key.method, str(key.fold), str(key.seed), how_far)
        return table


def told(error: BaseException) -> str:
    """Why a trial failed, on one line; the kind of an error that is not worded for users tells as much as its text."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return " ".join(f"failed: {kind}{error}".split())[:200]
