"""How a copy's counts compare with those of a complete one."""

from pathlib import Path

from data.complete import compare
from data.corpora.utterance import Utterance


def copy(**counts: int) -> list[Utterance]:
    names = (label for label, count in counts.items() for _ in range(count))
    return [Utterance(str(i), Path(f"{i}.wav"), "S", emotion) for i, emotion in enumerate(names)]


IMPROVISED = {"angry": 289, "happy": 284, "neutral": 1099, "sad": 608}


def test_a_complete_copy_has_nothing_to_say():
    assert compare("iemocap", copy(**IMPROVISED, excited=7), {}) == []
    assert (
        compare("ravdess", copy(angry=192, happy=192, neutral=96, sad=192, calm=192, surprised=5), {}) == []
    )


def test_what_is_missing_is_counted():
    assert compare("iemocap", copy(**{**IMPROVISED, "sad": 600}), {"utterances": None}) == [
        "sad: 600 here, 608 in a complete copy"
    ]


def test_options_choose_the_counts_and_labels_may_be_counted_together():
    everything = copy(angry=1103, happy=600, excited=1036, neutral=1708, sad=1084, unknown=4508)
    assert compare("iemocap", everything, {"utterances": "all"}) == []
    assert compare("iemocap", everything[:-1], {"utterances": "all"}) == [
        "labelled utterances: 10,038 here, 10,039 in a complete copy"
    ]


def test_a_corpus_without_known_counts_is_not_judged():
    assert compare("manifest", copy(joy=1), {}) == []
    assert compare("iemocap", copy(joy=1), {"utterances": "scripted"}) == []
