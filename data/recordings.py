"""A recording as a whole: opening its file, and measuring its sound from the first sample to the last.

A file is measured before clips are cut from it: how long it is, whether there is sound in it, and which
digest its samples have. soundfile reads all formats of libsndfile, with any number of channels.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from utils import UserError

MAX_SAMPLE = 1e9  # far above real samples, and far below those whose power spectrum overflows float32
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # sample rates that are read, in Hz; a header may state any number
MAX_HOURS = 24  # longest recording that is read; a small file can hold weeks of sound
UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's number of samples if the header does not state it
BLOCK_VALUES = 2**16  # values that are measured at a time: they stay in the processor's cache


class UnreadableAudio(UserError):
    """A file that gives no features; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Recording:
    """What is known of a recording before clips are cut from it."""

    samples: int  # of one channel, counted while reading: a header may state more
    rate: int  # samples per second
    energy: float  # sum of the squares of all samples
    audio: str  # digest of the samples: equal in every lossless format and whatever the front-end

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.samples / self.rate

    def share_outside(self, clip: np.ndarray) -> float:
        """The share of the energy that is not in a clip (samples,) of it."""
        if len(clip) == self.samples:
            return 0.0
        return min(max(1 - energy_of(clip) / self.energy, 0.0), 1.0)


def measure(path: Path) -> Recording:
    """Read a recording once, in blocks, and measure it.

    Raises `UnreadableAudio` if the file is missing, not audio, longer than a day, or has samples that are
    not finite.
    """
    digest = hashlib.sha256()
    samples = 0
    energy = 0.0
    with opened(path) as file:
        length = max(1, BLOCK_VALUES // file.channels)
        while len(block := file.read(length, dtype="float32", always_2d=True)):
            if not np.abs(block).max() < MAX_SAMPLE:  # true for NaN, too
                raise UnreadableAudio(path, f"samples that are not finite, or larger than {MAX_SAMPLE:g}")
            sound = mono(block)
            digest.update(sound)
            samples += len(sound)
            energy += energy_of(sound)
        return Recording(samples, file.samplerate, energy, digest.hexdigest()[:16])


def mono(block: np.ndarray) -> np.ndarray:
    """The mean of the channels: (samples, channels) -> (samples,)."""
    return block.mean(axis=1)


def energy_of(sound: np.ndarray) -> float:
    """The sum of the squares of the samples, in float64."""
    return float(np.square(sound, dtype=np.float64).sum())


@contextmanager
def opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open an audio file; errors while it is open become `UnreadableAudio`."""
    if not os.path.isfile(path):  # unlike Path.is_file, it accepts any name
        raise UnreadableAudio(path, "no such file")
    if path.suffix.lower() == ".raw":  # soundfile would require a sample rate
        raise UnreadableAudio(path, "not readable as audio (raw samples without a header)")
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames == UNKNOWN_LENGTH:
                raise UnreadableAudio(path, "its header does not state its length")
            if not MIN_RATE <= file.samplerate <= MAX_RATE:
                reason = f"a rate of {file.samplerate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be read"
                raise UnreadableAudio(path, reason)
            hours = file.frames / file.samplerate / 3600
            if hours > MAX_HOURS:
                raise UnreadableAudio(path, f"{hours:,.0f} hours long; at most {MAX_HOURS} hours can be read")
            yield file
    except soundfile.LibsndfileError as error:
        raise UnreadableAudio(path, f"not readable as audio ({error.error_string.rstrip('.')})") from None
