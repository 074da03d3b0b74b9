"""The base class of the flags of a command, and what is known of a flag: its names, its text, its mistakes.

The models of the flags are in `config`; pydantic converts and checks the values. A mistake becomes one `UserError` that
names the flag.
"""

import difflib
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from utils import UserError

POSITIONAL = {"positional": True}
"""Marks a field that takes the words that follow no flag."""


def also(*names: str) -> dict[str, Any]:
    """Further names of a flag, for users of other programs."""
    return {"also": list(names)}


class Flags(BaseModel):
    """Base class of the flags of a command."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # a YAML file says `name: 2024` and `gpus: 0`
    )
    command: ClassVar[str]
    environment: ClassVar[dict[str, str]] = {}
    """Flags that an environment variable sets where neither the command line nor the file does."""
    exclusive: ClassVar[tuple[set[str], ...]] = ()
    """Sets of flags of which one may be given: one on the command line also replaces the others of the file."""
    ignored: ClassVar[dict[str, str]] = {}
    """Flags of emoDARTS that have no effect here: accepted with one value and a note, which ends with this reason."""
    instead: ClassVar[dict[str, str]] = {}
    """Flags of emoDARTS that cannot be accepted: an error says what to type instead."""
    only_results: ClassVar[bool] = False
    """Whether the standard output is for results alone, which other programs may read."""

    config: Path | None = None
    """A YAML file of flags, at its top level or under the command's name; the command line overrides it."""

    def opening(self) -> str:
        """What the command is about to do, for its first line; empty for none."""
        return ""


Config = TypeVar("Config", bound=Flags)


def validate(kind: type[Config], values: dict[str, Any]) -> Config:
    """Convert and check the values. Raises `UserError` for the first that is wrong, naming its flag."""
    try:
        return kind(**values)
    except ValidationError as invalid:
        error = invalid.errors()[0]
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        raise UserError(message)
    name = str(error["loc"][0])
    field = fields_by_flag(kind).get(name)
    if field is None:
        raise UserError(unknown_flag(f"--{name}", kind))
    flag = name.upper() if is_positional(field) else f"--{name}"
    if error["type"] == "missing":
        raise UserError(f"{flag} is missing; --help tells what it is")
    raise UserError(f"{flag} {as_typed(error['input'])[:80]}: {message}")


def unknown_flag(flag: str, kind: type[Flags]) -> str:
    """The message for a flag that does not exist, with the most similar one that does."""
    fields = {name: field for name, field in fields_by_flag(kind).items() if not is_positional(field)}
    flags = [f"--{each}" for name, field in fields.items() for each in (name, *other_names(field))]
    near = difflib.get_close_matches(flag, flags, n=1, cutoff=0.75)
    return f"unknown flag {flag}" + (f"; did you mean {near[0]}?" if near else "; --help lists them all")


def fields_by_flag(kind: type[Flags]) -> dict[str, FieldInfo]:
    """The fields of a model, by the names of their flags."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def other_names(field: FieldInfo) -> list[str]:
    """The further names of a flag (see `also`)."""
    return (field.json_schema_extra or {}).get("also", [])


def is_positional(field: FieldInfo) -> bool:
    """Whether a field takes the words that follow no flag."""
    return bool((field.json_schema_extra or {}).get("positional"))


def as_typed(value: Any) -> str:
    """A value as one would type it on the command line."""
    try:
        return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    except ValueError:  # a whole number too long for Python to print
        return "a huge number"
