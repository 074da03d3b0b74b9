"""Where a result comes from: the inputs of a run, and the program and machine of each start.

`origin.json` in the folder of a run holds them, and so does every checkpoint.
"""

import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.fused import library_name
from utils import UserError

PROGRAM = Path(__file__).parent.parent


@dataclass(frozen=True)
class Origin:
    """What a run is made from."""

    inputs: Mapping[str, Any]
    """Inputs that the flags only name, such as the feature store, as values that can be compared."""
    start: Mapping[str, Any]
    """The program and the machine, as `describe` returns them; recorded, not compared."""

    def checkpoint_record(self, flags: Mapping[str, Any]) -> str:
        """Return the JSON text by which a checkpoint says which run it belongs to."""
        return json.dumps({"flags": flags, "inputs": dict(self.inputs), "start": dict(self.start)})


def read_checkpoint_record(record: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the (flags, inputs) in the record of the checkpoint at `path`.

    Raises `UserError` if the checkpoint has no such record.
    """
    try:
        values = json.loads(record)
        return dict(values["flags"]), dict(values["inputs"])
    except (LookupError, TypeError, ValueError):
        raise UserError(f"{path} does not say which run it belongs to; --overwrite starts anew") from None


def describe(device: torch.device) -> dict[str, str | int | None]:
    """Describe this start of the program: time, versions, machine, and the device that it runs on."""
    project = tomllib.loads((PROGRAM / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "program": project["version"],
        "commit": git_commit(PROGRAM),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.node(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "compiled": library_name() if device.type == "cpu" else None,
    }


def git_commit(folder: Path) -> str | None:
    """Return the git commit of a folder, with `-dirty` if files differ from it.

    Returns None if the folder is no git repository, or if git cannot be run.
    """
    if not (folder / ".git").exists():
        return None
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", check=True, timeout=10)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def device_name(device: torch.device) -> str:
    """Return the name of a device, with the model of a CUDA GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
