"""Corpora: one small file each, that lists the labelled utterances of a corpus as its publisher ships it.

A new corpus is one new file with a `read(root)` and one line in `READERS`.
"""

from collections.abc import Callable
from pathlib import Path

from data.corpora import demo, manifest
from data.corpora.utterance import Utterance
from utils import UserError

READERS: dict[str, Callable[[Path], list[Utterance]]] = {
    "demo": demo.read,
    "manifest": manifest.read,
}


def read_corpus(name: str, root: Path) -> list[Utterance]:
    """List the utterances of corpus `name` found at `root`. Raises `UserError` where that is unknown or empty."""
    if name not in READERS:
        raise UserError(f"unknown corpus {name!r}: known are {', '.join(sorted(READERS))}")
    utterances = READERS[name](Path(root))
    if not utterances:
        raise UserError(f"no utterance of corpus {name!r} found at {root}")
    return utterances
