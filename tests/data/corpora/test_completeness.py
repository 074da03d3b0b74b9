"""Comparison of a copy's counts with the published ones."""

from pathlib import Path

from data.corpora.completeness import count_differences
from data.corpora.utterance import Utterance

IMPROVISED = {"angry": 289, "happy": 284, "neutral": 1099, "sad": 608}


def corpus(**counts: int) -> list[Utterance]:
    labels = (label for label, count in counts.items() for _ in range(count))
    return [Utterance(str(i), Path(f"{i}.wav"), "S", label) for i, label in enumerate(labels)]


def test_complete_copy_has_no_differences() -> None:
    assert count_differences("iemocap", corpus(**IMPROVISED, excited=7), {}) == []
    ravdess = corpus(angry=192, happy=192, neutral=96, sad=192, calm=192, surprised=5)
    assert count_differences("ravdess", ravdess, {}) == []


def test_missing_utterances_are_counted() -> None:
    copy = corpus(**{**IMPROVISED, "sad": 600})
    expected = ["sad: 600 here, 608 in a complete copy"]
    assert count_differences("iemocap", copy, {"utterances": None}) == expected


def test_counts_depend_on_options_and_may_combine_labels() -> None:
    copy = corpus(angry=1103, happy=600, excited=1036, neutral=1708, sad=1084, unknown=4508)
    expected = ["labelled utterances: 10,038 here, 10,039 in a complete copy"]
    assert count_differences("iemocap", copy, {"utterances": "all"}) == []
    assert count_differences("iemocap", copy[:-1], {"utterances": "all"}) == expected


def test_corpus_without_published_counts_has_no_differences() -> None:
    assert count_differences("manifest", corpus(joy=1), {}) == []
    assert count_differences("iemocap", corpus(joy=1), {"utterances": "scripted"}) == []
