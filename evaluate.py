"""Evaluate: test trained networks on the test speakers of a fold; several answer by their mean probabilities.

python evaluate.py --model runs/NAME [RUN ...] --dataset DATASET --fold K --out FOLDER
    ->  FOLDER/metrics.json, predictions.csv, plots/confusion.png
"""

from cli import command_line, run_command
from config import EvaluateConfig

if __name__ == "__main__":
    CONFIG = command_line(
        EvaluateConfig
    )  # before torch is imported, so that --help and mistakes are answered at once

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.batches import Features
from data.datasets import open_dataset
from data.folds import choose_fold, make_folds
from data.leaks import Leaks, abbreviate, check_leaks, leak_error, speaker_set
from data.speakers import SpeakerSet
from data.store import FeatureStore
from models.saved import SavedModel
from training.devices import make_fabric
from training.inference import find_model, front_end_of
from training.metrics import table
from training.predictions import Predictions, draw_confusion, hear, mean_of
from utils import UserError, write_json

OWN = {"metrics.json", "predictions.csv", "plots"}
"""What an evaluation leaves in its folder."""


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Test the models; return what metrics.json says."""
    check_folder(config.out, config.overwrite)
    models = {str(path): SavedModel.load(find_model(path)) for path in config.model}
    store, device = open_dataset(config.dataset, config.config), make_fabric(config.gpus).device
    for name, model in models.items():
        check_fit(name, model, store)
    fold = choose_fold(make_folds(store.manifest, config.folds_by, config.keep_unknown_speakers), config.fold)
    tested = speaker_set(store, fold.test, config.dataset)
    heard = heard_before(models, tested, config)
    trained_here = any(
        model.trained_on and model.trained_on.comparable_with(tested) for model in models.values()
    )
    leaks = (
        check_leaks(store.manifest, fold, config.allow_leak, f"fold {config.fold}")
        if trained_here
        else Leaks()
    )

    predictions = []
    for model in models.values():
        features = Features(store, model.mean, model.std, device)
        predictions.append(hear(model.network.to(device), features, store, fold.test, config.batch_size))
    together = mean_of(predictions)
    metrics = {
        **together.report(),
        "dataset": config.dataset,
        "fold": config.fold,
        "folds_by": config.folds_by,
        "allow_leak": list(config.allow_leak),
        "leaks": leaks.to_json(),
        "heard_in_training": heard,
        "models": list(models),
        **(gains(list(models), predictions, together) if len(models) > 1 else {}),
    }
    together.write_predictions(config.out / "predictions.csv")
    draw_confusion(metrics, config.out / "plots" / "confusion.png")
    write_json(config.out / "metrics.json", metrics)
    show(metrics, config.out)
    return metrics


def check_folder(folder: Path, overwrite: bool) -> None:
    """`UserError` where the folder holds anything that is not to be replaced."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if (folder.exists() and not folder.is_dir()) or there - OWN:
        raise UserError(f"{folder} holds something other than an evaluation: choose another --out")
    if there and not overwrite:
        raise UserError(f"{folder} holds an evaluation: --overwrite replaces it")


def check_fit(name: str, model: SavedModel, store: FeatureStore) -> None:
    """`UserError` where a model has other classes than the store, or takes other features."""
    if model.classes != store.classes:
        known, due = ", ".join(model.classes), ", ".join(store.classes)
        raise UserError(f"{name} knows the classes {known}; {store.folder} has {due}")
    takes, gives = front_end_of(model).model_dump(), store.front_end.model_dump()
    for setting, value in takes.items():
        if value != gives[setting]:
            raise UserError(
                f"{name} takes features with {setting} {value}; {store.folder} has {gives[setting]}"
            )


def heard_before(
    models: Mapping[str, SavedModel], tested: SpeakerSet, config: EvaluateConfig
) -> dict[str, list[str] | None]:
    """The test speakers whom each model heard in its search or training; None where it does not say.

    `UserError` where there are any, or it does not say, and --allow_leak does not allow it.
    """
    found = {}
    for name, model in models.items():
        found[name] = model.trained_on and model.trained_on.overlap(tested)
        if found[name] != [] and "speakers" not in config.allow_leak:
            why = "does not say whom it heard" if found[name] is None else f"heard {abbreviate(found[name])}"
            leak = f"{name} {why} in training, so this is no test"
            raise leak_error(f"fold {config.fold}", leak, "evaluate it on the fold it was trained on")
    return found


def gains(names: Sequence[str], predictions: Sequence[Predictions], together: Predictions) -> dict[str, Any]:
    """Each model's own scores, and what their mean gains over the mean of those and over the best."""
    each = [hearing.scores() for hearing in predictions]
    all_of = {rate: [scores[rate] for scores in each] for rate in ("ua", "wa")}
    own = together.scores()
    return {
        "each": [
            {"model": name, "ua": scores["ua"], "wa": scores["wa"]}
            for name, scores in zip(names, each, strict=True)
        ],
        "gain": {
            "over_mean": {rate: own[rate] - float(np.mean(values)) for rate, values in all_of.items()},
            "over_best": {rate: own[rate] - max(values) for rate, values in all_of.items()},
        },
    }


def show(metrics: dict[str, Any], folder: Path) -> None:
    """Print the table, and of several models each one's scores and what they gain together."""
    print(table(metrics))
    for one in metrics.get("each", ()):
        print(f"  alone     UA {one['ua']:6.1%}   WA {one['wa']:6.1%}   {one['model']}")
    for over, gain in metrics.get("gain", {}).items():
        ua, wa = (f"{100 * gain[rate]:+6.1f}" for rate in ("ua", "wa"))
        print(f"  gain      UA {ua}    WA {wa}    points {over.replace('_', ' their ')}")
    print(f"\nmetrics   {folder / 'metrics.json'}\npicture   {folder / 'plots' / 'confusion.png'}")


if __name__ == "__main__":
    run_command(run, CONFIG)
