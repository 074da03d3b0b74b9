"""The live table of a running cross-validation, and a line for each trial that ends."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from config import CrossvalConfig
from report.trials import TrialKey
from study.runner import WAITING, progress_of, trial_folder
from utils import UserError

MAX_ROWS = 30


class LiveTable:
    """Shows the trials that have not ended, if on a terminal; prints a line for each that ends."""

    def __init__(self, keys: Sequence[TrialKey], config: CrossvalConfig, console: Console | None = None):
        self.outcomes: dict[TrialKey, str | None] = dict.fromkeys(keys)  # None: has not ended
        self.config = config
        self.console = console or Console()
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveTable":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def add_outcome(self, key: TrialKey, outcome: Any) -> None:
        """Print the line of a trial that has ended, with its metrics or with an exception."""
        failed = isinstance(outcome, Exception)
        text = describe_failure(outcome) if failed else f"UA {outcome['ua']:.1%}"
        self.outcomes[key] = text
        count = f"{self._ended():>3}/{len(self.outcomes)}"
        line = f"{count}  {key.method:12}  fold {key.fold}  seed {key.seed}  {text}"
        self.console.print(line, highlight=False, markup=False)

    def refresh(self) -> None:
        """Read the progress of the trials from disk and redraw the table."""
        if self.live.is_started:
            self.live.update(self._table(), refresh=True)

    def _ended(self) -> int:
        return sum(text is not None for text in self.outcomes.values())

    def _table(self) -> Table:
        """The trials that have not ended, at most `MAX_ROWS` of them; running trials come first."""
        title = f"{self._ended()} of {len(self.outcomes)} trials done"
        table = Table("method", "fold", "seed", "", title=title, title_justify="left", box=None)
        remaining = [key for key, text in self.outcomes.items() if text is None]
        progress = {key: progress_of(trial_folder(key, self.config)) for key in remaining}
        remaining.sort(key=lambda key: progress[key] == WAITING)
        for key in remaining[:MAX_ROWS]:
            table.add_row(key.method, str(key.fold), str(key.seed), progress[key])
        return table


def describe_failure(error: Exception) -> str:
    """Why a trial failed, on one line; unexpected errors are shown with their type."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return " ".join(f"failed: {kind}{error}".split())[:200]
