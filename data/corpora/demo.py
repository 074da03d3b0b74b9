"""The demo corpus: synthesised on first use, then read like a corpus of the user's own."""

from pathlib import Path

from data.corpora import manifest
from data.corpora.utterance import Utterance
from data.demo import write_demo


def read(root: Path) -> list[Utterance]:
    """List the utterances of the demo corpus in the folder `root`, which is made where it is not whole."""
    path = root / "manifest.csv"
    return manifest.read(path if path.exists() else write_demo(root))
