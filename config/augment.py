"""The flags of augment.py."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from cli import also
from config.prepare import Copies
from config.run import IGNORED, RunConfig
from config.values import Balance, Baseline, BatchSize, Fraction, Protocol, RunName

RISE = 0.2
"""Share of the epochs in which the learning rate of --schedule onecycle rises."""
WITH_DELTAS = ("searched", "acrnn")
"""The values of --model that take --deltas; the other networks are as published, with one channel."""


def _model_name(value: Any) -> str:
    """The name of a model in lower case; emoDARTS writes cnnlstm and cnnlstmatt without underscores."""
    name = str(value).lower()
    return {"cnnlstm": "cnn_lstm", "cnnlstmatt": "cnn_lstm_att"}.get(name, name)


class AugmentConfig(RunConfig):
    """Train the derived network, or one designed by hand, and test it once on unseen speakers."""

    command: ClassVar[str] = "augment"
    ignored: ClassVar[dict[str, str]] = IGNORED

    model: Annotated[Literal["searched", Baseline], BeforeValidator(_model_name)] = "searched"
    """What is trained: the network of a genotype, or one designed by hand, which ignores --layers, --init_channels,
    --stem_stride, --rnn_layers, --rnn_bands, --rnn_channels, --dropout, --aux_weight and --drop_path_prob."""
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
    test_copies: Copies = ()
    """Predict an utterance by the mean class probabilities of the recording and of these perturbed copies, such as
    speed:0.9 speed:1.1, which prepare.py --perturb has made. The model does the same in evaluate.py and predict.py."""
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
