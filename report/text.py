"""Text of a report: formatted numbers and sentences. `results` is the contents of results.json."""

from collections.abc import Sequence
from typing import Any

from config import is_svm, parse_method, strategy_of
from genotypes import Node
from report.trials import METHODS, SVM
from training.metrics import TOO_FEW_SPEAKERS

SIGNIFICANCE_LEVEL = 0.05
NO_VALUE = "\N{EN DASH}"
METHODOLOGY = (
    "Scores over trials are means ± standard deviations over folds and seeds. Pooled scores combine the "
    "predictions of all folds with one seed, so that every utterance counts once, and are averaged over the "
    "seeds. A seed with which a method has not finished every fold is left out.",
    "95 % intervals are expanded percentile intervals of a bootstrap that draws speakers with replacement: "
    "2,000 draws, shared by both methods of a comparison. In simulations their coverage was 95 % with eight "
    "or more speakers, 93 % with six and 88 % with four; with fewer than four there is no interval. They "
    "describe the variation between speakers; the variation between trainings is part of the standard deviations.",
    "p-values come from a two-sided, paired permutation test of the difference in UA, which swaps the "
    "predictions of the two methods speaker by speaker, in all seeds together. With up to 16 speakers all "
    "swaps are counted; with more, 10,000 are drawn, and the observed data count as one more. Holm's "
    "correction covers all comparisons of the table; the intervals are not corrected.",
    "The best baseline is chosen by its UA on the same test. This favours it: its lead over the other "
    "baselines is overstated, and the lead of a searched network over it is, if anything, understated.",
    "A support vector machine (SVM) on functionals, such as the mean of each coefficient over an utterance, has no "
    "random part. Its kernel, C and gamma are those with the highest UA on the utterances that pick a network's "
    "epoch. Its trials of a fold are equal for all seeds, and its standard deviations are over folds alone.",
)


def method_title(method: str) -> str:
    """The title of a method; an unknown method keeps its name."""
    kind, candidates, variant = parse_method(method)
    if candidates > 1:
        return f"{METHODS[kind]}, best of {candidates}"
    if variant:
        return f"SVM on {variant}" if kind == SVM else f"{METHODS[kind]} ({variant})"
    return METHODS.get(method, method)


def format_percent(share: float | None, digits: int = 1) -> str:
    """`63.1 %`; a dash for None."""
    return NO_VALUE if share is None else f"{100 * share:.{digits}f} %"


def format_mean_std(summary: dict[str, Any] | None) -> str:
    """`63.1 ± 2.0 %`; the mean alone if there is a single trial."""
    if summary is None:
        return NO_VALUE
    if summary["std"] is None:
        return format_percent(summary["mean"])
    return f"{100 * summary['mean']:.1f} ± {100 * summary['std']:.1f} %"


def format_interval(bounds: Sequence[float] | None, signed: bool = False) -> str:
    """`58.0 to 68.2`, in percent."""
    if bounds is None:
        return TOO_FEW_SPEAKERS
    sign = "+" if signed else ""
    low, high = (_minus(f"{100 * bound:{sign}.1f}") for bound in bounds)
    return f"{low} to {high}"


def format_points(difference: float) -> str:
    """`+2.9`, in percentage points."""
    return _minus(f"{100 * difference:+.1f}")


def format_p(p: float) -> str:
    """`0.031`, or `< 0.001`."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def format_range(summary: dict[str, Any] | None, unit: float = 1, digits: int = 0) -> str:
    """The mean in multiples of `unit`, with the range if the values differ: `0.21 (0.19 to 0.24)`."""
    if summary is None:
        return NO_VALUE
    mean, low, high = (f"{summary[key] / unit:,.{digits}f}" for key in ("mean", "min", "max"))
    return mean if low == high else f"{mean} ({low} to {high})"


def _minus(text: str) -> str:
    """Replace hyphens by minus signs."""
    return text.replace("-", "\N{MINUS SIGN}")


def state_name(state: int) -> str:
    """The name of a state of a cell, as in the drawings."""
    return ("c(k-2)", "c(k-1)")[state] if state < 2 else f"node {state - 2}"


def describe_nodes(nodes: Sequence[Node]) -> list[str]:
    """One line per node: `node 0 = sep_conv_3x3 of c(k-2) + skip_connect of c(k-1)`."""
    lines = []
    for number, node in enumerate(nodes):
        edges = [f"{op} of {state_name(source)}" for op, source in node]
        lines.append(f"{state_name(number + 2)} = {' + '.join(edges)}")
    return lines


def facts(results: dict[str, Any]) -> list[str]:
    """The dataset and the test conditions."""
    classes = len(results["classes"])
    utterances = f"{results['utterances']:,} utterances of {results['speakers']:,} speakers"
    folds = ", ".join(map(str, results["folds"]))
    seeds = ", ".join(map(str, results["seeds"]))
    lines = [
        f"dataset {results['dataset']}: {utterances}, {classes} classes "
        f"(chance level: UA {format_percent(1 / classes)})",
        f"protocol {results['protocol']}; folds {folds} (folds_by {results['folds_by']}); seeds {seeds}",
    ]
    if results["copies"]:
        copies = ", ".join(results["copies"])
        lines.append(
            f"networks predict the mean over an utterance and its copies {copies}; the SVM has no copies"
        )
    return lines


def findings(results: dict[str, Any]) -> list[str]:
    """The pooled UA of the searches, the best baseline and the SVM, the searches' comparisons, and the ensembles."""
    sentences = []
    best = results["best_baseline"]
    searches = [method for method in results["methods"] if strategy_of(method) not in (None, "random")]
    for method in dict.fromkeys((*searches, best, SVM)):
        found = results["methods"].get(method)
        if found and found["pooled"]:
            role = ", the best of the human-designed baselines," if method == best else ""
            ua = format_percent(found["pooled"]["ua"])
            interval = _interval_in_brackets(found["pooled"]["ci95"]["ua"])
            sentences.append(f"{method_title(method)}{role} reaches a UA of {ua}{interval}.")
    compared = [found for found in results["comparisons"] if strategy_of(found["a"])]
    sentences += [_comparison_sentence(found) for found in compared]
    return sentences + _ensemble_sentence(results, [*searches, best])


