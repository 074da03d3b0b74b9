"""Writes the report of a cross-validation: results.json, results.md and report.html.

The page is a single file with inline SVG figures, without scripts, that loads nothing.
"""

import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from genotypes import Genotype
from plots.cells import TITLES
from report import figures, tables, text
from report.results import collect_results
from report.trials import TrialKey, read_trials
from utils import UserError, write_json, write_text

TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    folder: Path,
    command: str = "",
    planned: Iterable[TrialKey] = (),
    reasons: Mapping[TrialKey, str] | None = None,
) -> Path:
    """Write the report of the trials in `folder` into the same folder; return the path of the page.

    `command` is the command line that reproduces the study, `planned` holds the expected trials, and
    `reasons` says why trials have failed. Raises `UserError` if no trial has finished.
    """
    trials, missing = read_trials(folder, planned, reasons)
    if not trials:
        raise UserError(f"{folder} holds no finished trial: run crossval.py first")
    results = collect_results(folder.name, command, trials, missing)
    texts = render(results)
    write_json(folder / "results.json", results)
    for name, content in texts.items():
        write_text(folder / name, content)
    return folder / "report.html"


def render(results: Mapping[str, Any]) -> dict[str, str]:
    """The texts of results.md and report.html, by file name."""
    layout = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **layout)
    environment.filters.update(
        method_title=text.method_title,
        method_colour=figures.method_colour,
        state_name=text.state_name,
        percent=text.format_percent,
        markdown=escape_markdown,
    )
    context = {
        "results": results,
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        "facts": text.facts(results),
        "findings": text.findings(results),
        "caveats": text.caveats(results),
        "methodology": text.METHODOLOGY,
        "sections": tables.sections(results),
        "trials": tables.trial_table(results),
        "settings": {stage: tables.settings_tables(results, stage) for stage in results["settings"]},
        "scores": figures.draw_scores(results),
        "curves": {stage: figures.draw_curves(stage, found) for stage, found in results["curves"].items()},
        "cells": draw_cells(results),
        "cell_titles": TITLES,
    }
    names = ("results.md", "report.html")
    return {name: environment.get_template(name).render(context) for name in names}


def draw_cells(results: Mapping[str, Any]) -> list[tuple[dict[str, Any], list[tuple]]]:
    """Each trial with a genotype, and its cells: (title, figure or None, description)."""
    drawn = []
    for trial in results["trials"]:
        if trial["genotype"]:
            genotype = Genotype.from_json(trial["genotype"])
            cells = []
            for cell, title in TITLES.items():
                nodes = getattr(genotype, cell)
                if nodes:
                    picture = figures.cell_to_svg(nodes, getattr(genotype, f"{cell}_concat"))
                    cells.append((title, picture, text.describe_nodes(nodes)))
            drawn.append((trial, cells))
    return drawn


def escape_markdown(value: Any) -> Markup:
    """Text on one line in which Markdown and HTML have no effect."""
    one_line = " ".join(str(value).split())
    return Markup(html.escape(re.sub(r"([\\`*\[\]|])", r"\\\1", one_line), quote=False))
