"""Genotypes: what a search finds and what a network is built from, as checked, plain data.

A cell is a graph of states: 0 and 1 are its inputs (the outputs of the two cells before it), node i is state i + 2.
A node adds up two edges, each an op applied to an earlier state; the states in `concat` are joined into the output.
Text from outside (JSON, or the string forms of emoDARTS, pt.darts and quark0/darts) is parsed, never evaluated.
"""

import ast
import json
import os
import reprlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from data.speakers import SpeakerSet
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
    # `lstm` is lstm_1 to lstm_4, not lstm_att_1: what is left of the op's last underscore
    scope: (*(op for op in RNN_OPS if op.rpartition("_")[0] == scope), "skip_connect", "none")
    for scope in ("lstm", "rnn", "lstm_att", "rnn_att")
}

VERSION = 1
MAX_FILE = 4_000_000  # bytes; a genotype has about one thousand, the names of 100,000 speakers some million
MAX_TEXT = 100_000  # characters of a string form
MAX_STATE = 100  # the largest number that `range(a, b)` may name

Edge = tuple[str, int]
Node = tuple[Edge, ...]
_CELLS = {"normal": CNN_OPS, "reduce": CNN_OPS, "rnn": RNN_OPS}
_KEYS = ("normal", "normal_concat", "reduce", "reduce_concat", "rnn", "rnn_concat")


@dataclass(frozen=True)
class Genotype:
    """A found architecture. Lists are taken as well and become tuples; a value that breaks a rule is a `UserError`."""

    normal: tuple[Node, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Node, ...]
    reduce_concat: tuple[int, ...]
    rnn: tuple[Node, ...] = ()
    """Empty where the network has no SeqNN."""
    rnn_concat: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for cell, ops in _CELLS.items():
            nodes = _nodes(cell, getattr(self, cell), ops)
            concat = _concat(cell, getattr(self, f"{cell}_concat"), len(nodes))
            object.__setattr__(self, cell, nodes)
            object.__setattr__(self, f"{cell}_concat", concat)

    @classmethod
    def of_nodes(cls, normal: Sequence[Node], reduce: Sequence[Node], rnn: Sequence[Node] = ()) -> Self:
        """The genotype whose cells put out all their nodes, as those of a search do."""
        cells = {"normal": normal, "reduce": reduce, "rnn": rnn}
        return cls(**cells, **{f"{cell}_concat": range(2, len(nodes) + 2) for cell, nodes in cells.items()})

    def __str__(self) -> str:
        """The form that emoDARTS logs: `Genotype(normal=[[(op, state), ...], ...], normal_concat=range(2, 6), ...)`."""
        parts = []
        for cell in _CELLS:
            concat = getattr(self, f"{cell}_concat")
            run = range(concat[0], concat[0] + len(concat)) if concat else ()
            shown = run if run and tuple(run) == concat else list(concat)
            parts.append(f"{cell}={[list(node) for node in getattr(self, cell)]}, {cell}_concat={shown}")
        return f"Genotype({', '.join(parts)})"

    def to_json(self) -> dict[str, Any]:
        """Plain lists and strings, `version` first: the contract of the genotype file."""
        out: dict[str, Any] = {"version": VERSION}
        for cell in _CELLS:
            out[cell] = [[list(edge) for edge in node] for node in getattr(self, cell)]
            out[f"{cell}_concat"] = list(getattr(self, f"{cell}_concat"))
        return out

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The genotype that `to_json` described."""
        if not isinstance(value, dict):
            raise UserError(f"genotype: {_show(value)} is not a JSON object with the keys {', '.join(_KEYS)}")
        version = value.get("version")
        if type(version) is not int or version != VERSION:
            found = f"unknown version {_show(version)}" if "version" in value else "no version"
            raise UserError(f'genotype: {found}; this program reads "version": {VERSION}')
        _check_keys(set(value) - {"version"}, required=_KEYS)
        return cls(**{key: value[key] for key in _KEYS})

    def save(self, path: Path | str, searched_on: SpeakerSet | None = None) -> None:
        """Write the JSON file, with whom the search heard where that is known; it appears whole or not at all."""
        known = {"searched_on": searched_on.model_dump()} if searched_on else {}
        write_json(Path(path), self.to_json() | known)

    @classmethod
    def load(cls, path: Path | str) -> "Genotype":
        """Read the JSON file."""
        return _found(_read(path), where=f"genotype file {_show(str(path))}").genotype


class Found(NamedTuple):
    """A genotype, and whom the search that found it heard; None where that is not known."""

    genotype: Genotype
    searched_on: SpeakerSet | None = None


def parse(text: str) -> Genotype:
    """Read a string form: that of emoDARTS, of pt.darts (no rnn part), or of quark0/darts (edges in one flat list)."""
    if len(text) > MAX_TEXT:
        raise UserError(f"genotype string: {len(text)} characters; at most {MAX_TEXT} are read")
    try:
        with warnings.catch_warnings(action="ignore"):  # the parser's remarks on odd escapes are noise here
            call = ast.parse(text.strip(), mode="eval").body
        if not (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"
        ):
            raise UserError(f"genotype string: {_show(text)} is not of the form Genotype(normal=[...], ...)")
        names = [keyword.arg for keyword in call.keywords]
        if call.args or None in names or len(set(names)) < len(names):
            raise UserError("genotype string: each part must be given once and by name, as in normal=[...]")
        _check_keys(set(names), required=_KEYS[:4])
        parts = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = f"{type(error).__name__}: {str(error)[:80]}"
        raise UserError(f"genotype string: {_show(text)} cannot be read ({reason})") from None
    return Genotype(
        **{name: _in_twos(name, part) if name in _CELLS else part for name, part in parts.items()}
    )


def resolve(text: str) -> Genotype:
    """The genotype that a command-line argument means: a file, a string form, inline JSON or a built-in name."""
    return look_up(text).genotype


def look_up(text: str) -> Found:
    """That genotype, and whom its search heard, where the JSON says so."""
    given, stripped = str(text), str(text).strip()
    if os.path.isfile(given):  # never raises, whatever the text
        content = _read(given)
        if content.lstrip().startswith("Genotype"):
            return Found(parse(content))
        return _found(content, where=f"genotype file {_show(given)}")
    if stripped.startswith("Genotype("):
        return Found(parse(stripped))
    if stripped.startswith("{"):
        return _found(stripped, where="genotype given as JSON")
    if stripped in BUILT_IN:
        return Found(BUILT_IN[stripped])
    raise UserError(
        f"genotype {_show(given)} is not known: give a file that exists (JSON or a string form), "
        f"a string Genotype(...), JSON {{...}}, or a built-in name ({', '.join(BUILT_IN)})"
    )


def discretise(weights: Sequence[Any], ops: Sequence[str]) -> tuple[Node, ...]:
    """Choose a cell's edges from softmaxed alphas: per node an array-like of shape (i + 2 edges, ops).

    Liu, Simonyan, Yang (ICLR 2019), section 2.4: an edge keeps its strongest op except `none`; a node keeps the two
    edges whose ops are strongest. The stronger edge comes first; of equals, the lower source, and the earlier op.
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
        ranked = np.argsort(-table.max(axis=1), kind="stable")[:2]
        nodes.append(tuple((ops[candidates[int(table[edge].argmax())]], int(edge)) for edge in ranked))
    return tuple(nodes)


