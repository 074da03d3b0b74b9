"""The settings of the front-end: how sound becomes the network's input."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_POINTS = 2**26
"""A quarter of a gigabyte: ten minutes at the paper's settings take half of it."""


class FrontEnd(BaseModel):
    """How sound becomes a picture of F coefficients by T frames. The defaults are those of the emoDARTS paper."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    features: Literal["mfcc", "logmel", "stft"] = "mfcc"
    """mfcc; logmel: mel bands in dB; stft: magnitudes of the Fourier transform (the paper's: n_fft 278, hop 229)."""
    sample_rate: int = Field(32750, gt=0, le=192_000)
    """Samples a second, to which every file is resampled."""
    n_fft: int = Field(2048, gt=0, le=32_768)
    """Samples in a window of the Fourier transform."""
    hop_length: int = Field(512, gt=0, le=32_768)
    """Samples from one window to the next."""
    n_mels: int = Field(128, gt=0, le=1024)
    """Mel bands between 0 Hz and half the sample rate."""
    n_mfcc: int = Field(128, gt=0, le=1024)
    """Cepstral coefficients kept: the height of the network's input."""
    duration: float = Field(8.0, gt=0, le=600)
    """Seconds of a clip; shorter files are padded with zeros."""
    frames: int = Field(128, gt=0, le=8192)
    """Frames left after max-pooling along time: the width of the network's input."""
    long: Literal["first", "center", "chunks"] = "first"
    """What is kept of a file longer than a clip: its first or its middle seconds, or clips that cover it all."""

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
    def points(self) -> int:
        """Numbers that a clip becomes on its way: its samples or its spectrogram, whichever are more."""
        return max(self.samples, self.hops * max(1 + self.n_fft // 2, self.n_mels))

    @model_validator(mode="after")
    def _fits_together(self) -> "FrontEnd":
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc ({self.n_mfcc}) must be at most n_mels ({self.n_mels})")
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length ({self.hop_length}) must be at most n_fft ({self.n_fft})")
        if self.n_fft > self.samples:
            raise ValueError(f"n_fft ({self.n_fft}) must be at most duration x sample_rate ({self.samples} samples)")
        if self.points > MOST_POINTS:
            raise ValueError(
                f"a clip would become {self.points:,} numbers, at most {MOST_POINTS:,} are computed: lower duration, "
                "sample_rate or n_fft, or raise hop_length"
            )
        if self.frames > self.hops:
            raise ValueError(
                f"frames ({self.frames}) must be at most 1 + duration x sample_rate / hop_length ({self.hops})"
            )
        return self
