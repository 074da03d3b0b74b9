"""Readers of corpora that tell everything by the names of their files, on small trees of real sound."""

import shutil
from pathlib import Path

import pytest
from trees import plant

from data.corpora import module_of
from data.corpora.utterance import Utterance
from utils import UserError

VOCABULARY = {
    "angry",
    "happy",
    "neutral",
    "sad",
    "calm",
    "surprised",
    "fearful",
    "disgusted",
    "bored",
    "other",
}
SPEECH, SONG = "Audio_Speech_Actors_01-24", "Audio_Song_Actors_01-24"

# Utterance, path, kind of file, speaker, emotion, text. In the order of the utterances.
LISTED = {
    "ravdess": [
        (
            "03-01-01-01-02-01-02",
            f"{SPEECH}/Actor_02/03-01-01-01-02-01-02.wav",
            "speech",
            "02",
            "neutral",
            "02",
        ),
        ("03-01-02-01-01-02-02", f"{SPEECH}/Actor_02/03-01-02-01-01-02-02.wav", "stereo", "02", "calm", "01"),
        (
            "03-01-03-01-02-01-07",
            f"{SPEECH}/Actor_07/03-01-03-01-02-01-07.wav",
            "speech",
            "07",
            "happy",
            "02",
        ),
        (
            "03-01-03-01-02-02-07",
            f"{SPEECH}/Actor_07/03-01-03-01-02-02-07.wav",
            "speech",
            "07",
            "happy",
            "02",
        ),
        ("03-01-04-01-01-01-07", f"{SPEECH}/Actor_07/03-01-04-01-01-01-07.wav", "stub", "07", "sad", "01"),
        (
            "03-01-05-01-01-01-07",
            f"{SPEECH}/Actor_07/03-01-05-01-01-01-07.wav",
            "silence",
            "07",
            "angry",
            "01",
        ),
        (
            "03-01-06-01-01-01-07",
            f"{SPEECH}/Actor_07/03-01-06-01-01-01-07.WAV",
            "speech",
            "07",
            "fearful",
            "01",
        ),
        (
            "03-01-07-02-01-01-07",
            f"{SPEECH}/Actor_07/03-01-07-02-01-01-07.wav",
            "speech",
            "07",
            "disgusted",
            "01",
        ),
        (
            "03-01-08-02-01-01-24",
            f"{SPEECH}/Actor_24/03-01-08-02-01-01-24.wav",
            "speech",
            "24",
            "surprised",
            "01",
        ),
    ],
    "emodb": [
        ("03a01Fa", "wav/03a01Fa.wav", "stereo", "03", "happy", "a01"),
        ("03a01Nc", "wav/03a01Nc.wav", "silence", "03", "neutral", "a01"),
        ("03a01Wa", "wav/03a01Wa.wav", "speech", "03", "angry", "a01"),
        ("08a02La", "wav/08a02La.wav", "stub", "08", "bored", "a02"),
        ("09b01Ea", "wav/09b01Ea.wav", "speech", "09", "disgusted", "b01"),
        ("10b02Aa", "wav/10b02Aa.wav", "speech", "10", "fearful", "b02"),
        ("16b10Td", "wav/16b10Td.wav", "speech", "16", "sad", "b10"),
    ],
    "cremad": [
        ("1001_IEO_ANG_LO", "AudioWAV/1001_IEO_ANG_LO.wav", "stereo", "1001", "angry", "IEO"),
        ("1001_IEO_DIS_MD", "AudioWAV/1001_IEO_DIS_MD.wav", "stub", "1001", "disgusted", "IEO"),
        ("1001_IEO_FEA_HI", "AudioWAV/1001_IEO_FEA_HI.wav", "speech", "1001", "fearful", "IEO"),
        ("1001_IEO_NEU_XX", "AudioWAV/1001_IEO_NEU_XX.wav", "speech", "1001", "neutral", "IEO"),
        (
            "1040_ITH_SAD_X",
            "AudioWAV/1040_ITH_SAD_X.wav",
            "speech",
            "1040",
            "sad",
            "ITH",
        ),  # a slip of the publisher
        ("1076_MTI_SAD_XX", "AudioWAV/1076_MTI_SAD_XX.wav", "silence", "1076", "sad", "MTI"),  # as published
        ("1091_WSI_HAP_XX", "AudioWAV/1091_WSI_HAP_XX.wav", "speech", "1091", "happy", "WSI"),
    ],
    "savee": [
        ("DC_a01", "AudioData/DC/a01.wav", "speech", "DC", "angry", "a01"),
        ("DC_su15", "AudioData/DC/su15.wav", "stereo", "DC", "surprised", "su15"),
        ("JE_sa09", "ALL/JE_sa09.wav", "speech", "JE", "sad", "sa09"),
        ("JK_d03", "ALL/JK_d03.wav", "speech", "JK", "disgusted", "d03"),
        ("JK_f03", "ALL/JK_f03.wav", "speech", "JK", "fearful", "f03"),
        ("KL_a01", "AudioData/KL/a01.wav", "speech", "KL", "angry", "a01"),
        ("KL_h02", "AudioData/KL/h02.wav", "stub", "KL", "happy", "h02"),
        ("KL_n30", "AudioData/KL/n30.wav", "silence", "KL", "neutral", "n30"),
    ],
    "tess": [
        ("OAF_back_angry", "OAF_angry/OAF_back_angry.wav", "speech", "OAF", "angry", "back"),
        ("OAF_back_disgust", "OAF_disgust/OAF_back_disgust.wav", "stub", "OAF", "disgusted", "back"),
        ("OAF_back_neutral", "OAF_neutral/OAF_back_neutral.wav", "silence", "OAF", "neutral", "back"),
        ("OAF_back_ps", "OAF_Pleasant_surprise/OAF_back_ps.wav", "speech", "OAF", "surprised", "back"),
        ("OAF_food_fear", "OAF_Fear/OAF_food_fear.wav", "stereo", "OAF", "fearful", "food"),
        (
            "OA_bite_neutral",
            "OAF_neutral/OA_bite_neutral.wav",
            "speech",
            "OAF",
            "neutral",
            "bite",
        ),  # a slip of the publisher
        ("YAF_back_happy", "YAF_happy/YAF_back_happy.wav", "speech", "YAF", "happy", "back"),
        ("YAF_youth_sad", "YAF_sad/YAF_youth_sad.wav", "speech", "YAF", "sad", "youth"),
    ],
}
# Paths at their side.
IGNORED = {
    "ravdess": [
        f"{SONG}/Actor_07/03-02-03-01-02-01-07.wav",
        f"{SPEECH}/Actor_07/03-01-09-01-01-01-07.wav",  # no such emotion
        f"{SPEECH}/Actor_25/03-01-01-01-01-01-25.wav",  # no such actor
        f"{SPEECH}/Actor_07/01-01-06-01-01-01-07.mp4",
    ],
    "emodb": [
        "wav/04a01Wa.wav",  # no such speaker
        "lablaut/03a01Wa.lablaut",
    ],
    "cremad": [
        "AudioMP3/1001_IEO_NEU_XX.mp3",
    ],
    "savee": [
        "ALL/JK_s03.wav",  # sadness or surprise? no such letter
        "ALL/a02.wav",  # of whom?
    ],
    "tess": [
        "YAF_happy/XAF_back_happy.wav",
    ],
}
NAMES = sorted(LISTED)


