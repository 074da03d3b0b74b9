"""report.html, results.md and results.json: what a cross-validation found, for readers, papers and programs.

The page is one file: its pictures stand in it as SVG, it runs no script and asks no network for anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import graphviz
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from genotypes import Genotype
from plots.cells import TITLES, cell_graph
from plots.charts import INK, MUTED, PAPER
from report import figures, tables
from report import text as words
from report.results import collect
from report.trials import Key
from utils import write_json, write_text

TEMPLATES = Path(__file__).parent / "templates"
CELL_PAGE = {INK: "var(--ink)", MUTED: "var(--muted)", PAPER: "var(--paper)", "#cbd5e1": "var(--rule)"}
SECTIONS = {  # titles of tables, in the order of the page
    "Pooled over folds": (tables.pooled, "Every utterance once per seed, averaged over the seeds."),
    "Over folds and seeds": (tables.scores, "Mean ± standard deviation of the trials."),
    "Comparisons": (
        tables.comparisons,
        "On the same utterances. A positive difference speaks for the first method.",
    ),
    "Recall of each class": (tables.recalls, "Pooled over folds and seeds."),
    "Cost": (tables.costs, "Mean over trials, and the range where they differ."),
    "Missing trials": (tables.missing, "These are in none of the numbers."),
}


def write_report(
    folder: Path, command: str = "", planned: Iterable[Key] = (), reasons: Mapping[Key, str] | None = None
) -> Path:
    """Write results.json, results.md and report.html of the trials in `folder`; return the page's path.

    `command` makes the cross-validation again. `planned` are the trials that should be there, and `reasons` why some
    failed, both by (method, fold, seed). `UserError` where no trial has finished.
    """
    folder = Path(folder)
    results = collect(folder, command, planned, reasons)
    texts = {"results.md": tables.markdown(results), "report.html": page(results)}
    write_json(folder / "results.json", results)
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "report.html"


def page(results: Mapping[str, Any]) -> str:
    """The HTML of results.json."""
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(name=words.name, percent=words.percent, colour=figures.colour)
    sections = [(title, note, make(results)) for title, (make, note) in SECTIONS.items()]
    return environment.get_template("report.html").render(
        results=results,
        words=words,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        facts=words.facts(results),
        verdict=words.verdict(results),
        limits=words.limits(results),
        scores=Markup(scores(results)),
        sections=[(title, note, table) for title, note, table in sections if table[1] and len(table[0]) > 1],
        trials=tables.trials(results),
        published=tables.published(results),
        confusions=list(confusions(results)),
        cells=list(drawn_cells(results)),
        titles=TITLES,
        state=state,
        curves={stage: drawn_curves(stage, found) for stage, found in results["curves"].items()},
        settings={stage: tables.settings(results, stage) for stage in results["settings"]},
    )


def scores(results: Mapping[str, Any]) -> str:
    """The picture at the top."""
    names = [words.name(method) for method in results["methods"]]
    return figures.draw_scores(results["methods"], results["trials"], names, 1 / len(results["classes"]))


def drawn_curves(stage: str, curves: Mapping[str, Any]) -> list[Markup]:
    """The learning curves of a stage, those that its histories have."""
    drawn = [figures.draw_curve(curves, key, title) for key, title in figures.AXES[stage].items()]
    return [Markup(picture) for picture in drawn if picture]


def confusions(results: Mapping[str, Any]) -> Iterable[tuple[str, list[tuple[str, list[tuple[int, float]]]]]]:
    """Per method, rows of (true class, (count, share of the row) of each prediction)."""
    for method, found in results["methods"].items():
        rows = []
        for true, counts in zip(results["classes"], found["confusion"], strict=True):
            rows.append((true, [(count, count / max(1, sum(counts))) for count in counts]))
        if found["finished"]:
            yield method, rows


def drawn_cells(
    results: Mapping[str, Any],
) -> Iterable[tuple[dict[str, Any], list[tuple[str, Markup | None, list[str]]]]]:
    """Per trial with a genotype, its cells: (title, picture or None, the same in words)."""
    for trial in results["trials"]:
        if trial["genotype"]:
            genotype = Genotype.from_json(trial["genotype"])
            parts = [(kind, getattr(genotype, kind), getattr(genotype, f"{kind}_concat")) for kind in TITLES]
            yield trial, [(TITLES[kind], drawn_cell(n, c), in_words(n)) for kind, n, c in parts if n]


def drawn_cell(nodes: Sequence[Any], concat: Sequence[int]) -> Markup | None:
    """A cell as SVG; None where Graphviz' `dot` is missing or fails."""
    graph = cell_graph(nodes, concat, "")
    graph.attr(dpi="72")  # at any other, Graphviz scales an SVG's drawing but not its view
    try:
        picture = graph.pipe(format="svg", quiet=True).decode("utf-8")
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
        return None
    return Markup(figures.inline(picture, CELL_PAGE))


def in_words(nodes: Sequence[Any]) -> list[str]:
    """A line a node: `node 0 = sep_conv_3x3 of c(k-2) + skip_connect of c(k-1)`."""
    return [
        f"{state(i + 2)} = " + " + ".join(f"{op} of {state(source)}" for op, source in node)
        for i, node in enumerate(nodes)
    ]


def state(number: int) -> str:
    """A state of a cell as the drawings call it."""
    return ("c(k-2)", "c(k-1)")[number] if number < 2 else f"node {number - 2}"
