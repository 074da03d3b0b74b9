"""The CSV of a user's own corpus: accepted forms, names, parts of files, errors, and the choice of a reader."""

import codecs
import unicodedata
from pathlib import Path

import pytest

from data.corpora import READERS, Utterance, read_corpus
from data.corpora.manifest import segments_of
from data.segments import Segment
from utils import UserError


def write(folder: Path, text: str) -> Path:
    (folder / "my.csv").write_text(text, encoding="utf-8")
    return folder / "my.csv"


def test_all_columns_are_read(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        "session,file,speaker,emotion,split,age,text,sex\n"
        '1,wav/a.1.wav,Al,sad,train,33,"Well, yes.",female\n'
        ",/x/b.flac,Bo,glad,,,improvised party ,\n"
        "2,c.wav,Bo,glad,,,,M\n",
    )
    a, c = tmp_path / "wav/a.1.wav", tmp_path / "c.wav"
    assert read_corpus("manifest", root) == [
        Utterance("wav/a.1", a, "Al", "sad", session="1", split="train", text="Well, yes.", sex="female"),
        Utterance("/x/b", Path("/x/b.flac"), "Bo", "glad", text="improvised party"),
        Utterance("c", c, "Bo", "glad", session="2", sex="male"),
    ]


SEXES = {
    "female": "female Female F f w woman weiblich",
    "male": "male MALE M m man",
    "": "x other unknown ? nan",
}


@pytest.mark.parametrize("column", ["sex", "gender"])
@pytest.mark.parametrize("sex", SEXES)
def test_sex_is_read_in_any_common_spelling(tmp_path: Path, column: str, sex: str) -> None:
    spellings = SEXES[sex].split()
    rows = "".join(f"{n}.wav,S,sad, {spelling} \n" for n, spelling in enumerate(spellings))
    root = write(tmp_path, f"file,speaker,emotion,{column}\n{rows}")
    assert [each.sex for each in read_corpus("manifest", root)] == [sex] * len(spellings)


def test_csv_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    root = write(tmp_path, '\ufefffile, speaker ,emotion\r\n"a, b.wav", Zoë ,sad\r\n\r\n')
    assert read_corpus("manifest", root) == [Utterance("a, b", tmp_path / "a, b.wav", "Zoë", "sad")]


HEADER = "file,speaker,emotion\n"
TIMED = "file,speaker,emotion,start,end\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: column 'file' is missing"),
        ("file,emotion\na.wav,sad\n", "line 1: column 'speaker' is missing, found: file,emotion"),
        ("file:speaker:emotion\na:b:c\n", "line 1: column 'file' is missing"),
        ("filename,speaker,emotion\n", "column 'file' is missing, found: .*; rename 'filename'"),
        ("path;speaker;emotion\n", "column 'file' is missing, found: path,speaker,emotion; rename 'path'"),
        ("file,speaker,label,note\n", "column 'emotion' is missing, found: .*; rename 'label'"),
        ("file,speaker,emotion,File\n", "column 'file' is there twice"),
        (HEADER + "a.wav,Ann,sad\n,Ann,sad\n", "line 3: file is empty"),
        (HEADER + "a,b.wav,Ann,sad\n", "line 2: more values than columns; .* must be quoted"),
        (HEADER + 'a.wav,Ann,sad\nb.wav,"Ann,sad\nc.wav,Ann,sad\n', "unexpected end of data"),
        (TIMED + "a.wav,A,sad,0,1\n\na.wav,A,sad,0.0,00:00:01\n", "line 4: a.wav is already .*line 2"),
        (TIMED + "a.wav,A,sad,one,2\n", "line 2: 'one' is not a time"),
        (TIMED + "a.wav,A,sad,-1,2\n", "line 2: '-1' is not a time"),
        (TIMED + "a.wav,A,sad,2,1\n", "line 2: the end, 1, is not after the start"),
        (HEADER + "a.wav,A,sad\nb.wav,A,sad\n./a.wav,A,sad\n", "line 4: ./a.wav is already .*line 2"),
        (HEADER + "a.wav,A,sad\na.flac,A,sad\n", "line 3: a.flac is already .*suffix. on line 2"),
        (HEADER, "no utterance"),
    ],
)
def test_errors_give_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    root = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read_corpus("manifest", root)
    assert str(root) in str(caught.value)


