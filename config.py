"""Every flag of every command: its type, its range, its default, its help. A field is declared once."""

import os
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

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

from data.copies import Perturbation
from data.front_end import FrontEnd
from data.protocols import PATTERN as SCHEME
from flags import Flags
from genotypes import CNN_OPS, RNN_OPS, RNN_SCOPES

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
RunName = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$", max_length=200)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _interval(word: str) -> str:
    if not re.fullmatch(r"\d{1,9}|(?=.*[1-9])\d{1,6}(\.\d{1,6})?min", word, re.ASCII):
        raise ValueError("give a number of steps, such as 200, or of minutes, such as 10min")
    return word


Interval = Annotated[str, AfterValidator(_interval)]

Devices = Annotated[
    str, Field(pattern=r"^(auto|none|cpu|cuda|mps|all|\d+(,\d+)*)$", json_schema_extra={"also": ["device"]})
]
Device = Annotated[str, Field(pattern=r"^(auto|none|cpu|cuda|mps|\d+)$", json_schema_extra={"also": ["device"]})]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lower(word: Any) -> Any:
    return word.lower() if isinstance(word, str) else word


class FoldFlags(Flags):
    """How a corpus is parted."""

    folds_by: Annotated[str, Field(pattern=f"^({SCHEME})$")] = "auto"
    """How speakers are held out: session or speaker (leave one out), official (the publisher's split), groupK (K groups
    of speakers), emodarts (as the published code did), auto (sessions if there are 3, else group5)."""
    allow_leak: tuple[Annotated[Literal["speakers", "sessions", "texts"], BeforeValidator(_lower)], ...] = ()
    """What training and test may share all the same: speakers, sessions, texts; metrics.json says so."""

    @property
    def unknown_speakers(self) -> bool:
        """Whether utterances of unknown speakers take part, who may be in training and test."""
        return self.folds_by == "official" and "speakers" in self.allow_leak


class PrepareConfig(FrontEnd, FoldFlags):
    """Read a corpus and compute its features, once for all folds."""

    corpus: str = "manifest"
    """The reader: cremad, demo, emodb, esd, iemocap, msp_improv, msp_podcast, ravdess, savee, tess, or manifest (a CSV
    of your own: file,speaker,emotion[,session,split])."""
    root: Path | None = None
    """Where the corpus is: its folder, or the CSV of a manifest. The demo corpus needs none."""
    out: Path | None = None
    """The feature store to write; default: features/CORPUS, or for a manifest features/ and the CSV's name."""
    emotions: tuple[str, ...] = ()
    """Labels to keep, each as label or label:class; all keeps every label. Default: angry happy neutral sad, but all
    labels of the demo corpus and of a manifest."""
    merge_excited: bool = False
    """Count excited as happy, as much of the IEMOCAP literature does; short for one more --emotions excited:happy."""
    utterances: Literal["improvised", "scripted", "all"] | None = None
    """IEMOCAP: improvised (default), scripted or all."""
    scenarios: Annotated[str, Field(pattern="^[PRST]+$")] | None = None
    """MSP-IMPROV: letters of the scenarios to keep (default PRST): natural, read, target and other improvised."""
    label: Literal["consensus", "intended"] | None = None
    """MSP-IMPROV: the raters' consensus (default) or the intended emotion."""
    language: Literal["all", "english", "mandarin"] | None = None
    """ESD: all (default), english or mandarin."""
    perturb: tuple[Perturbation, ...] = ()
    """Perturbed copies of every utterance, for training alone: speed:0.9 noise:10 (dB) pitch:-2 (semitones) ..."""
    strict: bool = False
    """Stop at a file that cannot be read, instead of leaving it out."""
    check: bool = False
    """Make nothing: check the store that is there, and what its folds share."""
    workers: PositiveInt = cores()
    """Threads, each of which reads and transforms a file at a time."""
    overwrite: bool = False
    """Compute everything anew, and replace a store of another corpus."""

    def reader_options(self) -> dict[str, str | None]:
        """The flags that only some readers take; None where not given."""
        return {name: getattr(self, name) for name in ("utterances", "scenarios", "label", "language")}


