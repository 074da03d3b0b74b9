"""Augment: train the network of a genotype from scratch, and test it once on speakers that it was not trained on.

python augment.py --name NAME --dataset DATASET --fold K     ->  runs/NAME/augment/metrics.json, model.safetensors

--model cnn_lstm_att, for example, trains a network designed by hand instead; nothing else changes.
"""

from cli import command_line, command_to_type, note, run_command
from config import AugmentConfig, PredictConfig, SearchConfig

if __name__ == "__main__":
    CONFIG = command_line(AugmentConfig)  # before torch is imported: --help and mistakes take no time

from pathlib import Path
from typing import Any

from data.speakers import SpeakerSet
from genotypes import Genotype
from models.complexity import multiply_adds
from plots import cells
from training import distributed
from training.devices import freed_memory_kept
from training.experiment import start_experiment
from training.given_genotypes import check_searched_speakers, read_given
from training.loop import fit
from training.metrics import table
from training.predictions import draw_confusion
from training.retraining import Retraining
from training.run_folder import RunFolder, log
from utils import UserError, write_json


def run(config: AugmentConfig) -> dict[str, Any]:
    """Train, pick the epoch, test; return the contents of metrics.json."""
    genotype, searched_on = find_genotype(config)
    config = without_missing_rnn(config, genotype)
    experiment = start_experiment(config)
    heard = check_searched_speakers(searched_on, experiment)
    origin = experiment.origin(genotype=genotype and genotype.to_json())
    folder = RunFolder("augment", config, distributed.is_first(), origin)
    retraining = Retraining(config, experiment, genotype)
    with folder:
        distributed.barrier()  # no rank looks for a checkpoint before rank 0 has taken the folder
        log.info("augment   %s", folder.path)
        retraining.log_setup()
        with freed_memory_kept():
            fit(folder, retraining, experiment.device)
        return test(folder, retraining, searched_on, heard)


def find_genotype(config: AugmentConfig) -> tuple[Genotype | None, SpeakerSet | None]:
    """The genotype of --genotype or of a search, and the speakers it was searched on, if known.

    Both are None for a network designed by hand. Raises `UserError` if no genotype is found, or if it is invalid.
    """
    if config.model != "searched":
        return None, None
    search = config.search_id or config.name
    path = config.results_path / search / "search" / "genotype.json"
    if config.genotype is None and not path.exists():
        raise UserError(missing_genotype(path, search, config))
    return read_given(config.genotype or str(path))


def missing_genotype(path: Path, search: str, config: AugmentConfig) -> str:
    """The message for a search that has not ended, with the command that continues or starts it."""
    settings = path.with_name("config.json")
    if path.with_name("checkpoint.pt").exists() and settings.exists():
        shown = {"resume": True, "results_path": config.results_path}
        return (
            f"the search {search} is unfinished; first run: {command_to_type(SearchConfig, settings, shown)}"
        )
    shown = {"name": search, "dataset": config.dataset, "fold": config.fold}
    command = command_to_type(SearchConfig, config.config, shown, config.shared_flags())
    return f"--genotype is missing, and there is no {path}; first run: {command}"


def without_missing_rnn(config: AugmentConfig, genotype: Genotype | None) -> AugmentConfig:
    """Set --rnn_layers to 0 if the genotype has no SeqNN cell, as those of pt.darts."""
    if genotype is None or genotype.rnn or not config.rnn_layers:
        return config
    note(f"the genotype has no rnn part: --rnn_layers is 0, not {config.rnn_layers}")
    return config.model_copy(update={"rnn_layers": 0})


def test(
    folder: RunFolder, retraining: Retraining, searched_on: SpeakerSet | None, heard: list[str] | None
) -> dict[str, Any]:
    """Test the network of the best epoch on the test speakers, and write all results.

    `searched_on` are the speakers of the search, `heard` the test speakers among them.
    """
    config = retraining.config
    store = retraining.store
    genotype = retraining.architecture.genotype
    retraining.best.restore()
    predictions = retraining.predict(retraining.experiment.fold.test)
    metrics = {
        **predictions.report(),
        "protocol": config.protocol,
        "copies": list(config.test_copies),
        "best_epoch": retraining.best.epoch,
        "params": retraining.weight_count,
        "multiply_adds": multiply_adds(retraining.network, store.front_end.shape),
        "dataset": config.dataset_name,
        "fold": config.fold,
        "seed": config.seed,
        "folds_by": config.folds_by,
        "allow_leak": list(config.allow_leak),
        "leaks": retraining.experiment.leaks.to_json(),
        "heard_in_search": heard,
        "model": config.model,
        "genotype": genotype and genotype.to_json(),
    }
    if folder.writes:
        retraining.saved_model(searched_on).save(folder.path / "model.safetensors")
        predictions.write(folder.path / "predictions.csv")
        draw(folder, genotype, metrics)
        write_json(folder.path / "metrics.json", metrics)
    log.info("\n%s\n", table(metrics))
    log.info("metrics   %s\npictures  %s", folder.path / "metrics.json", folder.plots)
    shown = {"model": folder.path.parent, "files": ["FILE.wav"]}
    log.info("next      %s", command_to_type(PredictConfig, config.config, shown, {"gpus": config.gpus}))
    return metrics


def draw(folder: RunFolder, genotype: Genotype | None, metrics: dict[str, Any]) -> None:
    """Draw the cells, if any, and the confusion matrix, and show the test in TensorBoard."""
    if genotype:
        cells.draw_genotype(genotype, folder.plots)
    picture = folder.plots / "confusion.png"
    draw_confusion(metrics, picture)
    step = folder.config.epochs + 1  # behind all epochs: a finished run that is resumed replaces it
    folder.add_image("test/confusion", picture, step)
    folder.add_scalars({f"test/{name}": metrics[name] for name in ("ua", "wa", "macro_f1")}, step)


if __name__ == "__main__":
    run_command(run, CONFIG)
