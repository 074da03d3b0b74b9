"""The flags that a search and an augment run have in common."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from config.folds import FoldFlags
from config.kinds import Devices, Fraction, Name, RunName


def _interval(word: str) -> str:
    if not re.fullmatch(r"\d{1,9}|(?=.*[1-9])\d{1,6}(\.\d{1,6})?min", word, re.ASCII):
        raise ValueError("give a number of steps, such as 200, or of minutes, such as 10min")
    return word


Interval = Annotated[str, AfterValidator(_interval)]


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
