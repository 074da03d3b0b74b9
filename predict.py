"""Predict: the emotion of recordings, by the model of a run.

python predict.py --model runs/NAME FILE_OR_FOLDER ...
"""

from cli import command_line, note, run_command
from config import PredictConfig

if __name__ == "__main__":
    CONFIG = command_line(PredictConfig)  # before torch is imported: --help and mistakes take no time

import csv
import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data.audio_files import describe_foreign, files_below, is_foreign, is_readable
from data.corpora.manifest import find_file, segments_of
from data.segments import Segment, format_seconds
from training.devices import choose_device
from training.inference import Prediction, load_run, speaker_of
from utils import UserError, printable, progress

LISTS = {".csv", ".tsv"}
"""The files that list recordings."""
MAX_NAMES = 5  # of recordings in a line


def run(config: PredictConfig) -> list[Prediction]:
    """Predict every recording and print the results; list those that cannot be read, with the reason."""
    recordings = list(find_recordings(config.files))
    model = load_run(*config.model, device=choose_device(config.gpus), windows=config.windows)
    if model.normalise == "speaker":
        note(describe_speakers(recordings))
    if model.copies and not config.windows:
        note(f"a prediction is the mean over the recording and its copies {', '.join(model.copies)}")
    stream = model.predict(recordings, config.batch_size)
    predictions = list(progress(stream, "predict", total=len(recordings), unit="file"))
    print_predictions(predictions, model.classes, config)
    for prediction in predictions:
        if prediction.error:
            print(printable(f"unreadable  {prediction.segment}: {prediction.error}"), file=sys.stderr)
    if partial := [prediction for prediction in predictions if prediction.is_partial]:
        note(describe_partial(partial))
    return predictions


def describe_speakers(segments: Sequence[Segment]) -> str:
    """Say which recordings are standardised together."""
    kinds = Counter(kind for kind, _ in set(map(speaker_of, segments)))
    groups = " and ".join(f"{count:,} {kind}{'s' * (count > 1)}" for kind, count in sorted(kinds.items()))
    recordings = f"{len(segments):,} recording{'s' * (len(segments) > 1)}"
    advice = "; a CSV with a column speaker tells who speaks" if "folder" in kinds else ""
    return f"features are standardised by speaker: {recordings} of {groups}{advice}"


def find_recordings(paths: Iterable[Path]) -> Iterator[Segment]:
    """The recordings that paths name: files, all audio below folders, patterns, and those listed in a CSV.

    A CSV has the column `file`, and `start` and `end` where it lists parts of recordings. Brackets in a pattern are
    taken literally where there are such files.

    Raises `UserError` for a path that does not exist: it may be a mistyped run.
    """
    for path in map(find_file, paths):
        if path.is_dir():
            yield from map(Segment, recordings_below(path))
        elif path.suffix.lower() in LISTS and path.is_file():
            yield from segments_of(path)
        elif not path.exists() and (matches := find_matches(str(path))):
            yield from map(Segment, map(Path, matches))
        elif not path.exists():
            raise UserError(f"{path}: no such recording, folder or list, and no run that holds a model")
        else:
            yield Segment(path)


def find_matches(pattern: str) -> list[str]:
    """The files that match a pattern; brackets stand for themselves if any file matches so, else for sets."""
    literal = pattern.replace("[", "[[]")
    return sorted(glob.glob(literal, recursive=True) or glob.glob(pattern, recursive=True))


def recordings_below(folder: Path) -> list[Path]:
    """The recordings in a folder and below, each once, sorted; a note tells what is passed over.

    Raises `UserError` if there are none.
    """
    files = files_below(folder)
    by_place: dict[str, Path] = {}
    for file in sorted(filter(is_readable, files), key=lambda file: (file.is_symlink(), file)):
        by_place.setdefault(os.path.realpath(file), file)  # of a file and its links, the file
    foreign = sorted(filter(is_foreign, files))
    if not by_place:
        instead = f", only {describe_foreign(foreign)}" if foreign else ""
        raise UserError(f"no audio below the folder {folder}{instead}")
    if foreign:
        note(f"passed over below {folder}: {describe_foreign(foreign)}")
    return sorted(by_place.values())


def describe_partial(predictions: Sequence[Prediction]) -> str:
    """Say which part of a recording that is longer than a clip was used."""
    parts = []
    for prediction in predictions[:MAX_NAMES]:
        [window] = prediction.windows
        times = f"{window.start:.1f} to {window.end:.1f} s of {window.recording:,.1f} s"
        parts.append(f"{prediction.segment} ({times})")
    if len(predictions) > MAX_NAMES:
        parts.append(f"and {len(predictions) - MAX_NAMES:,} more")
    return f"only a part was used: {', '.join(parts)}; --windows uses all of a recording"


def print_predictions(
    predictions: Sequence[Prediction], classes: Sequence[str], config: PredictConfig
) -> None:
    """Print JSON, CSV, or a table."""
    if config.json_:
        entries = [json_entry(prediction, config.windows) for prediction in predictions]
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    has_times = config.windows or any(prediction.segment.part for prediction in predictions)
    rows = [
        row
        for prediction in predictions
        if not prediction.error
        for row in table_rows(prediction, config.windows, has_times)
    ]
    times = ("start", "end") if has_times else ()
    header = ["file", *times, "emotion", *classes]
    if config.csv:
        lines = [[*row[:-1], *(f"{p:.6f}" for p in row[-1])] for row in rows]
        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *lines])
    else:
        lines = [[*row[:-1], *(f"{p:.1%}" for p in row[-1])] for row in rows]
        print_table([header, *lines], right=len(classes))


def print_table(lines: Sequence[Sequence[str]], right: int) -> None:
    """Print aligned columns; the last `right` of them are aligned to the right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    left = len(widths) - right
    for line in lines:
        words = [f"{cell:{width}}" for cell, width in zip(line[:left], widths[:left], strict=True)]
        shares = [f"{cell:>{max(width, 6)}}" for cell, width in zip(line[left:], widths[left:], strict=True)]
        print("  ".join([*words, *shares]))


def table_rows(prediction: Prediction, windows: bool, has_times: bool) -> Iterator[tuple]:
    """The rows of a recording in the table and the CSV, probabilities last: one, or one for each window.

    Without windows, the times are those of the part of a recording; the end of a whole one is empty.
    """
    if not windows:
        end = "" if prediction.end is None else format_seconds(prediction.end)
        times = (format_seconds(prediction.start), end) if has_times else ()
        yield str(prediction.file), *times, prediction.emotion, prediction.probabilities
        return
    for window in prediction.windows:
        emotion = prediction.classes[int(window.probabilities.argmax())]
        yield str(prediction.file), f"{window.start:.2f}", f"{window.end:.2f}", emotion, window.probabilities


def json_entry(prediction: Prediction, windows: bool) -> dict[str, Any]:
    """The entry of a recording in the JSON output."""
    entry: dict[str, Any] = {"file": str(prediction.file)}
    if prediction.segment.part:
        entry |= {"start": prediction.start, "end": prediction.end}
    if prediction.error:
        return {**entry, "error": prediction.error}
    entry |= {"emotion": prediction.emotion, "probabilities": prediction.by_class}
    if windows:
        entry["windows"] = [
            {
                "start": round(window.start, 3),
                "end": round(window.end, 3),
                "probabilities": dict(zip(prediction.classes, map(float, window.probabilities), strict=True)),
            }
            for window in prediction.windows
        ]
    return entry


if __name__ == "__main__":
    predictions = run_command(run, CONFIG)
    sys.exit(1 if any(prediction.error for prediction in predictions) else 0)
