"""Whom a file says was heard, against a test: names mean people only within a store or a published corpus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.speakers import SpeakerSet

SAME = {  # (dataset, corpus) of one, of the other -> whether a name is one speaker in both
    (("my", "manifest"), ("my", "manifest")): True,
    (("my", "manifest"), ("your", "manifest")): False,
    (("my", "emodb"), ("your", "emodb")): True,
    (("my", "emodb"), ("your", "savee")): False,
    (("my", "emodb"), ("your", "manifest")): False,
    (("my", "emodb"), ("my", "manifest")): True,
}
names = st.lists(st.sampled_from("ABCDEF"), unique=True)


def heard(origin: tuple[str, str], speakers: list[str]) -> SpeakerSet:
    return SpeakerSet(dataset=origin[0], corpus=origin[1], speakers=tuple(speakers))


@pytest.mark.parametrize(("origins", "same"), SAME.items())
@given(names, names)
def test_only_speakers_whose_names_are_of_one_corpus_can_be_the_same(
    origins: tuple[tuple[str, str], tuple[str, str]], same: bool, mine: list[str], yours: list[str]
):
    one, other = map(heard, origins, (mine, yours))
    assert one.comparable_with(other) == other.comparable_with(one) == same
    assert one.overlap(other) == ([name for name in yours if name in mine] if same else [])
    both = one.union(other)
    assert (both.dataset, both.corpus) == origins[0]
    assert both.speakers == tuple(mine + [name for name in yours if same and name not in mine])
    assert one.union(None) == one