def planted(name: str, root: Path) -> Path:
    """The tree of a corpus, the last file first."""
    tree = {path: kind for _, path, kind, *_ in reversed(LISTED[name])}
    return plant(root, tree | dict.fromkeys(IGNORED[name], "speech"))


def expected(name: str, root: Path) -> list[Utterance]:
    """What must be read from the tree of a corpus."""
    return [Utterance(row[0], root / row[1], *row[3:5], text=row[5]) for row in LISTED[name]]


def read(name: str, root: Path) -> list[Utterance]:
    return module_of(name).read(root)


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_gives_exactly_its_utterances(tmp_path, name: str) -> None:
    root = planted(name, tmp_path / "a corpus")
    assert read(name, root) == expected(name, root)
    assert all(each.file.is_file() for each in expected(name, root))


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_whole(name: str) -> None:
    labels = set(module_of(name).LABELS.values())
    assert labels <= VOCABULARY
    assert set(getattr(module_of(name), "COMPLETE", {}).get("", {})) <= labels
    assert labels == {row[4] for row in LISTED[name]}, "the tree shows every label"
    assert {row[2] for row in LISTED[name]} == {"speech", "stereo", "silence", "stub"}


def test_counts_of_complete_copies() -> None:
    known = {name: module_of(name).COMPLETE[""] for name in ("ravdess", "emodb", "cremad")}
    four = {name: [counts[e] for e in ("angry", "happy", "neutral", "sad")] for name, counts in known.items()}
    assert four["ravdess"] == [192, 192, 96, 192]
    assert known["ravdess"]["calm"] == 192
    assert four["emodb"] == [127, 71, 79, 62]
    assert four["cremad"] == [1271, 1271, 1087, 1271]


