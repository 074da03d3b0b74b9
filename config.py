"""The flags of every command: a model a command, a field a flag, a docstring a help text.

The command line and the YAML of --config are both read into these models, which check types and ranges (see `cli`).
From top to bottom: value types, the front-end, the folds, then one model for each command.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from cli import POSITIONAL, Flags, also, as_typed, note
from genotypes import CNN_OPS, RNN_OPS, RNN_SCOPES

# ---------------------------------------------------------------- value types


NAME = r"\w[\w.-]{,99}"


def _check_name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError("give letters, digits, dots, dashes and underscores, such as my_corpus")
    return text


def _check_run_name(text: str) -> str:
    if len(text) > 200 or not all(re.fullmatch(r"\w[\w.-]*", part) for part in text.split("/")):
        raise ValueError(
            "give letters, digits, dots, dashes and underscores, with / for folders: ravdess/fold1"
        )
    return text


Name = Annotated[str, AfterValidator(_check_name)]
RunName = Annotated[str, AfterValidator(_check_run_name)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
BatchSize = Annotated[int, Field(ge=2)]
Balance = Literal["none", "weights", "sampling"]
Device = Annotated[str, Field(pattern=r"^(auto|none|cpu|cuda|mps|\d+)$", json_schema_extra=also("device"))]
Devices = Annotated[
    str, Field(pattern=r"^(auto|none|cpu|cuda|mps|all|\d+(,\d+)*)$", json_schema_extra=also("device"))
]
STRATEGIES = ("darts", "evolution", "random")
"""How search.py finds a genotype."""
Baseline = Literal["cnn", "rnn", "lstm", "cnn_lstm", "cnn_lstm_att", "acrnn"]
Features = Literal["mfcc", "logmel", "stft"]
Normalise = Literal["training", "speaker", "utterance"]
Protocol = Literal["held_out", "refit", "paper"]
Deltas = Annotated[int, Field(ge=0, le=2)]
RISE = 0.2
"""Share of the epochs in which the learning rate of --schedule onecycle rises."""
GUARD_EPOCHS = 17
"""The first epoch in which --guard can find a rise of the eigenvalue (see `darts.guard`)."""
WITH_DELTAS = ("searched", "acrnn")
"""The values of --model that take --deltas; the other networks are as published, with one channel."""


def _lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _model_name(value: Any) -> str:
    """The name of a model in lower case; emoDARTS writes cnnlstm and cnnlstmatt without underscores."""
    name = str(value).lower()
    return {"cnnlstm": "cnn_lstm", "cnnlstmatt": "cnn_lstm_att"}.get(name, name)


def _check_interval(text: str) -> str:
    if not re.fullmatch(r"\d{1,9}|(?=.*[1-9])\d{1,6}(\.\d{1,6})?min", text, re.ASCII):
        raise ValueError("give a number of steps, such as 200, or of minutes, such as 10min")
    return text


Interval = Annotated[str, AfterValidator(_check_interval)]

PERTURBATIONS = {"speed": (0.5, 2.0), "noise": (-20.0, 60.0), "pitch": (-12.0, 12.0)}
"""Allowed ranges. speed: factor (Ko et al., Interspeech 2015); noise: signal-to-noise ratio in dB; pitch: semitones."""


def parse_perturbation(text: str) -> tuple[str, float]:
    """Split `speed:0.9` into ("speed", 0.9). Raises `ValueError` for an unknown kind or a value out of range."""
    match = re.fullmatch(r"(\w+):([+-]?\d+(?:\.\d+)?)", text)
    if not match or match[1] not in PERTURBATIONS:
        raise ValueError(f"{text!r} is not a perturbation: give speed:0.9, noise:10 or pitch:-2, for example")
    kind, amount = match[1], float(match[2]) + 0.0  # -0 becomes 0
    low, high = PERTURBATIONS[kind]
    if not low <= amount <= high:
        raise ValueError(f"{text}: {kind} must be between {low:g} and {high:g}")
    return kind, amount


def _normalise_perturbation(text: str) -> str:
    """The canonical spelling of a perturbation: `speed:0.90` becomes `speed:0.9`."""
    kind, amount = parse_perturbation(text)
    return f"{kind}:{np.format_float_positional(amount, trim='-')}"


Perturbation = Annotated[str, AfterValidator(_normalise_perturbation)]


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


# ---------------------------------------------------------------- the front-end

MAX_CLIP_VALUES = 2**26
"""Largest number of values that a clip may need: 256 MB. Ten minutes at the paper's settings need half of it."""


