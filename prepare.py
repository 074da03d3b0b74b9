"""Prepare: read a corpus as its publisher ships it, and compute its features once for all folds.

python prepare.py --corpus manifest --root my.csv     ->  features/my/
"""

from config import PrepareConfig, parse
from data.datasets import prepare_dataset
from data.folds import make_folds
from data.store import FeatureStore, summary
from utils import run_command


def run(config: PrepareConfig) -> FeatureStore:
    """Write the feature store and print what is in it."""
    store = prepare_dataset(config)
    print(summary(store, make_folds(store.manifest)))
    print(f"\nnext  python search.py --dataset {store.folder.name} --fold 1")
    return store


if __name__ == "__main__":
    run_command(lambda: run(parse(PrepareConfig, "prepare")))
