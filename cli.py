"""Command lines, configuration files and exit codes.

argparse splits the command line, YAML is read safely, pydantic converts and checks the values. The models of the flags
are in `config`. Any mistake becomes one `UserError` that names the flag.
"""

import argparse
import difflib
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from utils import WINDOWS, Interrupted, UserError, printable

MAX_FILE = 100_000
"""Largest configuration file in bytes; a real one has a few thousand."""
MAX_DIGITS = 40
"""Longest whole number in a configuration file; Python reads longer ones in quadratic time."""
COMMANDS = ("prepare", "search", "augment", "evaluate", "predict", "export", "visualize", "crossval")
YAML_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError)
"""Exceptions that the safe YAML loader raises for malformed input."""
MPS_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"
"""The environment variable that lets the CPU compute what torch lacks on Apple's GPU."""

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


# ---------------------------------------------------------------- running a command


def command_line(kind: type[Config]) -> Config:
    """Parse this process's command line; on a mistake, print one line and exit with code 2.

    The commands call this before they import torch, which takes seconds, so that --help and mistakes are answered at
    once. For the same reason, the first line of the output says here what the command is about to do.
    """
    with exit_codes():
        config = parse(kind)
        opening = config.opening()
        if opening and "LOCAL_RANK" not in os.environ:  # torchrun sets it in every process
            stream = sys.stderr if kind.only_results else sys.stdout
            print(f"{kind.command:9} {printable(opening)}", file=stream, flush=True)
        return config


def run_command(run: Callable[[Config], Any], config: Config) -> Any:
    """Return `run(config)`; if it fails, exit as `exit_codes` says."""
    with exit_codes():
        result = run(config)
        sys.stdout.flush()
        return result


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn errors that the user can act on into one line on stderr and an exit code.

    2: wrong input, or an error of the operating system; 128 + the signal's number: interrupted.
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may be invalid Unicode
    try:
        yield
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.args[0])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (UserError, OSError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) and MPS_FALLBACK not in str(error):
            raise
        print("error:", printable(" ".join(error_message(error).split())), file=sys.stderr)
        sys.exit(2)


