"""Leaks of a fold: speakers, sessions, and texts that reveal the emotion, shared by training and test.

Here, training includes the validation part.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.corpora.utterance import UNKNOWN_SPEAKER, is_improvised
from data.fold_schemes import ManifestRow, natural_sort_key
from data.folds import Fold, first_original_rows, is_known_speaker
from data.speakers import SpeakerSet
from data.store import FeatureStore
from utils import UserError

TEXT_LEAK = 0.25  # shared texts leak if guessing by text covers this share of the way from chance to UA 1
ADVICE = {
    "speakers": "--folds_by speaker keeps them apart",
    "sessions": "--folds_by session keeps them apart",
    "texts": "no --folds_by keeps texts apart: leave out the utterances whose text reveals the emotion",
}


@dataclass(frozen=True)
class Leaks:
    """What the parts of a fold share, in natural order, and how well a shared text predicts the emotion."""

    speakers: tuple[str, ...] = ()  # in two of training, validation and test
    sessions: tuple[str, ...] = ()  # in training and test
    texts: tuple[str, ...] = ()  # of scripts, in training and test
    text_ua: float | None = None  # UA of guessing by the text alone; None if no text is shared
    chance: float | None = None  # UA of guessing without any information, on the same utterances

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of leak that were found. Shared texts are a leak only if they predict the emotion."""
        predictive = bool(self.texts) and self.text_ua > self.chance + TEXT_LEAK * (1 - self.chance)
        shared = {"speakers": self.speakers, "sessions": self.sessions, "texts": predictive}
        return tuple(kind for kind, leak in shared.items() if leak)

    def describe(self, kind: str) -> str:
        """Return a sentence that says what is shared of this kind."""
        if kind == "texts":
            texts = "1 text is" if len(self.texts) == 1 else f"{len(self.texts)} texts are"
            scores = f"a UA of {100 * self.text_ua:.1f} % (chance {100 * self.chance:.1f} %)"
            return f"{texts} in training and test; guessing the emotion from the text alone gives {scores}"
        names = getattr(self, kind)
        subject = f"{kind[:-1]} {names[0]} is" if len(names) == 1 else f"{kind} {abbreviate(names)} are"
        parts = "training and test" if kind == "sessions" else "two of training, validation and test"
        return f"{subject} in {parts}"

    def lines(self) -> list[str]:
        """Return a sentence for each kind that is shared, whether it is a leak or not."""
        return [self.describe(kind) for kind in ADVICE if getattr(self, kind)]

    def to_json(self) -> dict[str, Any]:
        """Return the entry in metrics.json, with the number of texts only, since there may be hundreds."""
        return {
            "leaks": list(self.kinds),
            "speakers": list(self.speakers),
            "sessions": list(self.sessions),
            "texts": len(self.texts),
            "text_ua": self.text_ua,
            "chance": self.chance,
        }


def find_leaks(rows: Sequence[ManifestRow], fold: Fold) -> Leaks:
    """Return what the parts of a fold of this manifest share."""
    parts = (fold.train, fold.validation, fold.test)
    part_counts = Counter(name for part in parts for name in speakers_of(rows, part))
    speakers = [name for name, count in part_counts.items() if count > 1]
    training_rows = np.concatenate([fold.train, fold.validation])
    training_sessions = {rows[row].session for row in training_rows}
    sessions = {rows[row].session for row in fold.test} & training_sessions - {""}
    training = _scripted_utterances(rows, training_rows)
    test = _scripted_utterances(rows, fold.test)
    texts = {each.text for each in test} & {each.text for each in training}
    shared = (tuple(sorted(names, key=natural_sort_key)) for names in (speakers, sessions, texts))
    return Leaks(*shared, *(_guess_by_text(training, test) if texts else ()))


def check_leaks(rows: Sequence[ManifestRow], fold: Fold, allowed: Collection[str], where: str) -> Leaks:
    """Return the leaks of a fold. Raises `UserError`, starting with `where`, if one is not in `allowed`."""
    leaks = find_leaks(rows, fold)
    for kind in leaks.kinds:
        if kind not in allowed:
            raise leak_error(where, leaks.describe(kind), ADVICE[kind], kind)
    return leaks


def leak_error(where: str, leak: str, advice: str, kind: str = "speakers") -> UserError:
    """Return the error for a leak of this kind, which says how to avoid or allow it."""
    return UserError(
        f"{where}: {leak}; {advice}; to run anyway, pass --allow_leak {kind} (metrics.json will record it)"
    )


def speaker_set(store: FeatureStore, rows: Iterable[int], dataset: str) -> SpeakerSet:
    """Return the speakers of these rows of the dataset's store."""
    return SpeakerSet(dataset=dataset, corpus=store.corpus, speakers=speakers_of(store.manifest, rows))


def speakers_of(manifest: Sequence[ManifestRow], rows: Iterable[int]) -> tuple[str, ...]:
    """Return the speakers of these rows in natural order; all unknown speakers count as one, Unknown."""
    names = {manifest[row].speaker for row in rows}
    known = {name if is_known_speaker(name) else UNKNOWN_SPEAKER for name in names}
    return tuple(sorted(known, key=natural_sort_key))


def _scripted_utterances(manifest: Sequence[ManifestRow], rows: np.ndarray) -> list[ManifestRow]:
    """Return the utterances with a script text, that is, with fixed words."""
    utterances = [manifest[row] for row in first_original_rows(manifest, rows).values()]
    return [each for each in utterances if each.text and not is_improvised(each.text)]


def _guess_by_text(training: Sequence[ManifestRow], test: Sequence[ManifestRow]) -> tuple[float, float]:
    """Return the UA of guessing the emotion from the text alone, and of chance, over the classes of the test.

    The guess is the most frequent class of the text in training, the first by name if several are equal.
    For a text that is not in training it is the first class of the test. If texts reveal nothing, the guess
    is always one class, so its UA is that of chance.
    """
    emotion_counts: dict[str, Counter] = defaultdict(Counter)
    for each in training:
        emotion_counts[each.text][each.emotion] += 1
    totals = Counter(each.emotion for each in test)
    correct: Counter = Counter()
    for each in test:
        counts = emotion_counts[each.text]
        guess = min(counts, key=lambda emotion: (-counts[emotion], emotion), default=min(totals))
        correct[each.emotion] += guess == each.emotion
    ua = sum(correct[emotion] / totals[emotion] for emotion in totals) / len(totals)
    return ua, 1 / len(totals)


def abbreviate(names: Sequence[str], most: int = 8) -> str:
    """Return the first names and the number of the others: `A, B and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
