"""Comparison of a copy's counts and durations with the published ones."""

import os
from pathlib import Path
from statistics import median

import pytest
import soundfile

from data.corpora import READERS, read_corpus
from data.corpora.completeness import count_differences, duration_differences
from data.corpora.utterance import Utterance

RAVDESS = ("angry", "calm", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
IMPROVISED = {"angry": 289, "happy": 284, "neutral": 1099, "sad": 608}


def corpus(**counts: int) -> list[Utterance]:
    labels = (label for label, count in counts.items() for _ in range(count))
    file = Path("a.wav")
    return [Utterance(str(i), file, "S", label) for i, label in enumerate(labels)]


def test_complete_copy_has_no_differences() -> None:
    assert count_differences("iemocap", corpus(**IMPROVISED, excited=7), {}) == []
    ravdess = corpus(**dict.fromkeys(RAVDESS, 192) | {"neutral": 96})
    assert count_differences("ravdess", ravdess, {}) == []


def test_missing_utterances_are_counted() -> None:
    copy = corpus(**{**IMPROVISED, "sad": 600})
    expected = ["sad: 600 here, 608 in a complete copy"]
    assert count_differences("iemocap", copy, {"utterances": None}) == expected


def test_counts_depend_on_options_and_may_combine_labels() -> None:
    copy = corpus(angry=792, happy=2644, neutral=3477, sad=885, other=340, unknown=300)
    expected = ["labelled utterances: 8,437 here, 8,438 in a complete copy"]
    assert count_differences("msp_improv", copy, {"scenarios": "PRST"}) == []
    assert count_differences("msp_improv", copy[:-1], {"scenarios": "PRST"}) == expected
    english = corpus(**dict.fromkeys(("angry", "happy", "neutral", "sad", "surprised"), 3500))
    assert count_differences("esd", english, {"language": "english"}) == []
    assert len(count_differences("esd", english, {})) == 5


def test_corpus_without_published_counts_has_no_differences() -> None:
    assert count_differences("manifest", corpus(joy=1), {}) == []
    assert count_differences("iemocap", corpus(joy=1), {"utterances": "scripted"}) == []


PUBLISHED = {
    "emodb": 535,
    "ravdess": 1440,
    "cremad": 7442,
    "savee": 480,
    "tess": 2800,
    "esd": 35_000,
    "iemocap": 10_039,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_label_of_a_published_corpus_is_counted(name: str) -> None:
    complete = READERS[name].COMPLETE_COUNTS["all" if name in ("esd", "iemocap") else ""]
    assert set(complete) == set(READERS[name].LABELS.values())
    assert sum(complete.values()) == PUBLISHED[name]
    utterances = corpus(**complete)
    options = {"utterances": "all"} if name == "iemocap" else {}
    assert count_differences(name, utterances, options) == []
    for label in complete:
        rest = [each for each in utterances if each.emotion != label]
        line = f"{label}: 0 here, {complete[label]:,} in a complete copy"
        assert count_differences(name, rest, options) == [line]


# ---------------------------------------------------------------- durations


def differences(seconds: list[float | None]) -> list[str]:
    utterances = corpus(sad=len(seconds))
    known = {u.utterance: s for u, s in zip(utterances, seconds, strict=True) if s is not None}
    return duration_differences("emodb", utterances, known)


@pytest.fixture
def four_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete copy of EMO-DB has four files, of 1, 2, 3 and 4 seconds."""
    monkeypatch.setattr(READERS["emodb"], "COMPLETE_COUNTS", {"": {"sad": 4}})
    monkeypatch.setattr(READERS["emodb"], "COMPLETE_SECONDS", {"sad": (10.0, 1.0, 2.5, 4.0)})


@pytest.mark.parametrize("seconds", [[1, 2, 3, 4], [1.02, 2.02, 3.02, 4.02], [1, 2, 3], [1, 2, 2, None]])
def test_complete_padded_and_missing_files_are_not_called_cut(four_files, seconds: list) -> None:
    assert differences(seconds) == []


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        ([1, 2, 2, 2], "total 7.0 (10.0), median 2.0 (2.5), longest 2.0 (4.0)"),
        ([0.5, 2, 3, 4], "total 9.5 (10.0), shortest 0.5 (1.0)"),
        ([0.96, 1.96, 2.96, 3.96], "total 9.8 (10.0)"),
        ([4, 4, 4, 4], "total 16.0 (10.0), shortest 4.0 (1.0), median 4.0 (2.5)"),
        ([1, 1, 4, 4], None),  # none of the four measures tells
    ],
)  # fmt: skip
def test_cut_and_lengthened_files_are_told(four_files, seconds: list[float], line: str | None) -> None:
    expected = [f"sad: seconds here (in a complete copy): {line}"] if line else []
    assert differences(seconds) == expected


CORPORA = os.environ.get("EMODARTS_CORPORA", "")
needs_corpora = pytest.mark.skipif(not CORPORA, reason="EMODARTS_CORPORA names no folder of real corpora")


@needs_corpora
def test_a_real_corpus_is_complete_until_it_is_cut() -> None:
    utterances = read_corpus("emodb", Path(CORPORA) / "emodb")
    seconds = {each.utterance: soundfile.info(each.file).duration for each in utterances}
    assert (
        count_differences("emodb", utterances, {}) == duration_differences("emodb", utterances, seconds) == []
    )
    cut = {name: min(duration, 2.0) for name, duration in seconds.items()}
    lines = duration_differences("emodb", utterances, cut)
    assert [line.partition(":")[0] for line in lines] == sorted(READERS["emodb"].LABELS.values())


@needs_corpora
def test_the_durations_of_a_complete_copy_are_those_of_the_real_one() -> None:
    found: dict[str, list[float]] = {}
    for file in (Path(CORPORA) / "ravdess").rglob("03-01-*.flac"):
        found.setdefault(READERS["ravdess"].LABELS[file.stem[6:8]], []).append(soundfile.info(file).duration)
    assert set(found) == set(READERS["ravdess"].COMPLETE_SECONDS)
    for label, expected in READERS["ravdess"].COMPLETE_SECONDS.items():
        here = found[label]
        assert (sum(here), min(here), median(here), max(here)) == pytest.approx(expected, abs=0.05)
