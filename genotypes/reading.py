"""Reading genotypes: JSON, or the string forms of emoDARTS, pt.darts and quark0/darts, also in logs and Python files.

Text from users is parsed and checked, never evaluated.
"""

import ast
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from genotypes.built_in import BUILT_IN
from genotypes.genotype import KEYS, Genotype, check_keys, require, show
from utils import UserError

MAX_FILE = 4_000_000  # bytes; a genotype takes about 1,000, the names of 100,000 speakers a few million
MAX_TEXT = 100_000  # characters of a string form
MAX_STATE = 100  # the largest number in `range(a, b)`
CALL = re.compile(r"\b(?<!class )(?<!def )Genotype\s*\(")
"""The beginning of a string form in a longer text, as in `DARTS_V2 = Genotype(...)` or the log of a search."""


class Source(NamedTuple):
    """A genotype, and what is known about it."""

    genotype: Genotype
    searched_on: dict[str, Any] | None = None
    """The speakers that the search was trained on, as the file has them, unchecked; None if they are not known."""
    place: str = ""
    """Which genotype of a longer text it is, as a sentence; empty if the text is the genotype alone."""


def load_genotype(path: Path | str) -> Genotype:
    """Read a genotype file, which is JSON."""
    return _parse_json(_read_file(path), f"genotype file {show(str(path))}").genotype


def resolve(text: str) -> Genotype:
    """The genotype of a command-line argument: a file, a string form, inline JSON or a built-in name."""
    return read_source(text).genotype


def read_source(text: str) -> Source:
    """The same with what is known about it. Raises `UserError` if the text is none of these, or its genotype is wrong.

    A file may be JSON, or any text with string forms, such as the log of a search or a Python file: the last counts.
    """
    given, stripped = str(text), str(text).strip()
    if os.path.isfile(given):  # never raises, whatever the text
        content, where = _read_file(given), f"genotype file {show(given)}"
        is_json = content.lstrip().startswith("{")
        return _parse_json(content, where) if is_json or not _calls(content) else _last_of(content, where)
    if stripped.startswith("{"):
        return _parse_json(stripped, "genotype given as JSON")
    if stripped in BUILT_IN:
        return Source(BUILT_IN[stripped])
    if _calls(stripped):
        return _last_of(stripped, "genotype string")
    raise UserError(
        f"genotype {show(given)} is not known: give a file that exists (JSON, a string form, or a log with one), "
        f"a string Genotype(...), JSON {{...}}, or a built-in name ({', '.join(BUILT_IN)})"
    )


def parse(text: str, first_line: int = 1) -> Genotype:
    """Parse a string form: of emoDARTS, of pt.darts (no rnn part), or of quark0/darts (edges in one flat list).

    `first_line` is the number of its first line, for errors.
    """
    if len(text) > MAX_TEXT:
        raise UserError(f"genotype string: {len(text)} characters; at most {MAX_TEXT} are read")
    try:
        with warnings.catch_warnings(action="ignore"):  # invalid escapes in a string
            call = ast.parse(text.strip(), mode="eval").body
        ast.increment_lineno(call, first_line - 1)
        match call:
            case ast.Call(ast.Name("Genotype"), values, keywords) if len(values) <= len(KEYS):
                pairs = [*zip(KEYS, values, strict=False), *((each.arg, each.value) for each in keywords)]
                parts = {name: _literal(value) for name, value in pairs}
            case _:
                raise ValueError("it is not of the form Genotype(normal=[...], ...)")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error)[:80] or type(error).__name__
        raise UserError(f"genotype string: {show(text)} cannot be read: {reason}") from None
    if len(parts) < len(pairs):
        raise UserError("genotype string: a part is given twice; give each once, as in normal=[...]")
    check_keys(parts.keys(), required=KEYS[:4])
    return Genotype(**{name: _pair_edges(name, part) for name, part in parts.items()})


