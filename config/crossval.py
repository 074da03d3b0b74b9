"""The flags of crossval.py."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator, model_validator

from config.folds import FoldFlags
from config.kinds import Name


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
