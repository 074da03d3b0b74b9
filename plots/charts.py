"""Charts by Matplotlib: confusion matrices, heat maps of alphas, the class balance of folds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from genotypes import discretise
from utils import whole_file

INK, MUTED, PAPER = "#1f2937", "#64748b", "#ffffff"
BLUES = LinearSegmentedColormap.from_list(
    "soft_blues", ["#f8fafc", "#bfdbfe", "#60a5fa", "#2563eb", "#1e3a8a"]
)
CLASS_COLOURS = (
    "#2563eb", "#f97316", "#10b981", "#a855f7", "#facc15", "#ef4444", "#14b8a6", "#64748b", "#ec4899",
    "#84cc16",
)  # fmt: skip


def draw_confusion(confusion: Any, classes: Sequence[str], path: Path, title: str) -> None:
    """Draw a confusion matrix: a row per true class, a column per prediction, with counts and shares of the row."""
    counts = np.asarray(confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    size = 1.9 + 0.95 * len(classes)
    figure = Figure(figsize=(size + 0.9, size), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=BLUES, vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        ink = _ink_on(shares[row, column])
        axes.text(
            column, row - 0.1, f"{counts[row, column]}", ha="center", va="center", color=ink, fontsize=13
        )
        axes.text(
            column, row + 0.2, f"{shares[row, column]:.0%}", ha="center", va="center", color=ink, fontsize=9
        )
    names = [f"{name}\n(n = {total})" for name, total in zip(classes, totals[:, 0], strict=True)]
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, classes)) > 9 else {}
    axes.set_xticks(range(len(classes)), classes, parse_math=False, **slant)
    axes.set_yticks(range(len(classes)), names, parse_math=False)
    axes.set_xlabel("predicted", color=MUTED, fontsize=11, labelpad=8)
    axes.set_ylabel("true", color=MUTED, fontsize=11, labelpad=8)
    _finish(figure, axes, image, path, title, "share of the true class", percent=True)


def draw_alphas(weights: Sequence[Any], ops: Sequence[str], path: Path, title: str) -> None:
    """Draw the weights of the ops of a cell type as a heat map: a row per edge (source → state), a column per op.

    The ops of the derived cell are outlined.
    """
    tables = [np.asarray(rows, dtype=np.float64) for rows in weights]
    values = np.concatenate(tables)
    figure = Figure(
        figsize=(2.6 + 0.62 * len(ops), max(3.6, 1.9 + 0.34 * len(values))), dpi=150, layout="constrained"
    )
    axes = figure.add_subplot()
    top = np.nanmax(values, initial=1 / len(ops))
    image = axes.imshow(values, cmap=BLUES, vmin=0, vmax=top, aspect="auto")
    if values.size <= 400:  # more numbers would be too small to read
        for row, column in np.ndindex(values.shape):
            number = f"{values[row, column]:.2f}".lstrip("0")
            ink = _ink_on(values[row, column] / top)
            axes.text(column, row, number, ha="center", va="center", color=ink, fontsize=8)
    starts = np.cumsum([0, *map(len, tables)])
    for start in starts[1:-1]:
        axes.axhline(start - 0.5, color=PAPER, linewidth=5)
    if np.isfinite(values).all():
        for start, node in zip(starts, discretise(tables, ops), strict=False):
            for op, source in node:
                corner = (list(ops).index(op) - 0.45, start + source - 0.36)
                axes.add_patch(
                    Rectangle(corner, 0.9, 0.72, fill=False, edgecolor="#f97316", linewidth=1.8, zorder=3)
                )
    axes.set_xticks(range(len(ops)), ops, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    edges = [f"{source}→{i + 2}" for i, table in enumerate(tables) for source in range(len(table))]
    axes.set_yticks(range(len(values)), edges)
    axes.set_ylabel("edge (source → state)", color=MUTED)
    _finish(figure, axes, image, path, title, "weight of the op (outlined: the derived cell)")


def draw_balance(
    folds: Sequence[dict[str, Sequence[int]]], classes: Sequence[str], path: Path, title: str
) -> None:
    """Draw the share of each class in every part of every fold.

    Args:
        folds: per fold, the number of utterances of each class by the name of the part.
    """
    bars = [
        (f"fold {k}  {part}", np.asarray(counts))
        for k, fold in enumerate(folds, 1)
        for part, counts in fold.items()
    ]
    places = np.array([row + 0.6 * (row // len(folds[0])) for row in range(len(bars))])  # a gap between folds
    figure = Figure(figsize=(8.5, 1.3 + 0.27 * (places[-1] + 1)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    left = np.zeros(len(bars))
    for number, name in enumerate(classes):
        share = np.array([counts[number] / max(1, counts.sum()) for _, counts in bars])
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        axes.barh(places, share, 0.86, left, color=colour, label=name, edgecolor=PAPER, linewidth=1)
        for place, start, width, (_, counts) in zip(places, left, share, bars, strict=True):
            if width > 0.045:
                text = {"ha": "center", "va": "center", "color": PAPER, "fontsize": 8}
                axes.text(start + width / 2, place + 0.03, f"{counts[number]:,}", **text)
        left += share
    axes.set_yticks(places, [f"{name}  ({counts.sum():,})" for name, counts in bars], fontsize=9)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.invert_yaxis()
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(6, len(classes)), frameon=False, fontsize=9
    )
    _save(figure, axes, path, title)


def draw_front(
    points: Sequence[Sequence[float]],
    front: Sequence[Sequence[float]],
    size: str,
    path: Path,
    title: str,
) -> None:
    """Draw genotypes by their objectives, (loss, ..., size), and those of a front, numbered from the lowest loss."""
    points, front = ([(values[-1], values[0]) for values in part] for part in (points, front))
    figure = Figure(figsize=(7.5, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(*zip(*points, strict=True), s=14, color="#bfdbfe", label="scored")
    axes.plot(*zip(*sorted(front), strict=True), "o-", color="#f97316", markersize=6, label="front")
    for number, point in enumerate(front, 1):
        axes.annotate(f"{number}", point, (5, 5), textcoords="offset points", color=INK, fontsize=9)
    axes.set_xlabel(size, color=MUTED)
    axes.set_ylabel("loss", color=MUTED)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    _save(figure, axes, path, title)


def _finish(
    figure: Figure, axes: Any, image: Any, path: Path, title: str, scale: str, percent: bool = False
) -> None:
    """Add the colour bar of a heat map, then save it."""
    bar = figure.colorbar(
        image, ax=axes, shrink=0.8, aspect=28, pad=0.02, format="{x:.0%}" if percent else None
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=MUTED, labelsize=8)
    bar.set_label(scale, color=MUTED, fontsize=9)
    _save(figure, axes, path, title)


def _save(figure: Figure, axes: Any, path: Path, title: str) -> None:
    """Add the title, remove the frame, and write the file."""
    axes.set_title(title, color=INK, fontsize=14, loc="left", pad=14, parse_math=False)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    path = Path(path)
    with whole_file(path) as beside:
        figure.savefig(beside, format=path.suffix.lstrip("."))


def _ink_on(shade: float) -> str:
    """The text colour that is readable on a shade of the colour map."""
    return PAPER if shade > 0.62 else INK
