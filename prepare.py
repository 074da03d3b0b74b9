"""Prepare: read a corpus as its publisher ships it, and compute its features once for all folds.

python prepare.py --corpus manifest --root my.csv             ->  features/my/
python prepare.py --corpus manifest --root my.csv --check     what its folds share, without making anything
"""

from cli import command_line, run_command
from config import PrepareConfig

if __name__ == "__main__":
    CONFIG = command_line(
        PrepareConfig
    )  # before torch is imported, so that --help and mistakes are answered at once

from collections import Counter
from collections.abc import Sequence

from data.corpora.completeness import count_differences
from data.datasets import folder_of, list_corpus, prepare_dataset
from data.fold_schemes import natural_sort_key
from data.folds import Fold, make_folds
from data.leaks import check_leaks, find_leaks
from data.store import FeatureStore
from plots.charts import draw_balance
from utils import UserError, printable

DRAWN = 12
"""Folds that a picture has room for."""


def run(config: PrepareConfig) -> FeatureStore:
    """Make the feature store or bring it up to date, or only check it; print what is in it."""
    if config.check:
        return check(config)
    listed = list_corpus(config)
    for line in count_differences(config.corpus, listed, config.reader_options()):
        print(f"incomplete?  {line}")
    store, taken_over = prepare_dataset(config, listed)
    if taken_over:
        print(f"up to date   {taken_over:,} files had not changed, their features stay")
    try:
        folds = folds_of(store, config)
    except UserError as unfair:  # the features are whole and of use, if not for a test on unseen speakers
        print(f"{summary(store)}\n\nno speaker-independent folds: {unfair}")
        return store
    print(f"{summary(store)}\n\n{table_of(store, folds)}")
    draw(store, folds)
    print(f"\npicture  {store.folder / 'balance.png'}")
    print(f"next     python search.py --dataset {store.folder.name} --fold 1")
    return store


def check(config: PrepareConfig) -> FeatureStore:
    """Print what the folds of a store share; `UserError` where one leaks what --allow_leak does not allow."""
    store = FeatureStore.open(folder_of(config))
    folds = folds_of(store, config)
    print(f"{summary(store)}\n\n{table_of(store, folds)}")
    for number, fold in enumerate(folds, 1):
        check_leaks(store.manifest, fold, config.allow_leak, f"fold {number}")
    print(f"\nno leak in {len(folds)} folds by {config.folds_by}")
    return store


def folds_of(store: FeatureStore, config: PrepareConfig) -> list[Fold]:
    """The folds of the flags."""
    return make_folds(store.manifest, config.folds_by, config.keep_unknown_speakers)


def summary(store: FeatureStore) -> str:
    """What is in a store, for people: classes, sessions, speakers."""
    originals = list({row.utterance: row for row in store.manifest if not row.copy}.values())
    hours = sum(row.duration for row in originals) / 3600
    clips = f" ({len(store):,} clips)" if len(store) > len(originals) else ""
    skipped = f"{len(store.skipped)} files skipped" + (" (see skipped.csv)" if store.skipped else "")
    blocks = [
        f"{store.corpus}: {len(originals):,} utterances{clips} of {len(set(store.speakers))} speakers,"
        f" {hours:.2f} hours in {store.folder}; {skipped}"
    ]
    for column in ("emotion", "session", "split", "copy", "speaker"):
        counts = Counter(getattr(row, column) for row in (store.manifest if column == "copy" else originals))
        if set(counts) != {""}:
            lines = [(key or "-", counts[key]) for key in sorted(counts, key=natural_sort_key)]
            blocks.append(_table((column, "clips" if column == "copy" else "utterances"), lines))
    return "\n\n".join(blocks)


def table_of(store: FeatureStore, folds: Sequence[Fold]) -> str:
    """The folds: how many utterances each part has, whom it tests, and what its parts share."""
    lines, shared = [], []
    for number, fold in enumerate(folds, 1):
        tested = sorted({store.speakers[row] for row in fold.test}, key=natural_sort_key)
        sizes = [len({store.manifest[row].utterance for row in part}) for part in parts_of(fold).values()]
        lines.append((number, *sizes, len(tested), _few(tested)))
        shared += [f"fold {number}: {line}" for line in find_leaks(store.manifest, fold).lines()]
    text = _table(("fold", *parts_of(folds[0]), "test speakers", ""), lines)
    return "\n".join([text, *([""] if shared else []), *shared])


def parts_of(fold: Fold) -> dict[str, Sequence[int]]:
    """The rows of a fold's parts, by name."""
    return {"train": fold.train, "validation": fold.validation, "test": fold.test}


def draw(store: FeatureStore, folds: Sequence[Fold]) -> None:
    """Draw the balance of the classes in every part of the first folds."""
    classes = range(len(store.classes))
    counts = [
        {
            name: [int((store.labels[rows] == label).sum()) for label in classes]
            for name, rows in parts_of(fold).items()
        }
        for fold in folds[:DRAWN]
    ]
    title = f"{store.corpus}: clips of each class" + (f", first {DRAWN} folds" if len(folds) > DRAWN else "")
    draw_balance(counts, store.classes, store.folder / "balance.png", title)


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _table(header: Sequence[str], lines: Sequence[Sequence], most: int = 40) -> str:
    """Aligned columns, numbers to the right; of a long table the first lines."""
    cells = [
        [f"{cell:,}" if isinstance(cell, int) else printable(cell) for cell in line]
        for line in [header, *lines[:most]]
    ]
    columns = []
    for column, kind in zip(zip(*cells, strict=True), lines[0], strict=True):
        align, width = ">" if isinstance(kind, int) else "<", max(map(len, column))
        columns.append([f"{cell:{align}{width}}" for cell in column])
    text = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    return "\n".join(text + ([f"... and {len(lines) - most} more"] if len(lines) > most else []))


if __name__ == "__main__":
    run_command(run, CONFIG)
