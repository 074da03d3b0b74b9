"""Cells drawn by Graphviz."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import graphviz

from genotypes import Genotype, Node
from plots.charts import INK, MUTED, PAPER
from utils import whole_file

FONT = "Helvetica,Arial,Liberation Sans,DejaVu Sans,sans-serif"
FAMILIES = {  # op family -> (fill, line and text)
    "conv": ("#dbeafe", "#1d4ed8"),
    "pool": ("#dcfce7", "#15803d"),
    "skip": ("#f1f5f9", "#64748b"),
    "lstm": ("#ede9fe", "#6d28d9"),
    "rnn": ("#ffedd5", "#c2410c"),
    "attention": ("#fce7f3", "#be185d"),
}
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell", "rnn": "SeqNN cell"}
log = logging.getLogger("emodarts")


def op_family(op: str) -> str:
    """The family that gives an op its colour."""
    if "_att_" in op:
        return "attention"
    return next((family for family in ("conv", "pool", "lstm", "rnn") if family in op), "skip")


def cell_graph(nodes: Sequence[Node], concat: Sequence[int], title: str) -> graphviz.Digraph:
    """A cell from left to right: inputs, nodes 0 to N - 1, output. An op is a coloured label set into its edge."""
    graph = graphviz.Digraph()
    graph.attr(rankdir="LR", nodesep="0.22", ranksep="0.38", pad="0.25", dpi="144", bgcolor=PAPER)
    graph.attr(
        label=graphviz.escape(title), labelloc="t", labeljust="l", fontname=FONT, fontsize="16", fontcolor=INK
    )
    graph.attr("node", shape="box", style="rounded,filled", fontname=FONT, fontsize="12", penwidth="1.2")
    graph.attr("edge", color=MUTED, penwidth="1.3", arrowsize="0.65")
    states = ["c_{k-2}", "c_{k-1}", *(str(i) for i in range(len(nodes)))]
    with graph.subgraph() as inputs:
        inputs.attr(rank="source")
        for name in states[:2]:
            inputs.node(name, _subscripted(name), fillcolor=PAPER, color=INK, fontcolor=INK, fontsize="14")
        inputs.edge(*states[:2], style="invis")  # holds the first input above the second
    for i, node in enumerate(nodes):
        graph.node(str(i), shape="circle", style="filled", fillcolor=INK, color=INK, fontcolor=PAPER,
                   fontsize="14", width="0.42", fixedsize="true")  # fmt: skip
        for op, source in node:
            fill, line = FAMILIES[op_family(op)]
            label = f"{states[source]}-{op}-{i}"
            graph.node(label, graphviz.escape(op), fillcolor=fill, color=fill, fontcolor=line,
                       height="0.3", margin="0.1,0.04")  # fmt: skip
            graph.edge(states[source], label, color=line, arrowhead="none", headport="w")
            graph.edge(label, str(i), color=line, tailport="e")
    graph.node("c_{k}", _subscripted("c_{k}"), fillcolor=PAPER, color=INK, fontcolor=INK, fontsize="14")
    for state in concat:
        graph.edge(states[state], "c_{k}", color="#cbd5e1")
    return graph


def draw_cell(nodes: Sequence[Node], concat: Sequence[int], path: Path, title: str) -> Path:
    """Draw a cell to `path` (.png or .svg); without the `dot` program, write its source as `.gv` beside instead."""
    path = Path(path)
    graph = cell_graph(nodes, concat, title)
    try:
        picture = graph.pipe(format=path.suffix.lstrip("."), quiet=True)
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError) as error:
        _say_once(type(error) is graphviz.ExecutableNotFound)
        path, picture = path.with_suffix(".gv"), graph.source.encode()
    with whole_file(path) as beside:
        beside.write_bytes(picture)
    return path


def draw_genotype(genotype: Genotype, folder: Path) -> list[Path]:
    """Draw `normal.png`, `reduce.png` and, where there is a SeqNN, `rnn.png` into `folder`."""
    parts = ((name, getattr(genotype, name), getattr(genotype, f"{name}_concat")) for name in TITLES)
    folder = Path(folder)
    return [
        draw_cell(nodes, concat, folder / f"{name}.png", TITLES[name])
        for name, nodes, concat in parts
        if nodes
    ]


def _subscripted(name: str) -> str:
    """`c_{k-2}` as Graphviz markup with a real subscript."""
    letter, index = name.rstrip("}").split("_{")
    return f"<<I>{letter}</I><SUB><I>{index.replace('-', '&#8722;')}</I></SUB>>"


@functools.cache
def _say_once(missing: bool) -> None:
    reason = "the Graphviz program `dot` is missing" if missing else "the Graphviz program `dot` failed"
    log.warning(
        "%s: cells are written as .gv sources, not drawn (install it: apt install graphviz, or brew)", reason
    )
