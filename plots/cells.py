"""Drawings of cells: by Graphviz, or by Matplotlib where the `dot` program is missing."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import graphviz
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from matplotlib.textpath import TextPath

from genotypes import Genotype, Node
from plots.charts import INK, MUTED, PAPER
from utils import whole_file

FONT_SIZE = 12
FONT = "Helvetica,Arial,Liberation Sans,DejaVu Sans,sans-serif"
PALE = "#cbd5e1"
FAMILIES = {  # op family -> (fill, line and text)
    "conv": ("#dbeafe", "#1d4ed8"),
    "pool": ("#dcfce7", "#15803d"),
    "skip": ("#f1f5f9", "#64748b"),
    "lstm": ("#ede9fe", "#6d28d9"),
    "rnn": ("#ffedd5", "#c2410c"),
    "attention": ("#fce7f3", "#be185d"),
}
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell", "rnn": "SeqNN cell"}
INPUTS = ("c_{k-2}", "c_{k-1}")
OUTPUT = "c_{k}"


class Op(NamedTuple):
    """An op of a cell: its label, and the states that it connects, by their names in the drawing."""

    label: str
    source: str
    target: str
    edge: int
    """0 or 1: its place among the edges of its target."""

    @property
    def box(self) -> str:
        """The name of its box, which no other op has."""
        return f"{self.source}-{self.label}-{self.target}-{self.edge}"


def draw_genotype(genotype: Genotype, folder: Path) -> list[Path]:
    """Draw `normal.png`, `reduce.png` and, if there is a SeqNN, `rnn.png` into `folder`; return their paths."""
    paths = []
    for name, title in TITLES.items():
        nodes, concat = getattr(genotype, name), getattr(genotype, f"{name}_concat")
        if nodes:
            paths.append(draw_cell(nodes, concat, Path(folder) / f"{name}.png", title))
    return paths


def draw_cell(nodes: Sequence[Node], concat: Sequence[int], path: Path, title: str) -> Path:
    """Draw a cell to `path`, a .png or .svg file; return the path."""
    path = Path(path)
    form = path.suffix.lstrip(".")
    try:
        picture = cell_graph(nodes, concat, title).pipe(format=form, quiet=True)
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
        picture = save_figure(plot_cell(nodes, concat, title), form)
    with whole_file(path) as beside:
        beside.write_bytes(picture)
    return path


def op_family(op: str) -> str:
    """The family that gives an op its colour."""
    if "_att_" in op:
        return "attention"
    return next((family for family in ("conv", "pool", "lstm", "rnn") if family in op), "skip")


def state_names(nodes: Sequence[Node]) -> list[str]:
    """The names of the states: the two inputs, then the nodes from 0."""
    return [*INPUTS, *(str(i) for i in range(len(nodes)))]


def ops_of(nodes: Sequence[Node]) -> Iterator[Op]:
    """The ops of a cell, node by node."""
    states = state_names(nodes)
    for i, node in enumerate(nodes):
        for edge, (op, source) in enumerate(node):
            yield Op(op, states[source], str(i), edge)


# ---------------------------------------------------------------- by Graphviz


def cell_graph(nodes: Sequence[Node], concat: Sequence[int], title: str) -> graphviz.Digraph:
    """A cell from left to right: inputs, nodes 0 to N - 1, output. An op is a coloured label within its edge."""
    graph = graphviz.Digraph()
    graph.attr(rankdir="LR", nodesep="0.22", ranksep="0.38", pad="0.25", dpi="144", bgcolor=PAPER)
    graph.attr(label=graphviz.escape(title), labelloc="t", labeljust="l")
    graph.attr(fontname=FONT, fontsize="16", fontcolor=INK)
    graph.attr(
        "node", shape="box", style="rounded,filled", fontname=FONT, fontsize=str(FONT_SIZE), penwidth="1.2"
    )
    graph.attr("edge", color=MUTED, penwidth="1.3", arrowsize="0.65")
    end = {"fillcolor": PAPER, "color": INK, "fontcolor": INK, "fontsize": "14"}
    circle = {"shape": "circle", "style": "filled", "fixedsize": "true", "width": "0.42"}
    with graph.subgraph() as inputs:
        inputs.attr(rank="source")
        for name in INPUTS:
            inputs.node(name, _subscripted(name), **end)
        inputs.edge(*INPUTS, style="invis")  # keeps the first input above the second
    for i in range(len(nodes)):
        graph.node(str(i), **circle, fillcolor=INK, color=INK, fontcolor=PAPER, fontsize="14")
    for op in ops_of(nodes):
        fill, line = FAMILIES[op_family(op.label)]
        box = {"fillcolor": fill, "color": fill, "fontcolor": line, "height": "0.3", "margin": "0.1,0.04"}
        graph.node(op.box, graphviz.escape(op.label), **box)
        graph.edge(op.source, op.box, color=line, arrowhead="none", headport="w")
        graph.edge(op.box, op.target, color=line, tailport="e")
    graph.node(OUTPUT, _subscripted(OUTPUT), **end)
    for state in concat:
        graph.edge(state_names(nodes)[state], OUTPUT, color=PALE)
    return graph


def _subscripted(name: str) -> str:
    """`c_{k-2}` as Graphviz markup with a subscript."""
    letter, index = name.rstrip("}").split("_{")
    return f"<<I>{letter}</I><SUB><I>{index.replace('-', '&#8722;')}</I></SUB>>"


# ---------------------------------------------------------------- by Matplotlib

# All lengths are in inches.
BOX = (0.78, 0.5)  # an input or the output: width and height
LABEL = 0.3  # height of an op's label
RADIUS = 0.21  # of a node
ROW = 0.44  # between two ops
SPACE = 0.55  # between two columns, in which lines turn
MARGIN = 0.26
TITLE = 0.4

Point = tuple[float, float]


def plot_cell(nodes: Sequence[Node], concat: Sequence[int], title: str) -> Figure:
    """The same drawing by Matplotlib.

    Each op has its own row, and a node is between the rows of its two ops. A line leaves its source, turns to its row
    and is straight from there on, so that none crosses a box.
    """
    ops, states = list(ops_of(nodes)), state_names(nodes)
    label_width = max(_text_width(op.label) for op in ops) + 0.25
    place = _places(ops, states, label_width)
    ops.sort(key=lambda op: (int(op.target), -place[op.source][1]))  # fewer lines cross

    right = place[OUTPUT][0] + BOX[0] / 2 + MARGIN
    half = max(ROW * (len(ops) - 1) / 2 + LABEL / 2, ROW + BOX[1] / 2)
    bottom, top = place[OUTPUT][1] - half - MARGIN, place[OUTPUT][1] + half + MARGIN
    figure = Figure(figsize=(right, top + TITLE - bottom), dpi=144)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, right), ylim=(bottom, top + TITLE))
    axes.axis("off")
    axes.text(MARGIN, top, title, color=INK, fontsize=15, parse_math=False)

    end = place[OUTPUT][0] - BOX[0] / 2, place[OUTPUT][1]
    for state in concat:
        _plot_line(axes, place[states[state]], end[0] - SPACE, end, PALE, arrow=True)
    for row, op in enumerate(ops):
        fill, colour = FAMILIES[op_family(op.label)]
        node = place[op.target][0] - RADIUS, place[op.target][1]
        label = node[0] - SPACE - label_width / 2, -ROW * row
        _plot_line(axes, place[op.source], place[op.source][0] + BOX[0] / 2, label, colour)
        _plot_line(axes, label, node[0] - SPACE, node, colour, arrow=True)
        _plot_box(axes, label, (label_width, LABEL), op.label, (fill, fill, colour))
    for name in states[2:]:
        axes.add_patch(Circle(place[name], RADIUS, color=INK, zorder=2))
        axes.text(*place[name], name, color=PAPER, fontsize=13, ha="center", va="center_baseline")
    for name in (*INPUTS, OUTPUT):
        _plot_box(axes, place[name], BOX, f"${name}$", (PAPER, INK, INK), fontsize=15)
    return figure


def save_figure(figure: Figure, form: str) -> bytes:
    """The bytes of a .png or .svg file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text, not outlines
        figure.savefig(buffer, format=form)
    return buffer.getvalue()


