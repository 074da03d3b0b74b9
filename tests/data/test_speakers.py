"""Who was heard: by name within a dataset or a published corpus, by recordings everywhere, or not known."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data.speakers import SpeakerSet, TestSpeakers, pack_recordings, unpack_recordings

COMPARABLE = {  # (dataset, corpus) of one set and of the other -> whether names can be compared
    (("my", "manifest"), ("my", "manifest")): True,
    (("my", "manifest"), ("your", "manifest")): False,
    (("my", "emodb"), ("your", "emodb")): True,
    (("my", "emodb"), ("your", "savee")): False,
    (("my", "emodb"), ("your", "manifest")): False,
    (("my", "emodb"), ("my", "manifest")): True,
}
names = st.lists(st.sampled_from("ABCDEF"), unique=True)


def speaker_set(origin: tuple[str, str], speakers: list[str], audio: list[str] = ()) -> SpeakerSet:
    dataset, corpus = origin
    return SpeakerSet(
        dataset=dataset, corpus=corpus, speakers=tuple(speakers), recordings=pack_recordings(audio)
    )


def under_test(
    origin: tuple[str, str], audio: dict[str, set[str]], others: set[str] = frozenset()
) -> TestSpeakers:
    """Test speakers with their recordings, in a store that has others."""
    return TestSpeakers(*origin, audio, frozenset(others.union(*audio.values())))


@pytest.mark.parametrize(("origins", "comparable"), COMPARABLE.items())
@given(names, names)
def test_names_are_those_of_the_same_people_only_in_comparable_sets(
    origins: tuple[tuple[str, str], tuple[str, str]], comparable: bool, mine: list[str], yours: list[str]
) -> None:
    one = speaker_set(origins[0], mine, [f"mine {name}" for name in mine])
    other = speaker_set(origins[1], yours)
    assert one.comparable_with(other) == other.comparable_with(one) == comparable
    common = [name for name in yours if name in mine]
    unclear = "manifest" in (origins[0][1], origins[1][1]) and common
    expected = common if comparable else None if unclear else []
    assert one.heard(under_test(origins[1], {name: {f"your {name}"} for name in yours})) == expected
    union = one.union(other)
    assert (union.dataset, union.corpus) == origins[0]
    assert union.speakers == tuple(mine + [name for name in yours if comparable and name not in mine])
    assert union.also == (None if comparable else other)
    assert one.union(None) == one


MINE, YOURS = ("my", "manifest"), ("your", "manifest")


@pytest.mark.parametrize(
    ("speakers", "audio", "others", "heard"),
    [
        (["A", "B"], {"A": {"a1", "a2"}}, {"b1"}, ["A"]),  # the same recordings
        (["A", "B"], {"A": {"a9"}}, {"b1"}, ["A"]),  # others, but of a speaker of the same store
        (["A", "B"], {"C": {"a1"}}, set(), ["C"]),  # under another name
        (["A", "B"], {"D": {"d1"}, "A": {"a2"}}, set(), ["A"]),
        (["A", "B"], {"D": {"d1"}}, {"b1"}, []),  # the same store, a speaker that was not heard
        (["A", "B"], {"D": {"d1"}}, {"e1"}, []),  # no recording and no name in common
        (["A", "B"], {"A": {"x1"}}, {"e1"}, None),  # the same name: the same recordings, resampled?
        (["A", "B"], {"D": {""}}, {""}, []),
        ([], {"A": {"x1"}}, {"a1"}, []),  # nobody was heard
    ],
)
@pytest.mark.parametrize("corpus", ["manifest", "emodb"])
def test_speakers_of_two_manifests_are_known_by_their_recordings(
    speakers: list[str], audio: dict, others: set[str], heard: list[str] | None, corpus: str
) -> None:
    """Also if one of the two is a published corpus, of which the other is a CSV."""
    one = speaker_set(
        ("my", corpus), speakers, [f"{name.lower()}{n}" for name in speakers for n in (1, 2, 3)]
    )
    assert one.heard(under_test(YOURS, audio, others)) == heard


def test_sets_without_recordings_cannot_be_compared_across_manifests() -> None:
    """As those of older files."""
    older = speaker_set(MINE, ["A"])
    assert older.heard(under_test(YOURS, {"B": {"b1"}})) is None
    assert older.heard(under_test(MINE, {"A": {"b1"}, "B": {"b2"}})) == ["A"]
    assert speaker_set(("my", "emodb"), ["03"]).heard(under_test(("your", "ravdess"), {"03": {"x"}})) == []


def test_a_union_forgets_nobody() -> None:
    """Neither those beside the one nor those beside the other, in any order."""
    origins = [MINE, YOURS, ("emodb", "emodb"), ("ravdess", "ravdess")]
    sets = [speaker_set(origin, [f"{name}{n}"]) for n, name in enumerate("ABAB") for origin in origins]
    rng = np.random.default_rng(0)
    for _ in range(100):
        first, second, third = (
            functools.reduce(SpeakerSet.union, (sets[i] for i in rng.integers(len(sets), size=3)))
            for _ in range(3)
        )
        together = first.union(second).union(third)
        assert people(together) == people(first) | people(second) | people(third)
        assert len(origins_of(together)) == len(set(origins_of(together)))


def origins_of(speakers: SpeakerSet | None) -> list[tuple[str, str]]:
    return [(speakers.dataset, speakers.corpus), *origins_of(speakers.also)] if speakers else []


def people(speakers: SpeakerSet | None) -> set[tuple[str, str]]:
    """(dataset, name) of all speakers in a set and beside it."""
    return (
        {(speakers.dataset, name) for name in speakers.speakers} | people(speakers.also)
        if speakers
        else set()
    )


def test_a_search_on_another_dataset_is_remembered_beside_the_training() -> None:
    trained = speaker_set(MINE, ["A"], ["a1"])
    both = trained.union(speaker_set(YOURS, ["B"], ["b1"]))
    assert both.heard(under_test(("third", "manifest"), {"A": {"a1"}, "B": {"b1"}, "C": {"c1"}})) == [
        "A",
        "B",
    ]
    unclear = trained.union(speaker_set(YOURS, ["B"]))
    assert unclear.heard(under_test(("third", "manifest"), {"A": {"a1"}})) is None
    assert SpeakerSet.model_validate_json(both.model_dump_json()) == both


def test_union_of_comparable_sets_has_the_recordings_of_both() -> None:
    one, other = speaker_set(MINE, ["A"], ["a1", "x"]), speaker_set(MINE, ["B"], ["b1", "x"])
    assert one.digests  # a value that is read before must not be kept
    assert one.union(other).recordings == pack_recordings(["a1", "b1", "x"])
    assert one.union(other).digests == one.digests | other.digests


@given(st.sets(st.text(max_size=5)))
def test_recordings_are_packed_and_unpacked(audio: set[str]) -> None:
    text = pack_recordings(audio)
    assert len(unpack_recordings(text)) == len(audio - {""})
    assert text == pack_recordings([*audio, *audio, ""])


def test_recordings_of_a_large_corpus_take_a_megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = [f"{n:016x}" for n in range(100_000)]
    assert len(pack_recordings(audio)) < 1.1e6
    monkeypatch.setattr("data.speakers.MAX_RECORDINGS", 1_000)
    sample = unpack_recordings(pack_recordings(audio))
    assert len(sample) == 1_000
    assert len(sample & unpack_recordings(pack_recordings(audio[:50_000]))) == pytest.approx(500, abs=80)


@pytest.mark.parametrize("recordings", ["x", "????", "AAAA", 3, None, ["AAAA"]])
def test_damaged_recordings_are_refused(recordings: object) -> None:
    with pytest.raises(ValidationError):
        SpeakerSet(dataset="d", corpus="c", speakers=(), recordings=recordings)
