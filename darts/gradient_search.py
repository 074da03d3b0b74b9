"""The search of DARTS: gradient descent on the alphas of a supernet (Liu et al., ICLR 2019)."""

from typing import Any

import numpy as np
from torch.optim.lr_scheduler import CosineAnnealingLR

from config import SearchConfig
from darts.architect import Architect
from darts.derivation import Derivation
from darts.guard import Guard
from darts.monitoring import describe_alphas, draw_architecture, require_equal_alphas
from darts.selection import select
from darts.supernet import make_supernet
from data.batches import equal_batches
from data.halves import halves
from genotypes import Genotype
from models.fused import compiler_missing
from models.joint_network import Size
from models.relaxations import Sample
from training.cuda_graphs import RecordedStep, keep_weights_in_place, make_recorder
from training.experiment import Experiment
from training.loop import fit
from training.losses import ClassificationLoss
from training.meters import Throttle
from training.metrics import scores
from training.predictions import compute_logits, mean_loss
from training.run_folder import RunFolder, log
from training.steps import Metrics

LARGE_FOR_A_CPU = 5e6
"""Weights of a supernet, above which a search on a CPU takes hours."""


class GradientSearch:
    """A DARTS search: the supernet, and the halves of the training rows that train its weights and its alphas."""

    def __init__(self, config: SearchConfig, experiment: Experiment, folder: RunFolder):
        self.folder = folder
        self.experiment = experiment
        self.store = experiment.store
        rows = experiment.fold.train
        self.searched_on = experiment.speakers(rows)
        self.weight_rows, self.alpha_rows = halves(
            self.store.manifest, rows, config.train_portion, config.seed, config.halves
        )
        self.features, _ = experiment.features(rows)
        self.weight_batches = experiment.batches(self.features, self.weight_rows)
        self.alpha_batches = experiment.batches(self.features, self.alpha_rows, stream=1)  # another shuffle
        self.steps = len(self.weight_batches)
        self.frozen_steps = config.frozen_epochs * self.steps
        self.alpha_steps = config.epochs * self.steps - self.frozen_steps
        if config.alpha_reach:
            config = config.model_copy(update={"alpha_lr": config.alpha_reach / self.alpha_steps})
        self.config = config

        self.network = experiment.place(make_supernet(config, len(self.store.classes)))
        self.architect = Architect(config, self.network, ClassificationLoss(experiment.class_weights(rows)))
        self.scheduler = CosineAnnealingLR(
            self.architect.weight_optimizer, config.epochs, eta_min=config.w_lr_min
        )
        self.derivation = Derivation(config, self.network)
        self.recorded_step: RecordedStep | None = None
        if config.cuda_graphs:
            keep_weights_in_place(self.network)
            self.recorded_step = RecordedStep(self.architect.step, make_recorder(experiment.device))
        self.parts = {
            "network": self.network,
            "weight_optimizer": self.architect.weight_optimizer,
            "alpha_optimizer": self.architect.alpha_optimizer,
            "scheduler": self.scheduler,
            "derivation": self.derivation,
        }
        self.guard: Guard | None = None
        if config.guard != "off":
            self.guard = Guard(config, self.architect, self.features, self.alpha_rows)
            self.parts["guard"] = self.guard
        self.drawing = Throttle()  # it may take longer than an epoch on a GPU

    def run(self) -> list[Genotype]:
        """Train the supernet; return the genotype that is picked or that the guard keeps, and further candidates."""
        self.log_setup()
        fit(self.folder, self, self.experiment.device)
        derivation = self.derivation
        if self.config.selection == "perturbation":
            batches = equal_batches(self.alpha_rows, self.config.batch_size, self.config.seed)
            derivation.genotype = select(self.architect, [self.features.fetch(rows) for rows in batches])
            log.info("selected  by the losses of the final supernet without each op and edge")
        elif self.config.pick == "best":
            log.info("picked    the genotype of epoch %d", derivation.epoch)
        if self.guard:
            derivation.genotype = self.guard.choose(derivation.genotype)
        return derivation.candidates(self.config.candidates, Size.of(self.config).stem_twice)

    def log_setup(self) -> None:
        """Log the data, the size of the supernet, and the device."""
        weights = sum(w.numel() for w in self.network.weights().values())
        log.info(
            "data      %d rows train the weights, %d the alphas", len(self.weight_rows), len(self.alpha_rows)
        )
        rate, frozen = self.config.alpha_lr, self.config.frozen_epochs
        log.info(
            "alphas    %srate %.3g, %d steps: they can move by about %.3g",
            f"frozen for {frozen} of {self.config.epochs} epochs; " if frozen else "",
            *(rate, self.alpha_steps, rate * self.alpha_steps),
        )
        for line in self.experiment.leaks.lines():
            log.info("shared    %s", line)
        log.info("supernet  %.3f M weights on %s", weights / 1e6, self.features.device)
        if weights > LARGE_FOR_A_CPU and self.features.device.type == "cpu":
            log.info("advice    this is slow on a CPU: see --plan, or start with --config configs/small.yaml")
        log.info("precision %s\n", self.config.precision)
        if self.config.fused == "auto" and compiler_missing(self.features.device):
            log.warning(
                "no C++ compiler was found: steps take about 1.5 times longer (install one: apt install g++)\n"
            )

    @property
    def wait_seconds(self) -> float:
        """The seconds that the steps so far have waited for batches."""
        return self.weight_batches.waited + self.alpha_batches.waited

    def step(self, i: int) -> Metrics:
        """A step of the alphas on a batch of their half, then one of the weights on a batch of theirs.

        While the alphas are frozen (--alpha_start), that of the weights alone, which is not recorded by --cuda_graphs.
        Called by `training.loop.run_steps`.
        """
        train = self.weight_batches[i]
        if i < self.frozen_steps:
            return self.architect.weight_step(train, self.samples(i)[1])
        val = self.alpha_batches[i]
        if self.recorded_step:
            learning_rate = self.scheduler.get_last_lr()  # a recording holds it as a constant
            return self.recorded_step(train, val, constants=learning_rate)
        return self.architect.step(train, val, self.samples(i))

    def samples(self, i: int) -> tuple[Sample | None, Sample | None]:
        """The random weights of the ops in step i, for its alphas and its weights, the same on all ranks."""
        if not self.network.relaxation.is_random:
            return None, None
        seeds = np.random.SeedSequence([self.config.seed, i]).generate_state(2)
        progress = i / (self.config.epochs * self.steps)
        return Sample(int(seeds[0]), progress), Sample(int(seeds[1]), progress)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Evaluate the supernet on the alpha half; record its scores, the alphas and the current genotype."""
        require_equal_alphas(self.network, epoch)
        labels = self.store.labels[self.alpha_rows]
        logits = compute_logits(self.network, self.features.in_order(self.alpha_rows, self.config.batch_size))
        loss = mean_loss(logits, labels)
        ua = scores(labels, logits.argmax(dim=1).numpy())["ua"]
        frozen = epoch <= self.config.frozen_epochs
        genotype = self.derivation.update(epoch, None if frozen else (ua, -loss))
        record = {
            "valid/loss": loss,
            "valid/ua": ua,
            "lr/weights": self.scheduler.get_last_lr()[0],
            "lr/alpha": 0.0 if frozen else self.config.alpha_lr,
            **describe_alphas(self.network),
            "genotype": genotype.to_json(),
        }
        if self.guard and not frozen:
            record |= self.guard.read(epoch, genotype)
        self.scheduler.step()
        if self.folder.writes and (self.drawing.due or epoch == self.config.epochs):
            with self.drawing:
                draw_architecture(self.folder, self.network, self.derivation.genotype, epoch)
        return record
