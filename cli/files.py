"""Flags in YAML files, which are read safely: at the top level, and in a section for each command.

A file may extend another, given relative to its own folder: `extends: small.yaml`.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cli.flags import Config, Flags, as_typed, fields_by_flag, other_names, validate
from utils import UserError

COMMANDS = ("prepare", "search", "augment", "evaluate", "predict", "export", "visualize", "crossval")
MAX_FILE = 100_000
"""Largest configuration file in bytes; a real one has a few thousand."""
MAX_DIGITS = 40
"""Longest whole number in a configuration file; Python reads longer ones in quadratic time."""
YAML_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError)
"""Exceptions that the safe YAML loader raises for malformed input."""


def from_file(kind: type[Config], path: Path | None, **flags: Any) -> Config:
    """The flags that a configuration file gives to a command that another command runs, overridden by `flags`.

    --config is the file. Flags at its top that the command does not have are those of the other command.
    """
    found: dict[str, Any] = {}
    for shared, own in read_files(path, kind) if path else []:
        known = {name: value for name, value in shared.items() if name in kind.model_fields}
        found = override(kind, override(kind, found, known), own)
    return validate(kind, override(kind, {**found, "config": path}, flags))


def override(kind: type[Flags], flags: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` flags over others. A flag also replaces those that it excludes."""
    replaced = set().union(*(names for names in kind.exclusive if names & own.keys()))
    return {**{name: value for name, value in flags.items() if name not in replaced}, **own}


def read_flags(path: Path, kind: type[Flags]) -> dict[str, Any]:
    """The flags that a configuration file gives to a command: those in its section, over those at the top."""
    flags: dict[str, Any] = {}
    for shared, own in read_files(path, kind):
        flags = override(kind, override(kind, flags, shared), own)
    return flags


def read_files(
    path: Path, kind: type[Flags], extending: tuple[Path, ...] = ()
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Read a YAML (or JSON) file, after the file that it names as `extends`, and the file that this one names.

    For each file: the flags at its top level, and those under the command's name. A later file overrides.
    """
    values = read_yaml(path)
    shared = {key: value for key, value in values.items() if key not in (*COMMANDS, "extends")}
    flags = rename_flags(shared, kind, path), rename_flags(values.get(kind.command) or {}, kind, path)
    if "extends" not in values:
        return [flags]
    base = values["extends"]
    if not isinstance(base, str) or path.resolve() in extending:
        raise UserError(f"--config {path}: extends must name another file, which does not extend this one")
    return [*read_files(path.parent / base, kind, (*extending, path.resolve())), flags]


def read_yaml(path: Path) -> dict[Any, Any]:
    """The contents of a configuration file. Raises `UserError` if it is none."""
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
    return values


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
