"""Leaks of a fold: what its parts share, and a test must not profit from.

Leaks are speakers, sessions, texts that reveal the emotion, and recordings that are listed twice. As a rule, training
includes the validation part.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.corpora.utterance import UNKNOWN_SPEAKER, Utterance, is_improvised
from data.fold_schemes import ManifestRow, natural_sort_key
from data.folds import Fold, first_original_rows, is_known_speaker, make_folds
from data.speakers import SpeakerSet, TestSpeakers, pack_recordings
from data.store import FeatureStore
from utils import UserError

TEXT_LEAK = 0.25  # shared texts leak if guessing by text covers this share of the way from chance to UA 1
KINDS = ("speakers", "sessions", "texts", "recordings")
SCHEMES_TO_ADVISE = ("session", "auto")  # the second makes groups of speakers where the first does not fit
REMEDIES = {
    "texts": "prepare.py --drop_leaks texts leaves out the utterances whose text reveals the emotion",
    "recordings": "keep one of each of these recordings",
}
"""What helps if no fold scheme does."""


@dataclass(frozen=True)
class Leaks:
    """What the parts of a fold share, in natural order, and how well a shared text predicts the emotion."""

    speakers: tuple[str, ...] = ()  # in two of training, validation and test
    sessions: tuple[str, ...] = ()  # in training and test
    texts: tuple[str, ...] = ()  # of scripts, in training and test
    text_ua: float | None = None  # UA of guessing by the text alone; None if no text is shared
    chance: float | None = None  # UA of guessing without any information, on the same utterances
    recordings: tuple[str, ...] = ()  # equal ones in two of training, validation and test, as `one = other`

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of leak that were found. Shared texts are a leak only if they predict the emotion."""
        predictive = bool(self.texts) and self.text_ua > self.chance + TEXT_LEAK * (1 - self.chance)
        return tuple(kind for kind in KINDS if (predictive if kind == "texts" else getattr(self, kind)))

    def describe(self, kind: str) -> str:
        """Return a sentence that says what is shared of this kind."""
        if kind == "texts":
            texts = "1 text is" if len(self.texts) == 1 else f"{len(self.texts)} texts are"
            scores = f"a UA of {100 * self.text_ua:.1f} % (chance {100 * self.chance:.1f} %)"
            return f"{texts} in training and test; guessing the emotion from the text alone gives {scores}"
        names = getattr(self, kind)
        if kind == "recordings":
            several = "the same recording is" if len(names) == 1 else f"{len(names)} recordings are"
            return f"{several} in two of training, validation and test ({abbreviate(names)})"
        subject = f"{kind[:-1]} {names[0]} is" if len(names) == 1 else f"{kind} {abbreviate(names)} are"
        parts = "training and test" if kind == "sessions" else "two of training, validation and test"
        return f"{subject} in {parts}"

    def lines(self) -> list[str]:
        """Return a sentence for each kind that is shared, whether it is a leak or not."""
        return [self.describe(kind) for kind in KINDS if getattr(self, kind)]

    def to_json(self) -> dict[str, Any]:
        """Return the entry in metrics.json, with the number of texts only, since there may be hundreds."""
        return {
            "leaks": list(self.kinds),
            "speakers": list(self.speakers),
            "sessions": list(self.sessions),
            "texts": len(self.texts),
            "text_ua": self.text_ua,
            "chance": self.chance,
            "recordings": list(self.recordings),
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
    ua, chance = _guess_by_text(training, test) if texts else (None, None)
    return Leaks(*shared, ua, chance, _shared_recordings(rows, parts))


def check_leaks(rows: Sequence[ManifestRow], fold: Fold, allowed: Collection[str], where: str) -> Leaks:
    """Return the leaks of a fold. Raises `UserError`, starting with `where`, if one is not in `allowed`.

    The error names all of them, and a fold scheme without any, if there is one.
    """
    leaks = find_leaks(rows, fold)
    if refusal := refuse_leaks(rows, leaks, allowed, where):
        raise refusal
    return leaks


def refuse_leaks(
    rows: Sequence[ManifestRow], leaks: Leaks, allowed: Collection[str], where: str
) -> UserError | None:
    """Return the error for the leaks of a fold that are not in `allowed`; None if all are."""
    refused = [kind for kind in leaks.kinds if kind not in allowed]
    if not refused:
        return None
    found = "; ".join(map(leaks.describe, refused))
    return leak_error(where, found, _advise(rows, refused, allowed), [*refused, *allowed])


def _advise(rows: Sequence[ManifestRow], refused: Collection[str], allowed: Collection[str]) -> str:
    """Return what would avoid these leaks: a scheme of which no fold has any, or else what is left to do."""
    for scheme in SCHEMES_TO_ADVISE:
        try:
            folds = make_folds(rows, scheme)
        except UserError:
            continue
        if all(set(find_leaks(rows, fold).kinds) <= set(allowed) for fold in folds):
            return f"--folds_by {scheme} shares none"
    remedies = [REMEDIES[kind] for kind in refused if kind in REMEDIES]
    return "; ".join(remedies or [f"no --folds_by keeps the {' and '.join(refused)} apart"])


def leak_error(where: str, leak: str, advice: str, kinds: Collection[str] = ("speakers",)) -> UserError:
    """Return the error for leaks of these kinds, which says how to avoid or allow them."""
    flag = f"--allow_leak {' '.join(kind for kind in KINDS if kind in kinds)}"
    return UserError(f"{where}: {leak}; {advice}; to run anyway, pass {flag} (metrics.json will record it)")


def _shared_recordings(rows: Sequence[ManifestRow], parts: Iterable[np.ndarray]) -> tuple[str, ...]:
    """Return the recordings that are in two parts, each as the names of its utterances: `one = other`."""
    names: dict[str, set[str]] = defaultdict(set)
    part_counts: Counter = Counter()
    for part in parts:
        for row in part:
            names[rows[row].audio].add(rows[row].utterance)
        part_counts.update({rows[row].audio for row in part} - {""})
    equal = [sorted(names[audio], key=natural_sort_key) for audio, count in part_counts.items() if count > 1]
    return tuple(" = ".join(group) for group in sorted(equal))


def describe_leaks(leaks_of_folds: Sequence[Leaks]) -> list[str]:
    """Return a line for each leak, marked LEAK, and one for all shared texts that reveal nothing."""
    lines = []
    harmless = []
    for number, leaks in enumerate(leaks_of_folds, 1):
        lines += [f"LEAK  fold {number}: {leaks.describe(kind)}" for kind in leaks.kinds]
        if leaks.texts and "texts" not in leaks.kinds:
            harmless.append(leaks)
    if harmless:
        most = max(len(leaks.texts) for leaks in harmless)
        ua, chance = max((leaks.text_ua, leaks.chance) for leaks in harmless)
        lines.append(
            f"no leak: in {len(harmless)} of {len(leaks_of_folds)} folds, training and test share up to {most} texts,"
            f" but guessing the emotion from the text alone gives a UA of at most {100 * ua:.1f} %"
            f" (chance {100 * chance:.1f} %)"
        )
    return lines


def describe_equal_recordings(rows: Sequence[ManifestRow]) -> list[str]:
    """Return a line for each kind of utterances whose recordings are equal: of two speakers, two labels, or neither."""
    groups: dict[str, dict[str, ManifestRow]] = defaultdict(dict)
    for row in rows:
        if row.audio and not row.copy:
            groups[row.audio].setdefault(row.utterance, row)
    found: dict[str, list[str]] = {"of two speakers": [], "with two labels": [], "listed twice": []}
    for group in groups.values():
        if len(group) > 1:
            found[_kind_of_equal(group.values())].append(" = ".join(sorted(group, key=natural_sort_key)))
    return [f"equal recordings {kind}: {abbreviate(sorted(equal))}" for kind, equal in found.items() if equal]


def _kind_of_equal(rows: Collection[ManifestRow]) -> str:
    """Return in what the utterances of equal recordings differ."""
    if len({row.speaker for row in rows}) > 1:
        return "of two speakers"
    return "with two labels" if len({row.emotion for row in rows}) > 1 else "listed twice"


def speaker_set(store: FeatureStore, rows: Collection[int], dataset: str) -> SpeakerSet:
    """Return the speakers of these rows of the dataset's store, with their recordings."""
    recordings = pack_recordings(store.manifest[row].audio for row in rows)
    speakers = speakers_of(store.manifest, rows)
    return SpeakerSet(dataset=dataset, corpus=store.corpus, speakers=speakers, recordings=recordings)


def speakers_under_test(store: FeatureStore, rows: Collection[int], dataset: str) -> TestSpeakers:
    """Return the speakers of these rows of the dataset's store, each with the recordings in these rows."""
    audio: dict[str, set[str]] = {name: set() for name in speakers_of(store.manifest, rows)}
    for row in rows:
        audio[_person(store.manifest[row])].add(store.manifest[row].audio)
    return TestSpeakers(dataset, store.corpus, audio, frozenset(row.audio for row in store.manifest))


def speakers_of(manifest: Sequence[ManifestRow], rows: Iterable[int]) -> tuple[str, ...]:
    """Return the speakers of these rows in natural order; all unknown speakers count as one, Unknown."""
    return tuple(sorted({_person(manifest[row]) for row in rows}, key=natural_sort_key))


def _person(row: ManifestRow) -> str:
    return row.speaker if is_known_speaker(row.speaker) else UNKNOWN_SPEAKER


def _scripted_utterances(manifest: Sequence[ManifestRow], rows: np.ndarray) -> list[ManifestRow]:
    """Return the utterances with a script text, that is, with fixed words."""
    utterances = [manifest[row] for row in first_original_rows(manifest, rows).values()]
    return list(filter(_has_script, utterances))


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
        correct[each.emotion] += _guess(emotion_counts[each.text], min(totals)) == each.emotion
    ua = sum(correct[emotion] / totals[emotion] for emotion in totals) / len(totals)
    return ua, 1 / len(totals)


def without_telling_texts(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Leave out the utterances of every text that reveals the emotion.

    The emotion of each utterance is guessed from what the other speakers of its text express, as `find_leaks`
    guesses it. A text is left out if the share of right guesses, in which every emotion has the same weight, is
    more than `TEXT_LEAK` of the way from chance to 1. A text of one speaker reveals nothing of others.
    """
    kept = list(utterances)
    while telling := _telling_texts(kept):
        kept = [each for each in kept if each.text not in telling]
    return kept


def _telling_texts(utterances: Sequence[Utterance]) -> set[str]:
    scripted = [each for each in utterances if _has_script(each)]
    totals = Counter(each.emotion for each in scripted)
    by_text: dict[str, list[Utterance]] = defaultdict(list)
    for each in scripted:
        by_text[each.text].append(each)
    chance = 1 / max(1, len(totals))
    telling = set()
    for text, group in by_text.items():
        said = Counter(each.emotion for each in group)
        said_by = {each.speaker: Counter() for each in group}
        for each in group:
            said_by[each.speaker][each.emotion] += 1
        right = sum(
            (_guess(said - said_by[each.speaker]) == each.emotion) / totals[each.emotion] for each in group
        )
        share = right / sum(1 / totals[each.emotion] for each in group)
        if share > chance + TEXT_LEAK * (1 - chance):
            telling.add(text)
    return telling


def _has_script(utterance: ManifestRow | Utterance) -> bool:
    """Whether its words are fixed and known."""
    return bool(utterance.text) and not is_improvised(utterance.text)


def _guess(counts: Counter, default: str | None = None) -> str | None:
    """Return the most frequent emotion, the first by name if several are equal."""
    return min(counts, key=lambda emotion: (-counts[emotion], emotion), default=default)


def abbreviate(names: Sequence[str], most: int = 8) -> str:
    """Return the first names and the number of the others: `A, B and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
