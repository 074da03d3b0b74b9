"""Prepare: read a corpus as its publisher ships it, and compute its features once for all folds.

python prepare.py --corpus manifest --root my.csv             writes features/my/
python prepare.py --corpus manifest --root my.csv --check     prints what training and test share
"""

from cli import command_line, command_to_type, run_command
from config import PrepareConfig, SearchConfig, dataset_of

if __name__ == "__main__":
    # The flags are parsed before torch is imported, so that --help and mistakes are answered at once.
    CONFIG = command_line(PrepareConfig)

from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from data.corpora.completeness import count_differences
from data.datasets import dataset_folder, dataset_folds, list_corpus, prepare_dataset
from data.features import UnreadableAudio, read_clips
from data.fold_schemes import natural_sort_key
from data.folds import Fold
from data.leaks import check_leaks, find_leaks
from data.store import FeatureStore, Row
from plots.charts import draw_balance
from plots.spectrograms import draw_spectrograms
from utils import UserError, printable

MAX_FOLDS = 12  # in balance.png
MAX_EXAMPLES = 9  # in spectrograms.png
MAX_LINES = 40  # of a printed table
MAX_NAMES = 8  # of speakers in a line


def run(config: PrepareConfig) -> FeatureStore:
    """Make a feature store or bring it up to date, describe it and draw it. Or only check it."""
    if config.check:
        return check(config)
    utterances = list_corpus(config)
    for line in count_differences(config.corpus, utterances, config.reader_options()):
        print(f"incomplete?  {line}")
    store, up_to_date = prepare_dataset(config, utterances)
    if up_to_date:
        print(f"up to date   {up_to_date:,} files had not changed; their features are kept")
    print(f"{summary(store)}\n")
    try:
        folds = dataset_folds(store, config)
    except UserError as error:  # the features can be used, but not for a test on unseen speakers
        print(f"no speaker-independent folds: {error}")
        folds = []
    else:
        print(f"{fold_table(store, folds)}\n")
        draw_folds(store, folds, store.folder / "balance.png")
        print(f"picture  {store.folder / 'balance.png'}")
    if draw_examples(store, store.folder / "spectrograms.png"):
        print(f"picture  {store.folder / 'spectrograms.png'}")
    if folds:
        print(f"next     {next_step(store, folds, config)}")
    return store


def next_step(store: FeatureStore, folds: Sequence[Fold], config: PrepareConfig) -> str:
    """The command that searches on the first fold without a leak; without such a fold, why none can be searched."""
    refusal = None
    for number, fold in enumerate(folds, 1):
        try:
            check_leaks(store.manifest, fold, config.allow_leak, f"fold {number}")
        except UserError as error:
            refusal = refusal or error
        else:
            flags = {"dataset": dataset_of(dataset_folder(config)), "fold": number}
            folds_flags = {"folds_by": config.folds_by, "allow_leak": config.allow_leak}
            return command_to_type(SearchConfig, config.config, flags, folds_flags)
    return f"no fold can be searched yet: {refusal}"


def check(config: PrepareConfig) -> FeatureStore:
    """Print what training and test share in each fold of a store.

    Raises `UserError` if there is a leak that --allow_leak does not allow.
    """
    store = FeatureStore.open(dataset_folder(config))
    folds = dataset_folds(store, config)
    print(f"{summary(store)}\n\n{fold_table(store, folds)}")
    for number, fold in enumerate(folds, 1):
        check_leaks(store.manifest, fold, config.allow_leak, f"fold {number}")
    print(f"\nno leak in {len(folds)} folds by {config.folds_by}")
    return store


def parts_of(fold: Fold) -> dict[str, Sequence[int]]:
    """The rows of each part of a fold, by its name."""
    return {"train": fold.train, "validation": fold.validation, "test": fold.test}


