"""A run's folder: who may write to it, its configuration, log, history, TensorBoard events, and checkpoints."""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

from config import RunConfig
from training.checkpoints import Checkpoints
from training.meters import Cost
from training.provenance import Origin, read_label
from utils import UserError, delete_folder, read_text, write_json, write_text

MAY_DIFFER = {
    "name",
    "results_path",
    "features",
    "resume",
    "overwrite",
    "config",
    "workers",
    "gpus",
    "print_freq",
    "checkpoint_every",
    "recompute",
}
"""Settings that do not change the result: a resumed run may have others, and a run that was copied another name."""

log = logging.getLogger("emodarts")


def earlier_flags(folder: Path) -> dict[str, Any]:
    """What the configuration of a run says; nothing where there is none to be read."""
    try:
        return dict(json.loads(read_text(folder / "config.json")).items())
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


class RunFolder:
    """runs/NAME/KIND of one configuration. A process that is not the first (`writes` false) leaves the disk alone."""

    def __init__(self, kind: str, config: RunConfig, writes: bool = True, origin: Origin | None = None):
        """Look, but touch nothing. `UserError` where there is a run that the flags neither resume nor overwrite."""
        self.origin = origin or Origin({}, {})
        self.path = config.folder / kind
        self.writes, self.events, self.config = writes, None, config
        self.lock = FileLock(self.path.with_name(f".{kind}.lock"))  # beside: --overwrite deletes the folder
        self.plots, self.checkpoints = self.path / "plots", Checkpoints(self.path)
        self.flags = config.model_dump(mode="json", exclude={"resume", "overwrite", "config", "plan"})
        if writes:  # others may come when it is taken already
            self._check_earlier_run()

    def _check_earlier_run(self) -> None:
        if not self.path.is_dir() or all(path.name.startswith(".") for path in self.path.iterdir()):
            return  # nothing, or half of a first file
        if not (self.path / "config.json").exists():
            raise UserError(f"{self.path} is not empty and holds no run; choose another --name")
        if self.config.resume:
            self._compare(self._earlier("config.json"), self._earlier_origin()["inputs"], self.path)
        elif not self.config.overwrite:
            raise UserError(f"{self.path} holds a run: --resume goes on with it, --overwrite starts anew")

    def _earlier(self, file: str) -> dict[str, Any]:
        path = self.path / file
        try:
            return dict(json.loads(read_text(path)).items())
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged ({error}): choose another --name, or --overwrite the run"
            ) from None

    def __enter__(self) -> "RunFolder":
        try:
            self.take()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> None:
        """Begin to write: delete what --overwrite deletes, store the configuration, start the log.

        `UserError` where another process writes here, or has come first.
        """
        if self.writes:
            self._take_lock()
            self._check_earlier_run()
            if self.config.overwrite:
                self._delete_earlier_run()
            self._refuse_links()
            write_json(self.path / "config.json", self.flags)  # before all else: by it a run is known
            self._record_origin()
            self.plots.mkdir(exist_ok=True)
            self.checkpoints.clear_up()
        self._start_log()

    def _take_lock(self) -> None:
        """The system frees the lock of a process that has ended, in whatever way."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire(blocking=False)
        except Timeout:
            raise UserError(
                f"{self.path} is in use by another process: wait, or choose another --name"
            ) from None

    def _delete_earlier_run(self) -> None:
        """At one go: a kill leaves the whole run in its place, or none of it."""
        doomed = self.path.with_name(f".{self.path.name}.deleted")
        delete_folder(doomed)  # of an attempt that was killed
        if self.path.exists():
            self.path.rename(doomed)
            delete_folder(doomed)

    def _refuse_links(self) -> None:
        """`UserError` where a link within the folder would have the run write elsewhere.

        The folder itself may be one, to a larger disk: who made it chose where the run is.
        """
        for path in self.path.rglob("*"):
            if path.is_symlink():
                raise UserError(
                    f"{path} is a link, and a run writes in its own folder alone: choose another --name"
                )

    def _compare(self, then: Mapping[str, Any], inputs: Mapping[str, Any], where: Path) -> None:
        """Refuse to go on with what was begun under other settings, or from other inputs."""
        flags = sorted((then.keys() | self.flags.keys()) - MAY_DIFFER)
        if changed := [flag for flag in flags if then.get(flag) != self.flags.get(flag)]:
            now = " and ".join(f"--{flag} is {self.flags.get(flag)}" for flag in changed)
            raise UserError(
                f"{now}, but {where} was started with {' and '.join(str(then.get(flag)) for flag in changed)}: "
                "resume with the same settings, or choose another --name"
            )
        for what, had in inputs.items():
            if what in self.origin.inputs and self.origin.inputs[what] != had:
                raise UserError(
                    f"{what} is no longer what {where} was started with: put the old one back, or choose another --name"
                )

    def _earlier_origin(self) -> dict[str, Any]:
        """What origin.json says; nothing where a run was killed before it was written."""
        nothing = {"inputs": {}, "starts": []}
        path = self.path / "origin.json"
        found = {**nothing, **self._earlier(path.name)} if path.exists() else nothing
        if not (isinstance(found["inputs"], dict) and isinstance(found["starts"], list)):
            raise UserError(f"{path} is damaged: choose another --name, or --overwrite the run")
        return found

    def _record_origin(self) -> None:
        """Add this start to those before."""
        starts = [*self._earlier_origin()["starts"], dict(self.origin.start)]
        write_json(self.path / "origin.json", {"inputs": dict(self.origin.inputs), "starts": starts})

    def _start_log(self) -> None:
        """Send the log to the terminal and the run's file; nowhere, from a process that does not write."""
        close_log()
        log.propagate = False
        log.setLevel(logging.INFO if self.writes else logging.CRITICAL)
        if self.writes:
            file = LogFile(self.path / f"{self.path.name}.log", encoding="utf-8")
            file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            log.addHandler(file)
            log.addHandler(logging.StreamHandler(sys.stdout))

    def open_events(self, first_epoch: int) -> None:
        """Open TensorBoard's event file; what an earlier attempt wrote from `first_epoch` on is superseded."""
        if self.writes:
            self.events = SummaryWriter(str(self.path), purge_step=first_epoch)

    def record(self, history: list[dict[str, Any]], cost: Cost) -> None:
        """Write the history, and the numbers of its last epoch to TensorBoard; the main ones to the log as well.

        What the epoch cost the machine is left out of the history, which is the same whenever the run is repeated.
        """
        if not self.writes:
            return
        last = history[-1]
        write_text(self.path / "history.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))
        numbers = {key: value for key, value in last.items() if isinstance(value, float)}
        self.add_scalars({**numbers, **cost.scalars()}, last["epoch"])
        shown = {key: value for key, value in last.items() if key.startswith(("train/", "valid/"))}
        words = (f"{key} {value:.3f}" for key, value in shown.items())
        log.info("epoch %3d  %s  %s", last["epoch"], "  ".join(words), cost)

    def add_scalars(self, numbers: dict[str, float], epoch: int) -> None:
        """Put numbers into TensorBoard."""
        for key, value in numbers.items():
            self.events.add_scalar(key, value, epoch)
        self.events.flush()

    def show(self, tag: str, picture: Path, epoch: int) -> None:
        """Put a picture into TensorBoard; a drawing that is only a source (no `dot` binary) has none to show."""
        if picture.suffix == ".png":
            self.events.add_image(tag, imread(picture)[..., :3], epoch, dataformats="HWC")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, which says what it is of; the one before it is kept."""
        if self.writes:
            self.checkpoints.save({**state, "made": self.origin.label(self.flags)})

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """The newest whole checkpoint's plain state, or None. `UserError` where it is of other settings or inputs.

        That is another run's, put here by hand: it fits as soon as its network is of the same form.
        """
        if (state := self.checkpoints.load(device)) is not None:
            newest = self.checkpoints.newest
            self._compare(*read_label(state.get("made"), newest), newest)
        return state

    def close(self) -> None:
        """Let go of the event file, the log and the folder."""
        try:
            if self.events:
                self.events.close()
        finally:
            close_log()
            self.lock.release()


class LogFile(logging.FileHandler):
    """A log that cannot be written is an error, not a traceback beside the work that goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # what was raised in writing the record


def close_log() -> None:
    """Detach and close what the log is sent to."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
