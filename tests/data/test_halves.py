"""The division of the training rows between weights and alphas."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from manifest_rows import EMOTIONS, Row, balanced, expanded, manifests, speakers_of, utterances_of

from data.halves import halves
from utils import UserError


@settings(max_examples=30)
@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_halves_have_equal_shares_of_each_class(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    manifest = [Row(str(n), "", str(label)) for n, label in enumerate(labels)]
    rows = np.arange(len(labels))
    weights, alphas = halves(manifest, rows[::-1], 0.5, seed)
    assert sorted([*weights, *alphas]) == list(rows)
    assert (np.diff(weights) > 0).all()
    assert (np.diff(alphas) > 0).all()
    assert abs(len(weights) - len(alphas)) <= 1
    for number, count in enumerate(counts):
        assert abs((labels[weights] == number).sum() - count / 2) <= 1


@settings(max_examples=30)
@given(data=st.data(), portion=st.sampled_from([0.3, 0.5, 0.8]))
def test_windows_and_copies_do_not_change_the_halves(data, portion: float) -> None:
    plain = balanced(4, per_class=4)
    rows = []
    for row in plain:
        rows += sorted(data.draw(expanded([row])), key=lambda each: each.copy)
    weights, alphas = halves(rows, range(len(rows)), portion, seed=1)
    expected = [utterances_of(plain, half) for half in halves(plain, range(len(plain)), portion, seed=1)]
    assert [utterances_of(rows, weights), utterances_of(rows, alphas)] == expected
    assert list(weights) == [n for n, row in enumerate(rows) if row.utterance in expected[0]]
    assert list(alphas) == [n for n, row in enumerate(rows) if row.utterance in expected[1] and not row.copy]


def test_halves_depend_only_on_the_given_rows() -> None:
    manifest = [Row(str(n), "", emotion) for n, emotion in enumerate("aabbbaba")]
    weights, alphas = halves(manifest, np.array([0, 1, 3, 4]), 0.5, seed=0)
    assert sorted([*weights, *alphas]) == [0, 1, 3, 4]
    with pytest.raises(UserError, match="class b has a single training utterance"):
        halves(manifest, np.array([0, 1, 2]), 0.5, seed=0)
    with pytest.raises(UserError, match=r"cannot split 8 training utterances at train_portion 0\.05"):
        halves(manifest, np.arange(8), 0.05, seed=0)
    with pytest.raises(UserError, match="class b has a single training utterance"):
        halves([*manifest, replace(manifest[2], number=1)], np.array([0, 1, 2, 8]), 0.5, seed=0)


# ---------------------------------------------------------------- halves of whole speakers


def speaker_halves(rows, portion: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return halves(rows, range(len(rows)), portion, seed, "speakers")


@settings(max_examples=60)
@given(data=st.data(), portion=st.sampled_from([0.3, 0.5, 0.8]), seed=st.integers(0, 9))
def test_halves_of_speakers_share_no_speaker_and_have_all_classes(data, portion: float, seed: int) -> None:
    rows = data.draw(expanded(data.draw(manifests())))
    try:
        weights, alphas = speaker_halves(rows, portion, seed)
    except UserError:
        assume(False)
    assert speakers_of(rows, alphas).isdisjoint(speakers_of(rows, weights))
    assert not {name.strip().lower() for name in speakers_of(rows, alphas)} & {"", "unknown"}
    classes = {row.emotion for row in rows}
    assert {rows[i].emotion for i in weights} == {rows[i].emotion for i in alphas} == classes
    assert not any(rows[i].copy for i in alphas)
    left_out = set(range(len(rows))) - {*weights, *alphas}
    assert all(rows[i].copy and rows[i].speaker in speakers_of(rows, alphas) for i in left_out)
    assert (np.diff(weights) > 0).all()
    assert (np.diff(alphas) > 0).all()


@pytest.mark.parametrize("portion", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(3))
def test_halves_of_speakers_are_nearest_to_the_portion(seed: int, portion: float) -> None:
    """Against all divisions of eight unequal speakers: by the number of utterances of each emotion and sex, and all."""
    rng = np.random.default_rng(seed)
    rows = [
        Row(f"{s}-{emotion}-{i}", f"S{s}", emotion, sex="fm"[s % 2])
        for s in range(8)
        for emotion in EMOTIONS
        for i in range(rng.integers(1, 9))
    ]

    def distance(part: set[str]) -> float:
        strata = [(emotion, sex) for emotion in EMOTIONS for sex in "fm"]
        chosen = Counter((row.emotion, row.sex) for row in rows if row.speaker in part)
        everything = Counter((row.emotion, row.sex) for row in rows)
        by_stratum = sum(abs(chosen[each] - portion * everything[each]) for each in strata)
        return by_stratum + abs(chosen.total() - portion * everything.total())

    speakers = sorted({row.speaker for row in rows})
    divisions = [set(part) for size in range(1, 8) for part in combinations(speakers, size)]
    found = speakers_of(rows, speaker_halves(rows, portion, seed)[0])
    assert distance(found) == pytest.approx(min(map(distance, divisions)))


def test_halves_of_equal_speakers_are_balanced_by_sex_and_depend_on_the_seed() -> None:
    rows = [replace(row, sex="fm"[int(row.speaker[1:]) % 2]) for row in balanced(12)]
    parts = [tuple(sorted(speakers_of(rows, speaker_halves(rows, seed=seed)[0]))) for seed in range(5)]
    assert all(sum(int(name[1:]) % 2 for name in part) == 3 and len(part) == 6 for part in parts)
    assert len(set(parts)) > 1
    assert parts[2] == tuple(sorted(speakers_of(rows, speaker_halves(rows, seed=2)[0])))


def test_halves_of_speakers_need_every_class_from_two_speakers() -> None:
    rows = [*balanced(4), Row("rare-1", "S0", "rare"), Row("rare-2", "S0", "rare")]
    with pytest.raises(
        UserError, match=r"^no division of the 4 training speakers .* pass --halves utterances$"
    ):
        speaker_halves(rows)
    with pytest.raises(UserError, match="no division of the 1 training speakers"):
        speaker_halves(balanced(1))
    with pytest.raises(UserError, match="no division of the 0 training speakers"):
        speaker_halves([replace(row, speaker="unknown") for row in balanced(2)])
