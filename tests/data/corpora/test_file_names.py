"""The readers of corpora whose file names contain the labels, on small copies with real audio."""

import os
import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import plant, sounds

from data.corpora import READERS, emodb, savee
from data.corpora.utterance import Utterance
from data.emotions import FOUR
from data.folds import make_folds
from data.leaks import find_leaks
from tests.data.manifest_rows import Row
from utils import UserError

VOCABULARY = {*FOUR, "calm", "surprised", "fearful", "disgusted", "bored", "other"}
SPEECH, SONG = "Audio_Speech_Actors_01-24", "Audio_Song_Actors_01-24"

# Utterance, path, kind of file, speaker, emotion, text; sorted by utterance. The publisher misspelt
# 1040_ITH_SAD_X and OA_bite_neutral.
FILES = {
    "ravdess": """
        03-01-01-01-02-01-02  SPEECH/Actor_02/03-01-01-01-02-01-02.wav  speech   02  neutral    02
        03-01-02-01-01-02-02  SPEECH/Actor_02/03-01-02-01-01-02-02.wav  stereo   02  calm       01
        03-01-03-01-02-01-07  SPEECH/Actor_07/03-01-03-01-02-01-07.wav  speech   07  happy      02
        03-01-03-01-02-02-07  SPEECH/Actor_07/03-01-03-01-02-02-07.wav  speech   07  happy      02
        03-01-04-01-01-01-07  SPEECH/Actor_07/03-01-04-01-01-01-07.wav  stub     07  sad        01
        03-01-05-01-01-01-07  SPEECH/Actor_07/03-01-05-01-01-01-07.wav  silence  07  angry      01
        03-01-06-01-01-01-07  SPEECH/Actor_07/03-01-06-01-01-01-07.WAV  speech   07  fearful    01
        03-01-07-02-01-01-07  SPEECH/Actor_07/03-01-07-02-01-01-07.wav  speech   07  disgusted  01
        03-01-08-02-01-01-24  SPEECH/Actor_24/03-01-08-02-01-01-24.wav  speech   24  surprised  01
    """.replace("SPEECH", SPEECH),
    "emodb": """
        03a01Fa  wav/03a01Fa.wav  stereo   03  happy      a01
        03a01Nc  wav/03a01Nc.wav  silence  03  neutral    a01
        03a01Wa  wav/03a01Wa.wav  speech   03  angry      a01
        08a02La  wav/08a02La.wav  stub     08  bored      a02
        09b01Ea  wav/09b01Ea.wav  speech   09  disgusted  b01
        10b02Aa  wav/10b02Aa.wav  speech   10  fearful    b02
        16b10Td  wav/16b10Td.wav  speech   16  sad        b10
    """,
    "cremad": """
        1001_IEO_ANG_LO  AudioWAV/1001_IEO_ANG_LO.wav  stereo   1001  angry      IEO
        1001_IEO_DIS_MD  AudioWAV/1001_IEO_DIS_MD.wav  stub     1001  disgusted  IEO
        1001_IEO_FEA_HI  AudioWAV/1001_IEO_FEA_HI.wav  speech   1001  fearful    IEO
        1001_IEO_NEU_XX  AudioWAV/1001_IEO_NEU_XX.wav  speech   1001  neutral    IEO
        1040_ITH_SAD_XX  AudioWAV/1040_ITH_SAD_X.wav   speech   1040  sad        ITH
        1076_MTI_SAD_XX  AudioWAV/1076_MTI_SAD_XX.wav  silence  1076  sad        MTI
        1091_WSI_HAP_XX  AudioWAV/1091_WSI_HAP_XX.wav  speech   1091  happy      WSI
    """,
    "savee": """
        DC_a01   AudioData/DC/a01.wav   speech   DC  angry      n01
        DC_su15  AudioData/DC/su15.wav  stereo   DC  surprised  su15
        JE_sa09  ALL/JE_sa09.wav        speech   JE  sad        sa09
        JK_d03   ALL/JK_d03.wav         speech   JK  disgusted  n03
        JK_f03   ALL/JK_f03.wav         speech   JK  fearful    n03
        KL_a01   AudioData/KL/a01.wav   speech   KL  angry      n01
        KL_h02   AudioData/KL/h02.wav   stub     KL  happy      n02
        KL_n30   AudioData/KL/n30.wav   silence  KL  neutral    n30
    """,
    "tess": """
        OAF_back_angry    OAF_angry/OAF_back_angry.wav           speech   OAF  angry      back
        OAF_back_disgust  OAF_disgust/OAF_back_disgust.wav       stub     OAF  disgusted  back
        OAF_back_neutral  OAF_neutral/OAF_back_neutral.wav       silence  OAF  neutral    back
        OAF_back_ps       OAF_Pleasant_surprise/OAF_back_ps.wav  speech   OAF  surprised  back
        OAF_food_fear     OAF_Fear/OAF_food_fear.wav             stereo   OAF  fearful    food
        OA_bite_neutral   OAF_neutral/OA_bite_neutral.wav        speech   OAF  neutral    bite
        YAF_back_happy    YAF_happy/YAF_back_happy.wav           speech   YAF  happy      back
        YAF_youth_sad     YAF_sad/YAF_youth_sad.wav              speech   YAF  sad        youth
    """,
}
LISTED = {corpus: [line.split() for line in table.strip().splitlines()] for corpus, table in FILES.items()}
IGNORED = {
    "ravdess": [
        f"{SONG}/Actor_07/03-02-03-01-02-01-07.wav",
        f"{SPEECH}/Actor_07/03-01-09-01-01-01-07.wav",  # no such emotion
        f"{SPEECH}/Actor_25/03-01-01-01-01-01-25.wav",  # no such actor
        f"{SPEECH}/Actor_07/01-01-06-01-01-01-07.mp4",
    ],
    "emodb": ["wav/04a01Wa.wav", "lablaut/03a01Wa.lablaut"],  # no such speaker; not audio
    "cremad": ["VideoFlash/1001_IEO_NEU_XX.flv"],
    "savee": ["ALL/JK_s03.wav", "ALL/a02.wav"],  # no such emotion; no speaker
    "tess": ["YAF_happy/XAF_back_happy.wav"],
}
NAMES = sorted(LISTED)


