"""Files of text and JSON: whatever a stranger's file put into a string, it is written, and read again as it was."""

import json
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from utils import write_json, write_text

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # half a surrogate pair, too
SETTINGS = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)


@SETTINGS
@given(
    value=st.recursive(
        ANY_TEXT | st.none() | st.integers(), lambda v: st.lists(v) | st.dictionaries(ANY_TEXT, v)
    )
)
@example(value={"\ud800": "\udcff"})
def test_json_is_read_again_as_it_was(tmp_path: Path, value: object):
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == value


def test_any_text_is_written_as_utf_8(tmp_path: Path):
    write_text(tmp_path / "text.md", "Zoë \ud800")
    assert (tmp_path / "text.md").read_text(encoding="utf-8") == "Zoë \\ud800"
