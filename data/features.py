"""Audio file -> clips -> features: reading a recording, and the transform of its clips.

soundfile and soxr read and resample, as librosa.load does inside. librosa itself is not used here,
because its import would make every predict.py start more than a second later.

Shapes: N clips, F coefficients, T frames; a hop is a window of the Fourier transform before pooling.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torchaudio.transforms as T
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool1d, pad
from torchaudio.functional import create_dct, melscale_fbanks

from config import FrontEnd
from data.perturbation import perturb, speed_of
from utils import UserError

MAX_SAMPLE = 1e9  # far above real samples, and far below those whose power spectrum overflows float32
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # sample rates that are read, in Hz; a header may state any number
LATE = 0.1  # seconds by which a list of parts may end after the file
MAX_HOURS = 24  # longest recording that is cut into clips; a small file can hold weeks of sound
UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's number of samples if the header does not state it
BLOCK = 32  # hops that are transformed at a time
TOP_DB = 80.0  # range of a log spectrogram: lower values are raised to this far below its maximum


class UnreadableAudio(UserError):
    """A file that gives no features; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Clip:
    """The samples of one clip and its place in the recording."""

    start: float  # seconds
    end: float  # seconds; padding is not counted
    recording: float  # seconds, length of the whole recording, or of the part of it that is read
    sound: np.ndarray  # (samples,) float32


