"""Every flag of every command: typed, documented, validated; on the command line and in files.

A field is declared once: its annotation gives the type and the range, its docstring the help. argparse splits the line
into words, pydantic turns the words of a line or a YAML file into values and says what is wrong with them.
"""

import argparse
import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from data.front_end import FrontEnd
from genotypes import CNN_OPS, RNN_OPS, RNN_SCOPES
from utils import UserError

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
COMMANDS = ("prepare", "search", "augment", "predict", "visualize")


class Flags(BaseModel):
    """What the flags of all commands have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    config: Path | None = None
    """A YAML file of flags, at its top or under the command's name; a flag on the line wins."""


class PrepareConfig(FrontEnd, Flags):
    """Read a corpus and compute its features, once for all folds."""

    corpus: str = "manifest"
    """The reader: demo, or manifest (a CSV of your own: file,speaker,emotion[,session,split])."""
    root: Path | None = None
    """Where the corpus is: its folder, or the CSV of a manifest. The demo corpus needs none."""
    out: Path | None = None
    """The feature store to write; default: features/CORPUS, or for a manifest features/ and the CSV's name."""
    workers: PositiveInt = min(8, os.cpu_count() or 1)
    """Threads that read and resample audio."""
    overwrite: bool = False
    """Replace the store that is there."""


