"""Compare the number of utterances in a copy of a corpus with the published numbers.

The module of a reader may define `COMPLETE_COUNTS`: the number of utterances per label in a complete
copy. The outer key holds the values of the reader's options, joined by spaces; the inner key is a label,
or several that are counted together (`happy+excited`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from data.corpora import READERS, options_of
from data.corpora.utterance import Utterance


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
