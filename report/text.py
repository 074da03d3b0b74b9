"""Numbers and findings of a cross-validation in words, for results.md and report.html alike."""

from collections.abc import Sequence
from typing import Any

from report.trials import METHODS, SEARCHED

SIGNIFICANT = 0.05
RATES = {"ua": "UA", "wa": "WA", "macro_f1": "macro-F1"}
COSTS = {  # title, unit, digits
    "params": ("weights (M)", 1e6, 2),
    "multiply_adds": ("multiply-adds (M)", 1e6, 1),
    "seconds": ("seconds of training, search included", 1, 0),
}
NOTHING, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
TESTS = (
    "Scores over trials are means ± standard deviations over folds and seeds. Pooled scores count every utterance once"
    " per seed, over all folds, and are averaged over the seeds; a seed with which a method has not finished every"
    " fold is left out of them.",
    "Intervals (95 %) come from a bootstrap that draws speakers with replacement: 2,000 draws, expanded percentiles;"
    " for a difference, the same draws for both methods. In simulations they hold the truth 95 times in a hundred from"
    " eight speakers on, 93 times with six, 88 with four. They tell what other speakers would change; what another"
    " training would change is in the standard deviations.",
    "p-values come from a paired permutation test of the difference in UA, two-sided: the two methods' predictions are"
    " swapped speaker by speaker, all seeds at once. Up to 16 speakers every swap is counted; beyond, 10,000 are drawn,"
    " and the data as they are count as one more. Holm's correction covers all comparisons of the table; the intervals"
    " are not corrected.",
    "The best of the human-designed networks is picked by its UA on this same test. That favours it: the lead of a"
    " searched network over it is, if anything, understated, and its own lead over the other designs overstated.",
)
PROTOCOLS_DIFFER = (
    "The protocols differ: the published numbers come from another choice of the epoch, of the folds and of the"
    " utterances than those above. They are no baseline for them."
)


def name(method: str) -> str:
    """A method as a reader knows it."""
    return METHODS.get(method, method)


def percent(share: float | None, digits: int = 1) -> str:
    """`63.1 %`; a dash where there is nothing to say."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def spread(found: dict[str, Any] | None) -> str:
    """`63.1 ± 2.0 %`; of one trial, no deviation."""
    if found is None or found["std"] is None:
        return percent(found and found["mean"])
    return f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f} %"


def interval(bounds: Sequence[float] | None, signed: bool = False) -> str:
    """`58.0 to 68.2`, in percent."""
    sign = "+" if signed else ""
    return NOTHING if bounds is None else " to ".join(minus(f"{100 * bound:{sign}.1f}") for bound in bounds)


def points(difference: float) -> str:
    """`+2.9`, in percentage points."""
    return minus(f"{100 * difference:+.1f}")


def minus(text: str) -> str:
    """With a real minus sign."""
    return text.replace("-", MINUS)


def p_value(p: float) -> str:
    """`0.031`, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def quantity(found: dict[str, Any] | None, unit: float = 1, digits: int = 0) -> str:
    """A mean, with its range where there is one: `0.21 (0.19 to 0.24)`."""
    if found is None:
        return NOTHING
    mean, low, high = (f"{found[key] / unit:,.{digits}f}" for key in ("mean", "min", "max"))
    return mean if low == high else f"{mean} ({low} to {high})"


def verdict(results: dict[str, Any]) -> list[str]:
    """What was found, in sentences: the searched network's score, then each of its comparisons."""
    sentences = []
    for method in [*SEARCHED[:1], results["best_baseline"]]:
        found = results["methods"].get(method) or {}
        if score := found.get("pooled"):
            role = "" if method in SEARCHED else ", the best of the human-designed networks,"
            held = f" (95 % interval {interval(score['ci95']['ua'])})" if score["ci95"]["ua"] else ""
            sentences.append(f"{name(method)}{role} reaches a UA of {percent(score['ua'])}{held}.")
    sentences += [comparison(found) for found in results["comparisons"] if found["a"] in SEARCHED]
    return sentences + limits(results)


def comparison(found: dict[str, Any]) -> str:
    """A comparison in a sentence."""
    significant = found["p_holm"] <= SIGNIFICANT
    held = f" (95 % interval {interval(found['ci95'], signed=True)})" if found["ci95"] else ""
    return (
        f"{name(found['a'])} against {name(found['b'])}: {points(found['difference'])} points of UA{held}, "
        f"p = {p_value(found['p_holm'])} after correction: {'a' if significant else 'no'} significant difference."
    ).replace("p = <", "p <")


def limits(results: dict[str, Any]) -> list[str]:
    """What the reader must know before believing any of it."""
    said, count = [], len(results["comparisons"])
    single = max([found["smallest_p"] for found in results["comparisons"]], default=0)
    least = min(1.0, count * single)
    if least > 0.001:
        text = (
            f"With {results['speakers']} speakers the smallest p-value that is possible is {p_value(single)}"
        )
        text += f", {p_value(least)} after the correction for {count} comparisons" if count > 1 else ""
        said = [text + (": no difference can be significant here." if least > SIGNIFICANT else ".")]
    if "paper" in results["protocol"]:
        said.append(
            "The epoch was picked on the test fold (protocol paper): the scores are better than on new speakers."
        )
    if results["allow_leak"]:
        said.append(f"Training and test share {', '.join(results['allow_leak'])}, as --allow_leak permitted.")
    if results["tested_twice"]:
        said.append(
            f"{results['tested_twice']} utterances are tested in more than one fold, and count in each."
        )
    if results["missing"]:
        finished = len(results["trials"])
        said.append(
            f"{len(results['missing'])} of {finished + len(results['missing'])} trials are missing; see below."
        )
    return said


def facts(results: dict[str, Any]) -> list[str]:
    """What was tested, on what, how."""
    folds, seeds = (", ".join(map(str, results[key])) for key in ("folds", "seeds"))
    return [
        f"dataset {results['dataset']}: {results['utterances']:,} utterances of {results['speakers']:,} speakers, "
        f"{len(results['classes'])} classes (UA of a guess: {percent(1 / len(results['classes']))})",
        f"protocol {results['protocol']}, folds by {results['folds_by']}: {folds}; seeds {seeds}",
    ]
