"""Trained models that predict the emotion of recordings.

from predict import load_run
model = load_run("runs/demo")
for prediction in model.predict(["interview.wav"]): print(prediction.emotion, prediction.by_class)
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from config import MAX_CLIP_VALUES, FrontEnd
from data.features import Clip, Transform, UnreadableAudio, read_clips
from data.names import is_unknown, key
from data.normalisation import Statistics, frames_of
from data.perturbation import speed_of
from data.segments import Segment
from models.saved import SavedModel
from training.precision import ieee_float32
from utils import UserError


@dataclass
class Window:
    """A part of a recording, from `start` to `end` in seconds, and its class probabilities (classes,)."""

    start: float
    end: float
    probabilities: np.ndarray
    recording: float  # seconds, length of the whole recording
    lost: float  # share of the recording's energy that is in none of its windows


@dataclass
class Prediction:
    """The prediction for a recording, or for a part of it from `start` to `end` in seconds (None: to its end).

    If it could not be read, `error` says why and there are no windows. `copies` holds the windows of its perturbed
    copies, if the model averages over these.
    """

    file: Path
    classes: tuple[str, ...]
    windows: list[Window] = field(default_factory=list)
    error: str = ""
    start: float = 0.0
    end: float | None = None
    copies: dict[str, list[Window]] = field(default_factory=dict)

    @property
    def segment(self) -> Segment:
        """The recording, and the part of it that was heard."""
        return Segment(self.file, self.start, self.end)

    @property
    def probabilities(self) -> np.ndarray:
        """The mean over the windows of each copy, and over the copies, (classes,)."""
        windows_of = [self.windows, *self.copies.values()]
        each = [np.mean([window.probabilities for window in windows], axis=0) for windows in windows_of]
        return np.mean(each, axis=0)

    @property
    def emotion(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def is_partial(self) -> bool:
        """Whether there is sound in the recording that was not heard: a 20,000th of its energy or more."""
        return any(window.lost >= 5e-5 for window in self.windows)

    @property
    def by_class(self) -> dict[str, float]:
        """The probability of each class."""
        return dict(zip(self.classes, map(float, self.probabilities), strict=True))


class Place(NamedTuple):
    """Where a clip comes from: the number of a segment, the segment, and the perturbation, empty for the original."""

    number: int
    segment: Segment
    copy: str


class Predictor:
    """One or more models with the same classes, front-end and copies; several predict by their mean probabilities."""

    def __init__(
        self, models: Sequence[SavedModel], device: torch.device | None = None, windows: bool = False
    ):
        """With `windows`, cover all of a long recording, even if the models were trained on the start of each.

        Raises `UserError` if the models have different classes, front-ends, copies or kinds of standardisation.
        """
        self.classes = models[0].classes
        self.normalise = models[0].normalise
        self.copies = models[0].copies
        self.device = device or torch.device("cpu")
        front_ends = [front_end_of(model) for model in models]
        for model, front_end in zip(models, front_ends, strict=True):
            if model.classes != self.classes:
                first, other = ", ".join(self.classes), ", ".join(model.classes)
                raise UserError(f"the models have different classes: {first}; {other}")
            if (front_end, model.normalise) != (front_ends[0], self.normalise):
                raise UserError("the models were trained on different features: predict with one at a time")
            if model.copies != self.copies:
                first, other = (", ".join(copies) or "none" for copies in (self.copies, model.copies))
                raise UserError(
                    f"the models average over different copies ({first}; {other}): predict with one at a time"
                )
        self.front_end = front_ends[0].model_copy(update={"long": "chunks"} if windows else {})
        self.transform = Transform(self.front_end).to(self.device)
        self.networks = nn.ModuleList(model.network for model in models).to(self.device).eval()
        self.training_statistics = [(model.mean, model.std) for model in models]

    def predict(
        self, recordings: Iterable[str | Path | Segment], batch_size: int = 32
    ) -> Iterator[Prediction]:
        """A prediction for each file or part of one, in order; one with an error if it cannot be read.

        Models that standardise by speaker take the recordings with the same speaker together, or without one those in
        the same folder, and read every recording and every copy twice. Long windows take smaller batches than
        `batch_size`, so that memory stays bounded.
        """
        batch_size = max(1, min(batch_size, MAX_CLIP_VALUES // self.front_end.clip_values))
        segments = [each if isinstance(each, Segment) else Segment(Path(each)) for each in recordings]
        windows = self.predict_windows(segments, batch_size)
        for _, found in groupby(windows, key=lambda pair: pair[0].number):
            yield gather(list(found), self.classes)

    def predict_windows(
        self, segments: Sequence[Segment], batch_size: int
    ) -> Iterator[tuple[Place, Window | str]]:
        """(place, window or error) for all windows. A batch may hold several files."""
        own = self.own_statistics(segments)
        clips = read_all(segments, self.front_end, self.copies)
        while batch := list(islice(clips, batch_size)):
            readable = [(place, clip) for place, clip in batch if not isinstance(clip, str)]
            probabilities: Iterator[np.ndarray] = iter(())
            if readable:
                statistics = [own[self.group_of(place)] for place, _ in readable] if own else None
                features = self.features([clip for _, clip in readable])
                probabilities = iter(self.probabilities(features, statistics))
            for place, clip in batch:
                if isinstance(clip, str):
                    yield place, clip
                else:
                    window = Window(clip.start, clip.end, next(probabilities), clip.recording, clip.lost)
                    yield place, window

    def group_of(self, place: Place) -> Hashable:
        """What the clips that are standardised together have in common; a copy counts as another speaker."""
        together = place.number if self.normalise == "utterance" else speaker_of(place.segment)
        return together, place.copy

    def own_statistics(self, segments: Sequence[Segment]) -> dict[Hashable, Statistics] | None:
        """The statistics of each group of recordings; None if those of the training rows are used."""
        if self.normalise == "training":
            return None
        found: dict[Hashable, Statistics] = defaultdict(Statistics)
        for place, clip in read_all(segments, self.front_end, self.copies):
            if not isinstance(clip, str):
                frames = frames_of((clip.end - clip.start) / speed_of(place.copy), self.front_end)
                features = self.features([clip]).cpu().numpy()
                found[self.group_of(place)].add(features, np.array([frames]))
        return found

    @torch.inference_mode()
    def features(self, clips: Sequence[Clip]) -> Tensor:
        """The features (N, F, T) of clips."""
        sounds = torch.from_numpy(np.stack([clip.sound for clip in clips]))
        with ieee_float32():
            return self.transform(sounds.to(self.device))

    @torch.inference_mode()
    def probabilities(self, features: Tensor, own: Sequence[Statistics] | None) -> np.ndarray:
        """Class probabilities (N, classes) of features (N, F, T), the mean over the networks.

        own: the statistics by which each clip is standardised; None: those of each network's training rows.
        """
        each = []
        for network, (mean, std) in zip(self.networks, self.training_statistics, strict=True):
            means = np.stack([one.mean for one in own] if own else [mean])  # (N, F) or (1, F)
            stds = np.stack([one.std for one in own] if own else [std])
            shift, scale = (torch.from_numpy(array).to(self.device).unsqueeze(2) for array in (means, stds))
            x = ((features - shift) / scale).unsqueeze(1)
            with ieee_float32():
                each.append(network(x).softmax(dim=1))
        return torch.stack(each).mean(dim=0).cpu().numpy()


def speaker_of(segment: Segment) -> tuple[str, str]:
    """The speaker that a list names, or the folder, which stands for a speaker where none is named."""
    if segment.speaker and not is_unknown(segment.speaker):
        return "speaker", key(segment.speaker)
    return "folder", str(segment.file.parent)


def read_all(
    segments: Iterable[Segment], front_end: FrontEnd, copies: Sequence[str]
) -> Iterator[tuple[Place, Clip | str]]:
    """(place, clip) for every clip of every segment and of its copies; for one that cannot be read, the reason."""
    for (number, segment), copy in product(enumerate(segments), ("", *copies)):
        place = Place(number, segment, copy)
        try:
            for clip in read_clips(segment.file, front_end, copy, segment.start, segment.end):
                yield place, clip
        except UnreadableAudio as error:
            yield place, error.reason


def gather(found: Sequence[tuple[Place, Window | str]], classes: tuple[str, ...]) -> Prediction:
    """The prediction for a segment from its windows and those of its copies; a copy that has none is left out."""
    segment = found[0][0].segment
    prediction = Prediction(segment.file, classes, start=segment.start, end=segment.end)
    for place, window in found:
        if not isinstance(window, str):
            windows = prediction.copies.setdefault(place.copy, []) if place.copy else prediction.windows
            windows.append(window)
        elif not place.copy:
            return replace(prediction, error=window, windows=[])
    return prediction


def load_run(*paths: str | Path, device: torch.device | None = None, windows: bool = False) -> Predictor:
    """Load the model of a run folder, of its augment folder, or a model file; several make an ensemble."""
    return Predictor([SavedModel.load(find_model(Path(path))) for path in paths], device, windows)


def find_model(path: Path) -> Path:
    """The model file in a run folder or its augment folder, or the file itself."""
    inside = [path / "augment" / "model.safetensors", path / "model.safetensors"]
    for file in inside:
        if file.exists():
            return file
    return path if path.suffix else inside[0]


def front_end_of(model: SavedModel) -> FrontEnd:
    """The front-end that a model was trained with. Raises `UserError` if its settings do not fit the network."""
    try:
        front_end = FrontEnd(**model.front_end)
    except (ValidationError, TypeError) as error:
        raise UserError(f"the model's front-end is damaged: {str(error)[:200]}") from None
    if front_end.coefficients != len(model.mean):
        raise UserError(
            f"the model takes {len(model.mean)} coefficients, but its front-end computes {front_end.coefficients}"
        )
    if model.architecture.shape not in (None, front_end.shape):
        raise UserError(
            f"the model takes inputs of {model.architecture.shape}, but its front-end computes {front_end.shape}"
        )
    return front_end