def _ensemble_sentence(results: dict[str, Any], methods: Sequence[str]) -> list[str]:
    """A sentence on the ensembles of those `methods` that have one, else nothing."""
    parts = []
    for method in methods:
        found = results["methods"].get(method)
        if found and (ensemble := found["ensemble"]):
            gain = format_points(ensemble["gain"]["ua"])
            parts.append(f"{format_percent(ensemble['ua'])} with {method_title(method)} ({gain} points)")
    return [f"The ensemble over seeds reaches a UA of {' and of '.join(parts)}."] if parts else []


def _comparison_sentence(comparison: dict[str, Any]) -> str:
    methods = f"{method_title(comparison['a'])} against {method_title(comparison['b'])}"
    interval = _interval_in_brackets(comparison["ci95"], signed=True)
    p = format_p(comparison["p_holm"])
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    conclusion = "a significant" if comparison["p_holm"] <= SIGNIFICANCE_LEVEL else "no significant"
    return (
        f"{methods}: {format_points(comparison['difference'])} points of UA{interval}, "
        f"{p} after correction: {conclusion} difference."
    )


def _interval_in_brackets(bounds: Sequence[float] | None, signed: bool = False) -> str:
    interval = format_interval(bounds, signed)
    return f" (95 % interval {interval})" if bounds else f" ({interval})"


def caveats(results: dict[str, Any]) -> list[str]:
    """Sentences on what limits the conclusions."""
    sentences = _networks_below_svm(results) + _smallest_p_sentence(results)
    if "paper" in results["protocol"]:
        sentences.append("The epoch was picked on the test fold (protocol paper), which raises the scores.")
    if results["allow_leak"]:
        shared = ", ".join(results["allow_leak"])
        sentences.append(f"Training and test share {shared}, as --allow_leak permitted.")
    if results["tested_twice"]:
        sentences.append(f"{results['tested_twice']} utterances are in the test sets of several folds.")
    if results["missing"]:
        missing = len(results["missing"])
        total = missing + len(results["trials"])
        sentences.append(f"{missing} of {total} trials are missing; see Missing trials.")
    return sentences


def _networks_below_svm(results: dict[str, Any]) -> list[str]:
    """A sentence for each SVM that names the networks without a higher UA, if there are any."""
    ua = {method: found["pooled"]["ua"] for method, found in results["methods"].items() if found["pooled"]}
    sentences = []
    for svm in filter(is_svm, ua):
        below = [method_title(method) for method in ua if not is_svm(method) and ua[method] <= ua[svm]]
        if below:
            sentences.append(f"No higher UA than the {method_title(svm)}: {', '.join(below)}.")
    return sentences


def _smallest_p_sentence(results: dict[str, Any]) -> list[str]:
    """A sentence if few speakers keep the p-values above 0.001, else nothing."""
    count = len(results["comparisons"])
    smallest = max([found["smallest_p"] for found in results["comparisons"]], default=0)
    corrected = min(1.0, count * smallest)
    if corrected <= 0.001:
        return []
    sentence = f"With {results['speakers']} speakers the smallest possible p-value is {format_p(smallest)}"
    if count > 1:
        sentence += f", or {format_p(corrected)} after the correction for {count} comparisons"
    end = ": no difference can be significant here." if corrected > SIGNIFICANCE_LEVEL else "."
    return [sentence + end]
