"""What the parts of a fold share: speakers, sessions, and texts that tell the emotion.

"Training" is the training side, of which validation is a part.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.corpora.utterance import IMPROVISED
from data.folds import Fold, Labelled, first_rows, is_known, natural
from data.speakers import SpeakerSet
from data.store import FeatureStore
from utils import UserError

TELLING = 0.25  # a text tells the emotion if knowing it goes this share of the way from chance to certainty
BETTER = {
    "speakers": "--folds_by speaker keeps them apart",
    "sessions": "--folds_by session keeps them apart",
    "texts": "no --folds_by keeps texts apart, so better leave out the utterances whose text tells the emotion",
}


@dataclass(frozen=True)
class Leaks:
    """What the parts of a fold share, in natural order, and how far a shared text tells the emotion."""

    speakers: tuple[str, ...] = ()  # in two of training, validation and test
    sessions: tuple[str, ...] = ()  # in test and training
    texts: tuple[str, ...] = ()  # of scripts, in test and training
    text_ua: float | None = None  # of a guess that knows the text alone; None where no text is shared
    chance: float | None = None  # the UA of a guess that knows nothing, on the same utterances

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those of speakers, sessions and texts that are leaks: texts are none where knowing them is of little help."""
        telling = bool(self.texts) and self.text_ua > self.chance + TELLING * (1 - self.chance)
        shared = {"speakers": self.speakers, "sessions": self.sessions, "texts": telling}
        return tuple(kind for kind, leak in shared.items() if leak)

    def line(self, kind: str) -> str:
        """A sentence that says what is shared of this kind."""
        if kind == "texts":
            are = "1 text is" if len(self.texts) == 1 else f"{len(self.texts)} texts are"
            ua, chance = f"{100 * self.text_ua:.1f} %", f"{100 * self.chance:.1f} %"
            return f"{are} in training and test; knowing the text alone gives a UA of {ua} (chance {chance})"
        names = getattr(self, kind)
        are = f"{kind[:-1]} {names[0]} is" if len(names) == 1 else f"{kind} {few(names)} are"
        return f"{are} in {'training and test' if kind == 'sessions' else 'two of training, validation and test'}"

    def lines(self) -> list[str]:
        """A report for people, leaks or not; empty where nothing is shared."""
        return [self.line(kind) for kind in BETTER if getattr(self, kind)]

    def to_json(self) -> dict[str, Any]:
        """For metrics.json; of the texts their number, since there may be hundreds."""
        names = {"speakers": list(self.speakers), "sessions": list(self.sessions), "texts": len(self.texts)}
        return {"leaks": list(self.kinds), **names, "text_ua": self.text_ua, "chance": self.chance}


def find_leaks(rows: Sequence[Labelled], fold: Fold) -> Leaks:
    """What the parts of a fold of this manifest share."""
    train, validation, test = (
        [rows[row] for row in part] for part in (fold.train, fold.validation, fold.test)
    )
    parts = fold.train, fold.validation, fold.test
    speakers = Counter(name for part in parts for name in speakers_of(rows, part))
    twice = {name for name, parts in speakers.items() if parts > 1}
    sessions = {row.session for row in test} & {row.session for row in (*train, *validation)} - {""}
    known = _scripted(rows, np.concatenate([fold.train, fold.validation]))
    tested = _scripted(rows, fold.test)
    texts = {each.text for each in tested} & {each.text for each in known}
    names = (tuple(sorted(shared, key=natural)) for shared in (twice, sessions, texts))
    return Leaks(*names, *(_guess(known, tested) if texts else ()))


def verify(rows: Sequence[Labelled], fold: Fold, allowed: Collection[str], where: str) -> Leaks:
    """Find the leaks of a fold, which `where` names. Raises `UserError` for the first kind that is not `allowed`."""
    leaks = find_leaks(rows, fold)
    for kind in leaks.kinds:
        if kind not in allowed:
            raise refusal(where, leaks.line(kind), BETTER[kind], kind)
    return leaks


def refusal(where: str, leak: str, better: str, kind: str = "speakers") -> UserError:
    """The line that stops a run for a leak of this kind: what leaks where, and what would be better."""
    return UserError(
        f"{where}: {leak}; {better}; to go on as it is pass --allow_leak {kind}, and metrics.json will say so"
    )


def speaker_set(store: FeatureStore, rows: Iterable[int], dataset: str) -> SpeakerSet:
    """Whom one hears in rows of the store of a dataset."""
    return SpeakerSet(dataset=dataset, corpus=store.corpus, speakers=speakers_of(store.manifest, rows))


def speakers_of(rows: Sequence[Labelled], part: Iterable[int]) -> tuple[str, ...]:
    """The speakers of a part, in natural order; those who are not known count as one, Unknown."""
    names = {rows[row].speaker if is_known(rows[row].speaker) else "Unknown" for row in part}
    return tuple(sorted(names, key=natural))


def _scripted(rows: Sequence[Labelled], part: np.ndarray) -> list[Labelled]:
    """The utterances of a part that have a script text; a scenario, whose words are the speaker's own, is none."""
    utterances = (rows[row] for row in first_rows(rows, part).values())
    return [each for each in utterances if each.text and not each.text.startswith(IMPROVISED)]


def _guess(known: Sequence[Labelled], tested: Sequence[Labelled]) -> tuple[float, float]:
    """The UA of knowing the text alone, over the classes that `tested` has, and that of chance.

    The guess is the class that training has most often with the text, of several the first by name, and for a text
    that is not in training the first of all: where texts tell nothing this is one class, so the UA that of chance.
    """
    seen: dict[str, Counter] = defaultdict(Counter)
    for each in known:
        seen[each.text][each.emotion] += 1
    support = Counter(each.emotion for each in tested)
    hits: Counter = Counter()
    for each in tested:
        counts = seen[each.text]
        guess = min(counts, key=lambda emotion: (-counts[emotion], emotion), default=min(support))
        hits[each.emotion] += guess == each.emotion
    return sum(hits[emotion] / support[emotion] for emotion in support) / len(support), 1 / len(support)


def few(names: Sequence[str], most: int = 8) -> str:
    """Names in a sentence: the first of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
