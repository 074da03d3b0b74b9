"""Every name that a publisher may give tells its speaker, emotion and text; a spoilt one tells nothing."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import plant, sounds

from data.corpora import module_of
from data.corpora.emodb import read
from data.corpora.utterance import Utterance
from utils import UserError


def digits(lowest: int, highest: int) -> st.SearchStrategy[str]:
    """Numbers with a leading zero."""
    return st.integers(lowest, highest).map("{:02d}".format)


EMODB = {
    "W": "angry",
    "L": "bored",
    "E": "disgusted",
    "A": "fearful",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
SAVEE = {
    "a": "angry",
    "d": "disgusted",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}
CREMAD = {
    "ANG": "angry",
    "DIS": "disgusted",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
TESS = {"angry": "angry", "disgust": "disgusted", "fear": "fearful", "ps": "surprised", "sad": "sad"}
RAVDESS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised"]


@st.composite
def named(draw) -> tuple[str, str, str, str, str]:
    """A corpus, a valid name and the speaker, emotion and text that it tells."""
    name = draw(st.sampled_from(["ravdess", "emodb", "cremad", "savee", "tess"]))
    if name == "ravdess":
        e, text, actor = draw(st.integers(1, 8)), draw(digits(1, 2)), draw(digits(1, 24))
        file = f"03-01-{e:02d}-{draw(digits(1, 2))}-{text}-{draw(digits(1, 2))}-{actor}"
        return name, file, actor, RAVDESS[e - 1], text
    if name == "emodb":
        speaker, text = draw(st.sampled_from(["03", "08", "09", "10", "16"])), f"a{draw(digits(1, 7))}"
        e = draw(st.sampled_from(sorted(EMODB)))
        return name, f"{speaker}{text}{e}{draw(st.sampled_from('abcdef'))}", speaker, EMODB[e], text
    if name == "cremad":
        speaker, text = str(draw(st.integers(1001, 1091))), draw(st.sampled_from(["IEO", "TIE", "IOM"]))
        e, level = draw(st.sampled_from(sorted(CREMAD))), draw(st.sampled_from(["LO", "MD", "HI", "XX"]))
        return name, f"{speaker}_{text}_{e}_{level}", speaker, CREMAD[e], text
    if name == "savee":
        speaker, e = draw(st.sampled_from(["DC", "JE", "JK", "KL"])), draw(st.sampled_from(sorted(SAVEE)))
        text = f"{e}{draw(digits(1, 30))}"
        return name, f"{speaker}_{text}", speaker, SAVEE[e], text
    speaker, e = draw(st.sampled_from(["OAF", "YAF"])), draw(st.sampled_from(sorted(TESS)))
    word = draw(st.sampled_from(["back", "said", "youth", "fear", "ps"]))
    return name, f"{speaker}_{word}_{e}", speaker, TESS[e], word


SPOILERS = [
    "x{}.wav",
    "{}x.wav",
    "._{}.wav",
    "{}.mp3",
    "{}.wav.part",
    "{} (1).wav",
    "0{}.wav",
    "{}0.wav",
    "{}.x.wav",
]


@given(named(), st.sampled_from(SPOILERS))
@settings(max_examples=150, deadline=None)
def test_names_tell_all_and_spoilt_ones_nothing(name: tuple[str, str, str, str, str], spoiler: str) -> None:
    corpus, stem, speaker, emotion, text = name
    with tempfile.TemporaryDirectory() as folder:
        file, spoilt = Path(folder, f"{stem}.wav"), Path(folder, spoiler.format(stem))
        spoilt.write_bytes(sounds()["speech"])
        with pytest.raises(UserError, match="has a name like"):
            module_of(corpus).read(Path(folder))
        file.write_bytes(sounds()["speech"])
        assert module_of(corpus).read(Path(folder)) == [Utterance(stem, file, speaker, emotion, text=text)]


def test_files_are_compared_by_their_bytes(tmp_path) -> None:
    for folder in ("one", "two"):
        file = tmp_path / folder / "03a01Wa.wav"
        file.parent.mkdir()
        file.write_text(folder)
        os.utime(file, (1, 1))
    with pytest.raises(UserError, match="one name and different bytes"):
        read(tmp_path)


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch) -> None:
    plant(tmp_path, {"wav/03a01Wa.wav": "speech", "locked/03a01Fa.wav": "speech"})
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="locked cannot be read: Permission denied"):
        read(tmp_path)


def test_the_order_of_files_on_disk_changes_nothing(tmp_path, monkeypatch) -> None:
    """Of copies in two folders the first by name counts, whichever the system lists first."""
    names = "03a01Fa", "03a01Nc", "08a02La", "16b10Td"
    plant(tmp_path, {f"{folder}/{name}.wav": "speech" for folder in ("one", "two") for name in names})
    listed = [(folder, folders, sorted(files)) for folder, folders, files in sorted(os.walk(tmp_path))]
    for order in (listed, [(folder, folders, files[::-1]) for folder, folders, files in listed[::-1]]):
        monkeypatch.setattr(os, "walk", lambda *_, order=order, **__: order)
        assert [each.utterance for each in read(tmp_path)] == list(names)
        assert {each.file.parent.name for each in read(tmp_path)} == {"one"}