class RunFlags(Flags):
    """What a search and an augment run have in common."""

    name: Name = "demo"
    """The run's name: it lives in runs/NAME."""
    dataset: Name = "demo"
    """The feature store features/DATASET; demo is made on first use."""
    fold: PositiveInt = 1
    """The fold whose speakers are held out for the test."""
    folds_by: Annotated[str, Field(pattern=r"^(auto|session|speaker|group[1-9]\d?)$")] = "auto"
    """How speakers are held out: session or speaker (leave one out), groupK, auto (sessions if there are 3)."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Utterances a step, over all processes."""
    epochs: PositiveInt = 50
    """Passes over the training rows."""
    seed: NonNegativeInt = 2
    """Drives the initial weights, the order of the rows, and every random choice."""
    workers: NonNegativeInt = 4
    """Threads that fetch batches ahead where the features do not fit on the device."""
    gpus: Annotated[str, Field(pattern=r"^(auto|none|all|\d+(,\d+)*)$")] = "auto"
    """GPUs by index (0 or 0,1), all, none, or auto: one where there is one."""
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
    print_freq: PositiveInt = 50
    """Steps between two readings of the loss in the progress bar."""
    resume: bool = False
    """Go on with an interrupted run (or start it, where there is none)."""
    overwrite: bool = False
    """Delete the run that is there and start anew."""

    @model_validator(mode="after")
    def _one_way_on(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with a run and --overwrite deletes it: choose one")
        return self


def known_ops(known: tuple[str, ...]) -> AfterValidator:
    """A list of distinct ops out of `known`, more than `none` alone, put into the order of `known` (`none` last)."""

    def check(ops: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [op for op in ops if op not in known]
        if unknown:
            raise ValueError(f"unknown op {unknown[0]!r}; known are {', '.join(known)}")
        if set(ops) <= {"none"}:
            raise ValueError("a search needs at least one op besides none")
        return tuple(op for op in known if op in ops)

    return AfterValidator(check)


class SearchConfig(RunFlags):
    """Search the cells of a joint CNN + LSTM/RNN network."""

    cnn_nodes: PositiveInt = 4
    """Nodes of a CNN cell."""
    rnn_nodes: PositiveInt = 4
    """Nodes of a SeqNN cell."""
    cnn_ops: Annotated[tuple[str, ...], known_ops(CNN_OPS)] = CNN_OPS
    """Candidate ops of the CNN cells."""
    rnn_ops: Annotated[tuple[str, ...], known_ops(RNN_OPS)] = RNN_OPS
    """Candidate ops of the SeqNN cells: a list, or one of all, lstm, rnn, lstm_att, rnn_att."""
    order: Literal["first", "second"] = "second"
    """Order of the alpha gradient: second looks one weight step ahead, first costs about 2.5 times less."""
    train_portion: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the training rows that train the weights; the rest trains the alphas."""
    w_lr: PositiveFloat = 0.025
    """Learning rate of the weights at the start of its cosine."""
    w_lr_min: NonNegativeFloat = 0.001
    """Learning rate of the weights at the end of its cosine."""
    w_momentum: Momentum = 0.9
    """Momentum of the weights' SGD."""
    w_weight_decay: NonNegativeFloat = 3e-4
    """Weight decay of the weights."""
    w_grad_clip: PositiveFloat = 5.0
    """Largest norm of the weights' gradient."""
    alpha_lr: PositiveFloat = 3e-4
    """Learning rate of the alphas' Adam."""
    alpha_weight_decay: NonNegativeFloat = 1e-3
    """Weight decay of the alphas."""

    @model_validator(mode="before")
    @classmethod
    def _scope(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Let --rnn_ops name a restricted scope, and --cnn_ops say all."""
        scopes = {"rnn_ops": RNN_SCOPES, "cnn_ops": {"all": CNN_OPS}}
        named = {flag: values[flag] for flag in scopes if flag in values}
        for flag, value in named.items():
            word = value if isinstance(value, str) else (value[0] if len(value) == 1 else None)
            named[flag] = scopes[flag].get(word, value)
        return {**values, **named}


class AugmentConfig(RunFlags):
    """Retrain the derived network and test it once on unseen speakers."""

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
    momentum: Momentum = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 3e-4
    """Weight decay."""
    grad_clip: PositiveFloat = 5.0
    """Largest norm of the gradient."""
    aux_weight: NonNegativeFloat = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out."""
    cutout_length: NonNegativeInt = 16
    """Side of the square of each training input that is blanked."""
    drop_path_prob: Fraction = 0.2
    """Probability of dropping an op's output, reached by a linear ramp over the epochs."""


class VisualizeConfig(Flags):
    """Draw every cell of a genotype."""

    genotype: Annotated[str, Field(json_schema_extra={"positional": True})]
    """A genotype: a file (JSON or a string form), Genotype(...), JSON, or a built-in name."""
    out: Path = Path("plots")
    """The folder to draw into."""


class PredictConfig(Flags):
    """Tell the emotion of recordings."""

    files: Annotated[tuple[Path, ...], Field(min_length=1, json_schema_extra={"positional": True})]
    """Audio in any format libsndfile reads, any rate, any number of channels."""
    model: Path
    """The run that holds the model: runs/NAME, or its augment folder."""
    batch_size: PositiveInt = 32
    """Recordings at a time."""
    gpus: Annotated[str, Field(pattern=r"^(auto|none|\d+)$")] = "auto"
    """A GPU by index, none, or auto: one where there is one."""
    json_: Annotated[bool, Field(alias="json")] = False
    """Print JSON instead of a table."""
    csv: bool = False
    """Print CSV instead of a table."""


Config = TypeVar("Config", bound=Flags)


def parse(kind: type[Config], command: str, argv: list[str] | None = None) -> Config:
    """The flags of a command line (default: this process's), over those of its --config file, over the defaults."""
    typed = vars(build_parser(kind, command).parse_args(argv))
    file = typed.get("config")
    return validated(kind, {**(read_file(Path(file), command) if file else {}), **typed})


def from_file(kind: type[Config], command: str, path: Path | None, **flags: Any) -> Config:
    """The flags of `command` in a configuration file, `flags` winning over them."""
    return validated(kind, {**(read_file(path, command) if path else {}), **flags})


def validated(kind: type[Config], values: dict[str, Any]) -> Config:
    """Values checked and converted; the first that is wrong becomes a `UserError` that names its flag."""
    try:
        return kind(**values)
    except ValidationError as invalid:
        error = invalid.errors()[0]
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        raise UserError(message)
    flag, field = str(error["loc"][0]), flag_names(kind).get(str(error["loc"][0]))
    if field is None:
        raise UserError(unknown_flag(f"--{flag}", kind))
    name = flag.upper() if is_positional(field) else f"--{flag}"
    if error["type"] == "missing":
        raise UserError(f"{name} is missing; --help tells what it is")
    raise UserError(f"{name} {shown(error['input'])[:80]}: {message}")


def read_file(path: Path, command: str) -> dict[str, Any]:
    """A YAML (or JSON) mapping of flags; a key that is a command's name holds the flags of that command alone."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"--config {path}: not a readable YAML file ({' '.join(str(error).split())[:200]})") from None
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(values.get(name, {}), dict) for name in COMMANDS):
        raise UserError(f"--config {path}: must map flags to values, at the top or under {', '.join(COMMANDS)}")
    common = {key: value for key, value in values.items() if key not in COMMANDS}
    flags = {**common, **values.get(command, {})}
    return {str(key).replace("-", "_"): value for key, value in flags.items()}


class Parser(argparse.ArgumentParser):
    """argparse that takes `-` for `_` in flags, and raises `UserError` instead of printing its usage."""

    def __init__(self, kind: type[Flags], command: str):
        super().__init__(
            f"{command}.py", description=kind.__doc__, allow_abbrev=False, argument_default=argparse.SUPPRESS
        )
        self.kind = kind

    def parse_args(self, args=None, namespace=None):
        args = os.sys.argv[1:] if args is None else args
        dashed = [re.sub(r"(?<=\w)-", "_", a) if re.match(r"--\w[\w-]*$", a) else a for a in args]
        known, unknown = self.parse_known_args(dashed, namespace)
        if unknown:
            raise UserError(unknown_flag(unknown[0].split("=")[0], self.kind))
        return known

    def error(self, message: str):
        raise UserError(message)


def unknown_flag(flag: str, kind: type[Flags]) -> str:
    """The message for a flag that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(flag, [f"--{name}" for name in flag_names(kind)], n=1)
    return f"unknown flag {flag}" + (f"; did you mean {near[0]}?" if near else "; --help lists them all")


def flag_names(kind: type[Flags]) -> dict[str, FieldInfo]:
    """Field by flag name."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def build_parser(kind: type[Flags], command: str) -> Parser:
    """A parser with one flag a field; values stay words, for pydantic to convert."""
    parser = Parser(kind, command)
    for name, field in flag_names(kind).items():
        default = "" if field.is_required() or field.default in (None, False) else f" (default: {shown(field.default)})"
        text = f"{field.description}{default}".replace("%", "%%")
        if is_positional(field):
            several = {"nargs": "*"} if get_origin(field.annotation) is tuple else {"nargs": "?"}
            parser.add_argument(name, **several, default=argparse.SUPPRESS, metavar=name.upper(), help=text)
        elif field.annotation is bool:
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=text)
        elif get_origin(field.annotation) is tuple:
            parser.add_argument(f"--{name}", nargs="+", metavar="OP", help=text)
        else:
            parser.add_argument(f"--{name}", metavar=metavar(field.annotation), help=text)
    return parser


def is_positional(field: FieldInfo) -> bool:
    """Whether the words that follow no flag are this field's."""
    return bool((field.json_schema_extra or {}).get("positional"))


def shown(value: Any) -> str:
    """A value as one would type it."""
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def metavar(annotation: Any) -> str:
    """What stands for a value in the help: the choices, or the type."""
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    return {int: "N", float: "X"}.get(annotation, "PATH" if "Path" in str(annotation) else "TEXT")
