"""The pictures of a report, as SVG text that takes its ink from the page, so that they fit light and dark alike."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from plots.charts import CLASS_COLOURS, INK, MUTED
from report.trials import METHODS

RULE = "#e2e8f0"
PAGE = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"}  # what the page replaces
AXES = {
    "augment": {"train/loss": "training loss", "valid/ua": "UA on the utterances that pick the epoch"},
    "search": {"train/loss": "training loss", "valid/ua": "UA on the half that the alphas learn from"},
}


def colour(method: str) -> str:
    """The colour of a method throughout the report."""
    names = list(METHODS)
    return CLASS_COLOURS[names.index(method) if method in names else -1]


def draw_scores(
    methods: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], names: Sequence[str], guess: float
) -> str:
    """The UA of each method: its trials as dots, its pooled score with the interval above them."""
    figure, axes = _canvas(7.2, 0.9 + 0.62 * len(methods))
    for row, (method, found) in enumerate(methods.items()):
        shade = colour(method)
        ua = [trial["ua"] for trial in trials if trial["method"] == method]
        axes.scatter(ua, [row + 0.22] * len(ua), s=16, color=shade, alpha=0.45, linewidths=0)
        if score := found["pooled"]:
            low, high = score["ci95"]["ua"] or [score["ua"]] * 2
            axes.plot([low, high], [row - 0.08] * 2, color=shade, linewidth=3, solid_capstyle="round")
            axes.scatter([score["ua"]], [row - 0.08], s=64, color=shade, zorder=3)
    axes.axvline(guess, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    axes.set_yticks(range(len(methods)), names, parse_math=False)
    axes.set_ylim(len(methods) - 0.45, -0.5)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return svg(figure)


def draw_curve(curves: Mapping[str, Any], key: str, title: str) -> str | None:
    """A number over the epochs: each method's mean, and the range of its trials. None where no history has it."""
    figure, axes = _canvas(5.2, 3.1)
    drawn = False
    for method, found in curves.items():
        mean, low, high = (np.array(found[key][part], dtype=np.float64) for part in ("mean", "low", "high"))
        epochs = np.arange(1, len(mean) + 1)
        drawn = drawn or bool(np.isfinite(mean).any())
        axes.fill_between(epochs, low, high, color=colour(method), alpha=0.1, linewidth=0)
        axes.plot(epochs, mean, color=colour(method), linewidth=1.8, marker="o" if len(mean) == 1 else None)
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel("epoch", color=MUTED, fontsize=9)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if key.endswith("ua"):
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return svg(figure) if drawn else None


def _canvas(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK, labelsize=9.5)
    axes.set_axisbelow(True)
    return figure, axes


def svg(figure: Figure) -> str:
    """A figure as an SVG element without a background, the same bytes every time."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "emodarts"}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return inline(text.getvalue(), PAGE)


def inline(text: str, colours: Mapping[str, str]) -> str:
    """An SVG file's element, to stand in a page: no prolog, no links, no ids but those that it uses itself."""
    text = text[text.index("<svg") :]
    text = re.sub(r'\s(?:id="(?!\w*[0-9a-f]{10}")[^"]*"|xmlns(?::\w+)?="[^"]*")', "", text)
    text = text.replace("xlink:href", "href")
    for found, page in colours.items():
        text = text.replace(found, page)
    return text
