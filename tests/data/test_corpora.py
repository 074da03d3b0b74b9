"""A user's CSV: what is accepted, and the line that an error names."""

from pathlib import Path

import pytest

from data.corpora import READERS, Utterance, read_corpus
from utils import UserError


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "my.csv").write_text(text, encoding=encoding)
    return folder / "my.csv"


def test_manifest_with_all_columns(tmp_path) -> None:
    root = write(
        tmp_path,
        "session,file,speaker,emotion,split,age,text\n"
        '1,wav/a.1.wav,Al,sad,train,33,"Well, yes."\n'
        ",/x/b.flac,Bo,glad,,,improvised party \n"
        "2,c.wav,Bo,glad,,,\n",
    )
    assert read_corpus("manifest", root) == [
        Utterance(
            "wav/a.1", tmp_path / "wav/a.1.wav", "Al", "sad", session="1", split="train", text="Well, yes."
        ),
        Utterance("/x/b", Path("/x/b.flac"), "Bo", "glad", text="improvised party"),
        Utterance("c", tmp_path / "c.wav", "Bo", "glad", session="2"),
    ]


def test_manifest_of_a_spreadsheet(tmp_path) -> None:
    root = write(tmp_path, '\ufefffile, speaker ,emotion\r\n"a, b.wav", Zoë ,sad\r\n\r\n', encoding="utf-8")
    assert read_corpus("manifest", root) == [Utterance("a, b", tmp_path / "a, b.wav", "Zoë", "sad")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: column 'file' is missing"),
        ("file,emotion\na.wav,sad\n", "line 1: column 'speaker' is missing, found: file,emotion"),
        ("file;speaker;emotion\na;b;c\n", "line 1: column 'file' is missing"),
        ("file,speaker,emotion\na.wav,Ann,sad\nb.wav, ,sad\n", "line 3: speaker is empty"),
        ("file,speaker,emotion\na.wav,Ann\n", "line 2: emotion is empty"),
        ("file,speaker,emotion\na,b.wav,Ann,sad\n", "line 2: more values than columns"),
        (
            "file,speaker,emotion\na.wav,A,sad\nb.wav,A,sad\n./a.wav,A,sad\n",
            "line 4: ./a.wav is listed .*line 2",
        ),
        ("file,speaker,emotion\na.wav,A,sad\na.flac,A,sad\n", "line 3: a.flac is listed .*apart. on line 2"),
        (
            "file,speaker,emotion,text\na.wav,A,sad,Well, yes.\n",
            "line 2: more values than columns; .* must be quoted",
        ),
        ("file,speaker,emotion\n", "no utterance"),
    ],
)
def test_manifest_errors_name_file_and_line(tmp_path, text: str, message: str) -> None:
    root = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read_corpus("manifest", root)
    assert str(root) in str(caught.value)


def test_manifest_that_is_no_csv(tmp_path) -> None:
    with pytest.raises(UserError, match="no manifest at"):
        read_corpus("manifest", tmp_path)
    (tmp_path / "my.csv").write_bytes(b"file,speaker,emotion\nM\xfcnchen.wav,A,sad\n")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        read_corpus("manifest", tmp_path / "my.csv")


def test_unknown_corpus_lists_the_known(tmp_path) -> None:
    with pytest.raises(UserError, match="unknown corpus 'iemocop'") as caught:
        read_corpus("iemocop", tmp_path)
    assert all(name in str(caught.value) for name in READERS)
