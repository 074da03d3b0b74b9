"""Trained models as one object that tells the emotion of recordings.

from training.inference import load_run
model = load_run("runs/demo")
for answer in model.predict(["interview.wav"]): print(answer.emotion, answer.by_class)
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from config import MAX_CLIP_VALUES, FrontEnd
from data.features import Transform, UnreadableAudio, read_clips
from models.saved import SavedModel
from training.precision import true_float32
from utils import UserError


@dataclass
class Window:
    """A stretch of a recording, in seconds, and the probabilities of the classes there."""

    start: float
    end: float
    probabilities: np.ndarray


@dataclass
class Answer:
    """What was heard in a recording; where it could not be read, `error` says why and there are no windows."""

    file: Path
    classes: tuple[str, ...]
    windows: list[Window] = field(default_factory=list)
    error: str = ""

    @property
    def probabilities(self) -> np.ndarray:
        """The mean over the windows, (classes,)."""
        return np.mean([window.probabilities for window in self.windows], axis=0)

    @property
    def emotion(self) -> str:
        """The likeliest class."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def by_class(self) -> dict[str, float]:
        """The probability of each class."""
        return dict(zip(self.classes, map(float, self.probabilities), strict=True))


class Predictor:
    """One or more models of the same classes; several answer by their mean probabilities."""

    def __init__(
        self, models: Sequence[SavedModel], device: torch.device | None = None, windows: bool = False
    ):
        """`windows`: hear all of a long recording, window by window, also where the models were trained on its start.

        `UserError` where models have other classes, or read sound in other ways.
        """
        self.classes, self.device = models[0].classes, device or torch.device("cpu")
        front_ends = [front_end_of(model) for model in models]
        self.front_end = front_ends[0].model_copy(update={"long": "chunks"} if windows else {})
        for model, front_end in zip(models, front_ends, strict=True):
            if model.classes != self.classes:
                raise UserError(
                    f"the models know other classes: {', '.join(self.classes)}; {', '.join(model.classes)}"
                )
            if front_end != front_ends[0]:
                raise UserError(
                    "the models were trained on features of other kinds: predict with one at a time"
                )
        self.transform = Transform(self.front_end).to(self.device)
        self.networks = nn.ModuleList(model.standardised for model in models).to(self.device).eval()

    def predict(self, files: Iterable[str | Path], batch_size: int = 32) -> Iterator[Answer]:
        """An answer for each file, in order. A file that cannot be read has an answer too.

        Where windows are long, there are fewer at a time than `batch_size`: the model file says how long they are.
        """
        batch_size = max(1, min(batch_size, MAX_CLIP_VALUES // self.front_end.clip_values))
        answers = groupby(self._windows(map(Path, files), batch_size), key=lambda found: found[0])
        for (_, file), found in answers:
            answer = Answer(file, self.classes)
            for _, window in found:
                if isinstance(window, str):
                    answer.error = window
                else:
                    answer.windows.append(window)
            if answer.error:
                answer.windows.clear()
            yield answer

    def _windows(
        self, files: Iterable[Path], batch_size: int
    ) -> Iterator[tuple[tuple[int, Path], Window | str]]:
        """The windows of all files, heard in batches that may hold several files, or a part of one."""
        clips = self._clips(files)
        while batch := list(islice(clips, batch_size)):
            sounds = [clip.sound for _, clip in batch if not isinstance(clip, str)]
            heard = iter(self.probabilities(np.stack(sounds)) if sounds else ())
            for whose, clip in batch:
                yield whose, clip if isinstance(clip, str) else Window(clip.start, clip.end, next(heard))

    def _clips(self, files: Iterable[Path]) -> Iterator[tuple]:
        """((number, file), clip) for every clip of every file, or the reason why a file has none."""
        for whose in enumerate(files):
            try:
                for clip in read_clips(whose[1], self.front_end):
                    yield whose, clip
            except UnreadableAudio as error:
                yield whose, error.reason

    @torch.inference_mode()
    def probabilities(self, sounds: np.ndarray) -> np.ndarray:
        """Class probabilities (N, classes) of clips (N, samples) at the front-end's rate."""
        with true_float32():
            features: Tensor = self.transform(torch.from_numpy(sounds).to(self.device))
            each = [network(features).softmax(dim=1) for network in self.networks]
        return torch.stack(each).mean(dim=0).cpu().numpy()


def load_run(*paths: str | Path, device: torch.device | None = None, windows: bool = False) -> Predictor:
    """The model of a run folder, of its augment folder, or of a file; of several, their mean."""
    return Predictor([SavedModel.load(find_model(Path(path))) for path in paths], device, windows)


def find_model(path: Path) -> Path:
    """The model file of a run folder, of its augment folder, or the file itself."""
    inside = [path / "augment" / "model.safetensors", path / "model.safetensors"]
    return next((file for file in inside if file.exists()), path if path.suffix else inside[0])


def front_end_of(model: SavedModel) -> FrontEnd:
    """The front-end the model was trained with; `UserError` where what the file says of it makes no sense."""
    try:
        front_end = FrontEnd(**model.front_end)
    except (ValidationError, TypeError) as error:
        raise UserError(f"the model's front-end is damaged: {str(error)[:200]}") from None
    if front_end.coefficients != len(model.mean):
        raise UserError(
            f"the model takes {len(model.mean)} coefficients, its front-end gives {front_end.coefficients}"
        )
    if model.architecture.shape not in (None, front_end.shape):
        raise UserError(
            f"the model takes inputs of {model.architecture.shape}, its front-end gives {front_end.shape}"
        )
    return front_end
