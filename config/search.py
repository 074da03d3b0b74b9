"""The flags of search.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from cli import also
from config.run import IGNORED, RunConfig
from config.values import STRATEGIES, BatchSize, Fraction
from genotypes import CNN_OPS, CNN_SCOPES, PUBLISHED_CNN_OPS, RNN_OPS, RNN_SCOPES

GUARD_EPOCHS = 17
"""The first epoch in which --guard can find a rise of the eigenvalue (see `darts.guard`)."""


def op_list(known: tuple[str, ...], scopes: Mapping[str, tuple[str, ...]]) -> Any:
    """The type of a flag that takes ops out of `known` and names of scopes; the ops are distinct, sorted as `known`."""

    def expand_scopes(value: Any) -> Any:
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list | tuple):
            return words
        return [op for word in words for op in scopes.get(str(word), (word,))]

    def check(ops: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [op for op in ops if op not in known]
        if unknown:
            raise ValueError(f"unknown op {unknown[0]!r}; known are {', '.join(known)}")
        if set(ops) <= {"none"}:
            raise ValueError("a search needs at least one op besides none")
        return tuple(op for op in known if op in ops)

    return Annotated[tuple[str, ...], BeforeValidator(expand_scopes), AfterValidator(check)]


class SearchConfig(RunConfig):
    """Search the cells of a joint CNN + LSTM/RNN network."""

    command: ClassVar[str] = "search"
    environment: ClassVar[dict[str, str]] = {"rnn_ops": "RNN_PRIMITIVES"}
    exclusive: ClassVar[tuple[set[str], ...]] = ({"alpha_lr", "alpha_reach"},)
    ignored: ClassVar[dict[str, str]] = IGNORED

    strategy: Literal[STRATEGIES] = "darts"
    """darts: gradient descent on the alphas; evolution: train weights that all genotypes share, and evolve genotypes by
    their losses on the validation speakers; random: draw a genotype from the same space, without training."""
    candidates: PositiveInt = 1
    """Genotypes that the search proposes. If there are several, each is retrained by the flags of augment in --config,
    for a third of the epochs or less, and the validation speakers choose."""
    parallel: PositiveInt = 1
    """Candidates that are retrained at the same time, by Ray on this machine; they share its cores and GPUs evenly."""
    population: Annotated[int, Field(ge=2)] = 32
    """Genotypes in a generation of the evolution."""
    generations: NonNegativeInt = 20
    """Generations of the evolution; each scores as many mutated genotypes as the population has."""
    start_genotypes: tuple[str, ...] = ()
    """Genotypes that the evolution begins with, besides those drawn at random: the genotype.json of searches by DARTS,
    or whatever --genotype of augment.py takes."""
    objectives: tuple[Literal["loss", "weights", "multiply_adds"], ...] = ("loss",)
    """What the evolution minimises: the loss on the validation speakers (loss), and also the size of the network
    (weights) or its cost (multiply_adds)."""
    cnn_nodes: PositiveInt = 4
    """Nodes of a CNN cell."""
    rnn_nodes: PositiveInt = 4
    """Nodes of a SeqNN cell."""
    cnn_ops: op_list(CNN_OPS, CNN_SCOPES) = PUBLISHED_CNN_OPS
    """Candidate ops of the CNN cells: ops, or published (the default), or all, which adds separable convolutions along
    frequency (sep_conv_7x1) and along time (sep_conv_1x7)."""
    rnn_ops: op_list(RNN_OPS, RNN_SCOPES) = RNN_OPS
    """Candidate ops of the SeqNN cells: ops, or all, lstm, rnn, lstm_att, rnn_att. If this is not given, the
    environment variable RNN_PRIMITIVES is used, as in emoDARTS."""
    order: Literal["first", "second"] = "second"
    """Order of the alpha gradient: second unrolls one weight step; first costs about 2.5 times less."""
    batch_size: BatchSize | Literal["auto"] = 64
    """Utterances per step, over all processes; auto: the largest power of two that fits into the free memory."""
    recompute: Literal["auto", "none", "ops", "cells"] = "auto"
    """What the backward pass computes again instead of storing it: nothing, the insides of ops, or those of cells.
    auto: the first of these that fits into the free memory. See --plan for what each takes."""
    plan: bool = False
    """Print how much memory the choices would take, and stop."""
    nested_depth: bool = False
    """Make lstm_k, rnn_k and *_att_k the outputs after k layers of one shared stack: faster, but another relaxation."""
    op_norm: bool = False
    """In the supernet, let LayerNorm without weights follow each op of the SeqNN, so that all ops have one scale."""
    cuda_graphs: bool = False
    """On one CUDA GPU: record the step as a CUDA graph once per epoch and replay it, to save kernel launches."""
    train_portion: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the training rows that train the weights; the rest trains the alphas."""
    halves: Literal["utterances", "speakers"] = "utterances"
    """What is divided between weights and alphas: the utterances of all training speakers, or the speakers, so that the
    alphas are trained on speakers that the weights have not seen."""
    w_lr: Annotated[PositiveFloat, Field(json_schema_extra=also("learning_rate"))] = 0.025
    """Initial learning rate of the weights (cosine schedule)."""
    w_lr_min: NonNegativeFloat = 0.001
    """Final learning rate of the weights (cosine schedule)."""
    w_momentum: Fraction = 0.9
    """Momentum of the weights' SGD."""
    w_weight_decay: NonNegativeFloat = 3e-4
    """Weight decay of the weights."""
    w_grad_clip: PositiveFloat = 5.0
    """Largest norm of the weights' gradient."""
    alpha_start: Fraction = 0.0
    """Share of the epochs, at the start, that train the weights alone; at least the last trains the alphas."""
    alpha_lr: PositiveFloat | None = 3e-4
    """Learning rate of the alphas' Adam."""
    alpha_reach: PositiveFloat | None = None
    """In place of ALPHA_LR: the rate is this, divided by the number of steps of the alphas. Adam changes an alpha by
    about the rate in a step, so this is about how far it can move."""
    alpha_weight_decay: NonNegativeFloat = 1e-3
    """Weight decay of the alphas."""
    alpha_average: PositiveInt = 1
    """Derive the genotype from the mean of the softmaxed alphas after this many epochs, the last ones."""
    edges_by: Literal["weight", "without_none"] = "weight"
    """A node keeps its two strongest edges. weight: the strength of an edge is the largest softmax weight of its ops,
    besides none, as published; without_none: the softmax is taken over the ops besides none."""
    pick: Literal["best", "last"] = "last"
    """The epoch whose genotype is the result: the last, or the one with the highest UA on the rows of the alphas, of
    those that train them."""

    relaxation: Literal["softmax", "dirichlet", "gumbel"] = "softmax"
    """How the alphas of an edge become the weights of its ops: softmax (DARTS); dirichlet: random in each step (DrNAS);
    gumbel: one random op in each step (GDAS)."""
    selection: Literal["alphas", "perturbation"] = "alphas"
    """What the genotype is derived from: the alphas, or the loss of the final supernet without each op (DARTS-PT)."""
    guard: Literal["warn", "keep", "off"] = "warn"
    """What follows signs that the cells collapse, measured after every epoch that trains the alphas: warn: a line in
    the log; keep: also, after a rise of the eigenvalue, take the genotype from before it, whatever PICK says; off:
    measure nothing."""

    @property
    def frozen_epochs(self) -> int:
        """The number of epochs, at the start, that do not train the alphas."""
        return min(round(self.alpha_start * self.epochs), self.epochs - 1)

    @model_validator(mode="before")
    @classmethod
    def _choose_alpha_rate(cls, values: Any) -> Any:
        """Set --alpha_lr to None if --alpha_reach is given, also for the config.json of the run."""
        if not isinstance(values, dict) or values.get("alpha_reach") is None:
            return values
        if values.get("alpha_lr") is not None:
            raise ValueError(
                "--alpha_lr and --alpha_reach both set the learning rate of the alphas: choose one"
            )
        return {**values, "alpha_lr": None}

    @model_validator(mode="after")
    def _check_alpha_rate(self) -> Self:
        if self.alpha_lr is None and self.alpha_reach is None:
            raise ValueError("--alpha_lr or --alpha_reach must be given")
        return self

    @model_validator(mode="after")
    def _check_strategy(self) -> Self:
        evolves, descends = self.strategy == "evolution", self.strategy == "darts"
        wrong = {
            "--cuda_graphs": self.cuda_graphs and evolves,
            "--guard keep": self.guard == "keep" and not descends,
            f"--relaxation {self.relaxation}": self.relaxation != "softmax" and not descends,
            "--selection perturbation": self.selection == "perturbation" and not descends,
        }
        for flag, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"{flag} is for --strategy darts, not for {self.strategy}")
        if len(self.objectives) > 1 and not evolves:
            raise ValueError(f"--objectives is for --strategy evolution, not for {self.strategy}")
        if self.start_genotypes and not evolves:
            raise ValueError(f"--start_genotypes is for --strategy evolution, not for {self.strategy}")
        if len(self.start_genotypes) > self.population:
            raise ValueError(
                f"--start_genotypes has {len(self.start_genotypes)} genotypes, more than --population {self.population}"
            )
        if self.candidates > self.population and evolves:
            raise ValueError(f"--candidates {self.candidates} must be at most --population {self.population}")
        return self

    @model_validator(mode="after")
    def _check_parallel(self) -> Self:
        if self.parallel > 1 and self.gpus[0].isdigit():
            raise ValueError(
                f"--parallel shares out all GPUs, and --gpus {self.gpus} names some: leave --gpus out, and name them "
                "in the environment variable CUDA_VISIBLE_DEVICES"
            )
        return self

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        if self.selection == "perturbation" and (self.pick == "best" or self.guard == "keep"):
            raise ValueError(
                "--selection perturbation uses the final supernet; --pick best and --guard keep take the genotype of "
                "another epoch: choose one"
            )
        return self

    @model_validator(mode="after")
    def _check_cuda_graphs(self) -> Self:
        if self.cuda_graphs and self.relaxation != "softmax":
            raise ValueError(
                f"--cuda_graphs replays one step, and --relaxation {self.relaxation} draws other weights in each: "
                "leave one out"
            )
        return self

    @field_validator("objectives")
    @classmethod
    def _check_objectives(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if "loss" not in objectives or len(set(objectives)) < len(objectives):
            raise ValueError("give loss, and weights or multiply_adds besides if you like, each once")
        return ("loss", *(each for each in objectives if each != "loss"))

    @model_validator(mode="after")
    def _check_guard(self) -> Self:
        if self.guard == "keep" and self.epochs - self.frozen_epochs < GUARD_EPOCHS:
            raise ValueError(
                f"--guard keep needs {GUARD_EPOCHS} epochs or more that train the alphas: before, every eigenvalue "
                "rises; pass warn or off"
            )
        return self