def test_folder_and_binary_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no manifest at"):
        read_corpus("manifest", tmp_path)
    (tmp_path / "my.csv").write_bytes(b"file,speaker,emotion\nM\xfcnchen.wav,A,sad\n")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        read_corpus("manifest", tmp_path / "my.csv")


def test_unknown_corpus_error_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown corpus 'iemocop'") as caught:
        read_corpus("iemocop", tmp_path)
    assert all(name in str(caught.value) for name in READERS)


# ---------------------------------------------------------------- forms

LINES = [
    "FILE,Speaker, emotion ,SESSION,Split,Text",
    "wav/ä.wav,Zoë,sad,1,train,yes",
    "b.wav,Bo,glad,2,test,no",
]


def as_bytes(separator: str = ",", end: str = "\n", encoding: str = "utf-8", head: str = "") -> bytes:
    return (head + end.join(line.replace(",", separator) for line in [*LINES, ""])).encode(encoding)


FORMS = {
    "semicolons": as_bytes(";"),
    "tabs": as_bytes("\t"),
    "bars": as_bytes("|"),
    "a byte order mark": as_bytes(encoding="utf-8-sig"),
    "UTF-16": as_bytes("\t", encoding="utf-16"),
    "UTF-16, high byte first": codecs.BOM_UTF16_BE + as_bytes(";", encoding="utf-16-be"),
    "UTF-16 without a mark": as_bytes(encoding="utf-16-le"),
    "Windows": as_bytes(";", end="\r\n"),
    "an old Mac": as_bytes(end="\r"),
    "Excel": as_bytes(";", end="\r\n", head="sep=;\r\n", encoding="utf-8-sig"),
    "empty lines and columns": as_bytes(head="\n\n").replace(b"\n", b",,\n") + b",,,,,,,\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_csv_files_of_spreadsheets_and_programs_are_read(tmp_path: Path, form: str, capsys) -> None:
    (tmp_path / "my.csv").write_bytes(FORMS[form])
    assert read_corpus("manifest", tmp_path / "my.csv") == [
        Utterance("wav/ä", tmp_path / "wav/ä.wav", "Zoë", "sad", session="1", split="train", text="yes"),
        Utterance("b", tmp_path / "b.wav", "Bo", "glad", session="2", split="test", text="no"),
    ]
    assert capsys.readouterr().err == ""


def test_the_header_alone_tells_the_separator(tmp_path: Path) -> None:
    root = write(tmp_path, "file,speaker,emotion,text\na;b.wav,A;x,sad,one; two; three|four\tfive\n")
    [utterance] = read_corpus("manifest", root)
    assert (utterance.utterance, utterance.speaker) == ("a;b", "A;x")
    (tmp_path / "one.csv").write_text("file\na;b.wav\nc|d.wav\n")
    assert [part.file.name for part in segments_of(tmp_path / "one.csv")] == ["a;b.wav", "c|d.wav"]


def test_columns_that_are_not_used_are_listed(tmp_path: Path, capsys) -> None:
    root = write(tmp_path, ",file,speaker,emotion,Age,session_id,transcript\n0,a.wav,A,sad,3,1,yes\n")
    read_corpus("manifest", root)
    session, text = "session_id (rename it if it is the session)", "transcript (rename it if it is the text)"
    expected = f"note: {root}: columns that are not used: Age, {session}, {text}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("listed", ["wav\\\\J\u00fcrgen.wav", ".\\wav/J\u0075\u0308rgen.wav"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_files_are_found_with_backslashes_and_in_another_unicode_form(
    tmp_path: Path, listed: str, form: str
) -> None:
    file = tmp_path / "wav" / unicodedata.normalize(form, "J\u00fcrgen.wav")
    file.parent.mkdir()
    file.touch()
    [utterance] = read_corpus("manifest", write(tmp_path, f"{HEADER}{listed},A,sad\n"))
    assert utterance.file.exists()
    assert utterance.file.samefile(file)
    assert "\\" not in utterance.utterance


