"""How a copy of a corpus compares with a complete one, as far as its counts are known."""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence

from data.corpora import READERS, module_of
from data.corpora.utterance import Utterance


def compare(name: str, listed: Sequence[Utterance], options: Mapping[str, object]) -> list[str]:
    """A line for each known count that this copy does not have; none where it is complete, or nothing is known.

    A reader's module knows its counts as `COMPLETE`: by the values of its options, joined by a space, then by label
    (`happy+excited` counts two labels together).
    """
    parameters = list(inspect.signature(READERS[name]).parameters.values())[1:]
    values = [options.get(p.name) if options.get(p.name) is not None else p.default for p in parameters]
    known = getattr(module_of(name), "COMPLETE", {}).get(" ".join(map(str, values)), {})
    there = Counter(utterance.emotion for utterance in listed)
    lines = []
    for labels, count in known.items():
        found = sum(there[label] for label in labels.split("+"))
        if found != count:
            what = "labelled utterances" if labels.count("+") > 3 else labels
            lines.append(f"{what}: {found:,} here, {count:,} in a complete copy")
    return lines
