"""The reader of IEMOCAP, on a small copy with real audio and the peculiarities of the corpus."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import Tree, plant

from data.corpora import iemocap
from data.corpora.utterance import Utterance
from utils import UserError

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
RATERS = "C-E2:\tNeutral;\t()\nC-F1:\tOther;\t(bored \xe9)\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"

# Name, kind of file, publisher's label; expected speaker, emotion, session, text. Sorted by name.
TURNS = [
    ("Ses01F_impro04_F000", "speech", "neu", "01F", "neutral", "1", "improvised impro04"),
    ("Ses01F_impro04_M000", "absent", "ang", "01M", "angry", "1", "improvised impro04"),  # side F, speaker M
    ("Ses01F_script01_1_M003", "speech", "dis", "01M", "disgusted", "1", "script01_1"),
    ("Ses01M_impro04_F000", "silence", "hap", "01F", "happy", "1", "improvised impro04"),  # other recording
    ("Ses01M_impro04_F001", "speech", "exc", "01F", "excited", "1", "improvised impro04"),
    ("Ses05F_impro05a_F000", "stereo", "sad", "05F", "sad", "5", "improvised impro05"),
    ("Ses05F_impro05b_M010", "speech", "sur", "05M", "surprised", "5", "improvised impro05"),
    ("Ses05F_impro05b_M011", "stub", "oth", "05M", "other", "5", "improvised impro05"),
    ("Ses05M_script01_1_F000", "speech", "fru", "05F", "frustrated", "5", "script01_1"),
    ("Ses05M_script01_1b_F000", "speech", "fea", "05F", "fearful", "5", "script01_1"),
    ("Ses05M_script01_1b_M000", "speech", "xxx", "05M", "unknown", "5", "script01_1"),
]


def audio_path(name: str) -> str:
    return f"Session{name[4]}/sentences/wav/{name[:-5]}/{name}.wav"


def tree() -> Tree:
    """The turns, last ones first, and the ratings of a single rater; every second label file has CR LF."""
    files, dialogs = {}, {}
    for name, kind, label, *_ in reversed(TURNS):
        files[audio_path(name)] = kind
        path = f"Session{name[4]}/dialog/EmoEvaluation/{name[:-5]}.txt"
        turn = f"[6.2901 - 8.2357]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]\n{RATERS}"
        dialogs[path] = dialogs.get(path, HEADER) + turn
    for number, (path, text) in enumerate(dialogs.items()):
        files[path] = text.replace("\n", "\r\n" if number % 2 else "\n").encode("latin-1")
    single = "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro04_e2_cat.txt"
    return files | {single: b"Ses01F_impro04_F000 :Sadness; ()\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return plant(tmp_path / "corpora" / "IEMOCAP_full_release", tree())


def expected(root: Path) -> list[Utterance]:
    sexes = {"F": "female", "M": "male"}
    return [
        Utterance(name, root / audio_path(name), speaker, emotion, session, text=text, sex=sexes[speaker[-1]])
        for name, _, _, speaker, emotion, session, text in TURNS
    ]


def test_all_labelled_turns_are_listed(root) -> None:
    assert iemocap.read(root, utterances="all") == expected(root)
    assert {kind for _, kind, *_ in TURNS} == {"speech", "stereo", "silence", "stub", "absent"}
    assert {label for _, _, label, *_ in TURNS} == set(iemocap.LABELS)


@pytest.mark.parametrize(
    ("utterances", "start"), [("improvised", "improvised "), ("scripted", "script"), ("all", "")]
)
def test_option_selects_utterances(root, utterances: str, start: str) -> None:
    kept = iemocap.read(root, utterances=utterances)
    assert kept == [u for u in expected(root) if u.text.startswith(start)]
    text = "script01_1" if start == "script" else "improvised impro04"
    sides = {u.utterance[5] for u in kept if u.text == text}
    assert sides == {"F", "M"}


@given(
    session=st.integers(1, 5),
    side=st.sampled_from("FM"),
    speaker=st.sampled_from("FM"),
    text=st.from_regex(r"impro0[1-8]|script0[1-3]_[1-9]", fullmatch=True),
    part=st.sampled_from(["", "a", "b"]),
    turn=st.from_regex("[0-9]{3}", fullmatch=True),
)
def test_pattern_matches_all_names(
    session: int, side: str, speaker: str, text: str, part: str, turn: str
) -> None:
    name = f"Ses0{session}{side}_{text}{part}_{speaker}{turn}"
    parts = iemocap.NAME.fullmatch(name)
    assert parts.groups() == (name[:-5], str(session), text, speaker)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("Ses01F_impro04_F009\tjoy\t[1, 1, 1]", "line 2: unknown label 'joy'.* ang, hap"),
        ("Ses01F_impro04_MXX0\tneu\t[1, 1, 1]", "line 2: 'Ses01F_impro04_MXX0' is not an utterance"),
        ("Ses01F_impro04_F009", "line 2: not a whole line"),
        ("Ses01F_impro04_F000\tsad\t[1, 1, 1]", "Ses01F_impro04_F000 already has a label"),
    ],
)
def test_errors_give_file_and_line(root, turn: str, message: str) -> None:
    path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(f"% header\n[1.0 - 2.0]\t{turn}\n")
    with pytest.raises(UserError, match=message) as caught:
        iemocap.read(root)
    assert "Ses01F_impro0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_lines_and_unlabelled_audio_are_ignored(root) -> None:
    path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    header = "[START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"
    path.write_text(f"{header}\r\nA-M1:\tval 3; act 2; dom  2;\t()\r\n\r\n")
    plant(root, {audio_path("Ses01F_impro04_MXX0"): "speech"})
    assert iemocap.read(root, utterances="all") == expected(root)


@pytest.mark.parametrize("wrong", ["..", "../..", "Session1", "Session1/dialog", "Session1/sentences/wav"])
def test_error_for_a_folder_above_or_below_names_the_root(root, wrong: str) -> None:
    with pytest.raises(UserError, match=f"give {root}$"):
        iemocap.read((root / wrong).resolve())


def test_missing_folders_and_unknown_option_are_refused(root, tmp_path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*absent"):
        iemocap.read(tmp_path / "absent")
    with pytest.raises(UserError, match=r"IEMOCAP: unknown utterances 'read'.* improvised, scripted, all"):
        iemocap.read(root, utterances="read")
    for path in (root / "Session5" / "dialog" / "EmoEvaluation").glob("Ses*.txt"):  # the ._Ses*.txt stay
        path.unlink()
    with pytest.raises(UserError, match=r"no label files in .*Session5/dialog/EmoEvaluation"):
        iemocap.read(root)
    for session in (1, 5):
        shutil.rmtree(root / f"Session{session}" / "dialog")
    message = r"no labels in .* IEMOCAP folder should hold Session\[1-5\]/dialog/Emo"
    with pytest.raises(UserError, match=message):
        iemocap.read(root)


def test_published_counts_are_consistent() -> None:
    known = set(iemocap.LABELS.values())
    for option, counts in iemocap.COMPLETE_COUNTS.items():
        assert option in iemocap.TEXT_PREFIXES
        assert all(set(emotions.split("+")) <= known for emotions in counts)
    five = ("angry", "happy", "excited", "neutral", "sad")
    assert sum(iemocap.COMPLETE_COUNTS["all"][label] for label in five) == 5531
    assert sum(iemocap.COMPLETE_COUNTS["improvised"].values()) == 2280


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_copies_in_other_formats_are_listed(root, suffix: str) -> None:
    published = [each.file for each in iemocap.read(root, utterances="all")]
    there = [file for file in published if file.exists()]
    for file in there:
        file.rename(file.with_suffix(suffix))
    files = [each.file for each in iemocap.read(root, utterances="all")]
    assert [file for file in files if file.exists()] == [file.with_suffix(suffix) for file in there]
    assert len(files) == len(published)
