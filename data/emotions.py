"""Select the labels of a corpus that become classes, and rename them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from data.corpora.utterance import Utterance
from utils import UserError

FOUR = ("angry", "happy", "neutral", "sad")
ALL = ("all",)


def pick_emotions(utterances: Sequence[Utterance], picks: Sequence[str]) -> list[Utterance]:
    """Return the utterances whose label is picked, with the class as their emotion.

    A pick is `label` or `label:class`: `angry happy excited:happy` makes two classes of three labels. The
    single pick `all` keeps everything. Raises `UserError` if the corpus lacks a label or it is picked twice.
    """
    if tuple(picks) == ALL:
        return list(utterances)
    classes: dict[str, str] = {}
    for pick in picks:
        label, _, name = pick.partition(":")
        if label in classes:
            raise UserError(f"--emotions: {label} is picked twice")
        classes[label] = name or label
    counts = Counter(each.emotion for each in utterances)
    if missing := [label for label in classes if label not in counts]:
        found = ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))
        close = get_close_matches(missing[0].lower(), counts, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UserError(f"--emotions: the corpus has no {missing[0]!r}{hint}; it has {found}")
    return [replace(each, emotion=classes[each.emotion]) for each in utterances if each.emotion in classes]
