"""Datasets by name: list a corpus, prepare a dataset from it, open a prepared dataset.

A dataset is a feature store: the folder features/NAME, or any other folder that prepare.py has made.
"""

from pathlib import Path

from cli import from_file, note
from config import FEATURES, FoldFlags, FrontEnd, PrepareConfig, store_folder
from data.corpora import read_corpus
from data.corpora.utterance import Utterance
from data.emotions import ALL, FOUR, pick_emotions
from data.folds import Fold, make_folds
from data.leaks import without_telling_texts
from data.preparation import Settings, prepare
from data.store import FeatureStore
from utils import UserError

DEMO_ROOT = Path("corpora/demo")
OWN_LABELS = {"demo", "manifest"}
"""Corpora whose labels are all classes by default; of the others, the usual four emotions are."""


def list_corpus(config: PrepareConfig) -> list[Utterance]:
    """List all labelled utterances of a corpus.

    Raises `UserError` if the corpus is not found, or has no such option.
    """
    return read_corpus(config.corpus, corpus_root(config), **config.reader_options())


def pick_utterances(config: PrepareConfig, utterances: list[Utterance]) -> list[Utterance]:
    """Return the utterances whose emotions the flags pick. Raises `UserError` if the corpus lacks one of them."""
    picks = config.emotions or (ALL if config.corpus in OWN_LABELS else FOUR)
    if config.merge_excited:
        picks = (*picks, "excited:happy")
    picked = pick_emotions(utterances, picks)
    if not picked:
        raise UserError(f"no utterance of corpus {config.corpus!r} has a label")
    return picked


def prepare_dataset(
    config: PrepareConfig, utterances: list[Utterance], picked: list[Utterance]
) -> tuple[FeatureStore, int]:
    """Make a dataset of the picked utterances, or bring it up to date.

    All utterances of the corpus tell whether the dataset that is there was made from the same recordings.

    Returns the dataset, and the number of files that were up to date.
    Raises `UserError` if it cannot be made.
    """
    settings = Settings(
        corpus=config.corpus,
        front_end=FrontEnd(**config.model_dump(include=set(FrontEnd.model_fields))),
        copies=config.perturb,
        workers=config.workers,
        strict=config.strict,
        overwrite=config.overwrite,
    )
    if "texts" in config.drop_leaks:
        kept = without_telling_texts(picked)
        dropped = len(picked) - len(kept)
        note(f"--drop_leaks texts leaves out {dropped:,} of {len(picked):,} utterances")
        picked = kept
    classes = {each.emotion for each in picked}
    if len(classes) < 2:
        raise UserError(
            f"the utterances have {len(classes)} classes ({', '.join(classes)}); a classifier needs two"
        )
    return prepare(picked, settings, dataset_folder(config), utterances)


def open_dataset(name: str, config_file: Path | None, features: str | None = None) -> FeatureStore:
    """Open a dataset by its name, or by its path. The demo dataset is made on first use, as `config_file` says.

    Raises `UserError` if there is no such dataset, if it is damaged, or if it holds other features than `features`.
    """
    folder = store_folder(name)
    if name == "demo" and not folder.exists():
        config = from_file(PrepareConfig, config_file, corpus="demo")
        utterances = list_corpus(config)
        store = prepare_dataset(config, utterances, pick_utterances(config, utterances))[0]
    else:
        store = FeatureStore.open(folder)
    if features not in (None, store.front_end.features):
        raise UserError(
            f"--features {features}, but {store.folder} holds {store.front_end.features}: "
            "choose another --dataset, or prepare these features with prepare.py --features and --out"
        )
    return store


def dataset_folds(store: FeatureStore, config: FoldFlags) -> list[Fold]:
    """The folds that the flags ask for. Raises `UserError` if the dataset has none by this scheme."""
    return make_folds(store.manifest, config.folds_by, config.keep_unknown_speakers)


def corpus_root(config: PrepareConfig) -> Path:
    """The folder or the CSV file of the corpus."""
    if config.root is None and config.corpus != "demo":
        raise UserError(f"--root is missing: where is the corpus {config.corpus}?")
    return config.root or DEMO_ROOT


def dataset_folder(config: PrepareConfig) -> Path:
    """The folder of the dataset, whether it exists or not."""
    if config.out is not None:
        return config.out
    name = corpus_root(config).stem if config.corpus == "manifest" else config.corpus
    return FEATURES / name
