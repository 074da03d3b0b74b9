"""Genotypes: the cells that a search derives and that a network is built from.

A cell is a directed graph of states. States 0 and 1 are its inputs, the outputs of the two cells before it; node i is
state i + 2. A node is the sum of two edges, each an op applied to an earlier state. The states in `concat` are
concatenated to the cell's output. Text from users (JSON, or the string forms of emoDARTS, pt.darts and quark0/darts,
also in their logs and Python files) is parsed and checked, never evaluated.
"""

import ast
import json
import os
import re
import reprlib
import warnings
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from utils import UserError, write_json

CNN_OPS = (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3",
    "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "none",
)  # fmt: skip
RNN_OPS = (
    "lstm_1", "lstm_2", "lstm_3", "lstm_4", "rnn_1", "rnn_2", "rnn_3", "rnn_4",
    "lstm_att_1", "lstm_att_2", "rnn_att_1", "rnn_att_2", "skip_connect", "none",
)  # fmt: skip
RNN_SCOPES: dict[str, tuple[str, ...]] = {"all": RNN_OPS} | {
    # the part before the last underscore is the scope, so that `lstm` does not include lstm_att_1
    scope: (*(op for op in RNN_OPS if op.rpartition("_")[0] == scope), "skip_connect", "none")
    for scope in ("lstm", "rnn", "lstm_att", "rnn_att")
}

VERSION = 1
MAX_FILE = 4_000_000  # bytes; a genotype takes about 1,000, the names of 100,000 speakers a few million
MAX_TEXT = 100_000  # characters of a string form
MAX_STATE = 100  # the largest number in `range(a, b)`
CALL = re.compile(r"\b(?<!class )(?<!def )Genotype\s*\(")
"""The beginning of a string form in a longer text, as in `DARTS_V2 = Genotype(...)` or the log of a search."""

Edge = tuple[str, int]  # op, source state
Node = tuple[Edge, ...]
_CELLS = {"normal": CNN_OPS, "reduce": CNN_OPS, "rnn": RNN_OPS}
_KEYS = ("normal", "normal_concat", "reduce", "reduce_concat", "rnn", "rnn_concat")


