"""Readers of corpora that tell everything by the names of their files, on small trees of real sound."""

import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpora.utterance import Utterance
from data.demo import Espeak
from utils import UserError

VOCABULARY = {"angry", "happy", "neutral", "sad", "calm", "surprised", "fearful", "disgusted", "bored", "other"}
STUB = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0123456789abcdef' * 4}\nsize 72188\n"


@dataclass(frozen=True)
class Corpus:
    """A tree (path -> kind of file), and what must be read from it: utterance, path, speaker, emotion, text."""

    tree: dict[str, str]
    rows: list[tuple[str, str, str, str, str]]


SPEECH, SONG = "Audio_Speech_Actors_01-24", "Audio_Song_Actors_01-24"
CORPORA = {
    "ravdess": Corpus(
        {
            f"{SPEECH}/Actor_02/03-01-02-01-01-02-02.wav": "stereo",
            f"{SPEECH}/Actor_02/03-01-01-01-02-01-02.wav": "speech",
            f"{SPEECH}/Actor_02/._03-01-01-01-02-01-02.wav": "attributes",
            f"{SPEECH}/Actor_24/03-01-08-02-01-01-24.wav": "speech",
            f"{SPEECH}/Actor_07/03-01-03-01-02-01-07.wav": "speech",
            f"{SPEECH}/Actor_07/03-01-03-01-02-02-07.wav": "speech",  # the same bytes under another name
            f"{SPEECH}/Actor_07/03-01-04-01-01-01-07.wav": "stub",
            f"{SPEECH}/Actor_07/03-01-05-01-01-01-07.wav": "silence",
            f"{SPEECH}/Actor_07/03-01-06-01-01-01-07.WAV": "speech",
            f"{SPEECH}/Actor_07/03-01-07-02-01-01-07.wav": "speech",
            f"{SONG}/Actor_07/03-02-03-01-02-01-07.wav": "speech",
            f"{SPEECH}/Actor_07/03-01-09-01-01-01-07.wav": "speech",  # no such emotion
            f"{SPEECH}/Actor_25/03-01-01-01-01-01-25.wav": "speech",  # no such actor
            f"{SPEECH}/Actor_07/01-01-06-01-01-01-07.mp4": "speech",
        },
        [
            ("03-01-01-01-02-01-02", f"{SPEECH}/Actor_02/03-01-01-01-02-01-02.wav", "02", "neutral", "02"),
            ("03-01-02-01-01-02-02", f"{SPEECH}/Actor_02/03-01-02-01-01-02-02.wav", "02", "calm", "01"),
            ("03-01-03-01-02-01-07", f"{SPEECH}/Actor_07/03-01-03-01-02-01-07.wav", "07", "happy", "02"),
            ("03-01-03-01-02-02-07", f"{SPEECH}/Actor_07/03-01-03-01-02-02-07.wav", "07", "happy", "02"),
            ("03-01-04-01-01-01-07", f"{SPEECH}/Actor_07/03-01-04-01-01-01-07.wav", "07", "sad", "01"),
            ("03-01-05-01-01-01-07", f"{SPEECH}/Actor_07/03-01-05-01-01-01-07.wav", "07", "angry", "01"),
            ("03-01-06-01-01-01-07", f"{SPEECH}/Actor_07/03-01-06-01-01-01-07.WAV", "07", "fearful", "01"),
            ("03-01-07-02-01-01-07", f"{SPEECH}/Actor_07/03-01-07-02-01-01-07.wav", "07", "disgusted", "01"),
            ("03-01-08-02-01-01-24", f"{SPEECH}/Actor_24/03-01-08-02-01-01-24.wav", "24", "surprised", "01"),
        ],
    ),
    "emodb": Corpus(
        {
            "wav/16b10Td.wav": "speech",
            "wav/03a01Wa.wav": "speech",
            "wav/03a01Fa.wav": "stereo",
            "wav/03a01Nc.wav": "silence",
            "wav/08a02La.wav": "stub",
            "wav/09b01Ea.wav": "speech",
            "wav/10b02Aa.wav": "speech",
            "wav/._16b10Td.wav": "attributes",
            "wav/04a01Wa.wav": "speech",  # no such speaker
            "lablaut/03a01Wa.lablaut": "stub",
        },
        [
            ("03a01Fa", "wav/03a01Fa.wav", "03", "happy", "a01"),
            ("03a01Nc", "wav/03a01Nc.wav", "03", "neutral", "a01"),
            ("03a01Wa", "wav/03a01Wa.wav", "03", "angry", "a01"),
            ("08a02La", "wav/08a02La.wav", "08", "bored", "a02"),
            ("09b01Ea", "wav/09b01Ea.wav", "09", "disgusted", "b01"),
            ("10b02Aa", "wav/10b02Aa.wav", "10", "fearful", "b02"),
            ("16b10Td", "wav/16b10Td.wav", "16", "sad", "b10"),
        ],
    ),
    "cremad": Corpus(
        {
            "AudioWAV/1091_WSI_HAP_XX.wav": "speech",
            "AudioWAV/1001_IEO_NEU_XX.wav": "speech",
            "AudioWAV/1001_IEO_ANG_LO.wav": "stereo",
            "AudioWAV/1001_IEO_DIS_MD.wav": "stub",
            "AudioWAV/1001_IEO_FEA_HI.wav": "speech",
            "AudioWAV/1040_ITH_SAD_X.wav": "speech",  # a slip of the publisher
            "AudioWAV/1076_MTI_SAD_XX.wav": "silence",
            "AudioWAV/._1001_IEO_NEU_XX.wav": "attributes",
            "AudioMP3/1001_IEO_NEU_XX.mp3": "stub",
        },
        [
            ("1001_IEO_ANG_LO", "AudioWAV/1001_IEO_ANG_LO.wav", "1001", "angry", "IEO"),
            ("1001_IEO_DIS_MD", "AudioWAV/1001_IEO_DIS_MD.wav", "1001", "disgusted", "IEO"),
            ("1001_IEO_FEA_HI", "AudioWAV/1001_IEO_FEA_HI.wav", "1001", "fearful", "IEO"),
            ("1001_IEO_NEU_XX", "AudioWAV/1001_IEO_NEU_XX.wav", "1001", "neutral", "IEO"),
            ("1040_ITH_SAD_X", "AudioWAV/1040_ITH_SAD_X.wav", "1040", "sad", "ITH"),
            ("1076_MTI_SAD_XX", "AudioWAV/1076_MTI_SAD_XX.wav", "1076", "sad", "MTI"),
            ("1091_WSI_HAP_XX", "AudioWAV/1091_WSI_HAP_XX.wav", "1091", "happy", "WSI"),
        ],
    ),
    "savee": Corpus(
        {
            "AudioData/DC/a01.wav": "speech",
            "AudioData/DC/su15.wav": "stereo",
            "AudioData/DC/._a01.wav": "attributes",
            "AudioData/KL/a01.wav": "speech",
            "AudioData/KL/n30.wav": "silence",
            "AudioData/KL/h02.wav": "stub",
            "ALL/JE_sa09.wav": "speech",
            "ALL/JK_f03.wav": "speech",
            "ALL/JK_d03.wav": "speech",
            "ALL/JK_s03.wav": "speech",  # sadness or surprise? no such letter
            "ALL/a02.wav": "speech",  # of whom?
        },
        [
            ("DC_a01", "AudioData/DC/a01.wav", "DC", "angry", "a01"),
            ("DC_su15", "AudioData/DC/su15.wav", "DC", "surprised", "su15"),
            ("JE_sa09", "ALL/JE_sa09.wav", "JE", "sad", "sa09"),
            ("JK_d03", "ALL/JK_d03.wav", "JK", "disgusted", "d03"),
            ("JK_f03", "ALL/JK_f03.wav", "JK", "fearful", "f03"),
            ("KL_a01", "AudioData/KL/a01.wav", "KL", "angry", "a01"),
            ("KL_h02", "AudioData/KL/h02.wav", "KL", "happy", "h02"),
            ("KL_n30", "AudioData/KL/n30.wav", "KL", "neutral", "n30"),
        ],
    ),
    "tess": Corpus(
        {
            "YAF_sad/YAF_youth_sad.wav": "speech",
            "OAF_angry/OAF_back_angry.wav": "speech",
            "OAF_angry/._OAF_back_angry.wav": "attributes",
            "OAF_Fear/OAF_food_fear.wav": "stereo",
            "OAF_neutral/OA_bite_neutral.wav": "speech",
            "OAF_neutral/OAF_back_neutral.wav": "silence",
            "OAF_disgust/OAF_back_disgust.wav": "stub",
            "OAF_Pleasant_surprise/OAF_back_ps.wav": "speech",
            "YAF_happy/YAF_back_happy.wav": "speech",
            "YAF_happy/XAF_back_happy.wav": "speech",
        },
        [
            ("OAF_back_angry", "OAF_angry/OAF_back_angry.wav", "OAF", "angry", "back"),
            ("OAF_back_disgust", "OAF_disgust/OAF_back_disgust.wav", "OAF", "disgusted", "back"),
            ("OAF_back_neutral", "OAF_neutral/OAF_back_neutral.wav", "OAF", "neutral", "back"),
            ("OAF_back_ps", "OAF_Pleasant_surprise/OAF_back_ps.wav", "OAF", "surprised", "back"),
            ("OAF_food_fear", "OAF_Fear/OAF_food_fear.wav", "OAF", "fearful", "food"),
            ("OA_bite_neutral", "OAF_neutral/OA_bite_neutral.wav", "OAF", "neutral", "bite"),
            ("YAF_back_happy", "YAF_happy/YAF_back_happy.wav", "YAF", "happy", "back"),
            ("YAF_youth_sad", "YAF_sad/YAF_youth_sad.wav", "YAF", "sad", "youth"),
        ],
    ),
}
NAMES = sorted(CORPORA)