class RunFlags(FoldFlags):
    """What a search and an augment run have in common."""

    name: RunName = "demo"
    """The run's name: it lives in runs/NAME."""
    dataset: Name = "demo"
    """The feature store features/DATASET; demo is made on first use."""
    fold: PositiveInt = 1
    """The fold whose speakers are held out for the test."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Utterances a step, over all processes."""
    epochs: PositiveInt = 50
    """Passes over the training rows."""
    seed: NonNegativeInt = 2
    """Drives the initial weights, the order of the rows, and every random choice."""
    workers: NonNegativeInt = 4
    """Threads that fetch batches ahead where the features do not fit on the device."""
    gpus: Devices = "auto"
    """GPUs by index (0 or 0,1), or all; none or cpu; cuda or mps: the first GPU of that kind; auto: a GPU where there
    is one."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Of the passes that train: float32; tf32, its products rounded to 10 bits of mantissa (NVIDIA's GPUs from Ampere
    on); bf16, weights and maps in 16 bits (slow on most CPUs). Tests, models and the Hessian's term stay float32."""
    layers: PositiveInt = 4
    """CNN cells; those at 1/3 and 2/3 of the depth reduce."""
    rnn_layers: NonNegativeInt = 4
    """SeqNN cells; 0 is a pure CNN."""
    init_channels: PositiveInt = 8
    """Channels of the first CNN cell; each reduction doubles them."""
    rnn_channels: PositiveInt = 128
    """Width of the SeqNN cells."""
    dropout: Fraction = 0.3
    """Dropout after each cell."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """How classes of different size come to count the same: weights of their losses, or as many rows of each drawn."""
    sync_batchnorm: bool = False
    """With several processes, BatchNorm over the whole batch; left out, each normalises by its own share of it."""
    print_freq: PositiveInt = 50
    """Steps between two readings of the loss in the progress bar."""
    checkpoint_every: Interval = "10min"
    """Time between two checkpoints, in minutes (5min), or in steps (200): so many within an epoch, and one at the end
    of every epoch; 0: at the end of epochs only. One is written at the end of a run and on SIGINT, SIGTERM and SIGUSR1
    in any case."""
    resume: bool = False
    """Go on with an interrupted run (or start it, where there is none)."""
    overwrite: bool = False
    """Delete the run that is there and start anew."""

    @model_validator(mode="after")
    def _one_way_on(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with a run and --overwrite deletes it: choose one")
        return self


def ops_of(known: tuple[str, ...], scopes: Mapping[str, tuple[str, ...]]) -> Any:
    """The type of a list of distinct ops out of `known`, or the name of a scope; put into the order of `known`."""

    def from_scope(value: Any) -> Any:
        words = [value] if isinstance(value, str) else value
        return scopes.get(str(words[0]), words) if isinstance(words, list | tuple) and len(words) == 1 else words

    def in_order(ops: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [op for op in ops if op not in known]
        if unknown:
            raise ValueError(f"unknown op {unknown[0]!r}; known are {', '.join(known)}")
        if set(ops) <= {"none"}:
            raise ValueError("a search needs at least one op besides none")
        return tuple(op for op in known if op in ops)

    return Annotated[tuple[str, ...], BeforeValidator(from_scope), AfterValidator(in_order)]


class SearchConfig(RunFlags):
    """Search the cells of a joint CNN + LSTM/RNN network."""

    strategy: Literal["darts", "random"] = "darts"
    """darts: by gradient descent on the alphas; random: the seed draws from the same space, and nothing is trained."""
    cnn_nodes: PositiveInt = 4
    """Nodes of a CNN cell."""
    rnn_nodes: PositiveInt = 4
    """Nodes of a SeqNN cell."""
    cnn_ops: ops_of(CNN_OPS, {"all": CNN_OPS}) = CNN_OPS
    """Candidate ops of the CNN cells."""
    rnn_ops: ops_of(RNN_OPS, RNN_SCOPES) = RNN_OPS
    """Candidate ops of the SeqNN cells: a list, or one of all, lstm, rnn, lstm_att, rnn_att."""
    order: Literal["first", "second"] = "second"
    """Order of the alpha gradient: second looks one weight step ahead, first costs about 2.5 times less."""
    batch_size: Annotated[int, Field(ge=2)] | Literal["auto"] = 64
    """Utterances a step, over all processes; auto: as many as fit into the free memory, a power of two."""
    recompute: Literal["auto", "none", "ops", "cells"] = "auto"
    """What backward computes again rather than store: nothing; the ops, for a third more time in the SeqNN and little
    in the CNN; or cells, the least memory; auto: the first of these that fits."""
    plan: bool = False
    """Print how much memory the choices would take, and stop."""
    nested_depth: bool = False
    """Let lstm_k, rnn_k and *_att_k be the outputs after k layers of one stack each: faster, but another relaxation."""
    cuda_graphs: bool = False
    """On one CUDA GPU: record the step once an epoch and replay it, so that no kernel waits for Python to launch it."""
    train_portion: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the training rows that train the weights; the rest trains the alphas."""
    w_lr: PositiveFloat = 0.025
    """Learning rate of the weights at the start of its cosine."""
    w_lr_min: NonNegativeFloat = 0.001
    """Learning rate of the weights at the end of its cosine."""
    w_momentum: Fraction = 0.9
    """Momentum of the weights' SGD."""
    w_weight_decay: NonNegativeFloat = 3e-4
    """Weight decay of the weights."""
    w_grad_clip: PositiveFloat = 5.0
    """Largest norm of the weights' gradient."""
    alpha_lr: PositiveFloat = 3e-4
    """Learning rate of the alphas' Adam."""
    alpha_weight_decay: NonNegativeFloat = 1e-3
    """Weight decay of the alphas."""


