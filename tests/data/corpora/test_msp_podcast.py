"""The reader of MSP-Podcast, on a small copy with real audio and the peculiarities of the corpus."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import Tree, plant

from data.corpora import msp_podcast
from data.corpora.utterance import Utterance
from utils import UserError

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"

# Name, kind of file, label, speaker and split as published; expected emotion and split. Sorted by name.
TURNS = [
    ("MSP-PODCAST_0001_0008", "speech", "N", "30", "Test1", "neutral", "Test1"),
    ("MSP-PODCAST_0001_0009", "speech", "A", "030", "Test2", "angry", "Test2"),  # a text: differs from 30
    ("MSP-PODCAST_0002_0033", "speech", "S", "Unknown", "Train", "sad", "Train"),
    ("MSP-PODCAST_0002_0033_0001", "speech", "H", "Unknown", "Train", "happy", "Train"),
    ("MSP-PODCAST_0003_0001", "speech", "U", "7", "Validation", "surprised", "Development"),
    ("MSP-PODCAST_0003_0002", "absent", "F", "7", "Development", "fearful", "Development"),
    ("MSP-PODCAST_0003_0003", "silence", "D", "7", "Test", "disgusted", "Test"),
    ("MSP-PODCAST_0003_0004", "stub", "C", "7", "Train", "contempt", "Train"),
    ("MSP-PODCAST_0003_0005", "speech", "O", "7", "Train", "other", "Train"),
    ("MSP-PODCAST_1023_0235", "stereo", "X", "7", "Train", "unknown", "Train"),
    ("MSP-PODCAST_test3_0002", "speech", "N", "8", "Test3", "neutral", "Test3"),
]
UNLABELLED = (
    "MSP-PODCAST_test3_0001.wav,,,,,,,Test3\nMSP-PODCAST_test3_0003.wav,NaN,,,,Unknown,Unknown,Test3\n"
)


def rows(turns: list[tuple]) -> str:
    return "".join(
        f"{name}.wav,{label},2.2,4.0,2.6,{speaker},Male,{split}\n"
        for name, _, label, speaker, split, *_ in turns
    )


def tree(audio: str = "Audios", labels: str = "Labels/labels_consensus.csv", ending: str = "\n") -> Tree:
    """The turns, last ones first."""
    text = f"{HEADER}\n{UNLABELLED}{rows(TURNS[::-1])}".replace("\n", ending)
    files = {f"{audio}/{name}.wav": kind for name, kind, *_ in reversed(TURNS)}
    return files | {labels: text.encode("utf-8-sig" if ending == "\r\n" else "utf-8")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return plant(tmp_path / "corpora" / "MSP-Podcast", tree())


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_copies_in_other_formats_are_listed(root: Path, suffix: str, capsys) -> None:
    for file in (root / "Audios").glob("[!.]*.wav"):
        file.rename(file.with_suffix(suffix))
    files = [each.file for each in msp_podcast.read(root)]
    want = [each.file.with_suffix(suffix) for each in expected(root / "Audios")]
    assert [file for file in files if file.exists()] == [file for file in want if file.exists()]
    assert capsys.readouterr().err == ""
    files[0].with_suffix(".wav").write_bytes(b"")
    files[1].rename(files[1].with_suffix(".m4a"))
    assert msp_podcast.read(root)[0].file.suffix == ".wav"
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"note: 1 recording with copies in other formats, which are not read: {suffix}"
    assert second.startswith("note: passed over: 1 file in formats that cannot be read (.m4a)")


def expected(audio: Path) -> list[Utterance]:
    return [
        Utterance(name, audio / f"{name}.wav", speaker, emotion, split=split, sex="male")
        for name, _, _, speaker, _, emotion, split in TURNS
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("folder", ["", "Labels/"])
@pytest.mark.parametrize("word", ["consensus", "concensus"])
@pytest.mark.parametrize("audio", ["Audios", "Audio"])
def test_all_labelled_turns_are_listed(tmp_path, audio: str, word: str, folder: str, ending: str) -> None:
    plant(tmp_path, tree(audio, f"{folder}labels_{word}.csv", ending))
    assert msp_podcast.read(tmp_path) == expected(tmp_path / audio)
    assert {kind for _, kind, *_ in TURNS} == {"speech", "stereo", "silence", "stub", "absent"}
    assert {label for _, _, label, *_ in TURNS} == set(msp_podcast.LABELS)
    assert {split for _, _, _, _, split, *_ in TURNS} == set(msp_podcast.SPLITS)


def test_columns_may_be_in_any_order(root) -> None:
    path = root / "Labels" / "labels_consensus.csv"
    path.write_text("Split_Set, SpkrID ,FileName,EmoClass,Notes\nTrain, 5 ,MSP-PODCAST_0001_0001.wav, N,\n\n")
    name = "MSP-PODCAST_0001_0001"
    assert msp_podcast.read(root) == [
        Utterance(name, root / "Audios" / f"{name}.wav", "5", "neutral", split="Train")
    ]


@given(st.from_regex(r"MSP-PODCAST_([0-9]{4}_[0-9]{4}(_[0-9]{4})?|test3_[0-9]{4})", fullmatch=True))
def test_pattern_matches_all_names(name: str) -> None:
    assert msp_podcast.NAME.fullmatch(f"{name}.wav")[1] == name
    assert not msp_podcast.NAME.fullmatch(f"._{name}.wav")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("MSP-PODCAST_0001_0001.wav,Z,1,1,1,5,Male,Train", "line 3: unknown EmoClass 'Z'.* A, S, H"),
        ("MSP-PODCAST_0001_0001.wav,,1,1,1,5,Male,Train", "line 3: unknown EmoClass ''"),
        ("MSP-PODCAST_0001_0001.wav,N,1,1,1,5,Male,Test9", "line 3: unknown Split_Set 'Test9'.* Train, Dev"),
        ("MSP-PODCAST_0001_0001.wav,N,1,1,1", "line 3: SpkrID is empty"),
        ("../0001.wav,N,1,1,1,5,Male,Train", "line 3: '../0001.wav' is not a file name"),
        ("MSP-PODCAST_0009_0001.wav,N,1,1,1,5,Male,Train", "line 3: MSP-PODCAST_0009_0001 already has a"),
    ],
)
def test_errors_give_file_and_line(root, row: str, message: str) -> None:
    path = root / "Labels" / "labels_consensus.csv"
    path.write_text(f"{HEADER}\nMSP-PODCAST_0009_0001.wav,N,1,1,1,5,Male,Train\n{row}\n")
    with pytest.raises(UserError, match=message) as caught:
        msp_podcast.read(root)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("column", msp_podcast.COLUMNS)
def test_missing_column_is_refused(root, column: str) -> None:
    (root / "Labels" / "labels_consensus.csv").write_text(HEADER.replace(column, "Other") + "\n")
    message = f"labels_consensus.csv, line 1: column '{column}' is missing, found: .*Other"
    with pytest.raises(UserError, match=message):
        msp_podcast.read(root)


def test_empty_and_binary_label_files_are_refused(root) -> None:
    path = root / "Labels" / "labels_consensus.csv"
    path.write_text("")
    with pytest.raises(UserError, match="column 'FileName' is missing"):
        msp_podcast.read(root)
    path.write_bytes(f"{HEADER}\n\xff".encode("latin-1"))
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        msp_podcast.read(root)


@pytest.mark.parametrize("wrong", ["..", "../..", "Audios", "Labels", "Labels/labels_consensus.csv"])
def test_error_for_a_folder_above_or_below_names_the_root(root, wrong: str) -> None:
    with pytest.raises(UserError, match=f"give {root}$"):
        msp_podcast.read((root / wrong).resolve())


def test_missing_folders_are_refused(root, tmp_path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*absent"):
        msp_podcast.read(tmp_path / "absent")
    (root / "Audios").rename(root / "Sound")
    with pytest.raises(UserError, match=r"no audio in .*Audios or Audio"):
        msp_podcast.read(root)
    (root / "Labels" / "labels_consensus.csv").unlink()  # keeps the ._labels_consensus.csv
    with pytest.raises(UserError, match=r"no labels in .*Labels/labels_concensus\.csv"):
        msp_podcast.read(root)
