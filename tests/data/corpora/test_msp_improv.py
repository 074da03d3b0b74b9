"""MSP-IMPROV: a small tree as its publisher ships it, with real audio, and every trap of the real one."""

import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data.corpora import msp_improv
from data.corpora.utterance import Utterance
from data.demo import Espeak
from utils import UserError

# Name, consensus; then speaker, emotion by consensus and by intention, session, text. In the order of the names.
TURNS = [
    ("MSP-IMPROV-S01A-F01-P-FM01", "N", "F01", "neutral", "angry", "1", "S01"),
    ("MSP-IMPROV-S01A-M01-R-FM02", "A", "M01", "angry", "angry", "1", "S01"),
    ("MSP-IMPROV-S01H-M01-S-MM101", "H", "M01", "happy", "happy", "1", "S01"),  # three digits
    ("MSP-IMPROV-S09S-F06-T-MF03", "O", "F06", "other", "sad", "6", "S09"),
    ("MSP-IMPROV-S20N-M06-T-FM12", "X", "M06", "unknown", "neutral", "6", "S20"),
    ("MSP-IMPROV-S20S-M06-R-FM01", "S", "M06", "sad", "sad", "6", "S20"),
]
ABSENT = "MSP-IMPROV-S01A-F01-P-FM01"  # rated, without a file
STEREO = "MSP-IMPROV-S01H-M01-S-MM101"
RATERS = (
    "rater-p1; Neutral; Neutral,Other; A:3.000000; V:3.000000; D:2.000000; N:NaN;\n"
    "A2X_9-rater; Other; Other(odd; r\xe9ally),Sad; A:3.000000; V:3.000000; D:NaN; N:NaN;\n\n"
)


def place(sessions: Path, name: str) -> Path:
    _, _, sentence, speaker, scenario, _ = name.split("-")
    return sessions / f"session{speaker[-1]}" / sentence / scenario / f"{name}.wav"


def rated(name: str, consensus: str) -> str:
    return f"UTD-{name[4:]}.avi; {consensus}; A:3.200000; V:3.000000; D:2.800000 ; N:NaN;\n{RATERS}"


