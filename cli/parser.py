"""The command line: argparse splits it into flags, which replace those of the environment and of the --config file."""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from cli.files import override, read_flags
from cli.flags import (
    Config,
    Flags,
    as_typed,
    fields_by_flag,
    is_positional,
    other_names,
    unknown_flag,
    validate,
)
from cli.messages import note
from utils import UserError


def parse(kind: type[Config], argv: list[str] | None = None) -> Config:
    """The flags of a command line (default: this process's), over those of its --config file, over the defaults."""
    typed = vars(build_parser(kind).parse_args(argv))
    for name, reason in kind.ignored.items():
        if name in typed:
            note(f"--{name} {typed.pop(name)} is ignored: {reason}")
    if "config" in typed:
        typed = override(kind, read_flags(Path(typed["config"]), kind), typed)
    return validate(kind, {**read_environment(kind, typed), **typed})


def read_environment(kind: type[Flags], given: Mapping[str, Any]) -> dict[str, str]:
    """The flags that are not given but have an environment variable that is set."""
    values = {}
    for name, variable in kind.environment.items():
        text = os.environ.get(variable, "").strip().lower()
        if text and name not in given:
            note(f"--{name} {text}, from the environment variable {variable}")
            values[name] = text
    return values


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
            value = singular(name.rpartition("_")[2]).upper()
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
    has_default = not field.is_required() and field.default is not False and field.default not in (None, ())
    default = f" (default: {as_typed(field.default)})" if has_default else ""
    return f"{field.description}{default}".replace("%", "%%")


def singular(word: str) -> str:
    """The name of one of several values: OP of ops, COPY of copies."""
    return f"{word.removesuffix('ies')}y" if word.endswith("ies") else word.removesuffix("s")


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
