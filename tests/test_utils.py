"""Text and JSON files: any string is written and read back; unsuitable files are refused."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from utils import read_json_object, read_text, write_json, write_text

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # with lone surrogates
SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


@SETTINGS
@given(
    value=st.recursive(
        ANY_TEXT | st.none() | st.integers(), lambda v: st.lists(v) | st.dictionaries(ANY_TEXT, v)
    )
)
@example(value={"\ud800": "\udcff"})
def test_json_is_read_back_as_it_was_written(tmp_path: Path, value: object):
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == value


def test_any_text_is_written_as_utf_8(tmp_path: Path):
    write_text(tmp_path / "text.md", "Zoë \ud800")
    assert (tmp_path / "text.md").read_text(encoding="utf-8") == "Zoë \\ud800"


def test_read_text_refuses_large_files_pipes_and_other_encodings(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes("Zoë".encode())
    assert read_text(path, limit=4) == "Zoë"
    with pytest.raises(OSError, match="File too large"):
        read_text(path, limit=3)
    path.write_bytes("Zoë".encode("latin-1"))
    with pytest.raises(ValueError, match="utf-8"):
        read_text(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_text(tmp_path / "pipe")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 10**5, '{"a":' * 10**5])
def test_a_file_that_is_no_json_object_is_a_value_error(tmp_path: Path, text: str):
    (tmp_path / "value.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011
        read_json_object(tmp_path / "value.json")
