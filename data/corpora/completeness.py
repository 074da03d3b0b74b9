"""Compare a copy of a corpus with a complete one: the number of utterances, and how long they are.

The module of a reader may define `COMPLETE_COUNTS`: the number of utterances per label in a complete
copy. The outer key holds the values of the reader's options, joined by spaces; the inner key is a label,
or several that are counted together (`other+unknown`). It may also define `COMPLETE_SECONDS`: for each label, the
total, shortest, median and longest duration of its utterances in seconds.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from data.corpora import READERS, options_of
from data.corpora.utterance import Utterance

MEASURES = ("total", "shortest", "median", "longest")
ALLOWED = 0.1  # seconds by which the shortest, the median and the longest may differ: some formats pad a file
ALLOWED_SHARE = 0.01  # of the total


def count_differences(
    corpus: str, utterances: Sequence[Utterance], options: Mapping[str, object]
) -> list[str]:
    """Return one line for each published count that this copy of the corpus does not match.

    The list is empty if the copy is complete, or if no counts are known for these options.
    """
    given = {option: value for option, value in options.items() if value is not None}
    values = [given.get(option, default) for option, default in options_of(corpus).items()]
    complete = getattr(READERS[corpus], "COMPLETE_COUNTS", {}).get(" ".join(map(str, values)), {})
    counts = Counter(each.emotion for each in utterances)
    lines = []
    for labels, expected in complete.items():
        found = sum(counts[label] for label in labels.split("+"))
        if found != expected:
            what = "labelled utterances" if labels.count("+") > 3 else labels
            lines.append(f"{what}: {found:,} here, {expected:,} in a complete copy")
    return lines


def duration_differences(
    corpus: str, utterances: Sequence[Utterance], seconds: Mapping[str, float]
) -> list[str]:
    """Return one line for each label whose utterances are longer or shorter than in a complete copy.

    `seconds` is the duration of each utterance by its name. A label is compared only if its durations are known
    here and in a complete copy, and if none of its utterances is missing.
    """
    counts = getattr(READERS[corpus], "COMPLETE_COUNTS", {}).get("", {})
    complete = getattr(READERS[corpus], "COMPLETE_SECONDS", {})
    found = defaultdict(list)
    for each in utterances:
        found[each.emotion].append(seconds.get(each.utterance))
    lines = []
    for label, expected in complete.items():
        here = found[label]
        if len(here) != counts.get(label) or None in here:
            continue
        measured = (sum(here), min(here), median(here), max(here))
        allowed = (ALLOWED_SHARE * expected[0], *[ALLOWED] * 3)
        differences = [
            f"{what} {mine:,.1f} ({theirs:,.1f})"
            for what, mine, theirs, most in zip(MEASURES, measured, expected, allowed, strict=True)
            if abs(mine - theirs) > most
        ]
        if differences:
            lines.append(f"{label}: seconds here (in a complete copy): {', '.join(differences)}")
    return lines
