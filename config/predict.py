"""The flags of predict.py, and which of its words are models and which recordings."""

from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt, model_validator

from config.flags import Flags
from config.kinds import Device


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