class AugmentConfig(RunFlags):
    """Train the derived network, or one designed by hand, and test it once on unseen speakers."""

    model: Literal["searched", "cnn", "rnn", "lstm", "cnn_lstm", "cnn_lstm_att"] = "searched"
    """What is trained: the network of a genotype, or one designed by hand, to which --layers, --init_channels,
    --rnn_layers, --rnn_channels, --dropout, --aux_weight and --drop_path_prob mean nothing."""
    genotype: str | None = None
    """A genotype: a file, a string, or a built-in name; default: that of runs/NAME/search."""
    protocol: Literal["held_out", "paper"] = "held_out"
    """held_out: the epoch is picked on validation speakers; paper: on the test fold itself, as published."""
    batch_size: Annotated[int, Field(ge=2)] = 96
    """Utterances a step, over all processes."""
    epochs: PositiveInt = 600
    """Passes over the training rows."""
    layers: PositiveInt = 20
    """CNN cells; those at 1/3 and 2/3 of the depth reduce."""
    init_channels: PositiveInt = 36
    """Channels of the first CNN cell; each reduction doubles them."""
    lr: PositiveFloat = 0.025
    """Learning rate at the start of its cosine, which ends at 0."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 3e-4
    """Weight decay."""
    grad_clip: PositiveFloat = 5.0
    """Largest norm of the gradient."""
    aux_weight: NonNegativeFloat = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out."""
    balance: Literal["none", "weights", "sampling"] = "weights"
    """How classes of different size come to count the same: weights of their losses, or as many rows of each drawn."""
    mixup: NonNegativeFloat = 0.0
    """Blend each training input with another; the share is drawn from Beta(MIXUP, MIXUP), 0.2 for example; 0: none."""
    cutout_length: NonNegativeInt = 16
    """Side of the square of each training input that is blanked."""
    freq_mask: NonNegativeInt = 0
    """SpecAugment: blank a random band of fewer than so many coefficients of each training input; 0: none."""
    time_mask: NonNegativeInt = 0
    """SpecAugment: blank a random stretch of fewer than so many frames of each training input; 0: none."""
    drop_path_prob: Fraction = 0.2
    """Probability of dropping an op's output, reached by a linear ramp over the epochs."""

    @model_validator(mode="after")
    def _genotype_of_a_search(self) -> Self:
        if self.genotype is not None and self.model != "searched":
            raise ValueError(f"--genotype is for --model searched; {self.model} is designed by hand and takes none")
        return self


