"""Sets of speakers: a name means the same person only within a dataset or a published corpus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.speakers import SpeakerSet

COMPARABLE = {  # (dataset, corpus) of one set and of the other -> whether they can be compared
    (("my", "manifest"), ("my", "manifest")): True,
    (("my", "manifest"), ("your", "manifest")): False,
    (("my", "emodb"), ("your", "emodb")): True,
    (("my", "emodb"), ("your", "savee")): False,
    (("my", "emodb"), ("your", "manifest")): False,
    (("my", "emodb"), ("my", "manifest")): True,
}
names = st.lists(st.sampled_from("ABCDEF"), unique=True)


@pytest.mark.parametrize(("origins", "comparable"), COMPARABLE.items())
@given(names, names)
def test_overlap_and_union_need_comparable_sets(
    origins: tuple[tuple[str, str], tuple[str, str]], comparable: bool, mine: list[str], yours: list[str]
) -> None:
    (my_dataset, my_corpus), (your_dataset, your_corpus) = origins
    one = SpeakerSet(dataset=my_dataset, corpus=my_corpus, speakers=tuple(mine))
    other = SpeakerSet(dataset=your_dataset, corpus=your_corpus, speakers=tuple(yours))
    assert one.comparable_with(other) == other.comparable_with(one) == comparable
    assert one.overlap(other) == ([name for name in yours if name in mine] if comparable else [])
    union = one.union(other)
    assert (union.dataset, union.corpus) == (my_dataset, my_corpus)
    assert union.speakers == tuple(mine + [name for name in yours if comparable and name not in mine])
    assert one.union(None) == one
