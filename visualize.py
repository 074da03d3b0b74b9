"""Pictures: cells drawn by Graphviz, confusion matrices and alpha maps by Matplotlib.

    python visualize.py runs/demo/search/genotype.json --out plots

draws every cell of a genotype: a file, a string form, JSON or a built-in name.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import graphviz
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from config import VisualizeConfig
from flags import parse
from genotypes import Genotype, Node, discretise, resolve
from utils import UserError, run_command, whole_file

FONT = "Helvetica,Arial,Liberation Sans,DejaVu Sans,sans-serif"
INK, MUTED, PAPER = "#1f2937", "#64748b", "#ffffff"
FAMILIES = {  # op family -> (fill, line and text)
    "conv": ("#dbeafe", "#1d4ed8"),
    "pool": ("#dcfce7", "#15803d"),
    "skip": ("#f1f5f9", "#64748b"),
    "lstm": ("#ede9fe", "#6d28d9"),
    "rnn": ("#ffedd5", "#c2410c"),
    "attention": ("#fce7f3", "#be185d"),
}
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell", "rnn": "SeqNN cell"}
BLUES = LinearSegmentedColormap.from_list("soft_blues", ["#f8fafc", "#bfdbfe", "#60a5fa", "#2563eb", "#1e3a8a"])
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
    graph.attr(label=graphviz.escape(title), labelloc="t", labeljust="l", fontname=FONT, fontsize="16", fontcolor=INK)
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
    return [draw_cell(nodes, concat, folder / f"{name}.png", TITLES[name]) for name, nodes, concat in parts if nodes]


def draw_confusion(confusion: Any, classes: Sequence[str], path: Path, title: str) -> None:
    """Rows are the true classes, columns the predictions; a cell holds its count and its share of the row."""
    counts = np.asarray(confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    size = 1.9 + 0.95 * len(classes)
    figure = Figure(figsize=(size + 0.9, size), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=BLUES, vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        ink = _ink_on(shares[row, column])
        axes.text(column, row - 0.1, f"{counts[row, column]}", ha="center", va="center", color=ink, fontsize=13)
        axes.text(column, row + 0.2, f"{shares[row, column]:.0%}", ha="center", va="center", color=ink, fontsize=9)
    names = [f"{name}\n(n = {total})" for name, total in zip(classes, totals[:, 0], strict=True)]
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, classes)) > 9 else {}
    axes.set_xticks(range(len(classes)), classes, parse_math=False, **slant)
    axes.set_yticks(range(len(classes)), names, parse_math=False)
    axes.set_xlabel("predicted", color=MUTED, fontsize=11, labelpad=8)
    axes.set_ylabel("true", color=MUTED, fontsize=11, labelpad=8)
    _finish(figure, axes, image, path, title, "share of the true class", percent=True)


def draw_alphas(weights: Sequence[Any], ops: Sequence[str], path: Path, title: str) -> None:
    """Softmaxed alphas of one cell type: a row is an edge (source → state), a column an op; the choice is outlined."""
    tables = [np.asarray(rows, dtype=np.float64) for rows in weights]
    values = np.concatenate(tables)
    figure = Figure(figsize=(2.6 + 0.62 * len(ops), 1.9 + 0.34 * len(values)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    top = np.nanmax(values, initial=1 / len(ops))
    image = axes.imshow(values, cmap=BLUES, vmin=0, vmax=top, aspect="auto")
    if values.size <= 400:  # beyond that the numbers would be specks
        for row, column in np.ndindex(values.shape):
            shown, ink = f"{values[row, column]:.2f}".lstrip("0"), _ink_on(values[row, column] / top)
            axes.text(column, row, shown, ha="center", va="center", color=ink, fontsize=8)
    starts = np.cumsum([0, *map(len, tables)])
    for start in starts[1:-1]:
        axes.axhline(start - 0.5, color=PAPER, linewidth=5)
    if np.isfinite(values).all():
        for start, node in zip(starts, discretise(tables, ops), strict=False):
            for op, source in node:
                corner = (list(ops).index(op) - 0.45, start + source - 0.36)
                axes.add_patch(Rectangle(corner, 0.9, 0.72, fill=False, edgecolor="#f97316", linewidth=1.8, zorder=3))
    axes.set_xticks(range(len(ops)), ops, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(values)), [f"{j}→{i + 2}" for i, table in enumerate(tables) for j in range(len(table))])
    axes.set_ylabel("edge (source → state)", color=MUTED)
    _finish(figure, axes, image, path, title, "softmaxed alpha (outlined: the choice)")


def _finish(figure: Figure, axes: Any, image: Any, path: Path, title: str, scale: str, percent: bool = False) -> None:
    """What both heat maps share: title, colour bar, no frame, a file that appears whole."""
    axes.set_title(title, color=INK, fontsize=14, loc="left", pad=14, parse_math=False)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=28, pad=0.02, format="{x:.0%}" if percent else None)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=MUTED, labelsize=8)
    bar.set_label(scale, color=MUTED, fontsize=9)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    path = Path(path)
    with whole_file(path) as beside:
        figure.savefig(beside, format=path.suffix.lstrip("."))


def _ink_on(shade: float) -> str:
    """A text colour that can be read on a share of the colour map."""
    return PAPER if shade > 0.62 else INK


def _subscripted(name: str) -> str:
    """`c_{k-2}` as Graphviz markup with a real subscript."""
    letter, index = name.rstrip("}").split("_{")
    return f"<<I>{letter}</I><SUB><I>{index.replace('-', '&#8722;')}</I></SUB>>"


@functools.cache
def _say_once(missing: bool) -> None:
    reason = "the Graphviz program `dot` is missing" if missing else "the Graphviz program `dot` failed"
    log.warning("%s: cells are written as .gv sources, not drawn (install it: apt install graphviz, or brew)", reason)


def run(config: VisualizeConfig) -> None:
    """Draw the cells and print where they are."""
    try:
        paths = draw_genotype(resolve(config.genotype), config.out)
    except OSError as error:
        raise UserError(f"cannot write to {str(config.out)[:80]!r}: {error.strerror}; give another --out") from None
    print(*paths, sep="\n")


if __name__ == "__main__":
    run_command(lambda: run(parse(VisualizeConfig, "visualize")))
