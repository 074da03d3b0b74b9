"""The tables of results.md and report.html. `results` is the contents of results.json."""

from typing import Any, NamedTuple

from report import text
from report.text import NO_VALUE, method_title

SCORES = {"ua": "UA", "wa": "WA", "macro_f1": "macro-F1"}
COSTS = {  # title, unit, digits
    "params": ("weights (M)", 1e6, 2),
    "multiply_adds": ("multiply-adds (M)", 1e6, 1),
    "seconds": ("seconds of search and training", 1, 0),
}


class Table(NamedTuple):
    """A table of strings; the first column names the rows."""

    header: list[str]
    rows: list[list[str]]
    prose: bool = False  # columns of text are aligned left, those of numbers right


def pooled_table(results: dict[str, Any]) -> Table:
    """The pooled scores with their intervals."""
    rows = []
    for method, found in results["methods"].items():
        seeds = "0"
        scores = [NO_VALUE] * len(SCORES)
        if pooled := found["pooled"]:
            seeds = str(len(pooled["seeds"]))
            scores = _scores_with_intervals(pooled)
        rows.append([method_title(method), seeds, *scores])
    return Table(["method", "seeds", *(f"{title} (95 % interval)" for title in SCORES.values())], rows)


def _scores_with_intervals(found: dict[str, Any]) -> list[str]:
    """`63.1 % (58.0 to 68.2)` for each of `SCORES`."""
    return [
        f"{text.format_percent(found[score])} ({text.format_interval(found['ci95'][score])})"
        for score in SCORES
    ]


def score_table(results: dict[str, Any]) -> Table:
    """Mean and standard deviation of the scores over folds and seeds."""
    rows = []
    for method, found in results["methods"].items():
        finished, missing = found["finished"], found["missing"]
        trials = f"{finished} of {finished + missing}" if missing else str(finished)
        rows.append([method_title(method), trials, *(text.format_mean_std(found[score]) for score in SCORES)])
    return Table(["method", "trials", *SCORES.values()], rows)


def comparison_table(results: dict[str, Any]) -> Table:
    """The comparisons of methods."""
    rows = []
    for found in results["comparisons"]:
        methods = f"{method_title(found['a'])} against {method_title(found['b'])}"
        seeds = str(len(found["seeds"]))
        interval = text.format_interval(found["ci95"], signed=True)
        p_values = [text.format_p(found["p"]), text.format_p(found["p_holm"])]
        rows.append([methods, seeds, text.format_points(found["difference"]), interval, *p_values])
    return Table(["methods", "seeds", "difference in UA (points)", "95 % interval", "p", "p (Holm)"], rows)


def recall_table(results: dict[str, Any]) -> Table:
    """The recall of each class."""
    rows = []
    for method, found in results["methods"].items():
        if found["finished"]:
            rows.append([method_title(method), *map(text.format_percent, found["recall"].values())])
    return Table(["method", *results["classes"]], rows)


def sex_table(results: dict[str, Any]) -> Table:
    """The pooled UA of each sex; without columns if no sex is known."""
    methods = results["methods"].items()
    pooled = {method: found["pooled"]["ua_by_sex"] for method, found in methods if found["pooled"]}
    sexes = sorted(set().union(*pooled.values()))
    rows = []
    for method, by_sex in pooled.items():
        rows.append([method_title(method), *(text.format_percent(by_sex[sex]) for sex in sexes)])
    return Table(["method", *sexes], rows)


def ensemble_table(results: dict[str, Any]) -> Table:
    """The scores of the ensembles over seeds with their intervals, and the gain in UA over single models."""
    rows = []
    for method, found in results["methods"].items():
        if ensemble := found["ensemble"]:
            gain, interval = ensemble["gain"]["ua"], ensemble["gain"]["ci95"]
            gain = f"{text.format_points(gain)} ({text.format_interval(interval, signed=True)})"
            seeds = str(len(ensemble["seeds"]))
            rows.append([method_title(method), seeds, *_scores_with_intervals(ensemble), gain])
    titles = [f"{title} (95 % interval)" for title in (*SCORES.values(), "gain in UA, points")]
    return Table(["method", "seeds", *titles], rows)


def cost_table(results: dict[str, Any]) -> Table:
    """Parameters, multiply-adds and seconds; a cost that is not known for any method has no column."""
    methods = results["methods"]
    known = [cost for cost in COSTS if any(found[cost] for found in methods.values())]
    rows = []
    for method, found in methods.items():
        rows.append(
            [method_title(method), *(text.format_range(found[cost], *COSTS[cost][1:]) for cost in known)]
        )
    return Table(["method", *(COSTS[cost][0] for cost in known)], rows)


