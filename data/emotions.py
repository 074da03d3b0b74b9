"""Which labels of a corpus become the classes of a task, and under which names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from data.corpora.utterance import Utterance
from utils import UserError

FOUR = ("angry", "happy", "neutral", "sad")
ALL = ("all",)


def pick_emotions(utterances: Sequence[Utterance], picks: Sequence[str]) -> list[Utterance]:
    """Keep the utterances whose label is picked: a pick is `label`, or `label:class` to rename; `all` keeps all.

    `angry happy excited:happy` makes two classes of three labels. Raises `UserError` for a label that the corpus does
    not have, or that is picked twice.
    """
    if tuple(picks) == ALL:
        return list(utterances)
    classes: dict[str, str] = {}
    for pick in picks:
        label, _, name = pick.partition(":")
        if label in classes:
            raise UserError(f"--emotions: {label} is picked twice")
        classes[label] = name or label
    there = Counter(utterance.emotion for utterance in utterances)
    if missing := [label for label in classes if label not in there]:
        found = ", ".join(f"{label} ({count})" for label, count in sorted(there.items()))
        close = get_close_matches(missing[0].lower(), there, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UserError(f"--emotions: the corpus has no {missing[0]!r}{hint}; it has {found}")
    return [replace(u, emotion=classes[u.emotion]) for u in utterances if u.emotion in classes]
