"""The figures of a report, as SVG elements that use the colours of the page."""

import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import graphviz
import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from config import parse_method
from genotypes import Node
from plots.cells import cell_graph, plot_cell
from plots.charts import CLASS_COLOURS, INK, MUTED, PAPER
from report.text import method_title
from report.trials import METHODS

RULE = "#e2e8f0"
CHART_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"}
CELL_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", PAPER: "var(--paper)", "#cbd5e1": "var(--rule)"}
"""The colours of a drawing and the variables of the page's style sheet that replace them."""
CURVE_TITLES = {
    "augment": {"train/loss": "training loss", "valid/ua": "UA on the utterances used to pick the epoch"},
    "search": {"train/loss": "training loss", "valid/ua": "UA on the half that trains the alphas"},
}


def method_colour(method: str) -> str:
    """The colour of a method in all figures; the more candidates, the darker; lighter with settings of its own."""
    kind, candidates, variant = parse_method(method)
    methods = list(METHODS)
    colour = np.array(to_rgb(CLASS_COLOURS[methods.index(kind) if kind in methods else -1]))
    white = 0.3 + 0.4 * zlib.crc32(variant.encode()) / 2**32 if variant else 0
    return to_hex((1 - white) * colour / candidates**0.4 + white)


def draw_scores(results: Mapping[str, Any]) -> Markup:
    """The UA of each method: the pooled score with its interval, and below it a dot for each trial."""
    methods = results["methods"]
    figure, axes = _new_figure(7.2, 0.9 + 0.62 * len(methods))
    for row, (method, found) in enumerate(methods.items()):
        colour = method_colour(method)
        ua = [trial["ua"] for trial in results["trials"] if trial["method"] == method]
        axes.scatter(ua, [row + 0.22] * len(ua), s=16, color=colour, alpha=0.45, linewidths=0)
        if score := found["pooled"]:
            if interval := score["ci95"]["ua"]:
                axes.plot(interval, [row - 0.08] * 2, color=colour, linewidth=3, solid_capstyle="round")
            axes.scatter([score["ua"]], [row - 0.08], s=64, color=colour, zorder=3)
    axes.axvline(1 / len(results["classes"]), color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    axes.set_yticks(range(len(methods)), [method_title(method) for method in methods], parse_math=False)
    axes.set_ylim(len(methods) - 0.45, -0.5)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return _to_svg(figure)


def draw_curves(stage: str, curves: Mapping[str, Any]) -> list[Markup]:
    """The learning curves of a stage, one figure for each metric that a history has."""
    figures = []
    for key, title in CURVE_TITLES[stage].items():
        means = np.concatenate([np.array(found[key]["mean"], dtype=np.float64) for found in curves.values()])
        if np.isfinite(means).any():
            figures.append(_draw_curve(curves, key, title))
    return figures


def _draw_curve(curves: Mapping[str, Any], key: str, title: str) -> Markup:
    """A metric over the epochs: the mean of each method, and the range of its trials."""
    figure, axes = _new_figure(5.2, 3.1)
    for method, found in curves.items():
        mean, low, high = (np.array(found[key][part], dtype=np.float64) for part in ("mean", "low", "high"))
        epochs = np.arange(1, len(mean) + 1)
        colour = method_colour(method)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.1, linewidth=0)
        axes.plot(epochs, mean, color=colour, linewidth=1.8, marker="o" if len(mean) == 1 else None)
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel("epoch", color=MUTED, fontsize=9)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if key.endswith("ua"):
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return _to_svg(figure)


def cell_to_svg(nodes: Sequence[Node], concat: Sequence[int]) -> Markup:
    """A cell, drawn by Graphviz or, if the program `dot` is missing, by Matplotlib."""
    graph = cell_graph(nodes, concat, "")
    graph.attr(dpi="72")  # with any other value, Graphviz scales the drawing but not the view box
    try:
        picture = graph.pipe(format="svg", quiet=True).decode("utf-8")
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
        return _to_svg(plot_cell(nodes, concat, ""), CELL_COLOURS)
    return _inline_svg(picture, CELL_COLOURS)


def _new_figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK, labelsize=9.5)
    axes.set_axisbelow(True)
    return figure, axes


def _to_svg(figure: Figure, colours: Mapping[str, str] = CHART_COLOURS) -> Markup:
    """A figure as an SVG element without a background; the same figure always gives the same bytes."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "emodarts"}):
        figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    return _inline_svg(text.getvalue(), colours)


def _inline_svg(text: str, colours: Mapping[str, str]) -> Markup:
    """The element of an SVG file, without prolog, name spaces and unused ids."""
    text = text[text.index("<svg") :]
    text = re.sub(r'\s(?:id="(?!\w*[0-9a-f]{10}")[^"]*"|xmlns(?::\w+)?="[^"]*")', "", text)
    text = text.replace("xlink:href", "href")
    for colour, variable in colours.items():
        text = text.replace(colour, variable)
    return Markup(text)
