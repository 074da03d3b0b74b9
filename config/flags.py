"""From words and files to a configuration: argparse splits the line, YAML is read safely, pydantic converts and checks.

Whatever is wrong becomes one `UserError` that names the flag.
"""

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from utils import UserError

MAX_FILE = 100_000  # bytes of a configuration file; a real one has a few thousand
MAX_DIGITS = 40  # of a whole number in it: longer ones take long to read, and cannot be printed
COMMANDS = ("prepare", "search", "augment", "evaluate", "predict", "export", "visualize", "crossval")
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError)
"""What reading a hostile YAML file can raise: the safe loader's own constructors fail in all these ways."""


class PlainLoader(yaml.SafeLoader):
    """Plain values alone: by aliases, a few lines may stand for more values than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias such as *name is not read: write out what it stands for")
        node = super().compose_node(parent, index)
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"a whole number of more than {MAX_DIGITS} characters")
        return node


class Flags(BaseModel):
    """What the flags of all commands have in common."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # a YAML file says `name: 2024` and `gpus: 0`
    )

    config: Path | None = None
    """A YAML file of flags, at its top or under the command's name; a flag on the line wins."""


Config = TypeVar("Config", bound=Flags)


def parse(kind: type[Config], command: str, argv: list[str] | None = None) -> Config:
    """The flags of a command line (default: this process's), over those of its --config file, over the defaults."""
    typed = vars(build_parser(kind, command).parse_args(argv))
    if "config" not in typed:
        return validated(kind, typed)
    everyones, own = read_file(Path(typed["config"]), kind, command)
    return validated(kind, {**everyones, **own, **typed})


def from_file(kind: type[Config], command: str, path: Path | None, **flags: Any) -> Config:
    """What a configuration file says under `command`'s own name, `flags` winning over it."""
    return validated(kind, {**(read_file(path, kind, command)[1] if path else {}), **flags})


def validated(kind: type[Config], values: dict[str, Any]) -> Config:
    """Values checked and converted; the first that is wrong becomes a `UserError` that names its flag."""
    try:
        return kind(**values)
    except ValidationError as invalid:
        error = invalid.errors()[0]
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        raise UserError(message)
    flag, field = str(error["loc"][0]), flag_names(kind).get(str(error["loc"][0]))
    if field is None:
        raise UserError(unknown_flag(f"--{flag}", kind))
    name = flag.upper() if is_positional(field) else f"--{flag}"
    if error["type"] == "missing":
        raise UserError(f"{name} is missing; --help tells what it is")
    raise UserError(f"{name} {shown(error['input'])[:80]}: {message}")


def read_file(path: Path, kind: type[Flags], command: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A YAML (or JSON) mapping of flags: those at its top, and those under the name of `command`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ValueError(f"larger than {MAX_FILE} bytes")
        values = yaml.load(content.decode("utf-8"), PlainLoader)
    except UNREADABLE as error:
        raise UserError(f"--config {path}: not a readable YAML file ({' '.join(str(error).split())[:200]})") from None
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(values.get(name) or {}, dict) for name in COMMANDS):
        raise UserError(f"--config {path}: must map flags to values, at the top or under {', '.join(COMMANDS)}")
    top = {key: value for key, value in values.items() if key not in COMMANDS}
    return by_own_name(top, kind), by_own_name(values.get(command) or {}, kind)


def by_own_name(flags: dict[Any, Any], kind: type[Flags]) -> dict[str, Any]:
    """Flags of a file, each by its own name, whichever it stands there under."""
    own = {other: name for name, field in flag_names(kind).items() for other in other_names(field)}
    named = {str(name).replace("-", "_"): value for name, value in flags.items()}
    return {own.get(name, name): value for name, value in named.items()}


class Parser(argparse.ArgumentParser):
    """argparse that takes `-` for `_` in flags, and raises `UserError` instead of printing its usage."""

    def __init__(self, kind: type[Flags], command: str):
        super().__init__(
            f"{command}.py", description=kind.__doc__, allow_abbrev=False, argument_default=argparse.SUPPRESS
        )
        self.kind = kind

    def parse_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        args = [re.sub(r"^--\w[\w-]*", lambda flag: "--" + flag[0][2:].replace("-", "_"), word) for word in args]
        known, unknown = self.parse_known_intermixed_args(args, namespace)
        if unknown:
            raise UserError(unknown_flag(unknown[0].split("=")[0], self.kind))
        return known

    def error(self, message: str):
        raise UserError(message)


def unknown_flag(flag: str, kind: type[Flags]) -> str:
    """The message for a flag that does not exist, with the nearest that does."""
    fields = {name: field for name, field in flag_names(kind).items() if not is_positional(field)}
    flags = [f"--{each}" for name, field in fields.items() for each in (name, *other_names(field))]
    near = difflib.get_close_matches(flag, flags, n=1)
    return f"unknown flag {flag}" + (f"; did you mean {near[0]}?" if near else "; --help lists them all")


def flag_names(kind: type[Flags]) -> dict[str, FieldInfo]:
    """Field by the flag's own name."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def build_parser(kind: type[Flags], command: str) -> Parser:
    """A parser with one flag a field; values stay words, for pydantic to convert."""
    parser = Parser(kind, command)
    for name, field in flag_names(kind).items():
        told = not field.is_required() and field.default not in (None, False, ())
        default = f" (default: {shown(field.default)})" if told else ""
        text = f"{field.description}{default}".replace("%", "%%")
        if is_positional(field):
            several = {"nargs": "*"} if get_origin(field.annotation) is tuple else {"nargs": "?"}
            parser.add_argument(name, **several, default=argparse.SUPPRESS, metavar=name.upper(), help=text)
        elif field.annotation is bool:
            parser.add_argument(f"--{name}", action="store_true", help=text)
            parser.add_argument(f"--no_{name}", dest=name, action="store_false", help=argparse.SUPPRESS)
        elif get_origin(field.annotation) is tuple:
            parser.add_argument(f"--{name}", nargs="+", metavar=name[:-1].rpartition("_")[2].upper(), help=text)
        else:
            names = [f"--{each}" for each in (name, *other_names(field))]
            parser.add_argument(*names, dest=name, metavar=metavar(field.annotation), help=text)
    return parser


def other_names(field: FieldInfo) -> list[str]:
    """What a flag that takes one value is called besides its own name, as users of other programs call it."""
    return (field.json_schema_extra or {}).get("also", [])


def is_positional(field: FieldInfo) -> bool:
    """Whether the words that follow no flag are this field's."""
    return bool((field.json_schema_extra or {}).get("positional"))


def shown(value: Any) -> str:
    """A value as one would type it."""
    try:
        return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    except ValueError:  # a whole number too long for Python to print
        return "a huge number"


def metavar(annotation: Any) -> str:
    """What stands for a value in the help: the choices, or the type."""
    kinds = {int: "N", float: "X"}
    literal = next((each for each in (annotation, *get_args(annotation)) if get_origin(each) is Literal), None)
    if literal:
        numbers = [kinds[kind] for each in get_args(annotation) for kind in get_args(each)[:1] if kind in kinds]
        return "|".join([*numbers, *get_args(literal)])
    return kinds.get(annotation, "PATH" if "Path" in str(annotation) else "TEXT")