class FrontEnd(BaseModel):
    """How a clip becomes an input of F coefficients by T frames. The defaults are those of the emoDARTS paper."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    features: Annotated[Features, BeforeValidator(_lower_case)] = "mfcc"
    """mfcc; logmel: mel bands in dB; stft: magnitudes of the Fourier transform (the paper's: n_fft 278, hop 229)."""
    sample_rate: int = Field(32750, gt=0, le=192_000)
    """Samples per second, to which every file is resampled."""
    n_fft: int = Field(2048, gt=0, le=32_768)
    """Samples in a window of the Fourier transform."""
    hop_length: int = Field(512, gt=0, le=32_768)
    """Samples from one window to the next."""
    n_mels: int = Field(128, gt=0, le=1024)
    """Mel bands between 0 Hz and half the sample rate."""
    n_mfcc: int = Field(128, gt=0, le=1024)
    """Cepstral coefficients kept: the height of the network's input."""
    duration: float = Field(8.0, gt=0, le=600)
    """Length of a clip in seconds; shorter files are padded with zeros."""
    frames: int = Field(128, gt=0, le=8192)
    """Frames left after max-pooling along time: the width of the network's input."""
    long: Literal["first", "center", "chunks"] = "first"
    """What is kept of a file longer than a clip: its first or its middle seconds, apart from digital silence at its
    ends, or clips that cover all of it."""

    @property
    def samples(self) -> int:
        """Samples in a clip."""
        return round(self.sample_rate * self.duration)

    @property
    def hops(self) -> int:
        """Windows in a clip, before pooling."""
        return 1 + self.samples // self.hop_length

    @property
    def coefficients(self) -> int:
        """F, the height of the network's input."""
        return {"mfcc": self.n_mfcc, "logmel": self.n_mels, "stft": 1 + self.n_fft // 2}[self.features]

    @property
    def shape(self) -> tuple[int, int]:
        """(F, T) of a clip's features."""
        return self.coefficients, self.frames

    @property
    def clip_values(self) -> int:
        """Values that the front-end holds for a clip: its samples or its spectrogram, whichever is larger."""
        return max(self.samples, self.hops * max(1 + self.n_fft // 2, self.n_mels))

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.features == "mfcc" and self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc ({self.n_mfcc}) must be at most n_mels ({self.n_mels})")
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length ({self.hop_length}) must be at most n_fft ({self.n_fft})")
        if self.n_fft > self.samples:
            raise ValueError(
                f"n_fft ({self.n_fft}) must be at most duration x sample_rate ({self.samples} samples)"
            )
        if self.clip_values > MAX_CLIP_VALUES:
            raise ValueError(
                f"a clip would need {self.clip_values:,} values, more than the limit of {MAX_CLIP_VALUES:,}: "
                "lower duration, sample_rate or n_fft, or raise hop_length"
            )
        if self.frames > self.hops:
            raise ValueError(
                f"frames ({self.frames}) must be at most 1 + duration x sample_rate / hop_length ({self.hops})"
            )
        return self


# ---------------------------------------------------------------- the folds

FOLD_SCHEMES = ("auto", "session", "speaker", "official", "emodarts")

Leak = Annotated[Literal["speakers", "sessions", "texts", "recordings"], BeforeValidator(_lower_case)]


class FoldFlags(Flags):
    """How a corpus is split into folds: flags of every command that holds speakers out."""

    folds_by: Annotated[str, Field(pattern=rf"^({'|'.join(FOLD_SCHEMES)}|group[1-9]\d?)$")] = "auto"
    """How speakers are held out: session or speaker (leave one out), official (the publisher's split), groupK (K groups
    of speakers), emodarts (as the published code did), auto (sessions if there are 3, else group5, or speaker if there
    are up to 6)."""
    allow_leak: tuple[Leak, ...] = ()
    """What training and test may share all the same: speakers, sessions, texts, recordings; metrics.json records it."""

    @property
    def keep_unknown_speakers(self) -> bool:
        """Whether utterances of unknown speakers are used; such a speaker may be in both training and test."""
        return self.folds_by == "official" and "speakers" in self.allow_leak


# ---------------------------------------------------------------- the dataset

FEATURES = Path("features")
"""The folder of the feature stores."""
CORPORA = (
    "cremad", "demo", "emodb", "esd", "iemocap", "msp_improv", "msp_podcast", "ravdess", "savee", "tess"
)  # fmt: skip
"""The corpora that have a reader, which are also names of datasets; a manifest is named after its CSV."""


def corpus_name(name: str) -> str:
    """The reader that `name` stands for, without regard to case and separators (`EMO-DB`); else `name` itself."""
    letters = re.sub(r"[\W_]", "", name.lower())
    return next((each for each in (*CORPORA, "manifest") if each.replace("_", "") == letters), name)


def store_name(name: str) -> str:
    """The dataset that `name` stands for, without regard to case, underscores and a final `_kfold` (as in emoDARTS).

    Returns `name` itself if there is such a store, or if nothing matches. Raises `ValueError` if several stores match.
    """

    def simplify(text: str) -> str:
        return text.lower().removesuffix("_kfold").replace("_", "")

    stores = [path.name for path in FEATURES.iterdir()] if FEATURES.is_dir() else []
    if name in stores:
        return name
    similar = [store for store in sorted(stores) if simplify(store) == simplify(name)]
    if len(similar) > 1:
        raise ValueError(f"it could be any of {', '.join(similar)}: give one of these names")
    corpora = [corpus for corpus in CORPORA if simplify(corpus) == simplify(name)]
    found = (similar or corpora or [name])[0]
    if found != name:
        note(f"--dataset {name} is taken for {found}")
    return found


def _check_dataset(text: str) -> str:
    """The name of a store in features/, or the path of any other store, which has at least one slash."""
    if not {os.sep, os.altsep} & set(text):
        return store_name(_check_name(text))
    path = os.path.normpath(os.path.expanduser(text))
    return dataset_of(Path(path))


def dataset_of(folder: Path) -> str:
    """The value of --dataset that stands for the store in a folder."""
    name = folder.name
    if re.fullmatch(NAME, name) and os.path.realpath(folder) == os.path.realpath(FEATURES / name):
        return name
    return str(folder) if os.sep in str(folder) else os.path.join(os.curdir, folder)


def store_folder(dataset: str) -> Path:
    """The folder of the store that a value of --dataset stands for."""
    return Path(dataset) if os.sep in dataset else FEATURES / dataset


class DatasetFlags(FoldFlags):
    """Which features are used: flags of every command that opens a feature store."""

    dataset: Annotated[str, AfterValidator(_check_dataset)] = "demo"
    """The feature store: features/DATASET, or the path of its folder, with a slash. demo is made on first use. Case and
    a final _kfold of a name do not matter."""
    features: Annotated[Features | None, BeforeValidator(_lower_case)] = None
    """Stop if the feature store holds other features than these; default: take what it holds."""

    @property
    def dataset_name(self) -> str:
        """The name of the dataset in results: that of the store's folder."""
        return Path(self.dataset).name


class ResultFlags(DatasetFlags):
    """Where the results are written: flags of search.py, augment.py and crossval.py."""

    results_path: Path = Path("runs")
    """The folder of all runs: this one is written to RESULTS_PATH/NAME."""
    resume: bool = False
    """Continue an interrupted run or study, or start it if there is none."""
    overwrite: bool = False
    """Delete the run or study that is there and start anew."""

    @property
    def folder(self) -> Path:
        """The folder of the run or study."""
        return self.results_path / self.name

    @model_validator(mode="after")
    def _check_resume(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("--resume continues and --overwrite deletes what is there: choose one")
        return self


# ---------------------------------------------------------------- prepare.py


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class PrepareConfig(FrontEnd, FoldFlags):
    """Read a corpus and compute its features, once for all folds."""

    command: ClassVar[str] = "prepare"

    corpus: Annotated[str, AfterValidator(corpus_name)] = "manifest"
    """The reader: cremad, demo, emodb, esd, iemocap, msp_improv, msp_podcast, ravdess, savee, tess, or manifest (a CSV
    of your own with the columns file,speaker,emotion; docs/corpora.md lists others). Case and dashes do not matter."""
    root: Path | None = None
    """Where the corpus is: its folder, or the CSV of a manifest. The demo corpus needs none."""
    out: Path | None = None
    """The feature store to write; default: features/CORPUS, or for a manifest features/ and the name of the CSV."""
    emotions: tuple[str, ...] = ()
    """Labels to keep, each as label or label:class; all keeps every label. Default: angry happy neutral sad, but all
    labels of the demo corpus and of a manifest."""
    merge_excited: bool = False
    """Count excited as happy, as much of the IEMOCAP literature does; the same as adding --emotions excited:happy."""
    utterances: Literal["improvised", "scripted", "all"] | None = None
    """IEMOCAP: improvised (default), scripted or all."""
    scenarios: Annotated[str, Field(pattern="^[PRST]+$")] | None = None
    """MSP-IMPROV: letters of the scenarios to keep (default PRST): natural, read, target and other improvised."""
    label: Literal["consensus", "intended"] | None = None
    """MSP-IMPROV: the raters' consensus (default) or the intended emotion."""
    language: Literal["all", "english", "mandarin"] | None = None
    """ESD: all (default), english or mandarin."""
    drop_leaks: tuple[Annotated[Literal["texts"], BeforeValidator(_lower_case)], ...] = ()
    """texts: leave out the utterances whose text reveals the emotion, because other speakers say it in the same one."""
    perturb: tuple[Perturbation, ...] = ()
    """Perturbed copies of every utterance, for training only: speed:0.9 noise:10 (dB) pitch:-2 (semitones) ..."""
    strict: bool = False
    """Stop at a file that cannot be read, instead of leaving it out."""
    check: bool = False
    """Write nothing: check the store that is there, and what its folds share."""
    workers: PositiveInt = available_cores()
    """Threads; each reads and transforms one file at a time."""
    overwrite: bool = False
    """Compute everything anew, and replace a store of another corpus."""

    def opening(self) -> str:
        """The corpus, and where it is."""
        place = f" at {self.root}" if self.root else ""
        return f"{'checks ' if self.check else ''}the corpus {self.corpus}{place}"

    def reader_options(self) -> dict[str, str | None]:
        """The flags that only some corpus readers take; None where not given."""
        return {name: getattr(self, name) for name in ("utterances", "scenarios", "label", "language")}


# ---------------------------------------------------------------- search.py and augment.py

IGNORED = {
    "lstm": "--rnn_ops chooses the ops and --rnn_layers the number of SeqNN cells",
    "base_archi": "emoDARTS does not use it either",
}


class RunConfig(ResultFlags):
    """Flags that search.py and augment.py have in common."""

    name: RunName = "demo"
    """The run's name."""
    fold: PositiveInt = 1
    """The fold whose speakers are held out for the test."""
    batch_size: BatchSize = 64
    """Utterances per step, over all processes."""
    epochs: PositiveInt = 50
    """Passes over the training rows."""
    seed: NonNegativeInt = 2
    """Seed of the initial weights, the order of the rows, and every other random choice."""
    workers: NonNegativeInt = 4
    """Threads that fetch batches ahead where the features do not fit on the device."""
    gpus: Devices = "auto"
    """GPUs by index (0 or 0,1), or all; none or cpu; cuda or mps: the first GPU of that kind; auto: a GPU where there
    is one."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Precision of the training passes: float32; tf32: products rounded to 10 bits of mantissa (NVIDIA GPUs from Ampere
    on); bf16: 16-bit weights and activations (slow on most CPUs). Tests, saved models and the Hessian-vector product
    stay in float32."""
    fused: Literal["auto", "off"] = "auto"
    """auto: compute cells by the faster functions of models/fused where they apply; off: by the plain modules alone."""
    layers: PositiveInt = 4
    """CNN cells; those at 1/3 and 2/3 of the depth are reduction cells."""
    rnn_layers: NonNegativeInt = 4
    """SeqNN cells; 0 makes a pure CNN."""
    init_channels: PositiveInt = 8
    """Channels of the first CNN cell; each reduction doubles them."""
    stem_stride: Annotated[int, Field(ge=1, le=2)] = 1
    """2: the first convolution halves the coefficients and the frames, which makes the CNN cells four times faster."""
    deltas: Deltas = 0
    """Input channels that the network makes from the features: 1: their deltas along time; 2: also the deltas of these.
    Of the networks designed by hand, only acrnn takes them."""
    rnn_channels: PositiveInt = 128
    """Width of the SeqNN cells."""
    dropout: Fraction = 0.3
    """Dropout after each cell."""
    normalise: Normalise = "training"
    """By which mean and deviation each coefficient is standardised: those of the training rows, of all rows of the same
    speaker, which needs no labels, or of the utterance itself."""
    balance: Balance = "none"
    """How classes of different size are balanced: weights in the loss, or sampling the same number of rows of each."""
    sync_batchnorm: bool = False
    """With several processes: compute BatchNorm over the whole batch instead of each process's share."""
    print_freq: PositiveInt = 50
    """Steps between two updates of the loss in the progress bar."""
    checkpoint_every: Interval = "10min"
    """Minutes (5min) or steps (200) between checkpoints. With a number of steps, the end of every epoch has one too; 0:
    only the ends of epochs. The end of a run, SIGINT, SIGTERM and SIGUSR1 always write one."""

    def opening(self) -> str:
        """The dataset, and the folder of the run."""
        return f"dataset {self.dataset}, fold {self.fold}, in {self.folder / self.command}"

    def shared_flags(self) -> dict[str, Any]:
        """The flags, besides name, dataset and fold, that search.py and augment.py must share for one experiment."""
        names = ("results_path", "features", "folds_by", "allow_leak", "seed", "gpus")
        return {name: getattr(self, name) for name in names}


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
    population: Annotated[int, Field(ge=2)] = 32
    """Genotypes in a generation of the evolution."""
    generations: NonNegativeInt = 20
    """Generations of the evolution; each scores as many mutated genotypes as the population has."""
    objectives: tuple[Literal["loss", "weights", "multiply_adds"], ...] = ("loss",)
    """What the evolution minimises: the loss on the validation speakers (loss), and also the size of the network
    (weights) or its cost (multiply_adds)."""
    cnn_nodes: PositiveInt = 4
    """Nodes of a CNN cell."""
    rnn_nodes: PositiveInt = 4
    """Nodes of a SeqNN cell."""
    cnn_ops: op_list(CNN_OPS, {"all": CNN_OPS}) = CNN_OPS
    """Candidate ops of the CNN cells."""
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

    relaxation: Literal["softmax", "dirichlet", "gumbel", "sigmoid"] = "softmax"
    """How the alphas of an edge become the weights of its ops: softmax (DARTS); dirichlet: random in each step (DrNAS);
    gumbel: one random op in each step (GDAS); sigmoid: the ops do not compete (FairDARTS)."""
    perturb_alpha: Fraction = 0.0
    """Largest noise that is added to the weights of the ops in the steps of the weights, such as 0.3; it rises over the
    search from 0.03 (SDARTS). 0: off."""
    guard: Literal["warn", "keep", "off"] = "warn"
    """What follows signs that the cells collapse, which are measured after every epoch: warn: a line in the log; keep:
    also, after a rise of the eigenvalue, take the genotype from before it, whatever PICK says; off: measure nothing."""

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
            "--perturb_alpha": self.perturb_alpha > 0 and not descends,
        }
        for flag, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"{flag} is for --strategy darts, not for {self.strategy}")
        if len(self.objectives) > 1 and not evolves:
            raise ValueError(f"--objectives is for --strategy evolution, not for {self.strategy}")
        if self.candidates > self.population and evolves:
            raise ValueError(f"--candidates {self.candidates} must be at most --population {self.population}")
        return self

    @model_validator(mode="after")
    def _check_cuda_graphs(self) -> Self:
        if self.cuda_graphs and (self.relaxation in ("dirichlet", "gumbel") or self.perturb_alpha):
            raise ValueError(
                "--cuda_graphs replays one step, with the same random weights of the ops each time: leave it out, or "
                "--perturb_alpha and --relaxation dirichlet or gumbel"
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


class AugmentConfig(RunConfig):
    """Train the derived network, or one designed by hand, and test it once on unseen speakers."""

    command: ClassVar[str] = "augment"
    ignored: ClassVar[dict[str, str]] = IGNORED

    model: Annotated[Literal["searched", Baseline], BeforeValidator(_model_name)] = "searched"
    """What is trained: the network of a genotype, or one designed by hand, which ignores --layers, --init_channels,
    --stem_stride, --rnn_layers, --rnn_channels, --dropout, --aux_weight and --drop_path_prob."""
    genotype: str | None = None
    """A genotype: a file, a string, or a built-in name; default: the one that the search of this name found."""
    search_id: RunName | None = None
    """The name of the search whose genotype is used if --genotype is not given; default: NAME. (emoDARTS only logs
    it.)"""
    protocol: Protocol = "held_out"
    """held_out: the epoch is picked on validation speakers; refit: these also train, and the last epoch is tested, with
    settings chosen before; paper: the epoch is picked on the test fold itself, as published."""
    batch_size: BatchSize = 96
    """Utterances per step, over all processes."""
    epochs: PositiveInt = 600
    """Passes over the training rows."""
    layers: PositiveInt = 20
    """CNN cells; those at 1/3 and 2/3 of the depth are reduction cells."""
    init_channels: PositiveInt = 36
    """Channels of the first CNN cell; each reduction doubles them."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum, as published; adamw: suits small corpora."""
    schedule: Literal["cosine", "onecycle"] = "cosine"
    """How the learning rate changes from epoch to epoch: it falls from LR to 0, or first rises to LR and then falls."""
    pick: Literal["best", "last"] = "best"
    """The epoch whose weights are tested and saved: the best on the validation speakers, or the last."""
    label_smoothing: Fraction = 0.0
    """Share of each label that is spread over all classes; 0: off."""
    lr: Annotated[PositiveFloat, Field(json_schema_extra=also("learning_rate"))] = 0.025
    """Largest learning rate."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 3e-4
    """Weight decay."""
    grad_clip: PositiveFloat = 5.0
    """Largest norm of the gradient."""
    aux_weight: NonNegativeFloat = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out."""
    balance: Balance = "weights"
    """How classes of different size are balanced: weights in the loss, or sampling the same number of rows of each."""
    mixup: NonNegativeFloat = 0.0
    """Mix each training input with another, in a proportion drawn from Beta(MIXUP, MIXUP), such as 0.2; 0: off."""
    cutout_length: NonNegativeInt = 16
    """Side of the square that is set to zero in each training input."""
    freq_mask: NonNegativeInt = 0
    """SpecAugment: mask a random band of fewer than this many coefficients in each training input; 0: off."""
    time_mask: NonNegativeInt = 0
    """SpecAugment: mask a random stretch of fewer than this many frames in each training input; 0: off."""
    drop_path_prob: Fraction = 0.2
    """Final probability of dropping an op's output, reached by a linear ramp over the epochs."""

    @model_validator(mode="after")
    def _check_genotype(self) -> Self:
        if self.genotype is not None and self.model != "searched":
            raise ValueError(
                f"--genotype is for --model searched; {self.model} is designed by hand and takes none"
            )
        return self

    @model_validator(mode="after")
    def _check_protocol(self) -> Self:
        if self.protocol == "refit" and self.pick == "best":
            raise ValueError("--protocol refit has no speakers left to pick an epoch on: pass --pick last")
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule == "onecycle" and RISE * self.epochs <= 1:
            raise ValueError(
                f"--schedule onecycle needs more than {1 / RISE:.0f} epochs: the learning rate rises in a fifth of them"
            )
        return self

    @model_validator(mode="after")
    def _check_deltas(self) -> Self:
        if self.deltas and self.model not in WITH_DELTAS:
            raise ValueError(
                f"--deltas is for --model {' or '.join(WITH_DELTAS)}; {self.model} is as published, without deltas"
            )
        return self


# ---------------------------------------------------------------- evaluate.py, predict.py, export.py, visualize.py


def holds_model(value: Any) -> bool:
    """Whether a value names a run folder with a trained model, or a model file."""
    if not isinstance(value, str | Path):
        return False
    path = Path(value)
    if path.suffix == ".safetensors":
        return True
    return any(path.glob("augment/model.safetensors")) or any(path.glob("model.safetensors"))


def _check_distinct_models(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Refuse a model that is named twice, also as runs/NAME and runs/NAME/augment: it would count twice."""

    def run_folder(path: Path) -> str:
        return re.sub(r"([/\\]augment)?([/\\]model\.safetensors)?$", "", os.path.realpath(path))

    if len(set(map(run_folder, paths))) < len(paths):
        raise ValueError("give each model once")
    return paths


Models = Annotated[tuple[Path, ...], Field(min_length=1), AfterValidator(_check_distinct_models)]


class EvaluateConfig(DatasetFlags):
    """Test trained networks on the test speakers of a fold."""

    command: ClassVar[str] = "evaluate"
    instead: ClassVar[dict[str, str]] = {
        "model_file": "pickled models are not read; give --model RUN, a run of augment.py, and --out FOLDER",
    }

    model: Models
    """The run that holds the model, runs/NAME or its augment folder; several runs: their mean probabilities."""
    fold: PositiveInt = 1
    """The fold whose test speakers are used."""
    out: Path
    """The folder to write to."""
    batch_size: PositiveInt = 96
    """Clips per batch."""
    gpus: Device = "auto"
    """A GPU by index; none or cpu; cuda or mps: the first GPU of that kind; auto: a GPU where there is one."""
    overwrite: bool = False
    """Replace the evaluation that is there."""

    def opening(self) -> str:
        """The models and the dataset."""
        return f"{as_typed(self.model)} on dataset {self.dataset}, fold {self.fold}, to {self.out}"


class PredictConfig(Flags):
    """Predict the emotion of recordings."""

    command: ClassVar[str] = "predict"
    only_results: ClassVar[bool] = True

    files: Annotated[tuple[Path, ...], Field(min_length=1, json_schema_extra=POSITIONAL)]
    """Recordings, folders of them, patterns, or a CSV with the columns file[,start,end,speaker]; any format libsndfile
    reads, any rate. Names that begin with a dash go last, after --."""
    model: Models
    """The run that holds the model, runs/NAME or its augment folder; several runs: their mean probabilities."""
    windows: bool = False
    """Cover all of a long recording, and print each window with its times."""
    batch_size: PositiveInt = 32
    """Windows per batch."""
    gpus: Device = "auto"
    """A GPU by index; none or cpu; cuda or mps: the first GPU of that kind; auto: a GPU where there is one."""
    json_: Annotated[bool, Field(alias="json")] = False
    """Print JSON instead of a table."""
    csv: bool = False
    """Print CSV instead of a table."""

    def opening(self) -> str:
        """The recordings, as they were typed, and the models."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more} by {as_typed(self.model)}"

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.json_ and self.csv:
            raise ValueError("--json and --csv are two formats: choose one")
        return self

    @model_validator(mode="before")
    @classmethod
    def _split_models_and_files(cls, values: Any) -> Any:
        """In `--model RUN [RUN ...] FILE ...`, take the words that hold no model for recordings."""
        words = values.get("model") if isinstance(values, dict) else None
        if isinstance(words, str | Path):
            words = [words]
        files = values.get("files", ()) if isinstance(values, dict) else None
        if not isinstance(words, list | tuple) or not isinstance(files, list | tuple):
            return values
        models = [*words[:1], *filter(holds_model, words[1:])]
        files = [*(word for word in words[1:] if not holds_model(word)), *files]
        return {**values, "model": models, **({"files": files} if files else {})}


class ExportConfig(Flags):
    """Write the network of a run in a format that other programs run, and check the file."""

    command: ClassVar[str] = "export"

    model: Path
    """The run that holds the model, runs/NAME or its augment folder, or a model file."""
    format: Literal["onnx", "torch_export"] = "onnx"
    """onnx: for ONNX Runtime and others; torch_export: a torch.export program, which needs none of this code."""
    out: Path
    """The file to write; FILE.json beside it describes its input and output."""
    audio: tuple[Path, ...] = ()
    """Recordings on which the exported file is compared with the model, besides noise."""
    overwrite: bool = False
    """Replace the file that is there."""

    def opening(self) -> str:
        """The model, the format and the file."""
        return f"{self.model} as {self.format}, to {self.out}"


class VisualizeConfig(Flags):
    """Draw every cell of a genotype."""

    command: ClassVar[str] = "visualize"

    genotype: Annotated[str, Field(json_schema_extra=POSITIONAL)]
    """A genotype: a file (JSON or a string form), Genotype(...), JSON, or a built-in name."""
    out: Path = Path("plots")
    """The folder to draw into."""


# ---------------------------------------------------------------- crossval.py


KNOWN_METHODS = (*STRATEGIES, *get_args(Baseline), "svm")


def method_name(method: str) -> str:
    """The name of a method in folders and results: that of svm:tables/egemaps.csv is svm_egemaps."""
    kind, has_more, more = method.partition(":")
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{kind}_{Path(more).stem}") if has_more else method


def _check_method(method: str) -> str:
    kind, _, more = method.partition(":")
    is_table = kind == "svm" and re.search("[A-Za-z0-9]", Path(more).stem)
    has_candidates = kind in STRATEGIES and re.fullmatch(r"[1-9]\d{0,3}", more, re.ASCII)
    if not (method in KNOWN_METHODS or is_table or has_candidates):
        raise ValueError(
            f"give {', '.join(KNOWN_METHODS)}, random:K, the best of K candidates, or svm:FILE.csv, a table of "
            "functionals"
        )
    return method


Method = Annotated[str, AfterValidator(_check_method)]


class CrossvalConfig(ResultFlags):
    """Compare methods over folds and seeds. Flags for search and augment are read from their sections of --config."""

    command: ClassVar[str] = "crossval"

    name: Name = "crossval"
    """The study's name."""
    folds: tuple[Annotated[str, Field(pattern=r"^(all|[1-9]\d{0,3})$")], ...] = ("all",)
    """The folds to hold out, each in turn: all, or their numbers."""
    seeds: tuple[NonNegativeInt, ...] = (1, 2, 3)
    """The seeds; each makes one trial of every method on every fold."""
    methods: tuple[Method, ...] = ("darts", "random", "cnn_lstm_att", "svm")
    """What to compare: searched cells (darts, evolution), cells drawn at random (random), each with :K the best of K
    candidates; networks designed by hand (cnn, rnn, lstm, cnn_lstm, cnn_lstm_att, acrnn); and a support vector machine
    on functionals of the features (svm, always added) or of a table (svm:FILE.csv)."""
    cpus_per_trial: PositiveFloat = 1.0
    """Cores per trial; a trial runs this many threads."""
    gpus_per_trial: NonNegativeFloat = 0.0
    """GPUs per trial, or the share of one: 0.25 puts four trials on each."""
    ray_address: str | None = None
    """A Ray cluster to join, HOST:PORT or auto; default: this machine alone."""
    retries: NonNegativeInt = 3
    """How often a trial whose process dies is restarted from its last checkpoint."""

    def opening(self) -> str:
        """The dataset, the methods, and the folder of the study."""
        return f"{as_typed(self.methods)} on dataset {self.dataset}, in {self.folder}"

    @field_validator("folds", "seeds", "methods")
    @classmethod
    def _check_distinct(cls, values: tuple) -> tuple:
        if len(set(values)) < len(values) or not values or ("all" in values and len(values) > 1):
            raise ValueError("give at least one value, and each once")
        return values

    @field_validator("methods")
    @classmethod
    def _add_svm(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        names = [method_name(method) for method in methods]
        if len(set(names)) < len(names):
            raise ValueError("two tables of functionals have the same file name: rename one")
        return methods if "svm" in methods else (*methods, "svm")

    @property
    def tables(self) -> dict[str, Path]:
        """The tables of functionals among the methods, by the names of these methods."""
        on_tables = [method for method in self.methods if method.startswith("svm:")]
        return {method_name(method): Path(method.partition(":")[2]) for method in on_tables}
