"""Prepare: read a corpus as its publisher ships it, and compute its features once for all folds.

python prepare.py --corpus manifest --root my.csv             writes features/my/
python prepare.py --corpus manifest --root my.csv --check     prints what training and test share
"""

from cli import command_line, command_to_type, run_command
from config import PrepareConfig, SearchConfig, dataset_of

if __name__ == "__main__":
    # The flags are parsed before torch is imported, so that --help and mistakes are answered at once.
    CONFIG = command_line(PrepareConfig)

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from math import ceil
from pathlib import Path
from statistics import mean, median

import numpy as np

from data.corpora.completeness import count_differences, duration_differences
from data.datasets import dataset_folder, dataset_folds, list_corpus, pick_utterances, prepare_dataset
from data.emotions import left_out
from data.features import UnreadableAudio, read_clips
from data.fold_schemes import natural_sort_key
from data.folds import Fold, is_known_speaker
from data.leaks import (
    Leaks,
    abbreviate,
    describe_equal_recordings,
    describe_leaks,
    find_leaks,
    refuse_leaks,
)
from data.store import FeatureStore, Row
from plots.charts import draw_balance
from plots.spectrograms import draw_spectrograms
from utils import UserError, printable

MAX_FOLDS = 12  # in balance.png
MAX_EXAMPLES = 9  # in spectrograms.png
MAX_LINES = 40  # of a printed table
MAX_NAMES = 8  # of speakers in a line
MUCH = 0.01  # share of the energy whose loss is worth an advice


def run(config: PrepareConfig) -> bool:
    """Make a feature store or bring it up to date, describe it and draw it. Or only check it.

    Return whether it has folds.
    """
    if config.check:
        check(config)
        return True
    utterances = list_corpus(config)
    for line in count_differences(config.corpus, utterances, config.reader_options()):
        print(f"incomplete?  {line}")
    picked = pick_utterances(config, utterances)
    if counts := left_out(utterances, picked):
        total = f"{counts.total():,} of {len(utterances):,} utterances"
        print(f"left out     {total}, by label: {labels_left_out(counts)}")
    store, up_to_date = prepare_dataset(config, utterances, picked)
    seconds = {row.utterance: row.duration for row in store.manifest if not row.copy}
    for line in duration_differences(config.corpus, utterances, seconds):
        print(f"incomplete?  {line}")
    if up_to_date:
        print(f"up to date   {up_to_date:,} files had not changed; their features are kept")
    print(f"{summary(store)}\n")
    try:
        folds = dataset_folds(store, config)
    except UserError as error:  # the features can be used, but not for a test on unseen speakers
        print(f"no speaker-independent folds: {error}")
        folds = []
    else:
        leaks = [find_leaks(store.manifest, fold) for fold in folds]
        print(f"{fold_table(store, folds, leaks)}\n")
        draw_folds(store, folds, store.folder / "balance.png")
        print(f"picture  {store.folder / 'balance.png'}")
    if draw_examples(store, store.folder / "spectrograms.png"):
        print(f"picture  {store.folder / 'spectrograms.png'}")
    if folds:
        print(f"next     {next_step(store, folds, leaks, config)}")
    return bool(folds)


def next_step(
    store: FeatureStore, folds: Sequence[Fold], leaks: Sequence[Leaks], config: PrepareConfig
) -> str:
    """The command that searches on the first fold without a leak; without such a fold, why none can be searched.

    leaks: those of each fold.
    """
    for number, found in enumerate(leaks, 1):
        if set(found.kinds) <= set(config.allow_leak):
            flags = {"dataset": dataset_of(dataset_folder(config)), "fold": number}
            folds_flags = {"folds_by": config.folds_by, "allow_leak": config.allow_leak}
            return command_to_type(SearchConfig, config.config, flags, folds_flags)
    refusal = refuse_leaks(store.manifest, leaks[0], config.allow_leak, "fold 1")
    return f"no fold can be searched yet: {refusal}"


def check(config: PrepareConfig) -> None:
    """Print what training and test share in each fold of a store.

    Raises `UserError` if there is a leak that --allow_leak does not allow.
    """
    store = FeatureStore.open(dataset_folder(config))
    folds = dataset_folds(store, config)
    leaks = [find_leaks(store.manifest, fold) for fold in folds]
    print(f"{summary(store)}\n\n{fold_table(store, folds, leaks)}")
    for number, found in enumerate(leaks, 1):
        if refusal := refuse_leaks(store.manifest, found, config.allow_leak, f"fold {number}"):
            raise refusal
    allowed = f", except {', '.join(config.allow_leak)} (--allow_leak)" if config.allow_leak else ""
    print(f"\nno leak in {len(folds)} folds by {config.folds_by}{allowed}")


def labels_left_out(counts: Mapping[str, int]) -> str:
    """Describe the utterances that are in no class: how many of each label, the most frequent first."""
    order = sorted(counts, key=lambda label: (-counts[label], label))
    labels = [f"{printable(label) or '(no label)'} {counts[label]:,}" for label in order]
    more = f" and {len(labels) - MAX_LINES} more" if len(labels) > MAX_LINES else ""
    return f"{', '.join(labels[:MAX_LINES])}{more}"


