"""Evolution on a one-shot supernet.

1. A supernet with shared weights is trained, each step on the ops of a genotype drawn at random (Guo et al., Single
   Path One-Shot, ECCV 2020; Li and Talwalkar, UAI 2019).
2. Genotypes are evolved by their losses on the validation speakers, computed with the shared weights (see `nsga`),
   beginning with some drawn at random and those of --start_genotypes.

With a second objective in --objectives, the result is a front: genotypes of which none is better in both.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from config import SearchConfig
from darts import left_out, nsga
from darts.supernet import make_one_shot, search_space
from data.batches import equal_batches
from data.speakers import UNKNOWN
from genotypes import Genotype
from models.augment_network import AugmentNetwork
from models.complexity import multiply_adds
from models.joint_network import Size
from models.search_space import canonical
from plots import charts
from training.experiment import Experiment
from training.given_genotypes import check_searched_speakers, read_given
from training.loop import fit
from training.losses import ClassificationLoss
from training.metrics import scores
from training.precision import PASS_DTYPES, ieee_float32
from training.predictions import balanced_loss
from training.run_folder import RunFolder, log
from training.steps import Metrics, weight_step
from utils import UserError, progress

MONITORED = 8
"""Genotypes, drawn at random, whose mean scores are recorded after every epoch."""
EVOLVING = 2**20
"""Sets the random draws of the evolution apart from those of the steps."""
SPEAKERS_SHOWN = 12
"""Speakers in the table of the choices without single speakers."""
SIZES = {"weights": "weights", "multiply_adds": "multiply-adds of an utterance"}
"""The objectives besides the loss, as the picture names them."""


class Scored(NamedTuple):
    """A genotype with its scores by the shared weights."""

    genotype: Genotype
    loss: float
    """The cross-entropy on the validation speakers; every class counts the same."""
    ua: float


class Cost(NamedTuple):
    """The cost of the network of a genotype."""

    weights: int
    multiply_adds: int


class Evolution:
    """A one-shot supernet, trained on the training speakers, and a population scored on the validation speakers."""

    def __init__(self, config: SearchConfig, experiment: Experiment, folder: RunFolder):
        self.config = config
        self.folder = folder
        self.store = experiment.store
        self.leaks = experiment.leaks
        self.device = experiment.device
        rows = experiment.fold.train
        scored_rows = experiment.fold.validation
        self.searched_on = experiment.speakers(np.concatenate([rows, scored_rows]))
        self.space = search_space(config)
        self.start_genotypes = [self.read_start(source, experiment) for source in config.start_genotypes]
        self.features, _ = experiment.features(rows)
        self.batches = experiment.batches(self.features, rows)
        self.steps = len(self.batches)
        self.scored_batches = equal_batches(scored_rows, config.batch_size, config.seed)
        in_batches = np.concatenate(self.scored_batches)
        self.scored_labels = self.store.labels[in_batches]
        self.scored_speakers = np.array([self.store.speakers[row] for row in in_batches])

        self.size = Size.of(config)
        self.classes = len(self.store.classes)
        self.network = experiment.place(make_one_shot(config, self.classes))
        self.loss = ClassificationLoss(experiment.class_weights(rows))
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), config.w_lr, config.w_momentum, weight_decay=config.w_weight_decay
        )
        self.scheduler = CosineAnnealingLR(self.optimizer, config.epochs, eta_min=config.w_lr_min)
        self.parts = {"network": self.network, "optimizer": self.optimizer, "scheduler": self.scheduler}
        self.scored: dict[Genotype, Scored] = {}
        self.utterance_losses: dict[Genotype, np.ndarray] = {}
        self.costs: dict[Genotype, Cost] = {}

    def run(self) -> list[Genotype]:
        """Train the supernet, evolve, and return the genotypes of the lowest losses."""
        self.log_setup()
        fit(self.folder, self, self.device)
        population = self.evolve()
        self.report(population)
        ranked = sorted(population, key=lambda each: each.loss)
        return [each.genotype for each in ranked[: self.config.candidates]]

    def read_start(self, source: str, experiment: Experiment) -> Genotype:
        """A genotype of --start_genotypes; the speakers of its search, known or not, count as those of this one.

        Raises `UserError` if it is not in the search space, or was searched on test speakers.
        """
        try:
            genotype, searched_on = read_given(source)
            check_searched_speakers(searched_on, experiment)
        except UserError as error:
            raise UserError(f"--start_genotypes {source[:80]}: {error}") from None
        if genotype not in self.space:
            raise UserError(
                f"--start_genotypes {source[:80]}: not in this search space: see --cnn_nodes, --rnn_nodes, --cnn_ops, "
                "--rnn_ops"
            )
        self.searched_on = self.searched_on.union(searched_on or UNKNOWN)
        return genotype

    def log_setup(self) -> None:
        """Log the data and the size of the supernet."""
        weights = sum(w.numel() for w in self.network.parameters())
        sizes = len(self.batches.rows), len(self.scored_labels)
        log.info("data      %d rows train the weights, %d of other speakers score the genotypes", *sizes)
        for line in self.leaks.lines():
            log.info("shared    %s", line)
        log.info("supernet  %.3f M shared weights on %s", weights / 1e6, self.features.device)
        log.info("precision %s\n", self.config.precision)

    # ---------------------------------------------------------------- the supernet

    @property
    def wait_seconds(self) -> float:
        """The seconds that the steps so far have waited for batches."""
        return self.batches.waited

    def step(self, i: int) -> Metrics:
        """A step of the weights that the genotype of this step uses. Called by `training.loop.run_steps`."""
        self.network.genotype = self.space.draw(self.config.seed, i)
        dtype = PASS_DTYPES[self.config.precision]
        used = self.network.weights_in_use()
        clip = self.config.w_grad_clip
        return weight_step(self.network, self.optimizer, self.batches[i], self.loss, clip, dtype, used)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Score a few genotypes, the same ones after every epoch."""
        drawn = [self.space.draw(self.config.seed, number, EVOLVING) for number in range(MONITORED)]
        each = [self.loss_and_ua(self.predict(genotype)) for genotype in drawn]
        loss, ua = np.mean(each, axis=0)
        record = {"valid/loss": float(loss), "valid/ua": float(ua), "lr": self.scheduler.get_last_lr()[0]}
        self.scheduler.step()
        return record

    # ---------------------------------------------------------------- the evolution

    def evolve(self) -> list[Scored]:
        """The last population, the best first: those of the lowest loss, or of the best trade-offs."""
        config = self.config
        rng = np.random.default_rng([config.seed, EVOLVING])
        drawn = [self.space.draw(config.seed, i, EVOLVING) for i in range(config.population)]
        population = [
            self.score(genotype) for genotype in [*self.start_genotypes, *drawn][: config.population]
        ]
        bar = progress(range(config.generations), "evolution")
        for _ in bar:
            population = nsga.generation(
                population,
                mutate=lambda parent: self.score(self.space.mutate(parent.genotype, rng)),
                objectives=self.objectives,
                rng=rng,
            )
            bar.set_postfix(loss=f"{min(each.loss for each in population):.3f}")
        return population

    def score(self, genotype: Genotype) -> Scored:
        """A genotype in canonical form, with its scores; each is computed once."""
        genotype = canonical(genotype, self.size.stem_twice)
        if genotype not in self.scored:
            logits = self.predict(genotype)
            labels = torch.from_numpy(self.scored_labels)
            self.utterance_losses[genotype] = F.cross_entropy(logits, labels, reduction="none").numpy()
            self.scored[genotype] = Scored(genotype, *self.loss_and_ua(logits))
        return self.scored[genotype]

    def objectives(self, each: Scored) -> tuple[float, ...]:
        """The values that are minimised, in the order of --objectives."""
        others = (getattr(self.cost(each.genotype), name) for name in self.config.objectives[1:])
        return each.loss, *others

    def cost(self, genotype: Genotype) -> Cost:
        """The cost of the derived network, which takes longer to compute than the scores; it is computed once."""
        if genotype not in self.costs:
            with torch.device("meta"):
                network = AugmentNetwork(genotype, self.size, self.classes)
            weights = sum(w.numel() for w in network.parameters())
            self.costs[genotype] = Cost(weights, multiply_adds(network, self.store.front_end.shape))
        return self.costs[genotype]

    def predict(self, genotype: Genotype) -> Tensor:
        """The log-probabilities (N, classes) of the validation rows by the shared weights of a genotype."""
        self.network.genotype = genotype
        with ieee_float32():
            batches = (self.features.fetch(rows)[0] for rows in self.scored_batches)
            return torch.cat([self.network.log_probabilities(x) for x in batches]).float().cpu()

    def loss_and_ua(self, logits: Tensor) -> tuple[float, float]:
        """The class-balanced cross-entropy and the UA of the validation rows."""
        ua = scores(self.scored_labels, logits.argmax(dim=1).numpy())["ua"]
        return balanced_loss(logits, self.scored_labels), ua

    def report(self, population: Sequence[Scored]) -> None:
        """Log the front of the population, and write its genotypes as files that augment.py takes."""
        front = self.front(population)
        log.info("scored    %d genotypes\n", len(self.scored))
        log.info("%5s %7s %7s %9s %14s", "front", "loss", "UA", "weights", "multiply-adds")
        for number, each in enumerate(front, 1):
            weights, multiply_adds = self.cost(each.genotype)
            text = f"{number:5} {each.loss:7.3f} {each.ua:7.1%} {weights:9,} {multiply_adds:14,}"
            log.info(text)
        self.log_left_out(front[0].genotype)
        if self.folder.writes:
            for number, each in enumerate(front, 1):
                each.genotype.save(self.folder.path / "front" / f"{number}.json", self.searched_on.to_json())
            if len(self.config.objectives) > 1:
                self.draw(front)

    def log_left_out(self, chosen: Genotype) -> None:
        """Log what the choice among all scored genotypes would be without each of the validation speakers."""
        losses = np.stack([self.utterance_losses[genotype] for genotype in self.scored])
        found = left_out.choices([*self.scored], chosen, losses, self.scored_labels, self.scored_speakers)
        if found:
            log.info("\n%-16s %22s %22s", "without speaker", "edges in common", "rank of the genotype")
        for speaker, share, rank in found[:SPEAKERS_SHOWN]:
            log.info("%-16s %20.0f %% %22d", speaker, 100 * share, rank)
        if len(found) > SPEAKERS_SHOWN:
            log.info("%d more speakers; without each, the rank is no worse", len(found) - SPEAKERS_SHOWN)

    def front(self, population: Sequence[Scored]) -> list[Scored]:
        """Those that no other dominates, the lowest loss first; the first of those that are equal in all objectives."""
        distinct = {self.objectives(each): each for each in reversed(population)}
        best = nsga.fronts(np.array(list(distinct)))[0]
        return sorted((list(distinct.values())[i] for i in best), key=lambda each: each.loss)

    def draw(self, front: Sequence[Scored]) -> None:
        """Draw all scored genotypes by their loss and the last objective, with the front."""
        points, best = ([self.objectives(each) for each in part] for part in (self.scored.values(), front))
        title = "Loss on the validation speakers"
        picture = self.folder.plots / "front.png"
        charts.draw_front(points, best, SIZES[self.config.objectives[-1]], picture, title)
        self.folder.add_image("front", picture, self.config.epochs)
