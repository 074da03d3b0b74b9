"""Search: train a supernet of mixed CNN and LSTM/RNN operations, and derive the genotype of the best cells.

python search.py --name NAME --dataset DATASET --fold K     ->  runs/NAME/search/genotype.json

--strategy random draws the genotype instead, for comparison.
"""

from cli import command_line, run_command
from config import SearchConfig

if __name__ == "__main__":
    CONFIG = command_line(
        SearchConfig
    )  # before torch is imported, so that --help and mistakes are answered at once

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from darts import planner
from darts.bilevel import Bilevel, make_supernet, space_of
from data.folds import halves
from data.speakers import SpeakerSet
from genotypes import Genotype
from models.fused import native
from models.search_network import SearchNetwork
from plots import cells, charts
from training import distributed
from training.devices import mean_gradient
from training.evaluation import cross_entropy, logits_of
from training.experiment import Experiment, begin
from training.loop import Metrics, fit
from training.losses import JointLoss
from training.metrics import scores
from training.pace import Pace
from training.run_folder import RunFolder, earlier_flags, log


def run(config: SearchConfig) -> Genotype | None:
    """Search on the training speakers of a fold; its validation and test speakers are not touched.

    With --plan, tell what memory that would take, and do nothing else.
    """
    experiment = begin(config)
    if config.plan:
        print(planner.table(experiment, config))
        return None
    plan = settled(config, experiment) if config.strategy == "darts" else None
    if plan:
        config, experiment = plan.config, replace(experiment, config=plan.config)
    folder = RunFolder("search", config, experiment.fabric.is_global_zero, experiment.origin())
    search = STRATEGIES[config.strategy](config, experiment, folder)
    with folder:
        distributed.barrier()  # no process looks for a checkpoint before the first has taken the folder
        log.info("search    %s", folder.path)
        if plan:
            log.info("memory    %s", plan)
        return finish(folder, search.find(), search.searched_on, config)


def settled(config: SearchConfig, experiment: Experiment) -> planner.Planner:
    """The plan, with a choice for every `auto` of the flags; a run that is gone on with keeps its batch size."""
    earlier = earlier_flags(config.folder / "search").get("batch_size") if config.resume else None
    if config.batch_size == "auto" and isinstance(earlier, int) and earlier > 1:
        config = config.model_copy(update={"batch_size": earlier})
    return planner.Planner.of(experiment, config).settle()