def parts_of(fold: Fold) -> dict[str, Sequence[int]]:
    """The rows of each part of a fold, by its name."""
    return {"train": fold.train, "validation": fold.validation, "test": fold.test}


def summary(store: FeatureStore) -> str:
    """Describe a store: its size, and the utterances of each class, session and speaker."""
    originals = list({row.utterance: row for row in store.manifest if not row.copy}.values())
    hours = sum(row.duration for row in originals) / 3600
    clips = f" ({len(store):,} clips)" if len(store) > len(originals) else ""
    skipped = f"{len(store.skipped)} files skipped" + (" (see skipped.csv)" if store.skipped else "")
    speakers = set(filter(is_known_speaker, store.speakers))
    blocks = [
        f"{store.title}: {len(originals):,} utterances{clips} of {len(speakers)} speakers,"
        f" {hours:.2f} hours in {store.folder}; {skipped}"
    ]
    blocks[0] = "\n".join([blocks[0], *length_lines(store, originals), *skipped_lines(store)])
    for column in ("emotion", "session", "split", "sex", "copy", "speaker"):
        rows, unit = (store.manifest, "clips") if column == "copy" else (originals, "utterances")
        counts = Counter(getattr(row, column) for row in rows)
        if set(counts) != {""}:
            lines = [(value or "-", counts[value]) for value in sorted(counts, key=natural_sort_key)]
            blocks.append(table((column, unit), lines))
    if equal := describe_equal_recordings(store.manifest):
        blocks.append("\n".join(f"warning: {printable(line)}" for line in equal))
    return "\n\n".join(blocks)


def length_lines(store: FeatureStore, originals: Sequence[Row]) -> list[str]:
    """The durations of the utterances, and what is lost of those that are longer than a clip."""
    clip = store.front_end.duration
    durations = [row.duration for row in originals]
    spread = f"{min(durations):.2f} to {max(durations):.2f} s, median {median(durations):.2f} s"
    lines = [f"durations    {spread}, {sum(durations):,.0f} s in all"]
    cut = [row for row in originals if row.duration > clip]
    if cut and store.front_end.long != "chunks":
        excess = [row.duration - clip for row in cut]
        lost = mean(row.lost for row in cut)
        lines.append(
            f"cut          {len(cut):,} utterances are longer than the clip of {clip:g} s, by {median(excess):.2f} s"
            f" (median) to {max(excess):.2f} s; on average {100 * lost:.1f} % of their energy is lost"
        )
        if lost >= MUCH:
            lines[-1] += f"; --duration {ceil(max(durations))} or --long chunks keeps all"
    return lines


def skipped_lines(store: FeatureStore) -> list[str]:
    """An example of the files that gave no features."""
    return [f"skipped      {printable(file)}: {printable(reason)}" for file, reason in store.skipped[:1]]


def fold_table(store: FeatureStore, folds: Sequence[Fold], leaks: Sequence[Leaks]) -> str:
    """Describe the folds: utterances, test speakers, and what training and test share, the leaks of each."""
    known_sexes = sorted({row.sex for row in store.manifest} - {""})
    lines = []
    for number, fold in enumerate(folds, 1):
        sizes = [len({store.manifest[row].utterance for row in rows}) for rows in parts_of(fold).values()]
        speakers = sorted({store.speakers[row] for row in fold.test}, key=natural_sort_key)
        sexes = Counter(
            sex for _, sex in {(store.speakers[row], store.manifest[row].sex) for row in fold.test}
        )
        of_each = [sexes[sex] for sex in known_sexes]
        lines.append((number, *sizes, len(speakers), *of_each, abbreviate(speakers, MAX_NAMES)))
    text = table(("fold", *parts_of(folds[0]), "test speakers", *known_sexes, ""), lines)
    shared = describe_leaks(leaks)
    if len(shared) > MAX_LINES:
        shared[MAX_LINES:] = [f"... and {len(shared) - MAX_LINES} more"]
    return "\n".join([text, "", *map(printable, shared)]) if shared else text


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
    title = f"{store.title}: clips of each class"
    if len(folds) > len(drawn):
        title += f", first {len(drawn)} folds"
    draw_balance(counts, store.classes, path, title)


def draw_examples(store: FeatureStore, path: Path) -> bool:
    """Draw one utterance of each class; return False if the recordings are gone."""
    front_end = store.front_end
    examples = []
    for row in example_rows(store)[:MAX_EXAMPLES]:
        part = row.start, row.end
        with (
            suppress(UnreadableAudio),
            closing(read_clips(Path(row.file), front_end, "", *part)) as clips,
        ):
            clip = next(clips)
            samples = round((clip.end - clip.start) * front_end.sample_rate)
            without_padding = clip.sound[: max(samples, front_end.n_fft)]  # but at least one window
            examples.append((row.emotion, printable(row.utterance), without_padding))
    if examples:
        draw_spectrograms(examples, front_end, path, f"{store.title}: one utterance of each class")
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
    sys.exit(0 if run_command(run, CONFIG) else 1)