@pytest.mark.parametrize("name", NAMES)
def test_root_too_high(tmp_path, name: str) -> None:
    root = planted(name, tmp_path / "corpora" / name)
    assert read(name, tmp_path / "corpora") == read(name, tmp_path) == expected(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_root_too_low_gives_what_is_there(tmp_path, name: str, monkeypatch) -> None:
    root = planted(name, tmp_path)
    folders = {
        folder for each in expected(name, root) for folder in each.file.parents if root in folder.parents
    }
    for folder in folders:
        there = [each for each in expected(name, root) if folder in each.file.parents]
        assert read(name, folder) == there
        monkeypatch.chdir(folder)
        assert [each.utterance for each in read(name, Path())] == [each.utterance for each in there]


@pytest.mark.parametrize("name", NAMES)
def test_copies_count_once_and_the_topmost_is_read(tmp_path, name: str) -> None:
    root = planted(name, tmp_path)
    for each in list(root.iterdir()):
        shutil.copytree(each, root / "again" / "and again" / each.name)
    assert read(name, root) == expected(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_different_files_of_one_name_are_refused(tmp_path, name: str) -> None:
    root = planted(name, tmp_path)
    path = next(path for _, path, kind, *_ in LISTED[name] if kind == "speech")
    other = plant(root / "repaired", {path: "stub"}) / path
    with pytest.raises(UserError, match="one name and different bytes") as caught:
        read(name, root)
    assert str(root / path) in str(caught.value)
    assert str(other) in str(caught.value)
    other.unlink()
    other.symlink_to(root / "not fetched yet")
    with pytest.raises(UserError, match="one name and different bytes"):
        read(name, root)


@pytest.mark.parametrize("name", [*NAMES, "esd"])
def test_errors_say_what_would_be_right(tmp_path, name: str) -> None:
    def refused(root: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            read(name, root)
        assert str(root) in str(caught.value)
        assert module_of(name).EXAMPLE in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nowhere", "does not exist: --root must be")
    refused(Path(__file__), "is no folder: --root must be")
    refused(tmp_path, "none of 0 .wav files")
    # The `._` twin of the recording is named as a sound, too.
    refused(plant(tmp_path, {"x/recording.wav": "speech", "x/notes.txt": b"a, b"}), "none of 2 .wav files")


@pytest.mark.parametrize("name", NAMES)
def test_links_that_lead_nowhere_are_listed(tmp_path, name: str) -> None:
    root = planted(name, tmp_path)
    for each in expected(name, root):
        each.file.unlink()
        each.file.symlink_to(root / "not fetched yet")
    assert read(name, root) == expected(name, root)