# ---------------------------------------------------------------- names


def spoken(speakers: list[str], emotions: list[str] | None = None) -> str:
    emotions = emotions or ["sad"] * len(speakers)
    rows = zip(speakers, emotions, strict=True)
    return HEADER + "".join(f'{n}.wav,"{speaker}","{emotion}"\n' for n, (speaker, emotion) in enumerate(rows))


ONE_PERSON = [
    ["F01", "f01", "F01"],
    ["1", "01", "1.0"],
    ["J\u00fcrgen", "Ju\u0308rgen", "J\u00dcRGEN"],
    ["Ann", "Ann ", "Ann\u200b"],
    ["Ann Lee", "ANN  LEE", "ann\u00a0lee"],
    ["S3", "s03", "\uff33\uff13"],
]


@pytest.mark.parametrize("names", ONE_PERSON)
def test_spellings_of_one_speaker_are_one_with_a_note(tmp_path: Path, names: list[str], capsys) -> None:
    root = write(tmp_path, spoken([*names, names[0], "someone else"]))
    speakers = [each.speaker for each in read_corpus("manifest", root)]
    assert speakers == [unicodedata.normalize("NFC", names[0])] * 4 + ["someone else"]
    noted = capsys.readouterr().err
    assert noted.startswith("note: speakers that differ only in spelling are taken for one: ")
    assert noted.count("\n") == 1
    kinds = [name.strip() for name in dict.fromkeys(names)]
    assert all(repr(name) in noted or ascii(name) in noted for name in kinds)


NOBODY = [
    "nan",
    "NaN",
    "None",
    "NA",
    "N/A",
    "<NA>",
    "#N/A",
    "n.a.",
    "null",
    "?",
    "??",
    "-",
    "--",
    "",
    " ",
    "unknown",
]


def test_speakers_without_a_name_are_unknown(tmp_path: Path, capsys) -> None:
    utterances = read_corpus("manifest", write(tmp_path, spoken([*NOBODY, "Ann"])))
    assert [each.speaker for each in utterances] == ["Unknown"] * len(NOBODY) + ["Ann"]
    assert f"the speaker of {len(NOBODY)} utterances is not known ('nan', 'NaN', " in capsys.readouterr().err


def test_sessions_texts_and_splits_have_one_spelling_too(tmp_path: Path) -> None:
    text = "file,speaker,emotion,session,split,text\n"
    text += 'a.wav,A,sad,1,Train,"Well, yes."\nb.wav,B,sad,01,TRAIN,"well, YES."\nc.wav,C,sad,nan,?,None\n'
    one, other, none = read_corpus("manifest", write(tmp_path, text))
    assert (one.session, one.split, one.text) == (other.session, other.split, other.text)
    assert (one.session, one.split, one.text) == ("1", "Train", "Well, yes.")
    assert (none.session, none.split, none.text) == ("", "", "")


# ---------------------------------------------------------------- parts of files


def test_rows_with_times_are_parts_of_files(tmp_path: Path) -> None:
    rows = ['a.wav,A,sad,0,"1,5"', "a.wav,A,glad,0 days 00:00:01.5,0 days 00:00:03", "a.wav,A,sad,00:00:03,NaT",
            "b.wav,B,sad,,"]  # fmt: skip
    root = write(tmp_path, TIMED.upper() + "\n".join(rows))
    found = [(each.utterance, each.start, each.end) for each in read_corpus("manifest", root)]
    assert found == [
        ("a#t=0,1.5", 0.0, 1.5),
        ("a#t=1.5,3", 1.5, 3.0),
        ("a#t=3", 3.0, None),
        ("b", 0.0, None),
    ]
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    assert segments_of(root) == [
        Segment(a, 0, 1.5, "A"),
        Segment(a, 1.5, 3, "A"),
        Segment(a, 3, None, "A"),
        Segment(b, speaker="B"),
    ]
