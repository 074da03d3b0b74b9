"""The named schemes: the exact folds of each on small manifests like those of the corpora, and their errors."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import ValidationError

from config import FoldFlags
from data.folds import make_folds
from data.protocols import REGISTRY, SCHEMES, sides_of
from utils import UserError

EMOTIONS = ("angry", "sad")


@dataclass
class Row:
    utterance: str
    speaker: str
    emotion: str
    session: str = ""
    split: str = ""
    text: str = ""
    copy: str = ""


def corpus(name: str, speakers: list[tuple[str, str, str]]) -> list[Row]:
    """An utterance an emotion of each (speaker, session, split); `name` is a format of number, session and speaker."""
    return [
        Row(name.format(2 * n + i, session=session, speaker=speaker), speaker, emotion, session, split)
        for n, (speaker, session, split) in enumerate(speakers)
        for i, emotion in enumerate(EMOTIONS)
    ]


def iemocap() -> list[Row]:
    return corpus(
        "Ses{speaker}_impro01_{0:03d}", [(f"0{k}{side}", str(k), "") for k in range(1, 6) for side in "FM"]
    )


def improv() -> list[Row]:
    speakers = [(f"{side}0{k}", str(k), "") for k in range(1, 7) for side in "FM"]
    return corpus("MSP-IMPROV-S01A-{speaker}-P-FM{0:02d}", speakers)


def podcast(*speakers: tuple[str, str]) -> list[Row]:
    return corpus("MSP-PODCAST_0001_{0:04d}", [(speaker, "", split) for speaker, split in speakers])


def balanced(speakers: int, sessions: int = 0) -> list[Row]:
    """Neighbours share a session."""
    return corpus(
        "{0}", [(f"S{s}", str(s * sessions // speakers + 1) if sessions else "", "") for s in range(speakers)]
    )


def held_out(rows: list[Row], scheme: str, field: str = "speaker") -> list[str]:
    """What each fold tests, in a line."""
    return [
        " ".join(sorted({getattr(rows[n], field) for n in fold.test})) for fold in make_folds(rows, scheme)
    ]


def splits_of(rows: list[Row], scheme: str = "official", **options) -> list[tuple[str, ...]]:
    """The splits in the three parts of each fold."""
    folds = make_folds(rows, scheme, **options)
    parts = [(fold.train, fold.validation, fold.test) for fold in folds]
    return [tuple(" ".join(sorted({rows[n].split for n in part})) for part in three) for three in parts]


def test_session_folds_are_in_natural_order() -> None:
    rows = balanced(10, sessions=5)
    for row in rows:
        row.session = {"1": "Ses10", "2": "Ses9", "3": "Ses1", "4": "Ses2", "5": "Ses30"}[row.session]
    assert held_out(rows, "session", "session") == ["Ses1", "Ses2", "Ses9", "Ses10", "Ses30"]
    assert held_out(rows, "auto", "session") == ["Ses1", "Ses2", "Ses9", "Ses10", "Ses30"]


def test_speaker_folds_are_in_natural_order() -> None:
    assert held_out(balanced(11), "speaker") == [f"S{n}" for n in range(11)]


@pytest.mark.parametrize(
    ("speakers", "sessions", "folds"), [(12, 4, 4), (12, 2, 5), (12, 0, 5), (4, 0, 4), (3, 0, 3)]
)
def test_auto(speakers: int, sessions: int, folds: int) -> None:
    assert len(make_folds(balanced(speakers, sessions))) == folds


def test_auto_leaves_sessions_that_share_a_speaker_or_are_not_known() -> None:
    rows = balanced(8, sessions=4)
    rows[0].session = "4"
    assert len(make_folds(rows)) == 5
    with pytest.raises(UserError, match="speaker S0 is in more than one session"):
        make_folds(rows, "session")
    rows[0].session = ""
    assert len(make_folds(rows)) == 5
    with pytest.raises(UserError, match="utterance 0 has no session"):
        make_folds(rows, "session")


def test_official_podcast_has_a_fold_a_test_set_and_the_others_are_in_none_of_it() -> None:
    splits = ("Test3", "Train", "Development", "Test1", "Train", "Test2", "Test10")
    rows = podcast(*((str(n), split) for n, split in enumerate(splits)))
    expected = [("Train", "Development", test) for test in ("Test1", "Test2", "Test3", "Test10")]
    assert splits_of(rows) == expected
    assert [
        sum(map(len, (fold.train, fold.validation, fold.test))) for fold in make_folds(rows, "official")
    ] == [8] * 4


def test_official_esd_shares_its_speakers() -> None:
    rows = [
        Row(f"{speaker}_{split}_{emotion}", speaker, emotion, split=split)
        for speaker in ("0011", "0012", "0013")
        for split in ("train", "evaluation", "test")
        for emotion in EMOTIONS
    ]
    assert splits_of(rows) == [("train", "evaluation", "test")]
    (fold,) = make_folds(rows, "official")
    assert (
        {rows[n].speaker for n in fold.test}
        == {rows[n].speaker for n in fold.train}
        == {"0011", "0012", "0013"}
    )


@pytest.mark.parametrize("name", ["development", "DEV", "Validation", "valid", "val", " evaluation "])
@pytest.mark.parametrize(("train", "test"), [("train", "TEST"), ("Training", "test_unseen")])
def test_official_names_of_splits(name: str, train: str, test: str) -> None:
    rows = podcast(("1", train), ("2", name), ("3", test), ("4", train))
    assert splits_of(rows) == [(train, name, test)]


def test_official_without_a_development_split_takes_speakers_of_training() -> None:
    rows = podcast(("1", "Train"), ("2", "Train"), ("3", "Train"), ("4", "Test1"))
    assert splits_of(rows) == [("Train", "Train", "Test1")]
    (fold,) = make_folds(rows, "official")
    assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [4, 2, 2]


def test_official_with_unknown_speakers() -> None:
    rows = podcast(
        *((who, split) for split in ("Train", "Development", "Test1") for who in ("Unknown", f"{split}er"))
    )
    for keep, size in ((False, 2), (True, 4)):
        (fold,) = make_folds(rows, "official", unknown_speakers=keep)
        assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [size] * 3
    strangers = podcast(*(("Unknown", split) for split in ("Train", "Development", "Test1")))
    assert splits_of(strangers, unknown_speakers=True) == [("Train", "Development", "Test1")]
    with pytest.raises(
        UserError, match="training cannot have every class, since none of its speakers can be spared"
    ):
        make_folds(strangers[:2] + strangers[4:], "official", unknown_speakers=True)


def test_official_training_must_have_the_classes_of_the_rest() -> None:
    rows = podcast(("1", "Train"), ("2", "Development"), ("3", "Test1"))
    rows[2].emotion = "happy"
    with pytest.raises(
        UserError, match=r"fold 1 of scheme 'official'.*only test and validation speakers have happy"
    ):
        make_folds(rows, "official")


def test_emodarts_iemocap() -> None:
    rows = iemocap()
    assert held_out(rows, "emodarts") == ["01M 02F", "02M 03F", "03M 04F", "04M 05F", "01F 05M"]
    assert all(
        len(np.concatenate([fold.train, fold.validation])) == 16 for fold in make_folds(rows, "emodarts")
    )


def test_emodarts_improv() -> None:
    rows = improv()
    assert held_out(rows, "emodarts") == ["F01 M01", "F02 M02", "F03 M03", "F05 M05"]
    assert all(
        len(np.concatenate([fold.train, fold.validation])) == 20 for fold in make_folds(rows, "emodarts")
    )


def test_emodarts_podcast() -> None:
    """Of 28 utterances that take part, two a speaker, a group is full with more than 5: with three speakers."""
    splits = ("Train", "Test1", "Test2", "train")
    speakers = [(str(n), splits[n % 4]) for n in (1, 2, 3, 10, 11, 12, 20, 21, 30, 100, 101, 111, 112, 113)]
    rows = podcast(*speakers, ("0", "Development"), ("00", "Test3"), ("Unknown", "Train"))
    assert held_out(rows, "emodarts") == ["3 30", "2 20 21", "112 113 12", "101 11 111", "1 10 100"]
    for fold in make_folds(rows, "emodarts"):
        assert sorted(np.concatenate([fold.train, fold.validation, fold.test])) == list(range(28))


@pytest.mark.parametrize("unequal", [1, 7, 30])
def test_emodarts_podcast_never_makes_a_sixth_group(unequal: int) -> None:
    random = np.random.default_rng(unequal)
    for _ in range(200):
        counts = random.integers(1, unequal + 1, size=random.integers(5, 12))
        rows = [
            Row(f"MSP-PODCAST_{speaker:04d}_{n:04d}", f"{speaker:02d}", "sad", split="Train")
            for speaker, count in enumerate(counts)
            for n in range(count)
        ]
        try:
            sides = sides_of(rows, "emodarts")
        except UserError:
            continue
        assert len(sides) == 5
        sizes = [len(side.test) for side in sides]
        assert all(size > len(rows) // 5 for size in sizes[1:])
        assert np.concatenate([side.test for side in sides[::-1]]).tolist() == list(range(len(rows)))
        assert all(len(side.training) + size == len(rows) for side, size in zip(sides, sizes, strict=True))


@pytest.mark.parametrize(
    ("rows", "scheme", "message"),
    [
        (balanced(4), "session", "utterance 0 has no session"),
        (balanced(4, sessions=1), "session", "only one session"),
        (balanced(4), "group5", "4 speakers make 2 to 4 groups"),
        (balanced(4), "group1", "2 to 4 groups"),
        (balanced(4)[::2], "group0", "2 to 4 groups"),
        (
            balanced(4),
            "groupK",
            "unknown fold scheme 'groupK': known are auto, session, speaker, official, emodarts",
        ),
        (balanced(4), "official", "utterance 0 has no split; try session, speaker or group5"),
        (
            podcast(("1", "Train"), ("2", "dev"), ("3", "holdout")),
            "official",
            "0004 is in the unknown split 'holdout'",
        ),
        (
            podcast(("1", "Train"), ("2", "dev"), ("3", "Train")),
            "official",
            "no utterance is in a test split",
        ),
        (
            podcast(("1", "Test1"), ("2", "dev"), ("3", "Test2")),
            "official",
            "no utterance is in a training split",
        ),
        (balanced(4), "emodarts", "known for IEMOCAP, MSP-IMPROV and MSP-Podcast alone"),
        (iemocap() + improv(), "emodarts", "known for IEMOCAP, MSP-IMPROV and MSP-Podcast alone"),
        (iemocap()[:-2], "emodarts", "tests speaker 05M, of which there is no utterance"),
        (improv()[4:], "emodarts", "tests session 1, of which there is no utterance"),
        (
            podcast(("1", "Train"), ("2", "Test1"), ("3", "Test3")),
            "emodarts",
            "the 4 utterances .* fill 2 of its 5",
        ),
        (podcast(*((str(n), "Test3") for n in range(5))), "emodarts", "the 0 utterances"),
    ],
)
def test_errors(rows: list[Row], scheme: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_folds(rows, scheme)


@pytest.mark.parametrize("scheme", [*REGISTRY, "group2", "group10", "group99"])
def test_the_flag_takes_every_scheme(scheme: str) -> None:
    assert FoldFlags(folds_by=scheme).folds_by == scheme
    assert re.sub(r"\d+", "K", scheme) in SCHEMES


@pytest.mark.parametrize(
    "scheme", ["", "group", "group0", "groupK", "group100", "Session", "sessions", "paper"]
)
def test_the_flag_takes_nothing_else(scheme: str) -> None:
    with pytest.raises(ValidationError):
        FoldFlags(folds_by=scheme)
