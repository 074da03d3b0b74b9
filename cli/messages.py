"""What a command says besides its results: notes, errors, and the command that comes next."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from cli.files import COMMANDS, read_flags
from cli.flags import Flags, as_typed, fields_by_flag, is_positional, validate
from utils import WINDOWS, UserError, printable

MPS_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"
"""The environment variable that lets the CPU compute what torch lacks on Apple's GPU."""


def note(text: str) -> None:
    """Print a line on stderr; of several processes, only the first prints."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("note:", printable(text), file=sys.stderr)


def error_message(error: UserError | OSError | NotImplementedError) -> str:
    """The text of an error, for the user."""
    if isinstance(error, NotImplementedError):
        missing = str(error).split(". ")[0]
        return f"{missing}: export {MPS_FALLBACK}=1 and the CPU computes it, or pass --device cpu"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def command_to_type(
    kind: type[Flags], file: Path | None, shown: Mapping[str, Any], others: Mapping[str, Any] | None = None
) -> str:
    """The command line, quoted for the shell, that gives these flags to a command.

    `file` is its --config file, which is left out if it has no flags for the command, or wrong ones. `others` are flags
    of another command, and are typed only where this one takes them and would else have another value.
    """
    try:
        defaults = read_flags(file, kind) if file else {}
        validate(kind, {**defaults, **shown})
    except UserError:
        defaults = {}
    fields = fields_by_flag(kind)
    flags = dict(shown)
    for name, value in (others or {}).items():
        if as_typed(value) != as_typed(defaults.get(name, fields[name].default)):
            with suppress(UserError):
                validate(kind, {**flags, name: value})
                flags[name] = value
    program = Path(sys.argv[0])
    script = f"{kind.command}.py"
    words = ["python", str(program.with_name(script)) if program.stem in COMMANDS else script]
    for name, value in {**flags, **({"config": file} if defaults else {})}.items():
        words += words_of(name, value, fields[name])
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)


def words_of(name: str, value: Any, field: FieldInfo) -> list[str]:
    """The words by which a flag is typed."""
    values = [str(each) for each in (value if isinstance(value, tuple | list) else [value])]
    if is_positional(field):
        return values
    if field.annotation is bool:
        return [f"--{name}" if value else f"--no_{name}"]
    if any(each.startswith("-") for each in values):
        return [f"--{name}={each}" for each in values]
    return [f"--{name}", *values]
