"""The reader of ESD: label files in many encodings, with errors as in the real ones."""

from pathlib import Path

import pytest
from trees import plant

from data.corpora.esd import LABELS, read
from data.corpora.utterance import Utterance
from utils import UserError

ZH = "桌子上有九个苹果"
EN = "There are nine apples on the table."


def write_audio(root: Path, path: str, kind: str = "speech") -> Path:
    return plant(root, {path: kind}) / path


def write_labels(root: Path, speaker: str, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path = f"{speaker}/{speaker}.txt"
    return plant(root, {path: end.join([*lines, ""]).encode(encoding)}) / path


def test_all_labelled_utterances_are_listed(tmp_path) -> None:
    write_labels(tmp_path, "0011", f"0011_000351\t{EN}\tAngry", f"0011_000001\t{EN}\tNeutral", end="\r\n")
    mandarin = (f"0001_001401\t{ZH}\t惊喜", "", f"0001_001052\t{ZH}\t伤心", f"0001_000700\t{ZH}\t生气")
    write_labels(tmp_path, "0001", *mandarin)
    files = [
        write_audio(tmp_path, "0001/Angry/0001_000700.wav", "silence"),
        write_audio(tmp_path, "0001/Sad/train/0001_001052.wav", "stereo"),
        write_audio(tmp_path, "0001/Surprise/test/0001_001401.wav", "stub"),
        write_audio(tmp_path, "0011/Neutral/evaluation/0011_000001.wav"),
    ]
    write_audio(tmp_path, "0011/Neutral/0011_000002.wav")  # without a line
    plant(tmp_path, {"ReadMe.txt": b"Five emotions."})
    absent = tmp_path / "0011/Angry/0011_000351.wav"
    assert read(tmp_path) == [
        Utterance("0001_000700", files[0], "0001", "angry", text="zh350", sex="female"),
        Utterance("0001_001052", files[1], "0001", "sad", split="train", text="zh002", sex="female"),
        Utterance("0001_001401", files[2], "0001", "surprised", split="test", text="zh001", sex="female"),
        Utterance("0011_000001", files[3], "0011", "neutral", split="evaluation", text="en001", sex="male"),
        Utterance("0011_000351", absent, "0011", "angry", text="en001", sex="male"),
    ]


@pytest.mark.parametrize(
    ("speaker", "words", "label", "encoding"),
    [
        ("0001", ZH, "快乐", "gb2312"),
        ("0002", ZH, "快乐", "gb18030"),
        ("0003", ZH, "快乐", "utf-16"),
        ("0004", ZH, "快乐", "utf-16-le"),
        ("0005", ZH, "快乐", "utf-8"),
        ("0010", ZH, "快乐", "utf-8-sig"),
        ("0011", EN, "Happy", "ascii"),
        ("0012", "I\u2019m caf\xe9", "Happy", "utf-16"),
        ("0015", "I\u2019m caf\xe9", "Happy", "utf-8-sig"),
        ("0016", "Ma\xeftre caf\xe9 \xe9", "Happy", "latin-1"),
        ("0017", "I\u2019m\u2026 \u2018so\u2019 \u2013 caf\xe9\u2026", "Happy", "cp1252"),
    ],
)
def test_label_files_are_read_in_any_encoding(tmp_path, speaker, words, label, encoding) -> None:
    lines = [f"{speaker}_{number:06d}\t{words}\t{label}" for number in (701, 702, 703)]
    write_labels(tmp_path, speaker, *lines, encoding=encoding)
    write_audio(tmp_path, f"{speaker}/Happy/{speaker}_000701.wav")
    language = "zh" if speaker <= "0010" else "en"
    found = [(each.utterance, each.speaker, each.emotion, each.text) for each in read(tmp_path)]
    assert found == [
        (f"{speaker}_{700 + number:06d}", speaker, "happy", f"{language}{number:03d}") for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("label", sorted(LABELS))
def test_every_label_is_read_and_gives_the_path_of_missing_audio(tmp_path, label) -> None:
    write_labels(tmp_path, "0001", f"0001_000001\tone\t{label}", "0001_000002\ttwo\tSad")
    write_audio(tmp_path, "0001/Sad/0001_000002.wav")
    first, _ = read(tmp_path)
    chinese = {"生气": "Angry", "快乐": "Happy", "中立": "Neutral", "伤心": "Sad", "惊喜": "Surprise"}
    english = chinese.get(label, label)
    assert first.file == tmp_path / "0001" / english / "0001_000001.wav"
    assert first.emotion == {"Surprise": "surprised"}.get(english, english.lower())


@pytest.mark.parametrize(
    "line",
    [
        "0013_000431\tThen she asked what it was Angry",
        "0013_000431 Then she asked what it was.\tAngry",
        "0013_000431\tThen she asked what it was.Angry  \t ",
        "0013_000431\tThen she asked what it was.",
        "0013_000431",
        "  0013_000431\tThen she asked\n what it was.\tAngry",
    ],
)
def test_lines_with_missing_tabs_or_labels_are_read(tmp_path, line: str) -> None:
    tmp_path = tmp_path / "Happy" / "Sad"  # names of folders above the corpus are not labels
    write_labels(tmp_path, "0013", line, "0013_000432\tthree\tAngry")
    files = [write_audio(tmp_path, f"0013/Angry/test/0013_{number}.wav") for number in ("000431", "000432")]
    assert read(tmp_path) == [
        Utterance("0013_000431", files[0], "0013", "angry", split="test", text="en081", sex="male"),
        Utterance("0013_000432", files[1], "0013", "angry", split="test", text="en082", sex="male"),
    ]


def two_languages(root: Path) -> Path:
    for speaker in ("0001", "0010", "0011", "0020"):
        write_labels(root, speaker, f"{speaker}_000351\twords\tAngry")
        write_audio(root, f"{speaker}/Angry/{speaker}_000351.wav")
    return root


@pytest.mark.parametrize(
    ("language", "speakers"),
    [
        ("english", ["0011", "0020"]),
        ("mandarin", ["0001", "0010"]),
        ("all", ["0001", "0010", "0011", "0020"]),
    ],
)
def test_language_selects_speakers(tmp_path, language: str, speakers: list[str]) -> None:
    assert [each.speaker for each in read(two_languages(tmp_path), language=language)] == speakers


def test_root_may_be_a_folder_above_or_below(tmp_path) -> None:
    root = two_languages(tmp_path / "Emotion Speech Dataset")
    assert read(tmp_path) == read(root)
    assert [each.speaker for each in read(root / "0010")] == ["0010"]
    message = r"none of 0 \.txt files .*0001/0001\.txt: --root must be the folder of the unp"
    with pytest.raises(UserError, match=message):
        read(root / "0010" / "Angry")


def test_label_files_may_be_in_a_separate_folder(tmp_path) -> None:
    plant(tmp_path, {"transcription/0001.txt": b"0001_000351\tone\tAngry\n"})
    file = write_audio(tmp_path, "angry/0001/0001_000351.wav")
    assert read(tmp_path) == [Utterance("0001_000351", file, "0001", "angry", text="zh001", sex="female")]


def test_errors_give_the_problem_and_its_place(tmp_path) -> None:
    with pytest.raises(UserError, match="ESD: unknown language 'german': known are all, english, mandarin"):
        read(tmp_path, language="german")
    write_audio(tmp_path, "0003/Sad/0003_001051.wav")
    with pytest.raises(UserError, match=r"none of 0 \.txt files"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"none of 1 recordings"):
        read(tmp_path, language="english")
    write_labels(tmp_path, "0001", "0001_000001\tone\tSad")
    with pytest.raises(UserError, match=r"speaker 0003 but no label file 0003/0003\.txt"):
        read(tmp_path)
    write_labels(tmp_path, "0003", "one\tSad")
    with pytest.raises(UserError, match=r"0003\.txt has no line of speaker 0003"):
        read(tmp_path)
    write_labels(tmp_path, "0003", "0003_000001\tone\tSad", "0003_000002\ttwo\tGlum")
    with pytest.raises(UserError, match=r"0003\.txt, line 2: 0003_000002 has no label; known are Angry"):
        read(tmp_path)
    write_labels(
        tmp_path, "0003", "0003_000001\tone\tSad", "0003_000001\tone\tSad", "0003_000001\tone\tHappy"
    )
    with pytest.raises(UserError, match=r"0003\.txt, line 3: 0003_000001 already has a different label"):
        read(tmp_path)
    (tmp_path / "0003/0003.txt").unlink()
    (tmp_path / "0003/0003.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"0003\.txt cannot be read"):
        read(tmp_path)
