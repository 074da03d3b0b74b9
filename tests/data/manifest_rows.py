"""Manifest rows for the tests of folds and leaks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    utterance: str
    speaker: str
    emotion: str
    session: str = ""
    split: str = ""
    text: str = ""
    copy: str = ""
    sex: str = ""
    audio: str = ""
    number: int = 0  # distinguishes the windows and copies of an utterance
