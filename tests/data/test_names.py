"""Names: spellings that mean the same, and names that mean nothing."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.folds import is_known_speaker
from data.names import clean, is_unknown, key, quote, spellings
from data.speakers import SpeakerSet, TestSpeakers

names = st.text(st.sampled_from("aAbÄüß10. -_éＡ١"), max_size=8)
ways = st.sampled_from([
    str.upper,
    str.swapcase,
    lambda name: f" {name}\t",
    lambda name: f"\u200b{name}\ufeff",
    lambda name: unicodedata.normalize("NFD", name),
    lambda name: name.replace(" ", "\u00a0 "),
])  # fmt: skip


@given(names, ways, ways)
def test_ways_of_spelling_a_name_do_not_change_its_key(name: str, one, other) -> None:
    assert key(name) == key(one(other(name)))


@given(names)
def test_a_key_is_its_own_key(name: str) -> None:
    assert key(key(name)) == key(name)
    assert key(clean(name)) == key(name)


@given(st.integers(0, 10**30), st.integers(0, 3), st.integers(0, 3))
def test_numbers_are_compared_by_value(number: int, zeros: int, decimals: int) -> None:
    assert key("0" * zeros + str(number) + "." * bool(decimals) + "0" * decimals) == str(number)
    assert key(f"S{'0' * zeros}{number}") == f"s{number}"


DIFFERENT = [
    ("1", "10"),
    ("1.5", "1.05"),
    ("1.1", "1.10"),
    ("a1", "1a"),
    ("Ann", "Anna"),
    ("F1", "F-1"),
    ("0", ""),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert key(one) != key(other)


@pytest.mark.parametrize(
    "name", ["nan", " NaN", "None", "n/a", "<NA>", "NULL", "?", "---", "\u2013", "\u200b", "Un-known", "NaT"]
)
def test_names_of_nothing_are_unknown(name: str) -> None:
    assert is_unknown(name)
    assert not is_known_speaker(name)


@pytest.mark.parametrize("name", ["Nana", "Anna", "0", "1", "NAN2", "Nonetheless", "😀", "x"])
def test_other_names_are_known(name: str) -> None:
    assert not is_unknown(name)


@given(st.lists(names))
def test_the_most_frequent_spelling_comes_first(listed: list[str]) -> None:
    counts = Counter(listed)
    found = spellings(listed)
    assert sorted(name for same in found.values() for name in same) == sorted(counts)
    for same in found.values():
        order = [(-counts[name], listed.index(name)) for name in same]
        assert order == sorted(order)


def test_spellings_that_look_alike_are_quoted_with_their_codes() -> None:
    assert quote(["F01", "f01"]) == ["'F01'", "'f01'"]
    assert quote(["ü", "u\u0308"]) == [r"'\xfc'", r"'u\u0308'"]
    assert quote(["Ann\u200b"]) == [r"'Ann\u200b'"]


def test_sets_of_speakers_are_compared_in_any_spelling() -> None:
    one = SpeakerSet(dataset="my", corpus="manifest", speakers=("F01", "Jürgen", "3"))
    names = ("f1", "Ju\u0308rgen", "03.0", "M01")
    test = TestSpeakers("my", "manifest", {name: set() for name in names}, frozenset())
    assert one.heard(test) == ["f1", "Ju\u0308rgen", "03.0"]
    other = SpeakerSet(dataset="my", corpus="manifest", speakers=names)
    assert one.union(other).speakers == ("F01", "Jürgen", "3", "M01")
