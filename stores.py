"""Feature stores by their names: what `prepare.py` makes and what a run opens."""

from pathlib import Path

from config import PrepareConfig
from data.corpora import read_corpus
from data.corpora.utterance import Utterance
from data.emotions import ALL, FOUR, pick_emotions
from data.front_end import FrontEnd
from data.preparation import prepare
from data.store import FeatureStore
from utils import UserError

FEATURES = Path("features")
DEMO_ROOT = Path("corpora/demo")
OWN_LABELS = {"demo", "manifest"}
"""Corpora whose labels are the user's own: all are classes unless --emotions picks some; elsewhere the usual four."""


def list_corpus(config: PrepareConfig) -> list[Utterance]:
    """All labelled utterances of a corpus. `UserError` where there is no corpus, or it takes no such option."""
    return read_corpus(config.corpus, root_of(config), **config.reader_options())


def root_of(config: PrepareConfig) -> Path:
    """Where the corpus is."""
    if config.root is None and config.corpus != "demo":
        raise UserError(f"--root is missing: where is the corpus {config.corpus}?")
    return config.root or DEMO_ROOT


def prepare_dataset(config: PrepareConfig, listed: list[Utterance]) -> FeatureStore:
    """Write the store of the listed utterances that --emotions picks. `UserError` where there is a store already."""
    picks = config.emotions or (ALL if config.corpus in OWN_LABELS else FOUR)
    if config.merge_excited:
        picks = (*picks, "excited:happy")
    folder = config.out or FEATURES / (root_of(config).stem if config.corpus == "manifest" else config.corpus)
    front_end = FrontEnd(**{name: getattr(config, name) for name in FrontEnd.model_fields})
    options = {"corpus": config.corpus, "workers": config.workers, "overwrite": config.overwrite}
    return prepare(pick_emotions(listed, picks), front_end, folder, **options)


def open_dataset(name: str, demo: PrepareConfig) -> FeatureStore:
    """The store features/NAME; the demo corpus is made, and prepared as `demo` says, on first use."""
    if name == "demo" and not (FEATURES / name).exists():
        return prepare_dataset(demo, list_corpus(demo))
    return FeatureStore.open(FEATURES / name)
