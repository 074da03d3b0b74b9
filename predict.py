"""Predict: tell the emotion of recordings with the model of a run.

python predict.py --model runs/NAME FILE_OR_FOLDER ...
"""

from cli import command_line, run_command
from config import PredictConfig

if __name__ == "__main__":
    CONFIG = command_line(
        PredictConfig
    )  # before torch is imported, so that --help and mistakes are answered at once

import csv
import glob
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import soundfile

from data.corpora.manifest import files_of
from training.devices import make_fabric
from training.inference import Answer, load_run
from utils import UserError, printable, progress

SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".oga", ".opus"} - {
    ".raw"
}
"""What counts as audio in a folder."""


def run(config: PredictConfig) -> list[Answer]:
    """Predict every recording and print the results; those that cannot be read are listed with the reason."""
    files = list(found(config.files))
    model = load_run(*config.model, device=make_fabric(config.gpus).device, windows=config.windows)
    answers = list(
        progress(model.predict(files, config.batch_size), "predict", total=len(files), unit="file")
    )
    show(answers, model.classes, config)
    for answer in answers:
        if answer.error:
            print(printable(f"unreadable  {answer.file}: {answer.error}"), file=sys.stderr)
    return answers


def found(words: Iterable[Path]) -> Iterator[Path]:
    """The recordings that words name: files, all audio below folders, patterns, and the `file` column of a CSV."""
    for word in words:
        if word.is_dir():
            inside = sorted(p for p in word.rglob("[!.]*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"no audio below the folder {word}")
            yield from inside
        elif word.suffix.lower() == ".csv" and word.is_file():
            yield from files_of(word)
        elif not word.exists() and (matches := sorted(glob.glob(str(word), recursive=True))):
            yield from map(Path, matches)
        else:
            yield word


def show(answers: Sequence[Answer], classes: Sequence[str], config: PredictConfig) -> None:
    """Print JSON, CSV, or a table."""
    if config.json_:
        print(
            json.dumps([as_json(answer, config.windows) for answer in answers], indent=2, ensure_ascii=False)
        )
        return
    rows = [row for answer in answers if not answer.error for row in rows_of(answer, config.windows)]
    header = ["file", *(("start", "end") if config.windows else ()), "emotion", *classes]
    if config.csv:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerows([header, *([*row[:-1], *(f"{p:.6f}" for p in row[-1])] for row in rows)])
    else:
        lines = [header, *([*row[:-1], *(f"{p:.1%}" for p in row[-1])] for row in rows)]
        cells = [[printable(cell) for cell in line] for line in lines]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            words, shares = line[: -len(classes)], line[-len(classes) :]
            left = [f"{word:{width}}" for word, width in zip(words, widths, strict=False)]
            right = [
                f"{share:>{max(width, 6)}}" for share, width in zip(shares, widths[len(words) :], strict=True)
            ]
            print("  ".join([*left, *right]))


def rows_of(answer: Answer, windows: bool) -> Iterator[tuple]:
    """What the table and the CSV say of a recording, the probabilities last: one row, or one for each window."""
    if not windows:
        yield str(answer.file), answer.emotion, answer.probabilities
        return
    for window in answer.windows:
        emotion = answer.classes[int(window.probabilities.argmax())]
        yield str(answer.file), f"{window.start:.2f}", f"{window.end:.2f}", emotion, window.probabilities


def as_json(answer: Answer, windows: bool) -> dict[str, Any]:
    """What the JSON says of a recording."""
    if answer.error:
        return {"file": str(answer.file), "error": answer.error}
    result = {"file": str(answer.file), "emotion": answer.emotion, "probabilities": answer.by_class}
    if windows:
        result["windows"] = [
            {
                "start": round(w.start, 3),
                "end": round(w.end, 3),
                "probabilities": dict(zip(answer.classes, map(float, w.probabilities), strict=True)),
            }
            for w in answer.windows
        ]
    return result


if __name__ == "__main__":
    answers = run_command(run, CONFIG)
    sys.exit(1 if any(answer.error for answer in answers) else 0)