class CrossvalConfig(FoldFlags):
    """Compare methods over folds and seeds. What search and augment are told stands in --config, in their sections."""

    name: Name = "crossval"
    """The study's name: it lives in runs/NAME."""
    dataset: Name = "demo"
    """The feature store features/DATASET; demo is made on first use."""
    folds: tuple[Annotated[str, Field(pattern=r"^(all|[1-9]\d{0,3})$")], ...] = ("all",)
    """The folds to hold out, each in its turn: all, or their numbers."""
    seeds: tuple[NonNegativeInt, ...] = (1, 2, 3)
    """The seeds, each of which makes a trial of every method on every fold."""
    methods: tuple[Literal["darts", "random", "cnn", "rnn", "lstm", "cnn_lstm", "cnn_lstm_att"], ...] = (
        "darts",
        "random",
        "cnn_lstm_att",
    )
    """What to compare: searched cells, cells drawn at random, and networks designed by people."""
    cpus_per_trial: PositiveFloat = 1.0
    """Cores a trial takes; it runs so many threads."""
    gpus_per_trial: NonNegativeFloat = 0.0
    """GPUs a trial takes, or the share of one that it takes: 0.25 puts four trials on each."""
    ray_address: str | None = None
    """A Ray cluster to join, HOST:PORT or auto; default: this machine alone."""
    retries: NonNegativeInt = 3
    """How often a trial whose process dies is begun again, from its last checkpoint."""
    resume: bool = False
    """Run the trials that are missing (or all, where there are none)."""
    overwrite: bool = False
    """Delete the study that is there and start anew."""

    @field_validator("folds", "seeds", "methods")
    @classmethod
    def _once_each(cls, values: tuple) -> tuple:
        if len(set(values)) < len(values) or not values or ("all" in values and len(values) > 1):
            raise ValueError("give some, and each once")
        return values

    @model_validator(mode="after")
    def _one_way_on(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with a study and --overwrite deletes it: choose one")
        return self


def holds_model(word: Any) -> bool:
    """Whether a word names a run, or a model file."""
    if not isinstance(word, str | Path):
        return False
    path = Path(word)
    return (
        path.suffix == ".safetensors"
        or any(path.glob("augment/model.safetensors"))
        or any(path.glob("model.safetensors"))
    )


class VisualizeConfig(Flags):
    """Draw every cell of a genotype."""

    genotype: Annotated[str, Field(json_schema_extra={"positional": True})]
    """A genotype: a file (JSON or a string form), Genotype(...), JSON, or a built-in name."""
    out: Path = Path("plots")
    """The folder to draw into."""


class PredictConfig(Flags):
    """Tell the emotion of recordings."""

    files: Annotated[tuple[Path, ...], Field(min_length=1, json_schema_extra={"positional": True})]
    """Recordings, folders of them, patterns, or a CSV with a column `file`; any format libsndfile reads, any rate."""
    model: Annotated[tuple[Path, ...], Field(min_length=1)]
    """The run that holds the model, runs/NAME or its augment folder; of several runs, the mean probabilities."""
    windows: bool = False
    """Hear all of a long recording, and print each window with its times."""
    batch_size: PositiveInt = 32
    """Windows at a time."""
    gpus: Device = "auto"
    """A GPU by index; none or cpu; cuda or mps: the first GPU of that kind; auto: a GPU where there is one."""
    json_: Annotated[bool, Field(alias="json")] = False
    """Print JSON instead of a table."""
    csv: bool = False
    """Print CSV instead of a table."""

    @model_validator(mode="before")
    @classmethod
    def _recordings_after_models(cls, values: Any) -> Any:
        """`--model RUN [RUN ...] FILE ...`: the words after the runs are recordings."""
        words = values.get("model") if isinstance(values, dict) else None
        if isinstance(words, str | Path):
            words = [words]
        files = values.get("files", ()) if isinstance(values, dict) else None
        if not isinstance(words, list | tuple) or not isinstance(files, list | tuple):
            return values
        models = [*words[:1], *takewhile(holds_model, words[1:])]
        files = [*words[len(models) :], *files]
        return {**values, "model": models, **({"files": files} if files else {})}


class EvaluateConfig(FoldFlags):
    """Test trained networks on the test speakers of a fold."""

    model: Annotated[tuple[Path, ...], Field(min_length=1)]
    """The run that holds the model, runs/NAME or its augment folder; of several runs, the mean probabilities."""
    dataset: Name = "demo"
    """The feature store features/DATASET; demo is made on first use."""
    fold: PositiveInt = 1
    """The fold whose test speakers are heard."""
    out: Path
    """The folder to write to."""
    batch_size: PositiveInt = 96
    """Clips at a time."""
    gpus: Device = "auto"
    """A GPU by index; none or cpu; cuda or mps: the first GPU of that kind; auto: a GPU where there is one."""
    overwrite: bool = False
    """Replace the evaluation that is there."""

    @field_validator("model")
    @classmethod
    def _once_each(cls, models: tuple[Path, ...]) -> tuple[Path, ...]:
        if len(set(models)) < len(models):
            raise ValueError("give each model once")
        return models


class ExportConfig(Flags):
    """Write the network of a run for other programs, and check it there."""

    model: Path
    """The run that holds the model, runs/NAME or its augment folder, or a model file."""
    format: Literal["onnx", "torch_export"] = "onnx"
    """onnx: for ONNX Runtime and others; torch_export: a program of torch.export, which needs no code of this one."""
    out: Path
    """The file to write; FILE.json beside it says how to make its input, and what its output means."""
    audio: tuple[Path, ...] = ()
    """Recordings on which the file is compared with the model, besides noise."""
    overwrite: bool = False
    """Replace the file that is there."""