def reader(name: str):
    """The module of a corpus."""
    return import_module(f"data.corpora.{name}")


@pytest.fixture(scope="session")
def sounds(tmp_path_factory) -> dict[str, Path]:
    """One file of each kind that a tree may hold."""
    folder = tmp_path_factory.mktemp("sounds")
    with closing(Espeak()) as espeak:
        said, rate = espeak.speak("The lamp over the table is on.", "en-us", seed=1), espeak.sample_rate
    soundfile.write(folder / "speech.wav", said, rate, subtype="PCM_16")
    soundfile.write(folder / "stereo.wav", np.stack([said, 0.5 * said], axis=1), 48_000, subtype="PCM_16")
    soundfile.write(folder / "silence.wav", np.zeros(8000), 16_000, subtype="PCM_16")
    (folder / "stub.wav").write_text(STUB)
    (folder / "attributes.wav").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    assert (folder / "stub.wav").stat().st_size == 130
    return {file.stem: file for file in folder.iterdir()}


def plant(root: Path, tree: dict[str, str], sounds: dict[str, Path]) -> Path:
    """Make a tree of files at `root`, linked to `sounds`."""
    for path, kind in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(sounds[kind], root / path)
    return root


def expected(name: str, root: Path) -> list[Utterance]:
    """What must be read from the tree of a corpus."""
    return [Utterance(*row[:1], root / row[1], *row[2:4], text=row[4]) for row in CORPORA[name].rows]


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_gives_exactly_its_utterances(tmp_path, sounds, name: str) -> None:
    root = plant(tmp_path / "a corpus", CORPORA[name].tree, sounds)
    assert reader(name).read(root) == expected(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_those_meant(tmp_path, sounds, name: str) -> None:
    utterances = reader(name).read(plant(tmp_path, CORPORA[name].tree, sounds))
    kinds = [next(kind for kind in sounds if os.path.samefile(each.file, sounds[kind])) for each in utterances]
    assert set(kinds) == {"speech", "stereo", "silence", "stub"}
    rates = {
        soundfile.info(each.file).samplerate for each, kind in zip(utterances, kinds, strict=True) if kind != "stub"
    }
    assert 48_000 in rates


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_whole(name: str) -> None:
    module = reader(name)
    assert set(module.LABELS.values()) <= VOCABULARY
    assert set(getattr(module, "COMPLETE", {}).get("", {})) <= set(module.LABELS.values())
    assert set(module.LABELS.values()) == {row[3] for row in CORPORA[name].rows}, "the tree shows every label"


def test_counts_of_complete_copies() -> None:
    known = {name: reader(name).COMPLETE[""] for name in ("ravdess", "emodb", "cremad")}
    four = {name: [counts[e] for e in ("angry", "happy", "neutral", "sad")] for name, counts in known.items()}
    assert four["ravdess"] == [192, 192, 96, 192]
    assert known["ravdess"]["calm"] == 192
    assert four["emodb"] == [127, 71, 79, 62]
    assert four["cremad"] == [1271, 1271, 1087, 1271]


@pytest.mark.parametrize("name", NAMES)
def test_root_a_level_too_high(tmp_path, sounds, name: str) -> None:
    root = plant(tmp_path / "corpora" / name, CORPORA[name].tree, sounds)
    assert reader(name).read(tmp_path) == expected(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_root_a_level_too_low_gives_what_is_there(tmp_path, sounds, name: str, monkeypatch) -> None:
    root = plant(tmp_path, CORPORA[name].tree, sounds)
    first = expected(name, root)[0].file.parent
    here = [each for each in expected(name, root) if first in each.file.parents]
    assert reader(name).read(first) == here
    monkeypatch.chdir(first)
    assert [each.utterance for each in reader(name).read(Path())] == [each.utterance for each in here]


@pytest.mark.parametrize("name", NAMES)
def test_copies_count_once_and_the_topmost_is_read(tmp_path, sounds, name: str) -> None:
    root = plant(tmp_path, CORPORA[name].tree, sounds)
    for each in list(root.iterdir()):
        shutil.copytree(each, root / "again" / "and again" / each.name)
    assert reader(name).read(root) == expected(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_different_files_of_one_name_are_refused(tmp_path, sounds, name: str) -> None:
    root = plant(tmp_path, CORPORA[name].tree, sounds)
    file = next(each.file for each in expected(name, root) if os.path.samefile(each.file, sounds["speech"]))
    other = root / "repaired" / file.relative_to(root)
    other.parent.mkdir(parents=True)
    shutil.copy(sounds["stub"], other)
    with pytest.raises(UserError, match="one name and different bytes") as caught:
        reader(name).read(root)
    assert str(file) in str(caught.value)
    assert str(other) in str(caught.value)
    other.unlink()
    other.symlink_to(root / "not fetched yet")
    with pytest.raises(UserError, match="one name and different bytes"):
        reader(name).read(root)


def test_files_are_compared_by_their_bytes(tmp_path) -> None:
    for folder in ("one", "two"):
        file = tmp_path / folder / "03a01Wa.wav"
        file.parent.mkdir()
        file.write_text(folder)
        os.utime(file, (1, 1))
    with pytest.raises(UserError, match="one name and different bytes"):
        reader("emodb").read(tmp_path)


@pytest.mark.parametrize("name", [*NAMES, "esd"])
def test_errors_say_what_would_be_right(tmp_path, sounds, name: str) -> None:
    module = reader(name)

    def refused(root: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            module.read(root)
        assert str(root) in str(caught.value)
        assert module.EXAMPLE in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nowhere", "does not exist: --root must be")
    refused(sounds["speech"], "is no folder: --root must be")
    refused(tmp_path, "none of 0 .wav files")
    refused(plant(tmp_path, {"x/recording.wav": "speech", "x/notes.txt": "stub"}, sounds), "none of 1 .wav files")


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, sounds, monkeypatch) -> None:
    root = plant(tmp_path, CORPORA["emodb"].tree, sounds)
    (root / "locked").mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="locked cannot be read: Permission denied"):
        reader("emodb").read(root)


@pytest.mark.parametrize("name", NAMES)
def test_links_that_lead_nowhere_are_listed(tmp_path, sounds, name: str) -> None:
    root = plant(tmp_path, CORPORA[name].tree, sounds)
    for each in expected(name, root):
        each.file.unlink()
        each.file.symlink_to(root / "not fetched yet")
    assert reader(name).read(root) == expected(name, root)


def digits(lowest: int, highest: int) -> st.SearchStrategy[str]:
    """Numbers with a leading zero."""
    return st.integers(lowest, highest).map("{:02d}".format)


EMODB = {"W": "angry", "L": "bored", "E": "disgusted", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral"}
SAVEE = {"a": "angry", "d": "disgusted", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprised"}
CREMAD = {"ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
TESS = {"angry": "angry", "disgust": "disgusted", "fear": "fearful", "ps": "surprised", "sad": "sad"}
RAVDESS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised"]


@st.composite
def named(draw) -> tuple[str, str, str, str, str]:
    """A corpus, a valid name and the speaker, emotion and text that it tells."""
    name = draw(st.sampled_from(NAMES))
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


SPOILERS = ["x{}.wav", "{}x.wav", "._{}.wav", "{}.mp3", "{}.wav.part", "{} (1).wav", "0{}.wav", "{}0.wav", "{}.x.wav"]


@given(named(), st.sampled_from(SPOILERS))
@settings(max_examples=150, deadline=None)
def test_names_tell_all_and_spoilt_ones_nothing(sounds, name: tuple[str, str, str, str, str], spoiler: str) -> None:
    corpus, stem, speaker, emotion, text = name
    with tempfile.TemporaryDirectory() as folder:
        file, spoilt = Path(folder, f"{stem}.wav"), Path(folder, spoiler.format(stem))
        shutil.copy(sounds["speech"], spoilt)
        with pytest.raises(UserError, match="has a name like"):
            reader(corpus).read(Path(folder))
        shutil.copy(sounds["speech"], file)
        assert reader(corpus).read(Path(folder)) == [Utterance(stem, file, speaker, emotion, text=text)]
