"""The folder of a run: its lock, configuration, log, history, TensorBoard events and checkpoints."""

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

from config import ResultFlags
from training.checkpoints import Checkpoints
from training.meters import Usage
from training.provenance import Origin, read_checkpoint_record
from utils import UserError, delete_folder, read_json_object, write_json, write_text

FLAGS_THAT_MAY_CHANGE = {
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
    "parallel",
}
"""Flags that do not change the result: a resumed run may have other values of them."""

log = logging.getLogger("emodarts")


def earlier_flags(folder: Path) -> dict[str, Any]:
    """Return the flags of an earlier run from its config.json, or {} if there is none that can be read."""
    try:
        return read_json_object(folder / "config.json")
    except (OSError, ValueError):
        return {}


class RunFolder:
    """The folder runs/NAME/KIND of one configuration. Enter it as a context manager to write to it.

    In a distributed run only the first process writes (`writes`); elsewhere the methods that write do nothing.
    """

    def __init__(
        self,
        kind: str,
        config: ResultFlags,
        writes: bool = True,
        origin: Origin | None = None,
        on_terminal: bool = True,
        sections: Mapping[str, Any] | None = None,
    ):
        """Check the folder without changing it. With `on_terminal`, its log is also printed.

        `sections` are the flags of other commands that the run uses, for its config.json.
        Raises `UserError` if it contains a run that the flags neither resume nor overwrite.
        """
        self.config = config
        self.origin = origin or Origin({}, {})
        self.path = config.folder / kind
        self.writes = writes
        self.on_terminal = on_terminal
        self.outer_log: list[logging.Handler] = []
        self.events: SummaryWriter | None = None
        # outside the folder that --overwrite deletes
        self.lock = FileLock(self.path.with_name(f".{kind}.lock"))
        self.plots = self.path / "plots"
        self.checkpoints = Checkpoints(self.path)
        self.flags = config.model_dump(mode="json", exclude={"resume", "overwrite", "config", "plan"})
        self.flags |= sections or {}
        if writes:  # the first process may have created the run before another process looks
            self._check_existing_run()

    def _check_existing_run(self) -> None:
        if not self.path.is_dir() or all(path.name.startswith(".") for path in self.path.iterdir()):
            return  # at most a temporary file of a process that was killed
        if not (self.path / "config.json").exists():
            raise UserError(f"{self.path} is not empty and holds no run; choose another --name")
        if self.config.resume:
            flags = self._read_object("config.json")
            self._require_same_settings(flags, self._read_origin()["inputs"], self.path)
        elif not self.config.overwrite:
            raise UserError(f"{self.path} holds a run: --resume continues it, --overwrite starts anew")

    def _read_object(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return read_json_object(path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error}): choose another --name, or --overwrite the run"
            ) from None

    def __enter__(self) -> "RunFolder":
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Lock the folder, delete the earlier run with --overwrite, store the configuration, start the log.

        Raises `UserError` if another process writes to the folder, or has started a run there meanwhile.
        """
        self.outer_log = list(log.handlers)
        log.handlers.clear()
        if self.writes:
            self._acquire_lock()
            self._check_existing_run()
            if self.config.overwrite:
                self._delete_existing_run()
            self._refuse_links()
            write_json(self.path / "config.json", self.flags)  # the first file: it marks the folder as a run
            self._record_start()
            self.plots.mkdir(exist_ok=True)
            self.checkpoints.remove_temporary_files()
        self._start_log()

    def _acquire_lock(self) -> None:
        """Lock the folder. The operating system releases the lock when the process ends in any way."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire(blocking=False)
        except Timeout:
            raise UserError(
                f"{self.path} is in use by another process: wait, or choose another --name"
            ) from None

    def _delete_existing_run(self) -> None:
        """Rename the folder, then delete it, so that a kill leaves the whole run in place or none of it."""
        deleted = self.path.with_name(f".{self.path.name}.deleted")
        delete_folder(deleted)  # left by an attempt that was killed
        if self.path.exists():
            self.path.rename(deleted)
            delete_folder(deleted)

    def _refuse_links(self) -> None:
        """Raise `UserError` if a symbolic link in the folder would make the run write outside it.

        The folder itself may be a link, for example to a larger disk.
        """
        for path in self.path.rglob("*"):
            if path.is_symlink():
                raise UserError(
                    f"{path} is a link, and a run writes only in its own folder: choose another --name"
                )

    def _require_same_settings(
        self, flags: Mapping[str, Any], inputs: Mapping[str, Any], where: Path
    ) -> None:
        """Raise `UserError` if the run or checkpoint at `where` was made with other flags or inputs."""
        names = sorted((flags.keys() | self.flags.keys()) - FLAGS_THAT_MAY_CHANGE)
        changed = [name for name in names if flags.get(name) != self.flags.get(name)]
        if changed:
            now = " and ".join(f"--{name} is {self.flags.get(name)}" for name in changed)
            before = " and ".join(str(flags.get(name)) for name in changed)
            raise UserError(
                f"{now}, but {where} was started with {before}: "
                "resume with the same settings, or choose another --name"
            )
        for name, value in inputs.items():
            if name in self.origin.inputs and self.origin.inputs[name] != value:
                raise UserError(
                    f"{name} has changed since {where} was started: "
                    "restore the old one, or choose another --name"
                )

    def _read_origin(self) -> dict[str, Any]:
        """Return the content of origin.json; it is missing if the run was killed before it was written."""
        path = self.path / "origin.json"
        origin = {"inputs": {}, "starts": []}
        if path.exists():
            origin |= self._read_object(path.name)
        if not (isinstance(origin["inputs"], dict) and isinstance(origin["starts"], list)):
            raise UserError(f"{path} is damaged: choose another --name, or --overwrite the run")
        return origin

    def _record_start(self) -> None:
        """Add this start of the program to origin.json."""
        starts = [*self._read_origin()["starts"], dict(self.origin.start)]
        write_json(self.path / "origin.json", {"inputs": dict(self.origin.inputs), "starts": starts})

    def _start_log(self) -> None:
        """Send the log to the run's file and to the terminal; a process that does not write logs nothing.

        The log of a run that is open already goes on when this one is closed.
        """
        log.propagate = False
        log.setLevel(logging.INFO if self.writes else logging.CRITICAL)
        if self.writes:
            file = LogFile(self.path / f"{self.path.name}.log", encoding="utf-8")
            file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            log.addHandler(file)
            if self.on_terminal:
                log.addHandler(logging.StreamHandler(sys.stdout))

    def open_events(self, first_epoch: int) -> None:
        """Open TensorBoard's event file. Earlier events of `first_epoch` and later epochs are discarded."""
        if self.writes:
            self.events = SummaryWriter(str(self.path), purge_step=first_epoch)

    def record(self, history: list[dict[str, Any]], usage: Usage) -> None:
        """Write the history, send the last epoch's numbers to TensorBoard, and log the main ones.

        `usage` is left out of the history, so that the history is the same whenever the run is
        repeated.
        """
        if not self.writes:
            return
        last = history[-1]
        write_text(self.path / "history.jsonl", "".join(json.dumps(epoch) + "\n" for epoch in history))
        numbers = {key: value for key, value in last.items() if isinstance(value, float)}
        self.add_scalars({**numbers, **usage.scalars()}, last["epoch"])
        main = {key: value for key, value in last.items() if key.startswith(("train/", "valid/"))}
        text = "  ".join(f"{key} {value:.3f}" for key, value in main.items())
        log.info("epoch %3d  %s  %s", last["epoch"], text, usage)

    def add_scalars(self, numbers: dict[str, float], epoch: int) -> None:
        """Add numbers to TensorBoard."""
        for key, value in numbers.items():
            self.events.add_scalar(key, value, epoch)
        self.events.flush()

    def add_image(self, tag: str, picture: Path, epoch: int) -> None:
        """Add a PNG file to TensorBoard; a file of another kind (a graph's source) is skipped."""
        if picture.suffix == ".png":
            self.events.add_image(tag, imread(picture)[..., :3], epoch, dataformats="HWC")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write a checkpoint that carries the flags and inputs of this run; keep the one before it."""
        if self.writes:
            self.checkpoints.save({**state, "made": self.origin.checkpoint_record(self.flags)})

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state in the newest undamaged checkpoint, or None if there is no checkpoint.

        Raises `UserError` if the checkpoint was copied here from a run with other flags or inputs.
        Its tensors may have the right shapes.
        """
        state = self.checkpoints.load(device)
        if state is not None:
            path = self.checkpoints.newest
            flags, inputs = read_checkpoint_record(state.get("made"), path)
            self._require_same_settings(flags, inputs, path)
        return state

    def close(self) -> None:
        """Close the event file and the log, and release the lock."""
        try:
            if self.events:
                self.events.close()
        finally:
            close_log()
            log.handlers.extend(self.outer_log)
            self.lock.release()


class LogFile(logging.FileHandler):
    """A log file that raises an error if it cannot be written; logging would only print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # re-raises the error of writing the record


def close_log() -> None:
    """Remove and close the handlers of the log."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
