"""The tables of a cross-validation, as results.md prints them and report.html shows them."""

import html
import re
from collections.abc import Sequence
from typing import Any

from report import text as words
from report.text import NOTHING, RATES, interval, name, p_value, percent, points

Table = tuple[list[str], list[list[str]]]
"""The titles of the columns, and the rows; the first column names the row."""


def scores(results: dict[str, Any]) -> Table:
    """Mean and standard deviation over folds and seeds."""
    rows = []
    for method, found in results["methods"].items():
        trials = (
            f"{found['finished']} of {found['finished'] + found['missing']}" if found["missing"] else None
        )
        rates = [words.spread(found[rate]) for rate in RATES]
        rows.append([name(method), trials or str(found["finished"]), *rates])
    return ["method", "trials", *RATES.values()], rows


def pooled(results: dict[str, Any]) -> Table:
    """The scores of all folds at once, with intervals."""
    rows = []
    for method, found in results["methods"].items():
        score = found["pooled"]
        cells = (
            [f"{percent(score[r])} ({interval(score['ci95'][r])})" for r in RATES]
            if score
            else [NOTHING] * len(RATES)
        )
        rows.append([name(method), str(len(score["seeds"]) if score else 0), *cells])
    return ["method", "seeds", *(f"{title} (95 % interval)" for title in RATES.values())], rows


def comparisons(results: dict[str, Any]) -> Table:
    """Who was compared with whom, and what came out."""
    rows = []
    for found in results["comparisons"]:
        p = p_value(found["p"]), p_value(found["p_holm"])
        held = interval(found["ci95"], signed=True)
        rows.append(
            [
                f"{name(found['a'])} against {name(found['b'])}",
                str(len(found["seeds"])),
                points(found["difference"]),
                held,
                *p,
            ]
        )
    return ["methods", "seeds", "difference in UA (points)", "95 % interval", "p", "p (Holm)"], rows


def costs(results: dict[str, Any]) -> Table:
    """Weights, multiply-adds, seconds: the columns that are known of any method."""
    columns = [
        (key, *words.COSTS[key]) for key in words.COSTS if any(m[key] for m in results["methods"].values())
    ]
    rows = [
        [name(method), *(words.quantity(found[key], unit, digits) for key, _, unit, digits in columns)]
        for method, found in results["methods"].items()
    ]
    return ["method", *(title for _, title, *_ in columns)], rows


def recalls(results: dict[str, Any]) -> Table:
    """The recall of each class."""
    rows = [[name(m), *map(percent, found["recall"].values())] for m, found in results["methods"].items()]
    return ["method", *results["classes"]], [row for row in rows if set(row[1:]) != {NOTHING}]


def trials(results: dict[str, Any]) -> Table:
    """Every finished trial."""
    rows = [
        [
            name(t["method"]),
            str(t["fold"]),
            str(t["seed"]),
            *_rates(t),
            str(t["n"]),
            str(t["best_epoch"] or NOTHING),
        ]
        for t in results["trials"]
    ]
    return ["method", "fold", "seed", *RATES.values(), "utterances", "epoch picked"], rows


def _rates(found: dict[str, Any]) -> list[str]:
    return [percent(found[rate]) for rate in RATES]


def missing(results: dict[str, Any]) -> Table:
    """The trials that are not there, and why."""
    rows = [[name(m["method"]), str(m["fold"]), str(m["seed"]), m["reason"]] for m in results["missing"]]
    return ["method", "fold", "seed", "why"], rows


def published(results: dict[str, Any]) -> Table:
    """Numbers of other publications, with source and protocol."""
    rows = [
        [p["corpus"], percent(p["ua"], 2), percent(p["wa"], 2), p["protocol"], p["source"]]
        for p in results["published"]
    ]
    return ["corpus", "UA", "WA", "protocol", "source"], rows


def settings(results: dict[str, Any], stage: str) -> list[tuple[str, Table]]:
    """The settings of a stage: those that differ between methods, then those that all trials share."""
    found = results["settings"][stage]
    differing = [
        [flag, *(" or ".join(map(_value, values)) for values in by_method.values())]
        for flag, by_method in found["differing"].items()
    ]
    methods = list(next(iter(found["differing"].values()), {}))
    parts = [("Differing", (["setting", *map(name, methods)], differing))] if differing else []
    common = [[flag, _value(value)] for flag, value in found["common"].items()]
    return [*parts, ("The same in all trials", (["setting", "value"], common))]


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_value, value)) or "none"
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))


def markdown(results: dict[str, Any]) -> str:
    """The text of results.md."""
    parts = [f"# {plain(results['name'])}", bullets(words.facts(results)), bullets(words.verdict(results))]
    shown = {
        "Scores over folds and seeds": scores,
        "Scores pooled over folds": pooled,
        "Comparisons": comparisons,
        "Recall of each class": recalls,
        "Cost": costs,
        "Trials": trials,
        "Missing trials": missing,
        "Published elsewhere": published,
    }
    for title, make in shown.items():
        header, rows = make(results)
        if rows and len(header) > 1:
            parts += [f"## {title}", grid(header, rows)]
    parts += [words.PROTOCOLS_DIFFER] if results["published"] else []
    parts += ["## How it was computed", bullets(words.TESTS)]
    if command := results["command"].replace("`", ""):
        parts += ["## Again", f"```\n{command}\n```"]
    return "\n\n".join(parts) + "\n"


def bullets(texts: Sequence[str]) -> str:
    """A list."""
    return "\n".join(f"- {plain(text)}" for text in texts)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(plain, line))} |" for line in lines)


def plain(text: str) -> str:
    """Text that Markdown and HTML leave alone, on one line."""
    one_line = " ".join(str(text).split())
    return html.escape(re.sub(r"([\\`*\[\]|])", r"\\\1", one_line), quote=False)
