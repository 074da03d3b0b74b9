"""Where a result comes from: the versions, the commit, the machine and the device of every start of a run."""

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

    inputs: Mapping[str, Any]  # what the flags only name, such as the feature store, in a form to compare
    start: Mapping[str, Any]  # the program and the machine, for the record

    def label(self, flags: Mapping[str, Any]) -> str:
        """What a checkpoint says of itself."""
        return json.dumps({"flags": flags, "inputs": dict(self.inputs), "start": dict(self.start)})


def read_label(label: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The flags and inputs of the checkpoint in `path`. `UserError` where it has no such label."""
    try:
        found = json.loads(label)
        return dict(found["flags"].items()), dict(found["inputs"].items())
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} does not say what it is of ({type(error).__name__}); --overwrite starts anew"
        ) from None


def describe(device: torch.device) -> dict[str, str | int | None]:
    """This start of the program, for the record."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "program": tomllib.loads((PROGRAM / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "version"
        ],
        "commit": commit(PROGRAM),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.node(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": name_of(device),
        "compiled": library_name() if device.type == "cpu" else None,
    }


def commit(folder: Path) -> str | None:
    """The git commit of a folder, with `-dirty` where files differ from it; None where there is none, or no git."""
    if not (folder / ".git").exists():
        return None
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def name_of(device: torch.device) -> str:
    """A device as a reader knows it."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
