"""IEMOCAP: a small tree as its publisher ships it, with real audio, and every trap of the real one."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data.corpora import iemocap
from data.corpora.utterance import Utterance
from data.demo import Espeak
from utils import UserError

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
RATERS = "C-E2:\tNeutral;\t()\nC-F1:\tOther;\t(bored \xe9)\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"

# Name, publisher's label; then speaker, emotion, session, text. In the order of the names.
TURNS = [
    ("Ses01F_impro04_F000", "neu", "01F", "neutral", "1", "impro04"),
    ("Ses01F_impro04_M000", "ang", "01M", "angry", "1", "impro04"),  # the dialog's letter is not the speaker's
    ("Ses01F_script01_1_M003", "dis", "01M", "disgusted", "1", "script01_1"),
    ("Ses01M_impro04_F000", "hap", "01F", "happy", "1", "impro04"),  # the other recording of the scenario
    ("Ses01M_impro04_F001", "exc", "01F", "excited", "1", "impro04"),
    ("Ses05F_impro05a_F000", "sad", "05F", "sad", "5", "impro05"),
    ("Ses05F_impro05b_M010", "sur", "05M", "surprised", "5", "impro05"),
    ("Ses05F_impro05b_M011", "oth", "05M", "other", "5", "impro05"),
    ("Ses05M_script01_1_F000", "fru", "05F", "frustrated", "5", "script01_1"),
    ("Ses05M_script01_1b_F000", "fea", "05F", "fearful", "5", "script01_1"),
    ("Ses05M_script01_1b_M000", "xxx", "05M", "unknown", "5", "script01_1"),
]
ABSENT = "Ses01F_impro04_M000"  # labelled, without a file
STEREO = "Ses05F_impro05a_F000"


def place(root: Path, name: str) -> Path:
    return root / f"Session{name[4]}" / "sentences" / "wav" / name.rpartition("_")[0] / f"{name}.wav"


def labels(root: Path, name: str) -> Path:
    return root / f"Session{name[4]}" / "dialog" / "EmoEvaluation" / f"{name.rpartition('_')[0]}.txt"


def write_tree(root: Path, wav: Path, stereo: Path) -> None:
    """The turns, the latest first, among AppleDouble's files and folders of single raters."""
    for number, (name, label, *_) in enumerate(reversed(TURNS)):
        file, path = place(root, name), labels(root, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if name != ABSENT:
            shutil.copy(stereo if name == STEREO else wav, file)
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\nMac OS X\xff")
        ending = "\r\n" if number % 2 else "\n"
        text = (
            "" if path.exists() else HEADER
        ) + f"[6.2901 - 8.2357]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]\n{RATERS}"
        with path.open("ab") as dialog:
            dialog.write(text.replace("\n", ending).encode("latin-1"))
    single = root / "Session1" / "dialog" / "EmoEvaluation" / "Categorical" / "Ses01F_impro04_e2_cat.txt"
    single.parent.mkdir()
    single.write_text("Ses01F_impro04_F000 :Sadness; ()\n")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iemocap")
    with closing(Espeak()) as espeak:
        audio = espeak.speak("Excuse me.", "en-us+f1", seed=0)
        soundfile.write(folder / "mono.wav", audio, espeak.sample_rate)
    soundfile.write(folder / "stereo.wav", audio[:, None].repeat(2, axis=1), 44_100)
    write_tree(folder / "IEMOCAP_full_release", folder / "mono.wav", folder / "stereo.wav")
    return folder / "IEMOCAP_full_release"


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A tree to damage."""
    return Path(shutil.copytree(original, tmp_path / "IEMOCAP_full_release"))


def expected(root: Path) -> list[Utterance]:
    return [
        Utterance(name, place(root, name), speaker, emotion, session=session, text=text)
        for name, _, speaker, emotion, session, text in TURNS
    ]


def test_every_labelled_turn_is_listed(original) -> None:
    listed = iemocap.read(original, utterances="all")
    assert listed == expected(original)
    assert [u.utterance for u in listed if not u.file.exists()] == [ABSENT]
    assert {soundfile.info(u.file).channels for u in listed if u.utterance == STEREO} == {2}
    assert {label for _, label, *_ in TURNS} == set(iemocap.LABELS)


@pytest.mark.parametrize(("utterances", "start"), [("improvised", "impro"), ("scripted", "script"), ("all", "")])
def test_utterances_to_keep(original, utterances: str, start: str) -> None:
    kept = iemocap.read(original, utterances=utterances)
    assert kept == [u for u in expected(original) if u.text.startswith(start)]
    sides = {u.utterance[5] for u in kept if u.text == ("script01_1" if start == "script" else "impro04")}
    assert sides == {"F", "M"}


@given(
    session=st.integers(1, 5),
    side=st.sampled_from("FM"),
    speaker=st.sampled_from("FM"),
    text=st.from_regex(r"impro0[1-8]|script0[1-3]_[1-9]", fullmatch=True),
    part=st.sampled_from(["", "a", "b"]),
    turn=st.from_regex("[0-9]{3}", fullmatch=True),
)
def test_names(session: int, side: str, speaker: str, text: str, part: str, turn: str) -> None:
    name = f"Ses0{session}{side}_{text}{part}_{speaker}{turn}"
    parts = iemocap.NAME.fullmatch(name)
    assert parts.groups() == (name[:-5], str(session), text, speaker)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1.0 - 2.0]\tSes01F_impro04_F009\tjoy\t[1, 1, 1]", "line 2: unknown label 'joy'.* ang, hap"),
        ("[1.0 - 2.0]\tSes01F_impro04_MXX0\tneu\t[1, 1, 1]", "line 2: 'Ses01F_impro04_MXX0' is not an utterance"),
        ("[1.0 - 2.0]\tSes01F_impro04_F009", "line 2: not a whole line"),
        ("[1.0 - 2.0]\tSes01F_impro04_F000\tsad\t[1, 1, 1]", "Ses01F_impro04_F000 is labelled already"),
    ],
)
def test_errors_name_file_and_line(root, text: str, message: str) -> None:
    path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(f"% header\n{text}\n")
    with pytest.raises(UserError, match=message) as caught:
        iemocap.read(root)
    assert "Ses01F_impro0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_turns_without_a_label_are_not_listed(root) -> None:
    path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text("[START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\r\nA-M1:\tval 3; act 2; dom  2;\t()\r\n\r\n")
    shutil.copy(place(root, STEREO), root / "Session1/sentences/wav/Ses01F_impro04/Ses01F_impro04_MXX0.wav")
    assert iemocap.read(root, utterances="all") == expected(root)


@pytest.mark.parametrize("wrong", ["..", "Session1", "Session1/dialog", "Session1/sentences/wav/Ses01F_impro04"])
def test_a_folder_too_high_or_low_names_the_right_one(original, wrong: str) -> None:
    with pytest.raises(UserError, match=f"give {original}$"):
        iemocap.read((original / wrong).resolve())


def test_no_corpus(root, tmp_path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*absent"):
        iemocap.read(tmp_path / "absent")
    with pytest.raises(UserError, match="Session1 to Session5 of IEMOCAP: it should be the folder IEMOCAP_full_rel"):
        iemocap.read(Path(shutil.copytree(root, tmp_path / "a" / "b" / "c")).parent.parent)
    with pytest.raises(UserError, match=r"unknown utterances 'read'.* improvised, scripted, all"):
        iemocap.read(root, utterances="read")
    for path in (root / "Session5" / "dialog" / "EmoEvaluation").glob("Ses*.txt"):  # leaves the ._Ses*.txt
        path.unlink()
    with pytest.raises(UserError, match=r"no label files in .*Session5/dialog/EmoEvaluation"):
        iemocap.read(root)


def test_counts_of_a_complete_copy() -> None:
    known = set(iemocap.LABELS.values())
    for option, counts in iemocap.COMPLETE.items():
        assert option in iemocap.TEXTS
        assert all(set(emotions.split("+")) <= known for emotions in counts)
    four = ("angry", "happy+excited", "neutral", "sad")
    assert sum(iemocap.COMPLETE["all"][emotions] for emotions in four) == 5531
    assert sum(iemocap.COMPLETE["improvised"].values()) == 2280
