"""The example reader in docs/corpora.md works."""

import importlib.util
import re
from pathlib import Path

from conftest import ROOT

from data.corpora.utterance import Utterance


def test_documented_reader_lists_the_utterances(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "corpora.md").read_text()
    source = re.search(r"```python\n(.*?)```", document, re.DOTALL)[1]
    assert source.count("\n") < 40
    (tmp_path / "say7.py").write_text(source)
    spec = importlib.util.spec_from_file_location("say7", tmp_path / "say7.py")
    say7 = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(say7)
    for name in ("anna_angry_07.wav", "bo_glad_01.wav", "bo_unknown_01.wav", "._bo_low_01.wav"):
        (tmp_path / name).touch()
    assert say7.read(tmp_path) == [
        Utterance("anna_angry_07", tmp_path / "anna_angry_07.wav", "anna", "angry", text="07"),
        Utterance("bo_glad_01", tmp_path / "bo_glad_01.wav", "bo", "happy", text="01"),
    ]
