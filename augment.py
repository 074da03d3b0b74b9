"""Augment: retrain the network of a genotype from scratch and test it once on speakers it has never heard.

python augment.py --name NAME --dataset DATASET --fold K     ->  runs/NAME/augment/metrics.json, model.safetensors
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import visualize
from config import AugmentConfig, parse
from data.transforms import cutout
from devices import mean_gradient
from experiment import Experiment, begin
from genotypes import Genotype, resolve
from metrics import report, scores
from models.augment_network import AugmentNetwork
from models.joint_network import Size
from models.saved import SavedModel
from runs import RUNS, RunFolder, log
from training import Metrics, cross_entropy, fit, logits_of, weight_step
from utils import UserError, run_command, write_json, write_text


def run(config: AugmentConfig) -> dict:
    """Train, pick the epoch, test; return what metrics.json says."""
    genotype = find_genotype(config)
    experiment = begin(config)
    run_folder = RunFolder("augment", config, experiment.fabric.is_global_zero)
    store, device, fold = experiment.store, experiment.device, experiment.fold
    train_rows, picking_rows = rows_of(config, experiment)
    features, statistics = experiment.features(train_rows)
    batches = experiment.batches(features, train_rows)

    size = Size(config.layers, config.init_channels, config.rnn_layers, config.rnn_channels)
    classes = len(store.classes)
    network = AugmentNetwork(genotype, size, classes, config.dropout, auxiliary=config.aux_weight > 0).to(device)
    optimizer = torch.optim.SGD(
        network.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    scheduler = CosineAnnealingLR(optimizer, config.epochs)
    criterion = training_loss(class_weights(store.labels[train_rows], classes).to(device), config.aux_weight)
    gradient = mean_gradient(experiment.fabric)
    best = Best(network)

    def step(i: int) -> Metrics:
        """One step of the weights on a training batch."""
        network.set_drop_path(config.drop_path_prob * (i // len(batches)) / config.epochs)
        x, y = batches[i]
        batch = cutout(x, config.cutout_length), y
        return weight_step(network, optimizer, batch, criterion, gradient, config.grad_clip)

    def after_epoch(epoch: int) -> dict:
        """Scores on the rows that pick the epoch; the best epoch's weights are kept."""
        labels = store.labels[picking_rows]
        logits = logits_of(network, features.in_order(picking_rows, config.batch_size))
        ua, loss = scores(labels, logits.argmax(dim=1).numpy())["ua"], cross_entropy(logits, labels)
        best.offer((ua, -loss), epoch)
        record = {"valid/loss": loss, "valid/ua": ua, "lr": scheduler.get_last_lr()[0]}
        scheduler.step()
        return record

    run_folder.take()
    parts_of_fold = train_rows, picking_rows, fold.test
    log.info("%s: %d training utterances, %d to pick the epoch, %d to test", run_folder.path, *map(len, parts_of_fold))
    log.info("%.3f M weights; device %s", count(network) / 1e6, device)
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler, "best": best}
    fit(run_folder, parts, device, config.epochs, len(batches), step, after_epoch, config.print_freq)
    best.restore()

    probabilities = logits_of(network, features.in_order(fold.test, config.batch_size)).softmax(dim=1).numpy()
    labels, speakers = store.labels[fold.test], [store.speakers[row] for row in fold.test]
    metrics = {
        **report(labels, probabilities.argmax(axis=1), speakers, store.classes),
        "protocol": config.protocol,
        "best_epoch": best.epoch,
        "params": count(network),
        "dataset": config.dataset,
        "fold": config.fold,
        "test_speakers": sorted(set(speakers)),
        "seed": config.seed,
        "genotype": genotype.to_json(),
    }
    if run_folder.writes:
        write_predictions(run_folder.path / "predictions.csv", experiment, probabilities)
        model = SavedModel(network, size, *statistics, store.classes, store.front_end.model_dump())
        model.save(run_folder.path / "model.safetensors")
        finish(run_folder, genotype, metrics, best.epoch)
    return metrics


def find_genotype(config: AugmentConfig) -> Genotype:
    """The genotype of the flag, or of the search of the same name; `UserError` where it does not fit --rnn_layers."""
    found = RUNS / config.name / "search" / "genotype.json"
    if config.genotype is None and not found.exists():
        raise UserError(f"--genotype is missing, and there is no {found}: run search.py --name {config.name} first")
    genotype = resolve(config.genotype or str(found))
    if config.rnn_layers and not genotype.rnn:
        raise UserError("--genotype has no rnn part (a pt.darts one?): pass --rnn_layers 0")
    return genotype