def _places(ops: Sequence[Op], states: Sequence[str], label_width: float) -> dict[str, Point]:
    """The centre of each state: nodes in columns by their depth, the inputs on the left, the output on the right."""
    depth = dict.fromkeys(INPUTS, 0)
    for op in ops:
        depth[op.target] = max(depth.get(op.target, 0), depth[op.source] + 1)
    left = MARGIN + BOX[0] / 2
    column = BOX[0] / 2 + SPACE + label_width + SPACE + RADIUS
    centre = -ROW * (len(ops) - 1) / 2
    places = {INPUTS[0]: (left, centre + ROW), INPUTS[1]: (left, centre - ROW)}
    for i, name in enumerate(states[2:]):
        places[name] = left + column * depth[name], -ROW * (2 * i + 0.5)
    last = left + column * max(depth.values())
    places[OUTPUT] = last + RADIUS + SPACE + BOX[0] / 2, centre
    return places


def _plot_line(axes: Axes, start: Point, turn: float, end: Point, colour: str, arrow: bool = False) -> None:
    """A line that is straight, but changes its height in the SPACE that begins at x = `turn`."""
    middle = turn + SPACE / 2
    after = min(turn + SPACE, end[0] - 0.08)  # leaves a straight piece for the arrow
    points = [start, (turn, start[1]), (middle, start[1]), (middle, end[1]), (after, end[1]), end]
    codes = [Curve.MOVETO, Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4, Curve.LINETO]
    style = "-|>,head_length=4,head_width=2" if arrow else "-"
    line = FancyArrowPatch(path=Curve(points, codes), arrowstyle=style, color=colour, linewidth=1.3, zorder=1)
    axes.add_patch(line)


def _plot_box(
    axes: Axes,
    centre: Point,
    size: Point,
    text: str,
    colours: tuple[str, str, str],
    fontsize: float = FONT_SIZE,
) -> None:
    """A box with round corners; `colours` are those of its inside, its border and its text."""
    inside, border, ink = colours
    corner = centre[0] - size[0] / 2, centre[1] - size[1] / 2
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(
        FancyBboxPatch(corner, *size, boxstyle=style, facecolor=inside, edgecolor=border, zorder=2)
    )
    axes.text(*centre, text, color=ink, fontsize=fontsize, ha="center", va="center_baseline")


def _text_width(text: str) -> float:
    return TextPath((0, 0), text, size=FONT_SIZE).get_extents().width / 72