def _nodes(cell: str, nodes: Any, ops: tuple[str, ...]) -> tuple[Node, ...]:
    where = f"genotype, {cell}"
    if not isinstance(nodes, list | tuple):
        raise UserError(f"{where}: {_show(nodes)} is not a list of nodes")
    if not nodes and cell != "rnn":
        raise UserError(f"{where}: no nodes; only rnn may be empty")
    return tuple(_node(f"{where}, node {i}", node, i + 2, ops) for i, node in enumerate(nodes))


def _node(where: str, node: Any, states: int, ops: tuple[str, ...]) -> Node:
    if not isinstance(node, list | tuple) or len(node) != 2:
        raise UserError(f"{where}: {_show(node)} is not a list of exactly two edges")
    edges = tuple(_edge(f"{where}, edge {j}", edge, states, ops) for j, edge in enumerate(node))
    if edges[0][1] == edges[1][1]:
        raise UserError(f"{where}, edge 1: source {edges[1][1]} is that of edge 0 too; the two must differ")
    return edges


def _edge(where: str, edge: Any, states: int, ops: tuple[str, ...]) -> Edge:
    if not isinstance(edge, list | tuple) or len(edge) != 2:
        raise UserError(f"{where}: {_show(edge)} is not a pair (op, source)")
    op, source = edge
    known = ops[:-1]  # `none` is for the search only: a genotype holds what was chosen
    if type(op) is not str or op not in known:
        raise UserError(f"{where}: unknown op {_show(op)}; this cell's ops are {', '.join(known)}")
    if type(source) is not int or not 0 <= source < states:
        raise UserError(
            f"{where}: source {_show(source)} is not an earlier state; those are 0 to {states - 1}"
        )
    return op, source