def write_corpus(name: str, root: Path) -> Path:
    """Write the files of a corpus, the last one first."""
    tree = {path: kind for _, path, kind, *_ in reversed(LISTED[name])}
    return plant(root, tree | dict.fromkeys(IGNORED[name], "speech"))


MEN = {"ravdess": "07", "emodb": "03 10", "savee": "DC JE JK KL"}
WOMEN = {"ravdess": "02 24", "emodb": "08 09 16", "tess": "OAF YAF"}


def sex_of(corpus: str, speaker: str) -> str:
    """The sex of a speaker of FILES; of CREMA-D's, a table of its own would tell it."""
    if speaker in WOMEN.get(corpus, ""):
        return "female"
    return "male" if speaker in MEN.get(corpus, "") else ""


def expected(name: str, root: Path) -> list[Utterance]:
    return [
        Utterance(utterance, root / path, speaker, emotion, text=text, sex=sex_of(name, speaker))
        for utterance, path, _, speaker, emotion, text in LISTED[name]
    ]


def read(name: str, root: Path) -> list[Utterance]:
    return READERS[name].read(root)


@pytest.mark.parametrize("name", NAMES)
def test_all_utterances_are_listed_from_the_root_or_above(tmp_path: Path, name: str) -> None:
    root = write_corpus(name, tmp_path / "corpora" / f"a {name}")
    assert read(name, root) == expected(name, root)
    assert all(each.file.is_file() for each in expected(name, root))
    assert read(name, tmp_path / "corpora") == read(name, tmp_path) == expected(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_complete(name: str) -> None:
    labels = set(READERS[name].LABELS.values())
    assert labels <= VOCABULARY
    assert set(getattr(READERS[name], "COMPLETE_COUNTS", {}).get("", {})) <= labels
    assert labels == {row[4] for row in LISTED[name]}, "the test files have every label"
    assert {row[2] for row in LISTED[name]} == {"speech", "stereo", "silence", "stub"}


# ---------------------------------------------------------------- the texts of SAVEE


@pytest.fixture(scope="module")
def all_of_savee(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """All 480 utterances, from empty files: 15 sentences in each emotion, 30 neutral, 4 speakers."""
    root = tmp_path_factory.mktemp("savee")
    for speaker in ("DC", "JE", "JK", "KL"):
        (root / speaker).mkdir()
        for emotion in READERS["savee"].LABELS:
            for number in range(1, 31 if emotion == "n" else 16):
                (root / speaker / f"{emotion}{number:02d}.wav").touch()
    return read("savee", root)


def test_savee_has_87_texts_of_which_15_are_said_in_several_emotions(all_of_savee: list[Utterance]) -> None:
    labels: dict[str, set[str]] = {}
    for each in all_of_savee:
        labels.setdefault(each.text, set()).add(each.emotion)
    assert len(all_of_savee) == 480
    assert sorted(map(len, labels.values())) == [1] * 72 + [2] * 12 + [7] * 3
    texts = {each.utterance: each.text for each in all_of_savee}
    for names in ("a01 su01 n01 n16", "h03 sa03 n03 n18", "a04 n19", "a05 n20", "d04 n21", "f05 n24", "su04 n25",
                  "sa05 n28", "h04 n29", "h05 n30"):  # fmt: skip
        assert len({texts[f"KL_{name}"] for name in names.split()}) == 1
    assert all(texts[f"{speaker}_a06"] == texts["DC_a06"] for speaker in ("JE", "JK", "KL"))
    assert texts["DC_a06"] != texts["DC_d06"] != texts["DC_n06"]


# The guess is right for what only one emotion says, and for the neutral one of 3 texts, said twice. Of the 12 that
# an emotion shares with neutral, it takes the first by name: neutral comes before sad and surprised.
GUESSED = {
    "all": [12 / 15] * 4 + [10 / 15] * 2 + [(6 + 12 + 4) / 30],
    "four": [12 / 15] * 2 + [10 / 15] + [(6 + 12 + 8) / 30],
}


@pytest.mark.parametrize(("classes", "rights"), GUESSED.items())
def test_the_leak_check_of_savee_knows_which_texts_are_shared(
    all_of_savee, classes: str, rights: list[float]
) -> None:
    chosen = [each for each in all_of_savee if classes == "all" or each.emotion in FOUR]
    rows = [Row(each.utterance, each.speaker, each.emotion, text=each.text) for each in chosen]
    for fold in make_folds(rows, "speaker"):
        assert find_leaks(rows, fold).text_ua == pytest.approx(sum(rights) / len(rights))
    assert 0.75 < sum(rights) / len(rights) < 0.79


@pytest.mark.parametrize("level", ["X", "XX"])
def test_the_file_of_cremad_that_was_renamed_has_one_name(tmp_path: Path, level: str) -> None:
    plant(tmp_path, {f"AudioWAV/1040_ITH_SAD_{level}.wav": "speech"})
    assert [each.utterance for each in read("cremad", tmp_path)] == ["1040_ITH_SAD_XX"]


@pytest.mark.parametrize("name", NAMES)
def test_folder_below_the_root_gives_its_utterances(tmp_path: Path, name: str, monkeypatch) -> None:
    root = write_corpus(name, tmp_path)
    parents = {folder for each in expected(name, root) for folder in each.file.parents}
    for folder in (each for each in parents if root in each.parents):
        inside = [each for each in expected(name, root) if folder in each.file.parents]
        assert read(name, folder) == inside
        monkeypatch.chdir(folder)
        assert [each.utterance for each in read(name, Path())] == [each.utterance for each in inside]


@pytest.mark.parametrize("name", NAMES)
def test_topmost_of_identical_files_is_listed(tmp_path: Path, name: str) -> None:
    root = write_corpus(name, tmp_path)
    for each in list(root.iterdir()):
        shutil.copytree(each, root / "again" / "and again" / each.name)
    assert read(name, root) == expected(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_different_files_with_the_same_name_are_refused(tmp_path: Path, name: str) -> None:
    root = write_corpus(name, tmp_path)
    path = next(path for _, path, kind, *_ in LISTED[name] if kind == "speech")
    other = plant(root / "repaired", {path: "stub"}) / path
    with pytest.raises(UserError, match="the same name and different bytes") as caught:
        read(name, root)
    assert str(root / path) in str(caught.value)
    assert str(other) in str(caught.value)
    other.unlink()
    other.symlink_to(root / "missing")
    with pytest.raises(UserError, match="the same name and different bytes"):
        read(name, root)


def test_all_names_that_differ_are_counted(tmp_path: Path) -> None:
    names = [f"{speaker}a0{text}{label}a" for speaker in ("03", "08") for text in (1, 2) for label in "WTN"]
    for folder in ("one", "two"):
        plant(tmp_path, {f"{folder}/{name}.wav": f"{folder}/{name}".encode() for name in names})
    plant(tmp_path, {f"{folder}/16a01Wa.wav": "speech" for folder in ("one", "two")})
    with pytest.raises(UserError, match="; and 9 more pairs: they have the same name") as caught:
        emodb.read(tmp_path)
    for name in sorted(names)[:3]:
        assert f"{tmp_path}/one/{name}.wav and {tmp_path}/two/{name}.wav" in str(caught.value)
    assert str(caught.value).count("/two/") == 3


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3", ".FLAC", ".sph", ".opus"])
@pytest.mark.parametrize("name", NAMES)
def test_copies_in_other_formats_are_listed(tmp_path: Path, name: str, suffix: str, capsys) -> None:
    root = write_corpus(name, tmp_path)
    for each in expected(name, root):
        each.file.rename(each.file.with_suffix(suffix))
    want = [replace(each, file=each.file.with_suffix(suffix)) for each in expected(name, root)]
    assert read(name, root) == want
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", NAMES)
def test_of_two_formats_one_is_taken_and_a_note_says_so(tmp_path: Path, name: str, capsys) -> None:
    root = write_corpus(name, tmp_path)
    for folder, suffix in (("0", ".flac"), ("AudioMP3", ".mp3")):
        for each in expected(name, root):
            copy = (root / folder / each.file.relative_to(root)).with_suffix(suffix)
            plant(root, {str(copy): "speech"})
    assert read(name, root) == expected(name, root)
    count = len(expected(name, root))
    note = f"note: {count} recordings with copies in other formats, which are not read: .flac, .mp3\n"
    assert capsys.readouterr().err == note
    for each in expected(name, root):
        each.file.unlink()
    assert {each.file.suffix for each in read(name, root)} == {".flac"}
    assert "which are not read: .mp3" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".MP4"])
@pytest.mark.parametrize("name", NAMES)
def test_recordings_in_foreign_formats_are_named(tmp_path: Path, name: str, suffix: str, capsys) -> None:
    root = write_corpus(name, tmp_path)
    first, *others = expected(name, root)
    first.file.rename(first.file.with_suffix(suffix))
    assert read(name, root) == others
    told = capsys.readouterr().err
    assert told.startswith(
        f"note: passed over: 1 file in formats that cannot be read ({suffix.lower()}); convert"
    )
    assert f"ffmpeg -i {first.file.with_suffix(suffix)} {first.file}" in told
    for each in others:
        each.file.rename(each.file.with_suffix(suffix))
    with pytest.raises(UserError, match=r"can be read: \d files in formats .* ffmpeg -i"):
        read(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_linked_folders_are_read(tmp_path: Path, name: str) -> None:
    root = write_corpus(name, tmp_path / "published")
    linked = tmp_path / "linked"
    linked.mkdir()
    for folder in root.iterdir():
        (linked / folder.name).symlink_to(folder)
    (linked / "loop").symlink_to(linked)
    assert read(name, linked) == expected(name, linked)


def test_files_of_the_same_size_and_time_are_compared_by_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        file = tmp_path / folder / "03a01Wa.wav"
        file.parent.mkdir()
        file.write_text(folder)
        os.utime(file, (1, 1))
    with pytest.raises(UserError, match="the same name and different bytes"):
        emodb.read(tmp_path)


@pytest.mark.parametrize("name", [*NAMES, "esd"])
def test_errors_give_the_root_and_an_example(tmp_path: Path, name: str) -> None:
    def assert_refused(root: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            read(name, root)
        assert str(root) in str(caught.value)
        assert READERS[name].EXAMPLE in str(caught.value)
        assert "\n" not in str(caught.value)

    assert_refused(tmp_path / "nowhere", "does not exist: --root must be")
    assert_refused(Path(__file__), "is not a folder: --root must be")
    assert_refused(tmp_path, "none of 0 recordings")
    plant(tmp_path, {"x/recording.wav": "speech", "x/notes.txt": b"a, b"})
    assert_refused(tmp_path, "none of 1 recordings")  # without its `._` file


@pytest.mark.parametrize("name", NAMES)
def test_broken_links_are_listed(tmp_path: Path, name: str) -> None:
    root = write_corpus(name, tmp_path)
    for each in expected(name, root):
        each.file.unlink()
        each.file.symlink_to(root / "missing")
    assert read(name, root) == expected(name, root)


def test_unreadable_folder_is_an_error(tmp_path: Path, monkeypatch) -> None:
    plant(tmp_path, {"wav/03a01Wa.wav": "speech", "locked/03a01Fa.wav": "speech"})
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="locked cannot be read: Permission denied"):
        emodb.read(tmp_path)


def test_order_of_files_on_disk_has_no_effect(tmp_path: Path, monkeypatch) -> None:
    """Of identical files in two folders, the first by name is listed."""
    names = "03a01Fa", "03a01Nc", "08a02La", "16b10Td"
    plant(tmp_path, {f"{folder}/{name}.wav": "speech" for folder in ("one", "two") for name in names})
    scan = os.scandir
    for order in (1, -1):
        entries = lambda folder, order=order: nullcontext(sorted(scan(folder), key=str)[::order])  # noqa: E731
        monkeypatch.setattr(os, "scandir", entries)
        assert [each.utterance for each in emodb.read(tmp_path)] == list(names)
        assert {each.file.parent.name for each in emodb.read(tmp_path)} == {"one"}


def two_digits(lowest: int, highest: int) -> st.SearchStrategy[str]:
    return st.integers(lowest, highest).map("{:02d}".format)


@st.composite
def named_files(draw) -> tuple[str, str, str, str, str]:
    """A corpus, a valid file name, and the speaker, emotion and text in it."""
    corpus = draw(st.sampled_from(NAMES))
    labels = READERS[corpus].LABELS
    label = draw(st.sampled_from(sorted(labels)))
    match corpus:
        case "ravdess":
            speaker, text = draw(two_digits(1, 24)), draw(two_digits(1, 2))
            name = f"03-01-{label}-{draw(two_digits(1, 2))}-{text}-{draw(two_digits(1, 2))}-{speaker}"
        case "emodb":
            speaker, text = (
                draw(st.sampled_from(["03", "08", "09", "10", "16"])),
                f"a{draw(two_digits(1, 7))}",
            )
            name = f"{speaker}{text}{label}{draw(st.sampled_from('abcdef'))}"
        case "cremad":
            speaker, text = str(draw(st.integers(1001, 1091))), draw(st.sampled_from(["IEO", "TIE", "IOM"]))
            name = f"{speaker}_{text}_{label}_{draw(st.sampled_from(['LO', 'MD', 'HI', 'XX']))}"
        case "savee":
            speaker, text = (
                draw(st.sampled_from(["DC", "JE", "JK", "KL"])),
                f"{label}{draw(two_digits(1, 30))}",
            )
            name = f"{speaker}_{text}"
        case "tess":
            speaker, text = (
                draw(st.sampled_from(["OAF", "YAF"])),
                draw(st.sampled_from(["back", "fear", "ps"])),
            )
            name = f"{speaker}_{text}_{label}"
    return corpus, name, speaker, labels[label], text


INVALID = ["x{}.wav", "0{}.wav", "._{}.wav"]
INVALID += ["{}x.wav", "{}0.wav", "{}.x.wav", "{} (1).wav", "{}.wav.part", "{}.txt"]


@given(named_files(), st.sampled_from(INVALID))
@settings(max_examples=150)
def test_valid_names_are_read_and_invalid_ones_ignored(
    named: tuple[str, str, str, str, str], invalid: str
) -> None:
    corpus, name, speaker, emotion, text = named
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, invalid.format(name)).write_bytes(sounds()["speech"])
        with pytest.raises(UserError, match="has a name like"):
            read(corpus, Path(folder))
        file = Path(folder, f"{name}.wav")
        file.write_bytes(sounds()["speech"])
        text = savee.SAME_TEXT.get(text, text) if corpus == "savee" else text
        (found,) = read(corpus, Path(folder))
        assert replace(found, sex="") == Utterance(name, file, speaker, emotion, text=text)


MEN_OF_EMODB = {"03", "10", "11", "12", "15"}


def test_sex_of_the_speakers_is_the_published_one(tmp_path: Path) -> None:
    """Five of the ten speakers of EMO-DB are men, and the 12 actors of RAVDESS with an odd number."""
    for speaker in ("03", "08", "09", *map(str, range(10, 17))):
        plant(tmp_path / "emodb", {f"wav/{speaker}a01Wa.wav": "stub"})
    for actor in range(1, 25):
        plant(tmp_path / "ravdess", {f"Actor_{actor:02d}/03-01-05-01-01-01-{actor:02d}.wav": "stub"})
    emodb = {each.speaker: each.sex for each in read("emodb", tmp_path / "emodb")}
    assert emodb == {speaker: "male" if speaker in MEN_OF_EMODB else "female" for speaker in emodb}
    ravdess = [each.sex for each in read("ravdess", tmp_path / "ravdess")]
    assert ravdess == ["male", "female"] * 12


@pytest.mark.parametrize("root", [".", "AudioWAV"])
def test_sex_of_cremad_comes_from_the_table_of_its_actors(tmp_path: Path, root: str) -> None:
    plant(tmp_path, {f"AudioWAV/{actor}_IEO_NEU_XX.wav": "stub" for actor in (1001, 1002, 1003)})
    assert {each.sex for each in read("cremad", tmp_path / root)} == {""}
    table = b"ActorID,Age,Sex,Race,Ethnicity\n1001,30,Male,x,y\n1002,30,Female,x,y\n"
    plant(tmp_path, {"VideoDemographics.csv": table})
    assert [each.sex for each in read("cremad", tmp_path / root)] == ["male", "female", ""]