def summary(store: FeatureStore) -> str:
    """Describe a store: its size, and the utterances of each class, session and speaker."""
    originals = list({row.utterance: row for row in store.manifest if not row.copy}.values())
    hours = sum(row.duration for row in originals) / 3600
    clips = f" ({len(store):,} clips)" if len(store) > len(originals) else ""
    skipped = f"{len(store.skipped)} files skipped" + (" (see skipped.csv)" if store.skipped else "")
    blocks = [
        f"{store.corpus}: {len(originals):,} utterances{clips} of {len(set(store.speakers))} speakers,"
        f" {hours:.2f} hours in {store.folder}; {skipped}"
    ]
    for column in ("emotion", "session", "split", "copy", "speaker"):
        rows, unit = (store.manifest, "clips") if column == "copy" else (originals, "utterances")
        counts = Counter(getattr(row, column) for row in rows)
        if set(counts) != {""}:
            lines = [(value or "-", counts[value]) for value in sorted(counts, key=natural_sort_key)]
            blocks.append(table((column, unit), lines))
    return "\n\n".join(blocks)


def fold_table(store: FeatureStore, folds: Sequence[Fold]) -> str:
    """Describe the folds: utterances, test speakers, and what training and test share."""
    lines = []
    leaks = []
    for number, fold in enumerate(folds, 1):
        sizes = [len({store.manifest[row].utterance for row in rows}) for rows in parts_of(fold).values()]
        speakers = sorted({store.speakers[row] for row in fold.test}, key=natural_sort_key)
        names = ", ".join(speakers[:MAX_NAMES])
        if len(speakers) > MAX_NAMES:
            names += f" and {len(speakers) - MAX_NAMES} more"
        lines.append((number, *sizes, len(speakers), names))
        leaks += [f"fold {number}: {line}" for line in find_leaks(store.manifest, fold).lines()]
    text = table(("fold", *parts_of(folds[0]), "test speakers", ""), lines)
    return "\n".join([text, "", *leaks]) if leaks else text


def table(header: Sequence[str], lines: Sequence[Sequence[str | int]]) -> str:
    """Align the columns: text to the left, numbers to the right. A long table is cut off."""
    is_number = [isinstance(value, int) for value in lines[0]]
    rows = [header]
    for line in lines[:MAX_LINES]:
        rows.append([f"{value:,}" if isinstance(value, int) else printable(value) for value in line])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = []
    for row in rows:
        columns = zip(row, widths, is_number, strict=True)
        cells = [value.rjust(width) if right else value.ljust(width) for value, width, right in columns]
        text.append("  ".join(cells).rstrip())
    if len(lines) > MAX_LINES:
        text.append(f"... and {len(lines) - MAX_LINES} more")
    return "\n".join(text)


def draw_folds(store: FeatureStore, folds: Sequence[Fold], path: Path) -> None:
    """Draw how many clips of each class the parts of the first folds have."""
    drawn = folds[:MAX_FOLDS]
    counts = []
    for fold in drawn:
        labels = {part: store.labels[rows] for part, rows in parts_of(fold).items()}
        counts.append({part: np.bincount(ids, minlength=len(store.classes)) for part, ids in labels.items()})
    title = f"{store.corpus}: clips of each class"
    if len(folds) > len(drawn):
        title += f", first {len(drawn)} folds"
    draw_balance(counts, store.classes, path, title)


def draw_examples(store: FeatureStore, path: Path) -> bool:
    """Draw one utterance of each class; return False if the recordings are gone."""
    front_end = store.front_end
    examples = []
    for row in example_rows(store)[:MAX_EXAMPLES]:
        with suppress(UnreadableAudio), closing(read_clips(Path(row.file), front_end)) as clips:
            clip = next(clips)
            samples = round((clip.end - clip.start) * front_end.sample_rate)
            without_padding = clip.sound[: max(samples, front_end.n_fft)]  # but at least one window
            examples.append((row.emotion, printable(row.utterance), without_padding))
    if examples:
        draw_spectrograms(examples, front_end, path, f"{store.corpus}: one utterance of each class")
    return bool(examples)


def example_rows(store: FeatureStore) -> list[Row]:
    """The first original of each class, of the speaker with the most classes where possible."""
    by_speaker: dict[str, dict[str, Row]] = {}
    for row in store.manifest:
        if not row.copy:
            by_speaker.setdefault(row.speaker, {}).setdefault(row.emotion, row)
    ranked = sorted(by_speaker.values(), key=len, reverse=True)
    return [next(rows[name] for rows in ranked if name in rows) for name in store.classes]


if __name__ == "__main__":
    run_command(run, CONFIG)
