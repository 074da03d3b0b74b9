"""Select the labels of a corpus that become classes, and rename them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from data.corpora.utterance import Utterance
from data.names import is_unknown, key
from utils import UserError

FOUR = ("angry", "happy", "neutral", "sad")
ALL = ("all",)


def pick_emotions(utterances: Sequence[Utterance], picks: Sequence[str]) -> list[Utterance]:
    """Return the utterances whose label is picked, with the class as their emotion.

    A pick is `label` or `label:class`: `angry happy excited:happy` makes two classes of three labels. Labels are
    compared as `data.names.key` says, and a class is spelt as in the first pick that names it. The single pick
    `all` keeps every label but those that stand for nothing, such as `nan`. Raises `UserError` if the corpus lacks
    a label or it is picked twice.
    """
    if tuple(map(key, picks)) == ALL:
        return [each for each in utterances if not is_unknown(each.emotion)]
    classes: dict[str, str] = {}  # by the key of the label
    spelling: dict[str, str] = {}  # of each class
    for pick in picks:
        label, _, name = (part.strip() for part in pick.partition(":"))
        if key(label) in classes:
            raise UserError(f"--emotions: {label} is picked twice")
        classes[key(label)] = spelling.setdefault(key(name or label), name or label)
    counts = Counter(each.emotion for each in utterances)
    labels = {key(label): label for label in counts}
    if missing := [pick for pick in picks if key(pick.partition(":")[0]) not in labels]:
        label = missing[0].partition(":")[0]
        found = ", ".join(f"{each} ({count})" for each, count in sorted(counts.items()))
        close = get_close_matches(key(label), labels, n=1)
        hint = f" (did you mean {labels[close[0]]!r}?)" if close else ""
        raise UserError(f"--emotions: the corpus has no {label!r}{hint}; it has {found}")
    return [
        replace(each, emotion=classes[key(each.emotion)])
        for each in utterances
        if key(each.emotion) in classes
    ]


def left_out(utterances: Sequence[Utterance], picked: Sequence[Utterance]) -> Counter[str]:
    """Return how many utterances of each label are not among the picked ones."""
    kept = {each.utterance for each in picked}
    return Counter(each.emotion for each in utterances if each.utterance not in kept)
