"""The flags of evaluate.py."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, field_validator

from config.folds import FoldFlags
from config.kinds import Device, Name


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
