"""The flags that search.py and augment.py share, and those of every command that writes results."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from config.dataset import DatasetFlags
from config.values import Balance, BatchSize, Deltas, Devices, Fraction, Normalise, RunName


def _check_interval(text: str) -> str:
    if not re.fullmatch(r"\d{1,9}|(?=.*[1-9])\d{1,6}(\.\d{1,6})?min", text, re.ASCII):
        raise ValueError("give a number of steps, such as 200, or of minutes, such as 10min")
    return text


Interval = Annotated[str, AfterValidator(_check_interval)]


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
    rnn_bands: PositiveInt = 1
    """Bands of frequency (ranges of coefficients) that the SeqNN, or without it the classifier, tells apart: the maps
    of the CNN are averaged over each."""
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
