"""Augment: retrain the network of a genotype from scratch and test it once on speakers it has never heard.

python augment.py --name NAME --dataset DATASET --fold K     ->  runs/NAME/augment/metrics.json, model.safetensors
"""

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import visualize
from config import AugmentConfig
from data.transforms import cutout, spec_augment
from devices import mean_gradient
from experiment import Experiment, begin
from flags import parse
from genotypes import Genotype, resolve
from losses import JointLoss, class_weights
from metrics import report, scores, table, write_predictions
from models.augment_network import AugmentNetwork
from models.joint_network import Size
from models.saved import SavedModel
from runs import RUNS, RunFolder, log
from training import Metrics, cross_entropy, fit, logits_of, weight_step
from utils import UserError, run_command, write_json


def run(config: AugmentConfig) -> dict[str, Any]:
    """Train, pick the epoch, test; return what metrics.json says."""
    genotype = find_genotype(config)
    experiment = begin(config)
    folder = RunFolder("augment", config, experiment.fabric.is_global_zero)
    augment = Augment(config, experiment, genotype)
    with folder:
        experiment.fabric.barrier()  # no process looks for a checkpoint before the first has taken the folder
        introduce(folder, augment)
        fit(folder, augment, experiment.device)
        return test(folder, augment)


def introduce(folder: RunFolder, augment: "Augment") -> None:
    """Say what is trained, on what, and where."""
    sizes = len(augment.train_rows), len(augment.picking_rows), len(augment.experiment.fold.test)
    log.info("augment   %s", folder.path)
    log.info("data      %d utterances to train, %d to pick the epoch, %d to test", *sizes)
    log.info("network   %.3f M weights on %s\n", augment.weight_count / 1e6, augment.features.device)


def find_genotype(config: AugmentConfig) -> Genotype:
    """The genotype of the flag, or of the search of the same name; `UserError` where it does not fit --rnn_layers."""
    found = RUNS / config.name / "search" / "genotype.json"
    if config.genotype is None and not found.exists():
        raise UserError(f"--genotype is missing, and there is no {found}: run search.py --name {config.name} first")
    genotype = resolve(config.genotype or str(found))
    if config.rnn_layers and not genotype.rnn:
        raise UserError("--genotype has no rnn part (is it one of pt.darts?): pass --rnn_layers 0")
    return genotype


class Augment:
    """The training of a derived network, and the choice of its epoch."""

    def __init__(self, config: AugmentConfig, experiment: Experiment, genotype: Genotype):
        self.config, self.experiment, self.store = config, experiment, experiment.store
        self.train_rows, self.picking_rows = experiment.fold.parts(config.protocol)
        self.features, self.statistics = experiment.features(self.train_rows)
        self.batches = experiment.batches(self.features, self.train_rows)
        self.steps = len(self.batches)

        self.size = Size(config.layers, config.init_channels, config.rnn_layers, config.rnn_channels)
        classes, auxiliary = len(self.store.classes), config.aux_weight > 0
        network = AugmentNetwork(genotype, self.size, classes, config.dropout, auxiliary)
        self.network = network.to(experiment.device)
        self.weight_count = sum(p.numel() for name, p in network.named_parameters() if ".auxiliary." not in name)
        self.optimizer = torch.optim.SGD(
            network.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.scheduler = CosineAnnealingLR(self.optimizer, config.epochs)
        weight = class_weights(self.store.labels[self.train_rows], classes)
        self.criterion = JointLoss(weight, config.aux_weight).to(experiment.device)
        self.gradient = mean_gradient(experiment.fabric)
        self.best = Best(network)
        self.parts = {
            "network": network,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "best": self.best,
        }

    def step(self, i: int) -> Metrics:
        """One step of the weights on a training batch."""
        self.network.set_drop_path(self.config.drop_path_prob * (i // self.steps) / self.config.epochs)
        x, y = self.batches[i]
        x = cutout(spec_augment(x, self.config.freq_mask, self.config.time_mask), self.config.cutout_length)
        return weight_step(self.network, self.optimizer, (x, y), self.criterion, self.gradient, self.config.grad_clip)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Scores on the rows that pick the epoch; the best epoch's weights are kept."""
        labels = self.store.labels[self.picking_rows]
        logits = logits_of(self.network, self.features.in_order(self.picking_rows, self.config.batch_size))
        ua, loss = scores(labels, logits.argmax(dim=1).numpy())["ua"], cross_entropy(logits, labels)
        self.best.offer((ua, -loss), epoch)
        record = {"valid/loss": loss, "valid/ua": ua, "lr": self.scheduler.get_last_lr()[0]}
        self.scheduler.step()
        return record


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

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "rank": self.rank, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.rank, self.weights = state["epoch"], state["rank"], state["weights"]


def test(folder: RunFolder, augment: Augment) -> dict[str, Any]:
    """Test the best epoch's network on the test speakers, and write everything that came out."""
    config, store, rows = augment.config, augment.store, augment.experiment.fold.test
    augment.best.restore()
    logits = logits_of(augment.network, augment.features.in_order(rows, config.batch_size))
    probabilities, speakers = logits.softmax(dim=1).numpy(), [store.speakers[row] for row in rows]
    metrics = {
        **report(store.labels[rows], probabilities.argmax(axis=1), speakers, store.classes),
        "protocol": config.protocol,
        "best_epoch": augment.best.epoch,
        "params": augment.weight_count,
        "dataset": config.dataset,
        "fold": config.fold,
        "seed": config.seed,
        "test_speakers": sorted(set(speakers)),
        "genotype": augment.network.genotype.to_json(),
    }
    if folder.writes:
        model = SavedModel(
            augment.network, augment.size, *augment.statistics, store.classes, store.front_end.model_dump()
        )
        model.save(folder.path / "model.safetensors")
        manifest = [store.manifest[row] for row in rows]
        write_predictions(folder.path / "predictions.csv", manifest, store.classes, probabilities)
        draw(folder, augment.network.genotype, metrics)
        write_json(folder.path / "metrics.json", metrics)
    log.info("\n%s\n", table(metrics))
    log.info("metrics   %s\npictures  %s", folder.path / "metrics.json", folder.plots)
    log.info("next      python predict.py --model %s FILE.wav", folder.path.parent)
    return metrics


def draw(folder: RunFolder, genotype: Genotype, metrics: dict[str, Any]) -> None:
    """Draw the cells and the confusion matrix, and show the test in TensorBoard."""
    picture, title = folder.plots / "confusion.png", f"UA {metrics['ua']:.1%}, WA {metrics['wa']:.1%}"
    visualize.draw_genotype(genotype, folder.plots)
    visualize.draw_confusion(metrics["confusion"], metrics["classes"], picture, title)
    folder.show("test/confusion", picture, metrics["best_epoch"])
    folder.add_scalars({f"test/{name}": metrics[name] for name in ("ua", "wa", "macro_f1")}, metrics["best_epoch"])


if __name__ == "__main__":
    run_command(lambda: run(parse(AugmentConfig, "augment")))