def rows_of(config: AugmentConfig, experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """(rows to train on, rows that pick the epoch). Only `paper` lets the test speakers pick it."""
    fold = experiment.fold
    if config.protocol == "paper":
        return np.sort(np.concatenate([fold.train, fold.validation])), fold.test
    return fold.train, fold.validation


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """Weights that make every class count the same in the loss: n / (classes n_c); 0 for a class that is absent."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0)
    return torch.from_numpy(weights.astype(np.float32))


def training_loss(weight: Tensor, aux_weight: float) -> Callable[[Tensor | tuple[Tensor, Tensor], Tensor], Tensor]:
    """Class-weighted cross-entropy, plus `aux_weight` times that of the auxiliary head where there is one."""

    def criterion(outputs: Tensor | tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = F.cross_entropy(logits, y, weight)
        return loss + sum(aux_weight * F.cross_entropy(extra, y, weight) for extra in auxiliary)

    return criterion


class Best:
    """The network of the best epoch so far, by UA and then by loss; part of the checkpoint."""

    def __init__(self, network: nn.Module):
        self.network, self.epoch, self.rank, self.weights = network, 0, None, {}

    def offer(self, rank: tuple[float, float], epoch: int) -> None:
        """Keep this epoch's weights if it ranks above all before it."""
        if self.rank is None or rank > self.rank:
            self.rank, self.epoch = rank, epoch
            self.weights = {name: t.clone() for name, t in self.network.state_dict().items()}

    def restore(self) -> None:
        """Put the best epoch's weights into the network."""
        self.network.load_state_dict(self.weights)

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "rank": self.rank, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self.rank, self.weights = state["epoch"], state["rank"], state["weights"]


def count(network: nn.Module) -> int:
    """Parameters at test time: without the auxiliary head."""
    return sum(p.numel() for name, p in network.named_parameters() if ".auxiliary." not in name)


def write_predictions(path: Path, experiment: Experiment, probabilities: np.ndarray) -> None:
    """One line a test utterance: who said it, what it is, what was predicted, and how probable each class was."""
    classes, text = experiment.store.classes, io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["utterance", "speaker", "emotion", "predicted", *classes])
    for index, p in zip(experiment.fold.test, probabilities, strict=True):
        row = experiment.store.manifest[index]
        lines.writerow([row.utterance, row.speaker, row.emotion, classes[p.argmax()], *(f"{value:.6f}" for value in p)])
    write_text(path, text.getvalue())


def finish(run_folder: RunFolder, genotype: Genotype, metrics: dict, best_epoch: int) -> None:
    """Write the metrics, draw the cells and the confusion matrix, and say what came out."""
    plots = run_folder.path / "plots"
    visualize.draw_genotype(genotype, plots)
    title = f"UA {metrics['ua']:.1%}, WA {metrics['wa']:.1%}"
    visualize.draw_confusion(metrics["confusion"], metrics["classes"], plots / "confusion.png", title)
    run_folder.show("test/confusion", plots / "confusion.png", best_epoch)
    for name in ("ua", "wa", "macro_f1"):
        run_folder.events.add_scalar(f"test/{name}", metrics[name], best_epoch)
    run_folder.events.flush()
    write_json(run_folder.path / "metrics.json", metrics)
    log.info("\n%s", metrics_table(metrics))
    log.info("\nmetrics   %s\npictures  %s\nnext      python predict.py --model %s FILE.wav",
             run_folder.path / "metrics.json", plots, run_folder.path.parent)  # fmt: skip


def metrics_table(metrics: dict) -> str:
    """The result as a person reads it."""
    ci = {name: f"95 % interval {low:.1%} to {high:.1%}" for name, (low, high) in metrics["ci95"].items()}
    lines = [
        f"test on {metrics['n']} utterances of {', '.join(metrics['test_speakers'])} "
        f"(epoch {metrics['best_epoch']}, protocol {metrics['protocol']})",
        f"  UA        {metrics['ua']:6.1%}   {ci['ua']}",
        f"  WA        {metrics['wa']:6.1%}   {ci['wa']}",
        f"  macro-F1  {metrics['macro_f1']:6.1%}",
    ]
    lines += [f"  recall    {r:6.1%}   {name}" for name, r in metrics["recall"].items() if r is not None]
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(lambda: run(parse(AugmentConfig, "augment")))