@dataclass(frozen=True)
class Genotype:
    """A discrete architecture. Lists become tuples. Raises `UserError` if a value breaks a rule."""

    normal: tuple[Node, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Node, ...]
    reduce_concat: tuple[int, ...]
    rnn: tuple[Node, ...] = ()
    """Empty for a network without a SeqNN."""
    rnn_concat: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for cell in _CELLS:
            nodes = _check_nodes(cell, getattr(self, cell))
            concat = _check_concat(cell, getattr(self, f"{cell}_concat"), len(nodes))
            object.__setattr__(self, cell, nodes)
            object.__setattr__(self, f"{cell}_concat", concat)

    @classmethod
    def of_nodes(cls, normal: Sequence[Node], reduce: Sequence[Node], rnn: Sequence[Node] = ()) -> Self:
        """The genotype whose cells concatenate all their nodes, as every searched cell does."""
        cells = {"normal": normal, "reduce": reduce, "rnn": rnn}
        return cls(**cells, **{f"{cell}_concat": range(2, len(nodes) + 2) for cell, nodes in cells.items()})

    def __str__(self) -> str:
        """The string form of emoDARTS: `Genotype(normal=[[(op, state), ...], ...], normal_concat=range(2, 6), ...)`."""
        parts = []
        for cell in _CELLS:
            concat = getattr(self, f"{cell}_concat")
            run = range(concat[0], concat[0] + len(concat)) if concat else ()
            shown = run if run and tuple(run) == concat else list(concat)
            parts.append(f"{cell}={[list(node) for node in getattr(self, cell)]}, {cell}_concat={shown}")
        return f"Genotype({', '.join(parts)})"

    def to_json(self) -> dict[str, Any]:
        """The content of a genotype file: plain lists and strings, with `version` first."""
        out: dict[str, Any] = {"version": VERSION}
        for cell in _CELLS:
            out[cell] = [[list(edge) for edge in node] for node in getattr(self, cell)]
            out[f"{cell}_concat"] = list(getattr(self, f"{cell}_concat"))
        return out

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The inverse of `to_json`. Raises `UserError` if a key is missing or unknown, or a value is wrong."""
        if not isinstance(value, dict):
            raise UserError(f"genotype: {_show(value)} is not a JSON object with the keys {', '.join(_KEYS)}")
        version = value.get("version")
        if type(version) is not int or version != VERSION:
            found = f"unknown version {_show(version)}" if "version" in value else "no version"
            raise UserError(f'genotype: {found}; this program reads "version": {VERSION}')
        _check_keys(value.keys() - {"version"}, required=_KEYS)
        return cls(**{key: value[key] for key in _KEYS})

    def save(self, path: Path | str, searched_on: dict[str, Any] | None = None) -> None:
        """Write the JSON file. `searched_on` names the speakers that the search has used."""
        write_json(Path(path), self.to_json() | ({"searched_on": searched_on} if searched_on else {}))

    @classmethod
    def load(cls, path: Path | str) -> "Genotype":
        """Read the JSON file."""
        return _parse_json(_read_file(path), f"genotype file {_show(str(path))}").genotype


class Source(NamedTuple):
    """A genotype, and what is known about it."""

    genotype: Genotype
    searched_on: dict[str, Any] | None = None
    """The speakers that the search was trained on, as the file has them, unchecked; None if they are not known."""
    place: str = ""
    """Which genotype of a longer text it is, as a sentence; empty if the text is the genotype alone."""


# ---------------------------------------------------------------- reading


def resolve(text: str) -> Genotype:
    """The genotype of a command-line argument: a file, a string form, inline JSON or a built-in name."""
    return read_source(text).genotype


def read_source(text: str) -> Source:
    """The same with what is known about it. Raises `UserError` if the text is none of these, or its genotype is wrong.

    A file may be JSON, or any text with string forms, such as the log of a search or a Python file: the last counts.
    """
    given, stripped = str(text), str(text).strip()
    if os.path.isfile(given):  # never raises, whatever the text
        content, where = _read_file(given), f"genotype file {_show(given)}"
        is_json = content.lstrip().startswith("{")
        return _parse_json(content, where) if is_json or not _calls(content) else _last_of(content, where)
    if stripped.startswith("{"):
        return _parse_json(stripped, "genotype given as JSON")
    if stripped in BUILT_IN:
        return Source(BUILT_IN[stripped])
    if _calls(stripped):
        return _last_of(stripped, "genotype string")
    raise UserError(
        f"genotype {_show(given)} is not known: give a file that exists (JSON, a string form, or a log with one), "
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
            case ast.Call(ast.Name("Genotype"), values, keywords) if len(values) <= len(_KEYS):
                pairs = [*zip(_KEYS, values, strict=False), *((each.arg, each.value) for each in keywords)]
                parts = {name: _literal(value) for name, value in pairs}
            case _:
                raise ValueError("it is not of the form Genotype(normal=[...], ...)")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error)[:80] or type(error).__name__
        raise UserError(f"genotype string: {_show(text)} cannot be read: {reason}") from None
    if len(parts) < len(pairs):
        raise UserError("genotype string: a part is given twice; give each once, as in normal=[...]")
    _check_keys(parts.keys(), required=_KEYS[:4])
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
                    f"genotype string: range({_show(start)}, {_show(end)}) is not within 0 to {MAX_STATE}"
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
            _require(len(part) % 2 == 0, cell, problem)
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
        raise UserError(f"{where}: searched_on is {_show(searched_on)}, not a JSON object")
    return Source(Genotype.from_json(value), searched_on)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` if a key is repeated; `json` takes its last value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is given twice")
    return value


def _read_file(path: Path | str) -> str:
    where = f"genotype file {_show(str(path))}"
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


# ---------------------------------------------------------------- checks


def _require(holds: Any, where: str, problem: str) -> None:
    """Raise `UserError` with the place and the problem, unless the rule holds."""
    if not holds:
        raise UserError(f"genotype, {where}: {problem}")


def _check_keys(found: Set[str], required: Sequence[str]) -> None:
    if missing := [key for key in required if key not in found]:
        raise UserError(f"genotype: missing {', '.join(missing)}")
    if unknown := sorted(map(str, found - set(_KEYS))):
        raise UserError(f"genotype: unknown part {_show(unknown[0])}; the parts are {', '.join(_KEYS)}")


def _check_nodes(cell: str, nodes: Any) -> tuple[Node, ...]:
    """The nodes of a cell as tuples, if each has two known ops on earlier states, which may be the same state."""
    ops = _CELLS[cell][:-1]  # without `none`, which only a supernet has
    _require(isinstance(nodes, list | tuple), cell, f"{_show(nodes)} is not a list of nodes")
    _require(nodes or cell == "rnn", cell, "no nodes; only rnn may be empty")
    for i, node in enumerate(nodes):
        place = f"{cell}, node {i}"
        _require(_is_pair(node), place, f"{_show(node)} is not a list of exactly two edges")
        for j, edge in enumerate(node):
            _check_edge(f"{place}, edge {j}", edge, ops, states=i + 2)
    return tuple(tuple(map(tuple, node)) for node in nodes)


def _check_edge(where: str, edge: Any, ops: Sequence[str], states: int) -> None:
    _require(_is_pair(edge), where, f"{_show(edge)} is not a pair (op, source)")
    op, source = edge
    known = isinstance(op, str) and op in ops
    _require(known, where, f"unknown op {_show(op)}; the ops of this cell are {', '.join(ops)}")
    earlier = type(source) is int and 0 <= source < states
    _require(earlier, where, f"source {_show(source)} is not an earlier state; those are 0 to {states - 1}")


def _check_concat(cell: str, concat: Any, nodes: int) -> tuple[int, ...]:
    """The output states of a cell as a tuple, if each is one of its nodes."""
    where = f"{cell}_concat"
    expected = f"the nodes of {cell} are states 2 to {nodes + 1}" if nodes else f"{cell} has no nodes"
    sequence = isinstance(concat, list | tuple | range)
    _require(sequence, where, f"{_show(concat)} is not a list of states; {expected}")
    for state in concat:
        is_node = type(state) is int and 2 <= state < nodes + 2
        _require(is_node, where, f"{_show(state)} is not the state of a node; {expected}")
    _require(len(set(concat)) == len(concat), where, f"{_show(list(concat))} names a state twice")
    _require(concat or not nodes, where, f"empty; name at least one state: {expected}")
    return tuple(concat)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _show(value: Any) -> str:
    """A short `repr` on one line, of a value of any size and depth."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 80
    try:
        return shortener.repr(value)[:80]
    except ValueError:  # an integer with more digits than Python converts
        return f"<{type(value).__name__}>"


