"""The genotype: the cells that a search derives and that a network is built from.

A cell is a directed graph of states. States 0 and 1 are its inputs, the outputs of the two cells before it; node i is
state i + 2. A node is the sum of two edges, each an op applied to an earlier state. The states in `concat` are
concatenated to the cell's output.
"""

import reprlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from utils import UserError, write_json

PUBLISHED_CNN_OPS = (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3",
    "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "none",
)  # fmt: skip
CNN_OPS = (*PUBLISHED_CNN_OPS[:-1], "sep_conv_7x1", "sep_conv_1x7", "none")
CNN_SCOPES: dict[str, tuple[str, ...]] = {"all": CNN_OPS, "published": PUBLISHED_CNN_OPS}
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
Edge = tuple[str, int]
"""(op, source state)"""
Node = tuple[Edge, ...]
CELLS = {"normal": CNN_OPS, "reduce": CNN_OPS, "rnn": RNN_OPS}
"""The kinds of cells, and the ops of each."""
KEYS = ("normal", "normal_concat", "reduce", "reduce_concat", "rnn", "rnn_concat")
"""The parts of a genotype, in the order of its string form."""


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
        for cell in CELLS:
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
        for cell in CELLS:
            concat = getattr(self, f"{cell}_concat")
            run = range(concat[0], concat[0] + len(concat)) if concat else ()
            shown = run if run and tuple(run) == concat else list(concat)
            parts.append(f"{cell}={[list(node) for node in getattr(self, cell)]}, {cell}_concat={shown}")
        return f"Genotype({', '.join(parts)})"

    def to_json(self) -> dict[str, Any]:
        """The content of a genotype file: plain lists and strings, with `version` first."""
        out: dict[str, Any] = {"version": VERSION}
        for cell in CELLS:
            out[cell] = [[list(edge) for edge in node] for node in getattr(self, cell)]
            out[f"{cell}_concat"] = list(getattr(self, f"{cell}_concat"))
        return out

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The inverse of `to_json`. Raises `UserError` if a key is missing or unknown, or a value is wrong."""
        if not isinstance(value, dict):
            raise UserError(f"genotype: {show(value)} is not a JSON object with the keys {', '.join(KEYS)}")
        version = value.get("version")
        if type(version) is not int or version != VERSION:
            found = f"unknown version {show(version)}" if "version" in value else "no version"
            raise UserError(f'genotype: {found}; this program reads "version": {VERSION}')
        check_keys(value.keys() - {"version"}, required=KEYS)
        return cls(**{key: value[key] for key in KEYS})

    def save(self, path: Path | str, searched_on: dict[str, Any] | None = None) -> None:
        """Write the JSON file. `searched_on` names the speakers that the search has used."""
        write_json(Path(path), self.to_json() | ({"searched_on": searched_on} if searched_on else {}))


# ---------------------------------------------------------------- checks


def require(holds: Any, where: str, problem: str) -> None:
    """Raise `UserError` with the place and the problem, unless the rule holds."""
    if not holds:
        raise UserError(f"genotype, {where}: {problem}")


def check_keys(found: Set[str], required: Sequence[str]) -> None:
    """Raise `UserError` if a required part of a genotype is missing, or one is not known."""
    if missing := [key for key in required if key not in found]:
        raise UserError(f"genotype: missing {', '.join(missing)}")
    if unknown := sorted(map(str, found - set(KEYS))):
        raise UserError(f"genotype: unknown part {show(unknown[0])}; the parts are {', '.join(KEYS)}")


def _check_nodes(cell: str, nodes: Any) -> tuple[Node, ...]:
    """The nodes of a cell as tuples, if each has two known ops on earlier states, which may be the same state."""
    ops = CELLS[cell][:-1]  # without `none`, which only a supernet has
    require(isinstance(nodes, list | tuple), cell, f"{show(nodes)} is not a list of nodes")
    require(nodes or cell == "rnn", cell, "no nodes; only rnn may be empty")
    for i, node in enumerate(nodes):
        place = f"{cell}, node {i}"
        require(_is_pair(node), place, f"{show(node)} is not a list of exactly two edges")
        for j, edge in enumerate(node):
            _check_edge(f"{place}, edge {j}", edge, ops, states=i + 2)
    return tuple(tuple(map(tuple, node)) for node in nodes)


def _check_edge(where: str, edge: Any, ops: Sequence[str], states: int) -> None:
    require(_is_pair(edge), where, f"{show(edge)} is not a pair (op, source)")
    op, source = edge
    known = isinstance(op, str) and op in ops
    require(known, where, f"unknown op {show(op)}; the ops of this cell are {', '.join(ops)}")
    earlier = type(source) is int and 0 <= source < states
    require(earlier, where, f"source {show(source)} is not an earlier state; those are 0 to {states - 1}")


def _check_concat(cell: str, concat: Any, nodes: int) -> tuple[int, ...]:
    """The output states of a cell as a tuple, if each is one of its nodes."""
    where = f"{cell}_concat"
    expected = f"the nodes of {cell} are states 2 to {nodes + 1}" if nodes else f"{cell} has no nodes"
    sequence = isinstance(concat, list | tuple | range)
    require(sequence, where, f"{show(concat)} is not a list of states; {expected}")
    for state in concat:
        is_node = type(state) is int and 2 <= state < nodes + 2
        require(is_node, where, f"{show(state)} is not the state of a node; {expected}")
    require(len(set(concat)) == len(concat), where, f"{show(list(concat))} names a state twice")
    require(concat or not nodes, where, f"empty; name at least one state: {expected}")
    return tuple(concat)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def show(value: Any) -> str:
    """A short `repr` on one line, of a value of any size and depth."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 80
    try:
        return shortener.repr(value)[:80]
    except ValueError:  # an integer with more digits than Python converts
        return f"<{type(value).__name__}>"
