"""The reader of MSP-IMPROV, on a small copy with real audio and the peculiarities of the corpus."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import Tree, plant

from data.corpora import msp_improv
from data.corpora.utterance import Utterance
from utils import UserError

# Name, kind of file, consensus; expected speaker, both emotions, session, text. Sorted by name.
TURNS = [
    ("MSP-IMPROV-S01A-F01-P-FM01", "absent", "N", "F01", "neutral", "angry", "1", "improvised S01"),
    ("MSP-IMPROV-S01A-M01-R-FM02", "speech", "A", "M01", "angry", "angry", "1", "S01"),
    ("MSP-IMPROV-S01H-M01-S-MM101", "stereo", "H", "M01", "happy", "happy", "1", "S01"),  # three digits
    ("MSP-IMPROV-S09S-F06-T-MF03", "silence", "O", "F06", "other", "sad", "6", "improvised S09"),
    ("MSP-IMPROV-S20N-M06-T-FM12", "stub", "X", "M06", "unknown", "neutral", "6", "improvised S20"),
    ("MSP-IMPROV-S20S-M06-R-FM01", "speech", "S", "M06", "sad", "sad", "6", "S20"),
]
RATERS = (
    "rater-p1; Neutral; Neutral,Other; A:3.000000; V:3.000000; D:2.000000; N:NaN;\n"
    "A2X_9-rater; Other; Other(odd; r\xe9ally),Sad; A:3.000000; V:3.000000; D:NaN; N:NaN;\n\n"
)


def audio_path(name: str) -> str:
    _, _, sentence, speaker, scenario, _ = name.split("-")
    return f"session{speaker[-1]}/{sentence}/{scenario}/{name}.wav"


def rated(name: str, consensus: str) -> str:
    return f"UTD-{name[4:]}.avi; {consensus}; A:3.200000; V:3.000000; D:2.800000 ; N:NaN;\n{RATERS}"


def tree(folder: str = "Audio/", ratings: str = "Evaluation.txt", ending: str = "\n") -> Tree:
    """The turns, last ones first."""
    text = "".join(rated(name, consensus) for name, _, consensus, *_ in reversed(TURNS))
    files = {f"{folder}{audio_path(name)}": kind for name, kind, *_ in reversed(TURNS)}
    return files | {ratings: text.replace("\n", ending).encode("latin-1")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return plant(tmp_path / "corpora" / "MSP-IMPROV", tree())


def expected(audio: Path, label: str = "consensus") -> list[Utterance]:
    utterances = []
    for name, _, _, speaker, consensus, intended, session, text in TURNS:
        emotion = intended if label == "intended" else consensus
        sex = {"F": "female", "M": "male"}[speaker[0]]
        utterances.append(
            Utterance(name, audio / audio_path(name), speaker, emotion, session, text=text, sex=sex)
        )
    return utterances


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("ratings", ["Evaluation.txt", "Evalution.txt"])
@pytest.mark.parametrize("folder", ["", "Audio/", "all_sessions/", "Audio/all_sessions/"])
def test_all_rated_turns_are_listed(tmp_path, folder: str, ratings: str, ending: str) -> None:
    plant(tmp_path, tree(folder, ratings, ending))
    assert msp_improv.read(tmp_path) == expected(tmp_path / folder)
    assert {kind for _, kind, *_ in TURNS} == {"speech", "stereo", "silence", "stub", "absent"}
    assert {consensus for _, _, consensus, *_ in TURNS} == set(msp_improv.LABELS)


def test_option_selects_the_intended_emotion(root) -> None:
    assert msp_improv.read(root, label="intended") == expected(root / "Audio", "intended")


@pytest.mark.parametrize("scenarios", ["R", "TS", "PRST"])
def test_option_selects_scenarios(root, scenarios: str) -> None:
    kept = msp_improv.read(root, scenarios=scenarios)
    assert kept == [u for u in expected(root / "Audio") if u.utterance.split("-")[4] in scenarios]


@given(st.from_regex(r"MSP-IMPROV-S[0-9]{2}[AHSN]-[FM]0[1-6]-[PRST]-[FM]{2}[0-9]{2,3}", fullmatch=True))
def test_patterns_match_all_names(name: str) -> None:
    _, _, sentence, speaker, scenario, _ = name.split("-")
    parts = msp_improv.NAME.fullmatch(name).groups()
    assert parts == (sentence[:-1], sentence[-1], speaker, speaker[-1], scenario)
    assert msp_improv.RATED.fullmatch(rated(name, "N").splitlines()[0]).groups() == (name[4:], "N")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rated("MSP-IMPROV-S02A-F01-P-FM01", "B"), "line 1: unknown label 'B'.* A, H, N, S"),
        (rated("MSP-IMPROV-S02B-F01-P-FM01", "A"), "line 1: '.*-S02B-F01-P-FM01' is not an utterance"),
        (rated(TURNS[0][0], "A") + rated(TURNS[0][0], "A"), f"line 5: {TURNS[0][0]} already has a label"),
        ("UTD-IMPROV-S02A-F01-P-FM01.avi\n", "line 1: neither an utterance's ratings nor a rater's"),
        ("\nMSP-IMPROV-S02A-F01-P-FM01.wav; A; A:1; V:1; D:1 ; N:1;\n", "line 2: neither an utterance's"),
        ("\n\nNeutral\n", "line 3: neither an utterance's ratings nor a rater's: 'Neutral'"),
    ],
)
@pytest.mark.parametrize("label", ["consensus", "intended"])
def test_errors_give_file_and_line(root, text: str, message: str, label: str) -> None:
    (root / "Evaluation.txt").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        msp_improv.read(root, label=label)
    assert str(root / "Evaluation.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["..", "../..", "Audio", "Audio/session1", "Audio/session1/S01A/R"])
def test_error_for_a_folder_above_or_below_names_the_root(root, wrong: str) -> None:
    with pytest.raises(UserError, match=f"give {root}$"):
        msp_improv.read((root / wrong).resolve())


def test_missing_folders_are_refused(root, tmp_path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*absent"):
        msp_improv.read(tmp_path / "absent")
    (root / "Audio").rename(root / "Sound")
    message = r"no audio in .* MSP-IMPROV folder should hold Audio/session\[1-6\] or session"
    with pytest.raises(UserError, match=message):
        msp_improv.read(root)
    (root / "Evaluation.txt").unlink()  # keeps the ._Evaluation.txt
    with pytest.raises(UserError, match=r"no ratings in .*Evaluation\.txt or Evalution\.txt"):
        msp_improv.read(root)


@pytest.mark.parametrize("scenarios", ["", "PX", "p"])
def test_unknown_options_are_refused(root, scenarios: str) -> None:
    with pytest.raises(UserError, match=r"unknown scenarios .* PRST"):
        msp_improv.read(root, scenarios=scenarios)
    with pytest.raises(UserError, match=r"unknown label 'target'.* consensus, intended"):
        msp_improv.read(root, label="target")


def test_published_counts_are_consistent() -> None:
    counts = {options: Counter(numbers) for options, numbers in msp_improv.COMPLETE_COUNTS.items()}
    total = counts.pop("PRST consensus")
    assert total.pop("angry+happy+neutral+sad+other+unknown") == 8438
    assert sum(counts.values(), Counter()) == total
    assert total.total() == 7798


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_copies_in_other_formats_are_listed(root, suffix: str) -> None:
    published = [each.file for each in msp_improv.read(root)]
    there = [file for file in published if file.exists()]
    for file in there:
        file.rename(file.with_suffix(suffix))
    files = [each.file for each in msp_improv.read(root)]
    assert [file for file in files if file.exists()] == [file.with_suffix(suffix) for file in there]
    assert len(files) == len(published)
