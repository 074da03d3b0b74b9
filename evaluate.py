"""Evaluate: test trained networks on the test speakers of a fold; of several models, their mean probabilities.

python evaluate.py --model runs/NAME [RUN ...] --dataset DATASET --fold K --out FOLDER
    ->  FOLDER/metrics.json, predictions.csv, plots/confusion.png
"""

from cli import command_line, run_command
from config import EvaluateConfig

if __name__ == "__main__":
    CONFIG = command_line(EvaluateConfig)  # before torch is imported: --help and mistakes take no time

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.batches import Features
from data.datasets import dataset_folds, open_dataset
from data.folds import choose_fold
from data.leaks import Leaks, abbreviate, check_leaks, leak_error, speakers_under_test
from data.normalisation import standardise
from data.speakers import TestSpeakers
from data.store import FeatureStore
from models.saved import SavedModel
from training.devices import choose_device
from training.inference import find_model, front_end_of
from training.metrics import table
from training.predictions import Predictions, average_networks, draw_confusion, predict
from utils import UserError, write_json

OUTPUTS = {"metrics.json", "predictions.csv", "plots"}
"""What an evaluation writes into its folder."""


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Test the models; return the contents of metrics.json."""
    check_output_folder(config.out, config.overwrite)
    models = {str(path): SavedModel.load(find_model(path)) for path in config.model}
    device = choose_device(config.gpus)
    store = open_dataset(config.dataset, config.config, config.features)
    for name, model in models.items():
        check_compatible(name, model, store)
    folds = dataset_folds(store, config)
    fold = choose_fold(folds, config.fold)
    test_speakers = speakers_under_test(store, fold.test, config.dataset_name)
    trained_on = check_training_speakers(models, test_speakers, config)
    trained_here = any(m.trained_on and m.trained_on.related_to(test_speakers) for m in models.values())
    leaks = (
        check_leaks(store.manifest, fold, config.allow_leak, f"fold {config.fold}")
        if trained_here
        else Leaks()
    )

    predictions = []
    for model in models.values():
        standardisation = standardise(store, model.normalise, model.mean, model.std)
        features = Features(store, standardisation, device)
        network = model.network.to(device)
        rows = store.with_copies(fold.test, model.copies)
        predictions.append(predict(network, features, store, rows, config.batch_size))
    average = average_networks(predictions)
    metrics = {
        **average.report(),
        "dataset": config.dataset_name,
        "fold": config.fold,
        "folds_by": config.folds_by,
        "allow_leak": list(config.allow_leak),
        "leaks": leaks.to_json(),
        "heard_in_training": trained_on,
        "models": list(models),
        "copies_by_model": {name: list(model.copies) for name, model in models.items()},
    }
    if len(models) > 1:
        metrics.update(compare_with_average(list(models), predictions, average))
    average.write(config.out / "predictions.csv")
    draw_confusion(metrics, config.out / "plots" / "confusion.png")
    write_json(config.out / "metrics.json", metrics)
    print_results(metrics, config.out)
    return metrics


def check_output_folder(folder: Path, overwrite: bool) -> None:
    """Raise `UserError` if the folder holds anything that must not be replaced."""
    existing = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if (folder.exists() and not folder.is_dir()) or existing - OUTPUTS:
        raise UserError(f"{folder} holds something other than an evaluation: choose another --out")
    if existing and not overwrite:
        raise UserError(f"{folder} holds an evaluation: --overwrite replaces it")


def check_compatible(name: str, model: SavedModel, store: FeatureStore) -> None:
    """Raise `UserError` if the store has other classes, another front-end, or not the copies that a model predicts."""
    if model.classes != store.classes:
        model_classes = ", ".join(model.classes)
        store_classes = ", ".join(store.classes)
        raise UserError(f"{name} has the classes {model_classes}; {store.folder} has {store_classes}")
    store.check_copies(model.copies, name)
    store_settings = store.front_end.model_dump()
    for setting, value in front_end_of(model).model_dump().items():
        if value != store_settings[setting]:
            raise UserError(
                f"{name} takes features with {setting} {value}; {store.folder} has {store_settings[setting]}"
            )


def check_training_speakers(
    models: Mapping[str, SavedModel], test_speakers: TestSpeakers, config: EvaluateConfig
) -> dict[str, list[str] | None]:
    """By model, the test speakers that its search or training used; None if that cannot be told.

    Raises `UserError` if there are any, or if it is not known, unless --allow_leak speakers.
    """
    shared = {}
    for name, model in models.items():
        shared[name] = model.trained_on.heard(test_speakers) if model.trained_on else None
        if shared[name] == [] or "speakers" in config.allow_leak:
            continue
        if model.trained_on is None:
            leak = f"{name} does not say which speakers it was trained on"
        elif shared[name] is None:
            leak = f"it cannot be told whether {name} was trained on test speakers: it was trained on other recordings"
        else:
            leak = f"{name} was trained on test speakers ({abbreviate(shared[name])})"
        advice = "evaluate it on the fold it was trained on"
        raise leak_error(f"fold {config.fold}", leak, advice, ["speakers", *config.allow_leak])
    return shared


def compare_with_average(
    names: Sequence[str], predictions: Sequence[Predictions], average: Predictions
) -> dict[str, Any]:
    """Each model's scores, and the gain of the average over their mean and over the best of them."""
    each = [one.scores() for one in predictions]
    own = average.scores()
    over_mean, over_best = {}, {}
    for rate in ("ua", "wa"):
        values = [scores[rate] for scores in each]
        over_mean[rate] = own[rate] - float(np.mean(values))
        over_best[rate] = own[rate] - max(values)
    return {
        "each": [
            {"model": name, "ua": one["ua"], "wa": one["wa"]} for name, one in zip(names, each, strict=True)
        ],
        "gain": {"over_mean": over_mean, "over_best": over_best},
    }


def print_results(metrics: dict[str, Any], folder: Path) -> None:
    """Print the table of scores; for several models, also their own scores and the gain of the average."""
    print(table(metrics))
    for one in metrics.get("each", ()):
        print(f"  alone     UA {one['ua']:6.1%}   WA {one['wa']:6.1%}   {one['model']}")
    for over, gain in metrics.get("gain", {}).items():
        ua, wa = (f"{100 * gain[rate]:+6.1f}" for rate in ("ua", "wa"))
        print(f"  gain      UA {ua}    WA {wa}    points {over.replace('_', ' their ')}")
    print(f"\nmetrics   {folder / 'metrics.json'}\npicture   {folder / 'plots' / 'confusion.png'}")


if __name__ == "__main__":
    run_command(run, CONFIG)