def _calls(text: str) -> list[int]:
    """Where the string forms in a text begin, without those on lines that are comments of a Python file."""
    starts = []
    begin = 0
    for line in text.split("\n"):
        if not line.lstrip().startswith("#"):
            starts += [begin + call.start() for call in CALL.finditer(line)]
        begin += len(line) + 1
    return starts


def _last_of(text: str, where: str) -> Source:
    """The last string form in a text, and its place if the text holds more than it."""
    *earlier, start = _calls(text)
    form = _balanced(text[start : start + MAX_TEXT])
    if form == text.strip():
        return Source(parse(form))
    line = text.count("\n", 0, start) + 1
    try:
        genotype = parse(form, line)
    except UserError as error:
        raise UserError(f"{where}, line {line}: {error}") from None
    name = re.search(r"(\w+) *= *$", text[max(0, start - 80) : start])
    called = f" ({name[1]})" if name and name[1].lower() != "genotype" else ""
    others = f", the last of {len(earlier) + 1} genotypes" if earlier else ""
    return Source(genotype, place=f"{where}: line {line}{called} is taken{others}")


def _balanced(text: str) -> str:
    """The text up to the bracket that closes its first one; its first line if none does."""
    depth = 0
    for token in re.finditer(r"""'[^'\n]*'|"[^"\n]*"|\#[^\n]*|[(\[{]|[)\]}]""", text):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if depth == 0 and token[0] in ")]}":
            return text[: token.end()]
    return text.partition("\n")[0]


def _literal(node: ast.expr) -> Any:
    """The value of a syntax tree of lists, tuples, strings, integers and `range(a, b)`; refuses any other.

    `list(...)` and `tuple(...)` of these are allowed.
    """
    match node:
        case ast.Constant(value=str() | int() as value) if not isinstance(value, bool):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Call(ast.Name("range"), [ast.Constant(start), ast.Constant(end)], []):
            if not all(type(number) is int and 0 <= number <= MAX_STATE for number in (start, end)):
                raise UserError(
                    f"genotype string: range({show(start)}, {show(end)}) is not within 0 to {MAX_STATE}"
                )
            return list(range(start, end))
        case ast.Call(
            ast.Name("list" | "tuple"), [ast.Call(ast.Name("range")) | ast.List() | ast.Tuple() as items], []
        ):
            return _literal(items)
    raise UserError(
        f"genotype string: line {node.lineno}, column {node.col_offset + 1}: {type(node).__name__} is not allowed, "
        "only lists, tuples, strings, whole numbers and range(a, b)"
    )


def _pair_edges(cell: str, part: Any) -> Any:
    """Group a flat list of edges, as quark0/darts writes it, into nodes of two; return anything else unchanged."""
    match part:
        case [[str(), *_], *_]:
            problem = f"{len(part)} edges in a flat list; a node has exactly two edges"
            require(len(part) % 2 == 0, cell, problem)
            return [part[i : i + 2] for i in range(0, len(part), 2)]
    return part


def _parse_json(text: str, where: str) -> Source:
    """Parse the content of a genotype file; `where` names it in errors."""
    try:
        value = json.loads(text, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        found = f"not valid JSON ({str(error)[:80]}), and no Genotype(...) is in it"
        raise UserError(f"{where}: {found}") from None
    if not isinstance(value, dict) or "searched_on" not in value:
        return Source(Genotype.from_json(value))
    searched_on = value.pop("searched_on")
    if not isinstance(searched_on, dict):
        raise UserError(f"{where}: searched_on is {show(searched_on)}, not a JSON object")
    return Source(Genotype.from_json(value), searched_on)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` if a key is repeated; `json` takes its last value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is given twice")
    return value


def _read_file(path: Path | str) -> str:
    where = f"genotype file {show(str(path))}"
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
            if len(content) > MAX_FILE:
                raise UserError(f"{where}: larger than {MAX_FILE} bytes; a genotype file is small")
            return content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or a path with a null character
        raise UserError(f"{where}: not a UTF-8 text file ({str(error)[:80]})") from None