def discretise(weights: Sequence[Any], ops: Sequence[str], edges_by: str = "weight") -> tuple[Node, ...]:
    """Derive the nodes of a cell from its softmaxed alphas.

    Liu, Simonyan, Yang (ICLR 2019), section 2.4: an edge keeps its strongest op except `none`; a node keeps the two
    edges whose ops are strongest, the stronger one first. Ties go to the earlier op and the lower source.

    Args:
        weights: per node i an array of shape (i + 2 edges, ops).
        ops: the op of each column.
        edges_by: "weight": the strength of an op p_k is its weight, of which `none` takes a share, as published;
            "without_none": p_k / (1 - p_none), its weight if `none` were no candidate.
    """
    candidates = [column for column, op in enumerate(ops) if op != "none"]
    nodes = []
    for i, rows in enumerate(weights):
        table = np.asarray(rows, dtype=np.float64)
        if table.shape != (i + 2, len(ops)) or not candidates or not np.isfinite(table).all():
            raise ValueError(
                f"node {i}: expected {i + 2} edges x {len(ops)} finite weights, found shape {table.shape}"
            )
        table = table[:, candidates]
        if edges_by == "without_none":
            table /= np.maximum(table.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        ranked = np.argsort(-table.max(axis=1), kind="stable")[:2]
        nodes.append(tuple((ops[candidates[int(table[edge].argmax())]], int(edge)) for edge in ranked))
    return tuple(nodes)


_V2 = """Genotype(
    normal=[[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], [('sep_conv_3x3', 0), ('sep_conv_3x3', 1)],
            [('sep_conv_3x3', 1), ('skip_connect', 0)], [('skip_connect', 0), ('dil_conv_3x3', 2)]],
    normal_concat=range(2, 6),
    reduce=[[('max_pool_3x3', 0), ('max_pool_3x3', 1)], [('skip_connect', 2), ('max_pool_3x3', 1)],
            [('max_pool_3x3', 0), ('skip_connect', 2)], [('skip_connect', 2), ('max_pool_3x3', 1)]],
    reduce_concat=range(2, 6))"""
_HAND_MADE_RNN = [[("lstm_1", 0), ("skip_connect", 1)], [("lstm_1", 2), ("skip_connect", 0)]]

BUILT_IN: dict[str, Genotype] = {
    # The second-order cell published with DARTS (Liu et al. 2019), searched on CIFAR-10 images. No SeqNN.
    "darts_v2": parse(_V2),
    # Designed by hand: the same CNN with one-layer LSTMs and skip connections.
    "cnn_lstm": replace(parse(_V2), rnn=_HAND_MADE_RNN, rnn_concat=[2, 3]),
}