def _concat(cell: str, concat: Any, nodes: int) -> tuple[int, ...]:
    where = f"genotype, {cell}_concat"
    right = f"the nodes of {cell} are states 2 to {nodes + 1}" if nodes else f"{cell} has no nodes"
    if not isinstance(concat, list | tuple | range):
        raise UserError(f"{where}: {_show(concat)} is not a list of states; {right}")
    for place, state in enumerate(concat):
        if type(state) is not int or not 2 <= state < nodes + 2:
            raise UserError(f"{where}: {_show(state)} is not the state of a node; {right}")
        if state in concat[:place]:
            raise UserError(f"{where}: state {state} is there twice; each may be there once")
    if nodes and not concat:
        raise UserError(f"{where}: empty; name at least one state: {right}")
    return tuple(concat)


def _literal(node: ast.expr) -> Any:
    """The value of a syntax tree made of lists, tuples, strings, whole numbers and `range(a, b)`; no other is read."""
    match node:
        case ast.Constant(value=str() | int() as value) if not isinstance(value, bool):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Call(ast.Name("range"), [ast.Constant(first), ast.Constant(end)], []):
            if not all(type(number) is int and 0 <= number <= MAX_STATE for number in (first, end)):
                raise UserError(
                    f"genotype string: range({_show(first)}, {_show(end)}) is not within 0 to {MAX_STATE}"
                )
            return list(range(first, end))
    raise UserError(
        f"genotype string: line {node.lineno}, column {node.col_offset + 1}: {type(node).__name__} is not allowed, "
        "only lists, tuples, strings, whole numbers and range(a, b)"
    )


def _in_twos(name: str, part: Any) -> Any:
    """Group the flat edge list of quark0/darts into nodes of two; anything else is returned as it is."""
    flat = (
        isinstance(part, list)
        and part
        and all(isinstance(e, list) and e and isinstance(e[0], str) for e in part)
    )
    if flat and len(part) % 2:
        raise UserError(
            f"genotype string, {name}: {len(part)} edges in a flat list; a node has exactly two edges"
        )
    return [part[i : i + 2] for i in range(0, len(part), 2)] if flat else part


def _check_keys(found: set[str], required: Sequence[str]) -> None:
    if missing := [key for key in required if key not in found]:
        raise UserError(f"genotype: missing {', '.join(missing)}")
    if unknown := sorted(found.difference(_KEYS)):
        raise UserError(f"genotype: unknown part {_show(unknown[0])}; the parts are {', '.join(_KEYS)}")


def _read(path: Path | str) -> str:
    where = f"genotype file {_show(str(path))}"
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise UserError(f"{where}: larger than {MAX_FILE} bytes; a genotype file is small")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path that no file can have
        reason = (
            error.strerror if isinstance(error, OSError) else f"not a UTF-8 text file ({str(error)[:80]})"
        )
        raise UserError(f"{where}: {reason}") from None


def _found(text: str, where: str) -> Found:
    """What a genotype file says."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({str(error)[:80]})") from None
    heard = (
        _heard(value.pop("searched_on"), where)
        if isinstance(value, dict) and "searched_on" in value
        else None
    )
    return Found(Genotype.from_json(value), heard)


def _heard(value: Any, where: str) -> SpeakerSet:
    try:
        return SpeakerSet.model_validate_json(
            json.dumps(value)
        )  # as JSON: a list is a tuple there, and half a letter none
    except (ValueError, RecursionError):
        raise UserError(
            f"{where}: searched_on is {_show(value)}, not the object of the texts dataset and corpus and of speakers,"
            " a list of texts, that search.py writes"
        ) from None


def _show(value: Any) -> str:
    """A short `repr`, on one line, of a value that may be huge, deep or hostile."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 80
    try:
        return shortener.repr(value)[:80]
    except ValueError:  # a whole number too long for Python to print
        return f"<{type(value).__name__}>"


_V2 = """Genotype(
    normal=[[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], [('sep_conv_3x3', 0), ('sep_conv_3x3', 1)],
            [('sep_conv_3x3', 1), ('skip_connect', 0)], [('skip_connect', 0), ('dil_conv_3x3', 2)]],
    normal_concat=range(2, 6),
    reduce=[[('max_pool_3x3', 0), ('max_pool_3x3', 1)], [('skip_connect', 2), ('max_pool_3x3', 1)],
            [('max_pool_3x3', 0), ('skip_connect', 2)], [('skip_connect', 2), ('max_pool_3x3', 1)]],
    reduce_concat=range(2, 6))"""
_HAND_MADE_RNN = [[("lstm_1", 0), ("skip_connect", 1)], [("lstm_1", 2), ("skip_connect", 0)]]

BUILT_IN: dict[str, Genotype] = {
    # The second-order cell published with DARTS (Liu et al. 2019), found on CIFAR-10 images. No SeqNN.
    "darts_v2": parse(_V2),
    # Made by hand, found by no search: that CNN, then one-layer LSTMs with shortcuts. A start and a yardstick.
    "cnn_lstm": replace(parse(_V2), rnn=_HAND_MADE_RNN, rnn_concat=[2, 3]),
}