def agreement_table(results: dict[str, Any]) -> Table:
    """The share of edges that the genotypes of two trials have in common."""
    columns = {"seeds": "other seed", "folds": "other fold", "chance": "random genotypes"}
    rows = [
        [method_title(method), *(text.format_percent(found[column], 0) for column in columns)]
        for method, found in results["agreements"].items()
    ]
    return Table(["method", *columns.values()], rows)


def missing_table(results: dict[str, Any]) -> Table:
    """The missing trials and the reasons."""
    rows = [[*_trial_names(trial), trial["reason"]] for trial in results["missing"]]
    return Table(["method", "fold", "seed", "reason"], rows, prose=True)


def published_table(results: dict[str, Any]) -> Table:
    """The numbers of other publications, with source and protocol."""
    rows = []
    for found in results["published"]:
        scores = [text.format_percent(found[score], 2) for score in ("ua", "wa")]
        rows.append([found["corpus"], *scores, found["protocol"], found["source"]])
    return Table(["corpus", "UA", "WA", "protocol", "source"], rows, prose=True)


def trial_table(results: dict[str, Any]) -> Table:
    """The scores of every finished trial."""
    rows = []
    for trial in results["trials"]:
        scores = [text.format_percent(trial[score]) for score in SCORES]
        epoch = str(trial["best_epoch"] or NO_VALUE)
        rows.append([*_trial_names(trial), *scores, str(trial["n"]), epoch])
    return Table(["method", "fold", "seed", *SCORES.values(), "utterances", "epoch picked"], rows)


def _trial_names(trial: dict[str, Any]) -> list[str]:
    return [method_title(trial["method"]), str(trial["fold"]), str(trial["seed"])]


PROTOCOLS_DIFFER = (
    "The protocols differ in folds, utterances and the choice of the epoch: "
    "the published numbers are not a baseline for the scores above."
)
ENSEMBLES = (
    "The mean class probabilities of the models of all complete seeds give one prediction per utterance; "
    "the scores of single models, above, are the ones to compare with publications."
)
AGREEMENT = (
    "The share of edges (op and source) that the genotypes of two trials have in common, a mean over pairs of trials: "
    "with the same speakers and another seed, with the same seed and other speakers, and of genotypes drawn at random."
)
SECTIONS = (
    ("Pooled over folds", "Every utterance counts once per seed; seeds are averaged.", pooled_table),
    ("Over folds and seeds", "Mean ± standard deviation of the trials.", score_table),
    ("Comparisons", "A positive difference favours the first method.", comparison_table),
    ("Recall of each class", "Pooled over folds and seeds.", recall_table),
    ("UA of each sex", "Pooled over folds; seeds are averaged.", sex_table),
    ("Ensemble over seeds", ENSEMBLES, ensemble_table),
    (
        "Cost",
        "Mean over trials, with the range if they differ. The seconds of a trial that was resumed are not known.",
        cost_table,
    ),
    ("Agreement of the genotypes", AGREEMENT, agreement_table),
    ("Missing trials", "These trials are not included in any number.", missing_table),
    ("Published results", PROTOCOLS_DIFFER, published_table),
)


def sections(results: dict[str, Any]) -> list[tuple[str, str, Table]]:
    """(title, note, table) of every section whose table is not empty."""
    tables = [(title, note, make_table(results)) for title, note, make_table in SECTIONS]
    return [section for section in tables if section[2].rows and len(section[2].header) > 1]


def settings_tables(results: dict[str, Any], stage: str) -> list[tuple[str, Table]]:
    """(heading, table) of the settings that differ between methods and of the common ones."""
    settings = results["settings"][stage]
    tables = []
    if differing := settings["differing"]:
        methods = [method_title(method) for method in next(iter(differing.values()))]
        rows = []
        for flag, by_method in differing.items():
            rows.append([flag, *(" or ".join(map(_format_value, values)) for values in by_method.values())])
        tables.append(("Different settings", Table(["setting", *methods], rows, prose=True)))
    rows = [[flag, _format_value(value)] for flag, value in settings["common"].items()]
    tables.append(("The same in all trials", Table(["setting", "value"], rows, prose=True)))
    return tables


def _format_value(value: Any) -> str:
    """A setting as text: `none`, `yes`, `no`, the items of a list, or the value."""
    if isinstance(value, list | tuple):
        return " ".join(map(_format_value, value)) or "none"
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))
