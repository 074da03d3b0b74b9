"""The flags of the commands that use a result: evaluate.py, predict.py, export.py and visualize.py."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from cli import POSITIONAL, Flags, as_typed
from config.dataset import DatasetFlags
from config.values import Device


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
