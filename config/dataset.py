"""The front-end, the folds and the dataset: flags that the commands share."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cli import Flags, note
from config.values import NAME, Features, check_name, lower_case

MAX_CLIP_VALUES = 2**26
"""Largest number of values that a clip may need: 256 MB. Ten minutes at the paper's settings need half of it."""


class FrontEnd(BaseModel):
    """How a clip becomes an input of F coefficients by T frames. The defaults are those of the emoDARTS paper."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    features: Annotated[Features, BeforeValidator(lower_case)] = "mfcc"
    """mfcc; logmel: mel bands in dB; stft: magnitudes of the Fourier transform (the paper's: n_fft 278, hop 229)."""
    sample_rate: int = Field(32750, gt=0, le=192_000)
    """Samples per second, to which every file is resampled."""
    n_fft: int = Field(2048, gt=0, le=32_768)
    """Samples in a window of the Fourier transform."""
    hop_length: int = Field(512, gt=0, le=32_768)
    """Samples from one window to the next."""
    n_mels: int = Field(128, gt=0, le=1024)
    """Mel bands between 0 Hz and half the sample rate."""
    n_mfcc: int = Field(128, gt=0, le=1024)
    """Cepstral coefficients kept: the height of the network's input."""
    duration: float = Field(8.0, gt=0, le=600)
    """Length of a clip in seconds; shorter files are padded with zeros."""
    frames: int = Field(128, gt=0, le=8192)
    """Frames left after max-pooling along time: the width of the network's input."""
    long: Literal["first", "center", "chunks"] = "first"
    """What is kept of a file longer than a clip: its first or its middle seconds, apart from digital silence at its
    ends, or clips that cover all of it."""

    @property
    def samples(self) -> int:
        """Samples in a clip."""
        return round(self.sample_rate * self.duration)

    @property
    def hops(self) -> int:
        """Windows in a clip, before pooling."""
        return 1 + self.samples // self.hop_length

    @property
    def coefficients(self) -> int:
        """F, the height of the network's input."""
        return {"mfcc": self.n_mfcc, "logmel": self.n_mels, "stft": 1 + self.n_fft // 2}[self.features]

    @property
    def shape(self) -> tuple[int, int]:
        """(F, T) of a clip's features."""
        return self.coefficients, self.frames

    @property
    def clip_values(self) -> int:
        """Values that the front-end holds for a clip: its samples or its spectrogram, whichever is larger."""
        return max(self.samples, self.hops * max(1 + self.n_fft // 2, self.n_mels))

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.features == "mfcc" and self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc ({self.n_mfcc}) must be at most n_mels ({self.n_mels})")
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length ({self.hop_length}) must be at most n_fft ({self.n_fft})")
        if self.n_fft > self.samples:
            raise ValueError(
                f"n_fft ({self.n_fft}) must be at most duration x sample_rate ({self.samples} samples)"
            )
        if self.clip_values > MAX_CLIP_VALUES:
            raise ValueError(
                f"a clip would need {self.clip_values:,} values, more than the limit of {MAX_CLIP_VALUES:,}: "
                "lower duration, sample_rate or n_fft, or raise hop_length"
            )
        if self.frames > self.hops:
            raise ValueError(
                f"frames ({self.frames}) must be at most 1 + duration x sample_rate / hop_length ({self.hops})"
            )
        return self


# ---------------------------------------------------------------- the folds

FOLD_SCHEMES = ("auto", "session", "speaker", "official", "emodarts")

Leak = Annotated[Literal["speakers", "sessions", "texts", "recordings"], BeforeValidator(lower_case)]


class FoldFlags(Flags):
    """How a corpus is split into folds: flags of every command that holds speakers out."""

    folds_by: Annotated[str, Field(pattern=rf"^({'|'.join(FOLD_SCHEMES)}|group[1-9]\d?)$")] = "auto"
    """How speakers are held out: session or speaker (leave one out), official (the publisher's split), groupK (K groups
    of speakers), emodarts (as the published code did), auto (sessions if there are 3, else group5, or speaker if there
    are up to 6)."""
    allow_leak: tuple[Leak, ...] = ()
    """What training and test may share all the same: speakers, sessions, texts, recordings; metrics.json records it."""

    @property
    def keep_unknown_speakers(self) -> bool:
        """Whether utterances of unknown speakers are used; such a speaker may be in both training and test."""
        return self.folds_by == "official" and "speakers" in self.allow_leak


# ---------------------------------------------------------------- the dataset

FEATURES = Path("features")
"""The folder of the feature stores."""
CORPORA = (
    "cremad", "demo", "emodb", "esd", "iemocap", "msp_improv", "msp_podcast", "ravdess", "savee", "tess"
)  # fmt: skip
"""The corpora that have a reader, which are also names of datasets; a manifest is named after its CSV."""


def corpus_name(name: str) -> str:
    """The reader that `name` stands for, without regard to case and separators (`EMO-DB`); else `name` itself."""
    letters = re.sub(r"[\W_]", "", name.lower())
    return next((each for each in (*CORPORA, "manifest") if each.replace("_", "") == letters), name)


def store_name(name: str) -> str:
    """The dataset that `name` stands for, without regard to case, underscores and a final `_kfold` (as in emoDARTS).

    Returns `name` itself if there is such a store, or if nothing matches. Raises `ValueError` if several stores match.
    """

    def simplify(text: str) -> str:
        return text.lower().removesuffix("_kfold").replace("_", "")

    stores = [path.name for path in FEATURES.iterdir()] if FEATURES.is_dir() else []
    if name in stores:
        return name
    similar = [store for store in sorted(stores) if simplify(store) == simplify(name)]
    if len(similar) > 1:
        raise ValueError(f"it could be any of {', '.join(similar)}: give one of these names")
    corpora = [corpus for corpus in CORPORA if simplify(corpus) == simplify(name)]
    found = (similar or corpora or [name])[0]
    if found != name:
        note(f"--dataset {name} is taken for {found}")
    return found


def _check_dataset(text: str) -> str:
    """The name of a store in features/, or the path of any other store, which has at least one slash."""
    if not {os.sep, os.altsep} & set(text):
        return store_name(check_name(text))
    path = os.path.normpath(os.path.expanduser(text))
    return dataset_of(Path(path))


def dataset_of(folder: Path) -> str:
    """The value of --dataset that stands for the store in a folder."""
    name = folder.name
    if re.fullmatch(NAME, name) and os.path.realpath(folder) == os.path.realpath(FEATURES / name):
        return name
    return str(folder) if os.sep in str(folder) else os.path.join(os.curdir, folder)


def store_folder(dataset: str) -> Path:
    """The folder of the store that a value of --dataset stands for."""
    return Path(dataset) if os.sep in dataset else FEATURES / dataset


class DatasetFlags(FoldFlags):
    """Which features are used: flags of every command that opens a feature store."""

    dataset: Annotated[str, AfterValidator(_check_dataset)] = "demo"
    """The feature store: features/DATASET, or the path of its folder, with a slash. demo is made on first use. Case and
    a final _kfold of a name do not matter."""
    features: Annotated[Features | None, BeforeValidator(lower_case)] = None
    """Stop if the feature store holds other features than these; default: take what it holds."""

    @property
    def dataset_name(self) -> str:
        """The name of the dataset in results: that of the store's folder."""
        return Path(self.dataset).name
