"""Prepare: read a corpus as its publisher ships it, and compute its features once for all folds.

python prepare.py --corpus manifest --root my.csv     ->  features/my/
"""

from collections import Counter
from collections.abc import Sequence

from config import PrepareConfig
from data.complete import compare
from data.folds import Fold, make_folds, natural
from data.store import FeatureStore
from flags import parse
from stores import list_corpus, prepare_dataset
from utils import UserError, run_command


def run(config: PrepareConfig) -> FeatureStore:
    """Write the feature store and print what is in it."""
    listed = list_corpus(config)
    for line in compare(config.corpus, listed, config.reader_options()):
        print(f"incomplete?  {line}")
    store = prepare_dataset(config, listed)
    try:
        print(summary(store, make_folds(store.manifest)))
        print(f"\nnext  python search.py --dataset {store.folder.name} --fold 1")
    except UserError as unfair:  # the features are whole and of use, if not for a test on unseen speakers
        print(f"{summary(store, [])}\n\nno speaker-independent folds: {unfair}")
    return store


def summary(store: FeatureStore, folds: Sequence[Fold]) -> str:
    """A text that shows a person what is in a store: classes, sessions, speakers, folds."""
    hours = sum(row.duration for row in store.manifest) / 3600
    blocks = [
        f"{store.corpus}: {len(store):,} utterances of {len(set(store.speakers))} speakers, {hours:.2f} hours"
        f" in {store.folder}; {len(store.skipped)} files skipped" + (" (see skipped.csv)" if store.skipped else "")
    ]
    for column in ("emotion", "session", "speaker"):
        counts = Counter(getattr(row, column) for row in store.manifest)
        if set(counts) != {""}:
            blocks.append(_table((column, "utterances"), [(key, counts[key]) for key in sorted(counts, key=natural)]))
    if folds:
        lines = []
        for number, fold in enumerate(folds, 1):
            tested = sorted({store.speakers[row] for row in fold.test}, key=natural)
            sizes = len(fold.train), len(fold.validation), len(fold.test)
            lines.append((number, *sizes, len(tested), _few(tested)))
        blocks.append(_table(("fold", "train", "validation", "test", "test speakers", ""), lines))
    return "\n\n".join(blocks)


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _table(header: Sequence[str], lines: Sequence[Sequence], most: int = 40) -> str:
    """Aligned columns, numbers to the right; of a long table the first lines."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in line] for line in [header, *lines[:most]]]
    columns = []
    for column, kind in zip(zip(*cells, strict=True), lines[0], strict=True):
        align, width = ">" if isinstance(kind, int) else "<", max(map(len, column))
        columns.append([f"{cell:{align}{width}}" for cell in column])
    text = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    return "\n".join(text + ([f"... and {len(lines) - most} more"] if len(lines) > most else []))


if __name__ == "__main__":
    run_command(lambda: run(parse(PrepareConfig, "prepare")))