class Transform(nn.Module):
    """The front-end: librosa's transform with its default settings, then max-pooling along time.

    (N, samples) float32 -> (N, F, T). The result for a clip does not depend on the other clips of
    the batch.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.frames = front_end.frames
        self.coefficients = TRANSFORMS[front_end.features](front_end)

    def forward(self, clips: Tensor) -> Tensor:
        # AmplitudeToDB takes the maximum over a 3-D input, but over each item of a 4-D one.
        # The channel axis makes it 4-D, so that every clip has its own 80 dB range.
        coefficients = self.coefficients(clips.unsqueeze(1)).squeeze(1)  # (N, F, hops)
        if coefficients.shape[2] % self.frames == 0:  # same result as below, twenty times faster
            return coefficients.unflatten(2, (self.frames, -1)).amax(dim=3)
        # On MPS, adaptive pooling is wrong for windows of different lengths (pytorch issue 190064).
        pooled = adaptive_max_pool1d(coefficients.cpu() if coefficients.is_mps else coefficients, self.frames)
        return pooled.to(coefficients.device)  # (N, F, T)


class MelBands(nn.Module):
    """Power in Slaney's mel bands, as librosa computes it: (N, 1, samples) -> (N, 1, bands, hops).

    It works on blocks of hops: a block stays in the processor's cache, which is several times
    faster than a whole spectrogram, whose memory would be allocated anew for every clip.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.n_fft = front_end.n_fft
        self.hop_length = front_end.hop_length
        bins = 1 + front_end.n_fft // 2
        rate = front_end.sample_rate
        bands = melscale_fbanks(
            bins, 0.0, rate / 2, front_end.n_mels, rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("bands", bands)  # (bins, bands)
        self.register_buffer("window", torch.hann_window(front_end.n_fft))

    def forward(self, clips: Tensor) -> Tensor:
        padded = pad(clips, (self.n_fft // 2, self.n_fft // 2))
        frames = padded.unfold(-1, self.n_fft, self.hop_length)  # (N, 1, hops, n_fft), a view
        powers = [self._powers(block) for block in frames.split(BLOCK, dim=-2)]
        return torch.cat(powers, dim=-2).transpose(-1, -2)

    def _powers(self, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames * self.window)
        return (spectrum.real.square() + spectrum.imag.square()) @ self.bands


class CosineTransform(nn.Module):
    """The first coefficients of the orthonormal DCT-II along the second to last axis."""

    def __init__(self, bands: int, coefficients: int) -> None:
        super().__init__()
        self.register_buffer("matrix", create_dct(coefficients, bands, norm="ortho"))  # (bands, coefficients)

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix.T @ x


def stft(front_end: FrontEnd) -> nn.Module:
    """Magnitudes of the short-time Fourier transform."""
    return T.Spectrogram(front_end.n_fft, hop_length=front_end.hop_length, power=1, pad_mode="constant")


def logmel(front_end: FrontEnd) -> nn.Module:
    """Power in mel bands, in dB."""
    return nn.Sequential(MelBands(front_end), T.AmplitudeToDB("power", TOP_DB))


def mfcc(front_end: FrontEnd) -> nn.Module:
    """Cosine transform of the log-mel spectrogram."""
    return nn.Sequential(logmel(front_end), CosineTransform(front_end.n_mels, front_end.n_mfcc))


TRANSFORMS: dict[str, Callable[[FrontEnd], nn.Module]] = {"mfcc": mfcc, "logmel": logmel, "stft": stft}


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread per operation, for callers whose own threads use all cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_clips(
    path: Path,
    front_end: FrontEnd,
    copy: str = "",
    name: str = "",
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[Clip]:
    """Yield the clips that the front-end keeps of a file: mono, resampled, padded with zeros.

    There is one clip, or if `front_end.long` is "chunks", as many as cover the file; silent ones
    are skipped. All formats and channel counts of libsndfile are read; of the few formats that
    cannot seek, only the start of a file. Only one clip is in memory at a time.

    copy: a perturbation such as "speed:0.9", or "" for the original.
    name: the name of the utterance, which is the seed of added noise.
    start, end: the part of the file that is read, in seconds; an `end` of None is the end of the file.

    Raises `UnreadableAudio` if the file is missing, not audio, empty, silent, ends before `end`, or
    has samples that are not finite.
    """
    path = Path(path)
    silence = 0.0
    found = False
    with _opened(path) as file:
        first, last = part_of(path, file, start, end)
        seconds = (last - first) / file.samplerate
        rate = file.samplerate * speed_of(copy)
        length = max(1, round(front_end.duration * rate))
        if front_end.long == "chunks" and seconds > MAX_HOURS * 3600:
            hours = round(seconds / 3600)
            raise UnreadableAudio(path, f"{hours} hours, of which at most {MAX_HOURS} can be cut up")
        for offset in clip_starts(last - first, length, front_end.long):
            begin = first + offset
            if begin:
                file.seek(begin)
            sound = file.read(min(length, last - begin), dtype="float32", always_2d=True).mean(axis=1)
            if not len(sound):  # the header states more samples than the file has
                break
            if _is_silent(sound, path):
                silence = max(silence, len(sound) / rate)
                continue
            found = True
            times = begin / file.samplerate, (begin + len(sound)) / file.samplerate
            sound = perturb(sound, file.samplerate, copy, f"{name} {begin}")
            sound = _resampled(sound, rate, front_end)
            yield Clip(*times, seconds, sound)
    if not found:
        raise UnreadableAudio(path, f"no sound in {silence:.3g} s" if silence else "empty (no samples)")


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


def clip_starts(samples: int, length: int, long: str) -> Iterator[int]:
    """Yield the first sample of each clip; chunks are spread evenly over the recording."""
    spare = samples - length
    if long == "first" or spare <= 0:
        yield 0
    elif long == "center":
        yield spare // 2
    else:
        last = math.ceil(samples / length) - 1
        yield from (spare * number // last for number in range(last + 1))


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
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
            yield file
    except soundfile.LibsndfileError as error:
        raise UnreadableAudio(path, f"not readable as audio ({error.error_string.rstrip('.')})") from None


def _is_silent(sound: np.ndarray, path: Path) -> bool:
    peak = np.abs(sound).max()
    if not peak < MAX_SAMPLE:  # true for NaN, too
        raise UnreadableAudio(path, f"samples that are not finite, or larger than {MAX_SAMPLE:g}")
    return peak == 0


def _resampled(sound: np.ndarray, rate: float, front_end: FrontEnd) -> np.ndarray:
    """Resample to the front-end's rate; cut or pad to the length of a clip."""
    if rate != front_end.sample_rate:
        sound = soxr.resample(sound, rate, front_end.sample_rate, quality="HQ")
    sound = sound[: front_end.samples]
    return np.pad(sound, (0, front_end.samples - len(sound)))
