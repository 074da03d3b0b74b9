"""A recording as a whole: opening its file, and measuring its sound from the first sample to the last.

A file is measured before clips are cut from it: how long it is, where there is sound in it, which of its
channels are heard, and which digest its samples have. soundfile reads all formats of libsndfile.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from data.audio_files import why_not_audio
from utils import UserError

MAX_SAMPLE = 1e9  # far above real samples, and far below those whose power spectrum overflows float32
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # sample rates that are read, in Hz; a header may state any number
MAX_HOURS = 24  # longest recording that is read; a small file can hold weeks of sound
LATE = 0.1  # seconds by which a list of parts may end after the file
UNKNOWN_FORMAT = 1  # libsndfile's error code
UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's number of samples if the header does not state it
SILENCE = 2.0**-15  # one step of 16-bit audio: no sample of digital silence, dithered or not, is larger
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

    part: range  # the samples of the file that are read, all or those of a part; a header may state more
    rate: int  # samples per second
    channel: int | None  # the one that is heard; None: the mean of all
    sounding: range  # the samples from the first to the last that is louder than `SILENCE`; empty if none is
    energy: float  # sum of the squares of all samples
    audio: str  # digest of the samples: equal in every lossless format and whatever the front-end

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.part) / self.rate

    def share_outside(self, clip: np.ndarray) -> float:
        """The share of the energy that is not in a clip (samples,) of it."""
        if len(clip) == len(self.part):
            return 0.0
        return min(max(1 - energy_of(clip) / self.energy, 0.0), 1.0)


def measure(
    path: Path, start: float = 0.0, end: float | None = None, channel: int | None = None
) -> Recording:
    """Read a recording in blocks and measure the mean of its channels, or one of them.

    start, end: the part of the file that is read, in seconds; an `end` of None is the end of the file.

    Where the channels cancel each other, as in stereo with one of them inverted, the strongest is taken
    instead of the mean.

    Raises `UnreadableAudio` if the file is missing, not audio, longer than a day, ends before `end`, or
    has samples that are not finite.
    """
    digest = hashlib.sha256()
    first = stop = 0  # of the sound
    energy = 0.0
    with opened(path) as file:
        energies = np.zeros(file.channels)
        length = max(1, BLOCK_VALUES // file.channels)
        begin, last = part_of(path, file, start, end)
        if begin:
            file.seek(begin)
        place = begin
        while len(block := file.read(min(length, last - place), dtype="float32", always_2d=True)):
            if not np.abs(block).max() < MAX_SAMPLE:  # true for NaN, too
                raise UnreadableAudio(path, f"samples that are not finite, or larger than {MAX_SAMPLE:g}")
            sound = mono(block, channel)
            if len(loud := np.flatnonzero(np.abs(sound) > SILENCE)):
                first = first if stop else place + int(loud[0])
                stop = place + int(loud[-1]) + 1
            place += len(sound)
            digest.update(sound)
            energy += energy_of(sound)
            energies += energy_of(block)
    if channel is None and _cancel(energy, energies):
        strongest = int((energies > 0.99 * energies.max()).argmax())  # of equal ones the first
        return measure(path, start, end, strongest)
    sounding, part = range(first, stop), range(begin, place)
    return Recording(part, file.samplerate, channel, sounding, float(energy), digest.hexdigest()[:16])


def part_of(path: Path, file: soundfile.SoundFile, start: float, end: float | None) -> tuple[int, int]:
    """Return the first sample from `start` on, and the first from `end` on, or the number of samples.

    Raises `UnreadableAudio` if the file ends before `end`, or has no sample from `start` on.
    """
    if not start and end is None:
        return 0, file.frames
    first = round(start * file.samplerate)
    last = file.frames if end is None else round(end * file.samplerate)
    if first >= min(last, file.frames) or last > file.frames + LATE * file.samplerate:
        asked = f"from {start:g} s" + ("" if end is None else f" to {end:g} s")
        raise UnreadableAudio(path, f"{file.frames / file.samplerate:.3f} s long: it has no part {asked}")
    return first, min(last, file.frames)


def mono(block: np.ndarray, channel: int | None) -> np.ndarray:
    """The mean of the channels, or one of them: (samples, channels) -> (samples,)."""
    return block.mean(axis=1) if channel is None else np.ascontiguousarray(block[:, channel])


def energy_of(sound: np.ndarray) -> np.ndarray:
    """The sum of the squares of the samples, in float64: (samples, ...) -> (...)."""
    return np.square(sound, dtype=np.float64).sum(axis=0)


def is_silent(sound: np.ndarray) -> bool:
    """Whether no sample is louder than `SILENCE`."""
    return not (np.abs(sound) > SILENCE).any()


def _cancel(energy: float, energies: np.ndarray) -> bool:
    """Whether channels with these energies (channels,) cancel each other in their mean, which has `energy`.

    The strongest of n channels alone would give their mean 1/n of its amplitude, 1/n² of its energy. Less
    than half of that is left only if the others oppose it: of two equal channels, if their correlation is
    below -0.75.
    """
    return energy < energies.max() / len(energies) ** 2 / 2


@contextmanager
def opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open an audio file; errors while it is open become `UnreadableAudio`."""
    if not os.path.isfile(path):  # unlike Path.is_file, it accepts any name
        raise UnreadableAudio(path, "no such file")
    if path.suffix.lower() == ".raw":  # soundfile would require a sample rate
        raise UnreadableAudio(path, "not readable as audio (raw samples without a header)")
    if reason := why_not_audio(path):
        raise UnreadableAudio(path, f"not readable as audio ({reason})")
    file = None
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
        message = error.error_string.rstrip(".")
        if file is None:  # its header was not understood
            # for what is called .mp3 and is none, libsndfile gives an error of the system
            is_known = path.suffix.lower() != ".mp3" and error.code != UNKNOWN_FORMAT
            message = f"damaged or cut short: {message}" if is_known else "no audio format is recognised"
        raise UnreadableAudio(path, f"not readable as audio ({message})") from None
