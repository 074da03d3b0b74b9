"""Feature stores by their names: what `prepare.py` makes and what a run opens."""

from pathlib import Path

from config import PrepareConfig
from data.corpora import read_corpus
from data.front_end import FrontEnd
from data.preparation import prepare
from data.store import FeatureStore
from utils import UserError

FEATURES = Path("features")
DEMO_ROOT = Path("corpora/demo")


def prepare_dataset(config: PrepareConfig) -> FeatureStore:
    """Read a corpus and write its store. `UserError` where there is no corpus, or a store already."""
    root = config.root or (DEMO_ROOT if config.corpus == "demo" else None)
    if root is None:
        raise UserError(f"--root is missing: where is the corpus {config.corpus}?")
    folder = config.out or FEATURES / (root.stem if config.corpus == "manifest" else config.corpus)
    front_end = FrontEnd(**{name: getattr(config, name) for name in FrontEnd.model_fields})
    utterances = read_corpus(config.corpus, root)
    return prepare(
        utterances, front_end, folder, corpus=config.corpus, workers=config.workers, overwrite=config.overwrite
    )


def open_dataset(name: str, demo: PrepareConfig) -> FeatureStore:
    """The store features/NAME; the demo corpus is made, and prepared as `demo` says, on first use."""
    if name == "demo" and not (FEATURES / name).exists():
        return prepare_dataset(demo)
    return FeatureStore.open(FEATURES / name)