class Search:
    """The supernet, and the halves of the training rows from which its weights and its alphas learn."""

    def __init__(self, config: SearchConfig, experiment: Experiment, folder: RunFolder):
        self.config, self.folder, self.experiment, self.store = config, folder, experiment, experiment.store
        rows = experiment.fold.train
        self.weight_rows, self.alpha_rows = halves(
            self.store.manifest, rows, config.train_portion, config.seed
        )
        self.searched_on = experiment.speakers(rows)
        self.features, _ = experiment.features(rows)
        self.weight_batches = experiment.batches(self.features, self.weight_rows)
        self.alpha_batches = experiment.batches(self.features, self.alpha_rows, stream=1)
        self.steps = len(self.weight_batches)
        self.pace = Pace()  # of pictures, which may take as long as an epoch on a GPU
        self.network = experiment.place(make_supernet(config, len(self.store.classes)))
        criterion = JointLoss(experiment.class_weights(rows), aux_weight=0.0)
        self.bilevel = Bilevel(config, self.network, criterion, mean_gradient)
        self.bilevel_step = self.bilevel.step_on(experiment.device)
        optimizer = self.bilevel.weight_optimizer
        self.scheduler = CosineAnnealingLR(optimizer, config.epochs, eta_min=config.w_lr_min)
        self.parts = {
            "network": self.network,
            "weight_optimizer": optimizer,
            "alpha_optimizer": self.bilevel.alpha_optimizer,
            "scheduler": self.scheduler,
        }

    def find(self) -> Genotype:
        """The strongest cells after the last epoch."""
        self.introduce()
        fit(self.folder, self, self.experiment.device)
        return self.network.genotype()

    def introduce(self) -> None:
        """Say what is searched, on what, and where."""
        log.info(
            "data      %d rows train the weights, %d the alphas", len(self.weight_rows), len(self.alpha_rows)
        )
        for line in self.experiment.leaks.lines():
            log.info("shared    %s", line)
        weights = sum(w.numel() for w in self.network.weights().values())
        log.info("supernet  %.3f M weights on %s", weights / 1e6, self.features.device)
        log.info("precision %s\n", self.config.precision)
        if native.wanting(self.features.device):
            log.warning(
                "no C++ compiler works here, so steps take longer than they need (install one: apt install g++)\n"
            )

    @property
    def waited(self) -> float:
        """Seconds that the steps so far have waited for batches."""
        return self.weight_batches.waited + self.alpha_batches.waited

    def step(self, i: int) -> Metrics:
        """A step of the alphas on a batch of their half, and one of the weights on theirs."""
        return self.bilevel_step(self.weight_batches[i], self.alpha_batches[i])

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Scores on the alpha half, the state of the architecture, and the present genotype."""
        require_one_architecture(self.network, epoch)
        labels = self.store.labels[self.alpha_rows]
        logits = logits_of(self.network, self.features.in_order(self.alpha_rows, self.config.batch_size))
        record = {
            "valid/loss": cross_entropy(logits, labels),
            "valid/ua": scores(labels, logits.argmax(dim=1).numpy())["ua"],
            "lr/weights": self.scheduler.get_last_lr()[0],
            "lr/alpha": self.config.alpha_lr,
            **describe_alphas(self.network),
            "genotype": self.network.genotype().to_json(),
        }
        self.scheduler.step()
        if self.folder.writes and (self.pace.due or epoch == self.config.epochs):
            with self.pace:
                draw_architecture(self.folder, self.network, epoch)
        return record


class RandomSearch:
    """The yardstick of a search: a genotype drawn from its space, without training (Li and Talwalkar, UAI 2019)."""

    def __init__(self, config: SearchConfig, experiment: Experiment, folder: RunFolder):
        self.config, self.folder = config, folder
        self.searched_on = None  # it hears nobody

    def find(self) -> Genotype:
        """The genotype of the seed and the fold, drawn into plots/."""
        space = space_of(self.config)
        log.info("space     about 10^%.1f genotypes, all equally likely", math.log10(space.genotypes))
        genotype = space.draw(self.config.seed, self.config.fold)
        if self.folder.writes:
            cells.draw_genotype(genotype, self.folder.plots)
        return genotype


STRATEGIES = {"darts": Search, "random": RandomSearch}


@torch.no_grad()
def require_one_architecture(network: SearchNetwork, epoch: int) -> None:
    """Stop where the alphas, or the genotypes, of the processes are not the same to the bit."""
    alphas = b"".join(alpha.cpu().numpy().tobytes() for alpha in network.architecture_parameters())
    distributed.require_equal(
        alphas + str(network.genotype()).encode(),
        f"the alphas of the processes differ after epoch {epoch}: give all of them the same machines and versions; "
        "--resume goes on from the last checkpoint",
    )


@torch.no_grad()
def describe_alphas(network: SearchNetwork) -> dict[str, float]:
    """Per kind of cell: the mean entropy of its edges' softmaxed alphas (in nats), and the share of skip and none."""
    record = {}
    for kind, nodes in network.softmaxed().items():
        p, ops = torch.cat(nodes), network.space.of(kind)[1]
        record[f"alpha_entropy/{kind}"] = float(-(p * p.log()).sum(dim=1).mean())
        for op in ("skip_connect", "none"):
            if op in ops:
                record[f"alpha_share/{kind}_{op}"] = float(p[:, ops.index(op)].mean())
    return record


@torch.no_grad()
def draw_architecture(folder: RunFolder, network: SearchNetwork, epoch: int) -> None:
    """Draw the alphas and the present best cells into plots/ and TensorBoard."""
    for kind, nodes in network.softmaxed().items():
        weights, picture = [p.cpu().numpy() for p in nodes], folder.plots / f"alphas_{kind}.png"
        charts.draw_alphas(
            weights, network.space.of(kind)[1], picture, f"{cells.TITLES[kind]}, epoch {epoch}"
        )
        folder.show(f"alphas/{kind}", picture, epoch)
    for picture in cells.draw_genotype(network.genotype(), folder.plots):
        folder.show(f"cells/{picture.stem}", picture, epoch)


def finish(
    folder: RunFolder, genotype: Genotype, searched_on: SpeakerSet | None, config: SearchConfig
) -> Genotype:
    """Write the genotype and whom its search heard, and say what to do next."""
    path = folder.path / "genotype.json"
    if folder.writes:
        genotype.save(path, searched_on and searched_on.model_dump())
    log.info("\n%s\n", genotype)
    log.info("genotype  %s\npictures  %s", path, folder.plots)
    place = f" --results_path {config.results_path}" if config.results_path != Path("runs") else ""
    words = config.name, config.dataset, config.fold, place
    log.info("next      python augment.py --name %s --dataset %s --fold %d%s", *words)
    return genotype


if __name__ == "__main__":
    run_command(run, CONFIG)
