"""The CSV of a user's own corpus: accepted forms, errors, and the choice of a reader by name."""

from pathlib import Path

import pytest

from data.corpora import READERS, Utterance, read_corpus
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: column 'file' is missing"),
        ("file,emotion\na.wav,sad\n", "line 1: column 'speaker' is missing, found: file,emotion"),
        ("file;speaker;emotion\na;b;c\n", "line 1: column 'file' is missing"),
        (HEADER + "a.wav,Ann,sad\nb.wav, ,sad\n", "line 3: speaker is empty"),
        (HEADER + "a.wav,Ann\n", "line 2: emotion is empty"),
        (HEADER + "a,b.wav,Ann,sad\n", "line 2: more values than columns; .* must be quoted"),
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
