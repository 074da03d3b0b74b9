"""Complete real corpora in the folder that the environment variable EMODARTS_CORPORA names."""

import os
from pathlib import Path

import pytest

from data.corpora import READERS
from data.corpora.completeness import count_differences
from data.recordings import measure

CORPORA = os.environ.get("EMODARTS_CORPORA")
pytestmark = pytest.mark.skipif(CORPORA is None, reason="EMODARTS_CORPORA names no folder of corpora")


@pytest.mark.parametrize(
    ("name", "utterances", "suffix"), [("emodb", 535, ".wav"), ("ravdess", 1440, ".flac")]
)
def test_a_complete_copy_is_listed(name: str, utterances: int, suffix: str) -> None:
    listed = READERS[name].read(Path(CORPORA, name))
    assert len(listed) == utterances
    assert {each.file.suffix for each in listed} == {suffix}
    assert count_differences(name, listed, {}) == []


def test_the_two_equal_recordings_of_ravdess_have_one_digest() -> None:
    files = {each.utterance: each.file for each in READERS["ravdess"].read(Path(CORPORA, "ravdess"))}
    actor = [measure(file).audio for name, file in files.items() if name.endswith("-07")]
    first, second = (measure(files[f"03-01-03-01-02-0{n}-07"]).audio for n in (1, 2))
    assert first == second
    assert len(set(actor)) == len(actor) - 1