def error_message(error: UserError | OSError | NotImplementedError) -> str:
    """The text of an error, for the user."""
    if isinstance(error, NotImplementedError):
        missing = str(error).split(". ")[0]
        return f"{missing}: export {MPS_FALLBACK}=1 and the CPU computes it, or pass --device cpu"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def note(text: str) -> None:
    """Print a line on stderr; of several processes, only the first prints."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("note:", printable(text), file=sys.stderr)


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


# ---------------------------------------------------------------- reading flags


def parse(kind: type[Config], argv: list[str] | None = None) -> Config:
    """The flags of a command line (default: this process's), over those of its --config file, over the defaults."""
    typed = vars(build_parser(kind).parse_args(argv))
    for name, reason in kind.ignored.items():
        if name in typed:
            note(f"--{name} {typed.pop(name)} is ignored: {reason}")
    if "config" in typed:
        typed = override(kind, read_flags(Path(typed["config"]), kind), typed)
    return validate(kind, {**read_environment(kind, typed), **typed})


def override(kind: type[Flags], flags: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` flags over others. A flag also replaces those that it excludes."""
    replaced = set().union(*(names for names in kind.exclusive if names & own.keys()))
    return {**{name: value for name, value in flags.items() if name not in replaced}, **own}


def read_environment(kind: type[Flags], given: Mapping[str, Any]) -> dict[str, str]:
    """The flags that are not given but have an environment variable that is set."""
    values = {}
    for name, variable in kind.environment.items():
        text = os.environ.get(variable, "").strip().lower()
        if text and name not in given:
            note(f"--{name} {text}, from the environment variable {variable}")
            values[name] = text
    return values


def from_file(kind: type[Config], path: Path | None, **flags: Any) -> Config:
    """The flags in the command's section of a configuration file, overridden by `flags`; --config is the file."""
    section = {**read_file(path, kind)[1], "config": path} if path else {}
    return validate(kind, override(kind, section, flags))


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


class PlainLoader(yaml.SafeLoader):
    """A YAML loader for plain values, each key once.

    Aliases are refused: by them, a few lines can stand for more values than fit in memory.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if repeated := [key for key, count in keys.items() if count > 1]:
            raise yaml.YAMLError(f"{repeated[0]} is given twice: give it once")
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases such as *name are not supported: write out the value")
        node = super().compose_node(parent, index)
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"a whole number of more than {MAX_DIGITS} characters")
        return node


def read_flags(path: Path, kind: type[Flags]) -> dict[str, Any]:
    """The flags that a configuration file gives to a command: those in its section, over those at the top."""
    shared, own = read_file(path, kind)
    return override(kind, shared, own)


def read_file(path: Path, kind: type[Flags]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a YAML (or JSON) file: the flags at its top level, and those under the command's name."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ValueError(f"larger than {MAX_FILE} bytes")
        values = yaml.load(content.decode("utf-8"), PlainLoader)
    except FileNotFoundError:
        raise UserError(f"--config {path}: no such file") from None
    except YAML_ERRORS as error:
        raise UserError(
            f"--config {path}: not a readable YAML file ({' '.join(str(error).split())[:200]})"
        ) from None
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(values.get(name) or {}, dict) for name in COMMANDS):
        raise UserError(
            f"--config {path}: must map flags to values, at the top or under {', '.join(COMMANDS)}"
        )
    shared = {key: value for key, value in values.items() if key not in COMMANDS}
    return rename_flags(shared, kind, path), rename_flags(values.get(kind.command) or {}, kind, path)


def rename_flags(flags: dict[Any, Any], kind: type[Flags], path: Path) -> dict[str, Any]:
    """Replace `-` by `_`, and further names of a flag by its own. Raises `UserError` if two keys are one flag."""
    own = {other: name for name, field in fields_by_flag(kind).items() for other in other_names(field)}
    renamed: dict[str, Any] = {}
    for key, value in flags.items():
        name = str(key).replace("-", "_")
        name = own.get(name, name)
        if name in renamed:
            first, second = as_typed(renamed[name]), as_typed(value)
            raise UserError(f"--config {path}: {name} is given twice, {first} and {second}: give it once")
        renamed[name] = value
    return renamed


# ---------------------------------------------------------------- the parser


class Parser(argparse.ArgumentParser):
    """argparse that takes `-` for `_` in flags, and raises `UserError` instead of printing its usage.

    Flags may be shortened as long as only one begins so. An ambiguous one is an error that lists the candidates.
    Words after `--` are no flags, whatever they begin with.
    """

    def __init__(self, kind: type[Flags]):
        super().__init__(
            f"{kind.command}.py",
            description=kind.__doc__,
            argument_default=argparse.SUPPRESS,
        )
        self.kind = kind

    def parse_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        end = args.index("--") if "--" in args else len(args)
        flags = [
            re.sub(r"^--\w[\w-]*", lambda flag: "--" + flag[0][2:].replace("-", "_"), word)
            for word in args[:end]
        ]
        known, unknown = self.parse_known_intermixed_args(flags, namespace)
        self._add_words(known, args[end + 1 :])
        for name, advice in self.kind.instead.items():
            if name in known:
                raise UserError(f"--{name} is not a flag here: {advice}")
        if unknown and not unknown[0].startswith("-"):
            raise UserError(f"{unknown[0]} is one word too many: --help tells what {self.prog} takes")
        if unknown:
            raise UserError(unknown_flag(unknown[0].split("=")[0], self.kind))
        return known

    def _add_words(self, known: argparse.Namespace, words: list[str]) -> None:
        """Add the words after `--` to those that belong to no flag."""
        for name, field in fields_by_flag(self.kind).items() if words else ():
            if is_positional(field) and get_origin(field.annotation) is tuple:
                setattr(known, name, [*getattr(known, name, []), *words])
                return
            if is_positional(field) and len(words) == 1 and name not in known:
                setattr(known, name, words[0])
                return
        if words:
            raise UserError(f"{words[0]!r} after -- belongs to no flag; --help lists what {self.prog} takes")

    def error(self, message: str):
        raise UserError(message)


class StoreOnce(argparse.Action):
    """Stores a value, or `const` for a flag without one. A second is an error: no value is dropped silently."""

    def __call__(self, parser, namespace, values, option_string=None):
        value = values if self.const is None else self.const
        if hasattr(namespace, self.dest):
            first = as_typed(getattr(namespace, self.dest))
            raise UserError(f"--{self.dest} is given twice, {first} and {as_typed(value)}: give it once")
        setattr(namespace, self.dest, value)


def build_parser(kind: type[Flags]) -> Parser:
    """A parser with one flag per field. Values stay strings, for pydantic to convert."""
    parser = Parser(kind)
    for name, field in fields_by_flag(kind).items():
        help_text = help_of(field)
        if is_positional(field):
            count = "*" if get_origin(field.annotation) is tuple else "?"
            parser.add_argument(
                name, nargs=count, default=argparse.SUPPRESS, metavar=name.upper(), help=help_text
            )
        elif field.annotation is bool:
            switch = {"dest": name, "action": StoreOnce, "nargs": 0}
            parser.add_argument(f"--{name}", const=True, help=help_text, **switch)
            parser.add_argument(f"--no_{name}", const=False, help=argparse.SUPPRESS, **switch)
        elif get_origin(field.annotation) is tuple:
            value = name[:-1].rpartition("_")[2].upper()
            parser.add_argument(f"--{name}", nargs="+", action="extend", metavar=value, help=help_text)
        else:
            flags = [f"--{each}" for each in (name, *other_names(field))]
            value = metavar(field.annotation)
            parser.add_argument(*flags, dest=name, action=StoreOnce, metavar=value, help=help_text)
    for name in (*kind.ignored, *kind.instead):
        parser.add_argument(f"--{name}", action=StoreOnce, help=argparse.SUPPRESS)
    return parser


def help_of(field: FieldInfo) -> str:
    """The help text of a flag: the field's docstring and its default."""
    has_default = not field.is_required() and field.default not in (None, False, ())
    default = f" (default: {as_typed(field.default)})" if has_default else ""
    return f"{field.description}{default}".replace("%", "%%")


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


def metavar(annotation: Any) -> str:
    """The placeholder of a value in the help text: the choices, or the type."""
    kinds = {int: "N", float: "X"}
    numbers = [kinds[kind] for each in get_args(annotation) for kind in get_args(each)[:1] if kind in kinds]
    literal = next(
        (each for each in (annotation, *get_args(annotation)) if get_origin(each) is Literal), None
    )
    if literal or numbers:
        return "|".join([*numbers, *get_args(literal)])
    return kinds.get(annotation, "PATH" if "Path" in str(annotation) else "TEXT")