def write_tree(root: Path, folder: str, ratings: str, ending: str, mono: Path) -> None:
    """The turns, the latest first, among AppleDouble's files; `mono` has a stereo file at its side."""
    for name, *_ in TURNS:
        file = place(root / folder, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if name != ABSENT:
            shutil.copy(mono.with_name("stereo.wav") if name == STEREO else mono, file)
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
    text = "".join(rated(name, consensus) for name, consensus, *_ in reversed(TURNS))
    (root / ratings).write_bytes(text.replace("\n", ending).encode("latin-1"))
    (root / "._Evaluation.txt").write_bytes(b"\0\5\x16\7\nMac OS X\xff")


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    with closing(Espeak()) as espeak:
        audio = espeak.speak("How can I not?", "en-us+m1", seed=0)
        soundfile.write(folder / "mono.wav", audio, espeak.sample_rate)
    soundfile.write(folder / "stereo.wav", audio[:, None].repeat(2, axis=1), 44_100)
    return folder / "mono.wav"


@pytest.fixture
def root(tmp_path: Path, mono: Path) -> Path:
    write_tree(tmp_path / "MSP-IMPROV", "Audio", "Evaluation.txt", "\n", mono)
    return tmp_path / "MSP-IMPROV"


def expected(sessions: Path, label: str = "consensus") -> list[Utterance]:
    return [
        Utterance(
            name, place(sessions, name), speaker, {"consensus": agreed}.get(label, meant), session=session, text=s
        )
        for name, _, speaker, agreed, meant, session, s in TURNS
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("ratings", ["Evaluation.txt", "Evalution.txt"])
@pytest.mark.parametrize("folder", ["", "Audio", "all_sessions", "Audio/all_sessions"])
def test_every_rated_turn_is_listed(tmp_path, mono, folder: str, ratings: str, ending: str) -> None:
    write_tree(tmp_path, folder, ratings, ending, mono)
    listed = msp_improv.read(tmp_path)
    assert listed == expected(tmp_path / folder)
    assert [u.utterance for u in listed if not u.file.exists()] == [ABSENT]
    assert [soundfile.info(u.file).samplerate for u in listed if u.utterance == STEREO] == [44_100]
    assert {consensus for _, consensus, *_ in TURNS} == set(msp_improv.LABELS)


def test_the_intended_emotion(root) -> None:
    assert msp_improv.read(root, label="intended") == expected(root / "Audio", "intended")


@pytest.mark.parametrize("scenarios", ["R", "TS", "PRST"])
def test_scenarios_to_keep(root, scenarios: str) -> None:
    kept = msp_improv.read(root, scenarios=scenarios)
    assert kept == [u for u in expected(root / "Audio") if u.utterance.split("-")[4] in scenarios]


@given(st.from_regex(r"MSP-IMPROV-S[0-9]{2}[AHSN]-[FM]0[1-6]-[PRST]-[FM]{2}[0-9]{2,3}", fullmatch=True))
def test_names(name: str) -> None:
    _, _, sentence, speaker, scenario, _ = name.split("-")
    parts = msp_improv.NAME.fullmatch(name).groups()
    assert parts == (sentence[:-1], sentence[-1], speaker, speaker[-1], scenario)
    assert msp_improv.RATED.fullmatch(rated(name, "N").splitlines()[0]).groups() == (name[4:], "N")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rated("MSP-IMPROV-S02A-F01-P-FM01", "B"), "line 1: unknown label 'B'.* A, H, N, S"),
        (rated("MSP-IMPROV-S02B-F01-P-FM01", "A"), "line 1: 'MSP-IMPROV-S02B-F01-P-FM01' is not an utterance"),
        (rated(TURNS[0][0], "A") + rated(TURNS[0][0], "A"), f"line 5: {TURNS[0][0]} is rated already"),
        ("UTD-IMPROV-S02A-F01-P-FM01.avi\n", "line 1: neither an utterance's ratings nor a rater's"),
        ("\nMSP-IMPROV-S02A-F01-P-FM01.wav; A; A:1; V:1; D:1 ; N:1;\n", "line 2: neither an utterance's"),
        ("\n\nNeutral\n", "line 3: neither an utterance's ratings nor a rater's: 'Neutral'"),
    ],
)
@pytest.mark.parametrize("label", ["consensus", "intended"])
def test_errors_name_file_and_line(root, text: str, message: str, label: str) -> None:
    (root / "Evaluation.txt").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        msp_improv.read(root, label=label)
    assert str(root / "Evaluation.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["..", "Audio", "Audio/session1", "Audio/session1/S01A/P"])
def test_a_folder_too_high_or_low_names_the_right_one(root, wrong: str) -> None:
    with pytest.raises(UserError, match=f"give {root}$"):
        msp_improv.read((root / wrong).resolve())


def test_no_corpus(root, tmp_path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*absent"):
        msp_improv.read(tmp_path / "absent")
    (root / "Audio").rename(root / "Sound")
    with pytest.raises(UserError, match=r"no audio in .*session1 to session6"):
        msp_improv.read(root)
    (root / "Evaluation.txt").unlink()  # leaves the ._Evaluation.txt
    with pytest.raises(UserError, match=r"no ratings in .*Evaluation\.txt or Evalution\.txt"):
        msp_improv.read(root)


@pytest.mark.parametrize("scenarios", ["", "PX", "p"])
def test_unknown_options(root, scenarios: str) -> None:
    with pytest.raises(UserError, match=r"unknown scenarios .* PRST"):
        msp_improv.read(root, scenarios=scenarios)
    with pytest.raises(UserError, match=r"unknown label 'target'.* consensus, intended"):
        msp_improv.read(root, label="target")


def test_counts_of_a_complete_copy() -> None:
    counts = {option: Counter(of) for option, of in msp_improv.COMPLETE.items()}
    whole = counts.pop("PRST consensus")
    assert whole.pop("angry+happy+neutral+sad+other+unknown") == 8438
    assert sum(counts.values(), Counter()) == whole
    assert whole.total() == 7798
