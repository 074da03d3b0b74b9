"""Feature stores by their names: what `prepare.py` makes and what a run opens."""

from pathlib import Path

from cli import from_file
from config import FEATURES, FrontEnd, PrepareConfig
from data.corpora import read_corpus
from data.corpora.utterance import Utterance
from data.emotions import ALL, FOUR, pick_emotions
from data.preparation import Settings, prepare
from data.store import FeatureStore
from utils import UserError

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


def folder_of(config: PrepareConfig) -> Path:
    """Where the store is, or is to be."""
    return config.out or FEATURES / (root_of(config).stem if config.corpus == "manifest" else config.corpus)


def prepare_dataset(config: PrepareConfig, listed: list[Utterance]) -> tuple[FeatureStore, int]:
    """Make the store of the listed utterances that --emotions picks, or bring it up to date; how many were up to date.

    `UserError` where it cannot be made.
    """
    picks = config.emotions or (ALL if config.corpus in OWN_LABELS else FOUR)
    if config.merge_excited:
        picks = (*picks, "excited:happy")
    settings = Settings(
        corpus=config.corpus,
        front_end=FrontEnd(**{name: getattr(config, name) for name in FrontEnd.model_fields}),
        copies=config.perturb,
        workers=config.workers,
        strict=config.strict,
        overwrite=config.overwrite,
    )
    return prepare(pick_emotions(listed, picks), settings, folder_of(config))


def open_dataset(name: str, settings: Path | None, features: str | None = None) -> FeatureStore:
    """Open the store features/NAME. The demo corpus is made on first use, prepared as the configuration file says.

    Raises `UserError` if the store holds other features than `features`.
    """
    if name == "demo" and not (FEATURES / name).exists():
        config = from_file(PrepareConfig, settings, corpus="demo")
        store = prepare_dataset(config, list_corpus(config))[0]
    else:
        store = FeatureStore.open(FEATURES / name)
    if features not in (None, store.front_end.features):
        raise UserError(
            f"--features {features}, but {store.folder} holds {store.front_end.features}: "
            "choose another --dataset, or prepare these features with prepare.py --features and --out"
        )
    return store
