"""From an audio file to features: the reader of files, and the transform.

Axes: N clips, F coefficients, T frames.
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

LOUDEST = 1e9  # above any sensible sample, far below where the power spectrum leaves float32
UNKNOWN = 2**63 - 1  # samples in a file whose header does not tell how many
RATES = 1_000, 1_000_000  # samples a second; no speech has less, and a header may claim anything
LONGEST = (
    24 * 3600
)  # seconds of a recording that is cut into clips: a small file can claim, and hold, weeks of sound
BLOCK = 32  # hops transformed at a time
FLOOR = 80.0  # dB below the loudest point of a clip; what is softer counts as this


class UnreadableAudio(UserError):
    """A file that gives no features; `reason` says why, in a few words."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Clip:
    """Sound of one length, and where in its recording it is."""

    start: float  # seconds
    end: float  # seconds, of what is not padding
    recording: float  # seconds, of all of it
    sound: np.ndarray  # (samples,) float32


class Transform(nn.Module):
    """The front-end's transform, librosa's with its defaults, in batches, then max-pooled along time.

    (N, samples) float32 -> (N, F, T). What a clip gives does not depend on the others in its batch.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.frames = front_end.frames
        self.coefficients = TRANSFORMS[front_end.features](front_end)

    def forward(self, clips: Tensor) -> Tensor:
        # torchaudio clamps at 80 dB below the maximum of a whole 3-D spectrogram, of each item of a 4-D one:
        # a channel axis gives every clip a floor of its own.
        coefficients = self.coefficients(clips.unsqueeze(1)).squeeze(1)  # (N, F, hops)
        if coefficients.shape[2] % self.frames == 0:  # the same, twenty times faster
            return coefficients.unflatten(2, (self.frames, -1)).amax(dim=3)
        # Apple's GPU gets windows of several lengths wrong (github.com/pytorch/pytorch/issues/190064)
        pooled = adaptive_max_pool1d(coefficients.cpu() if coefficients.is_mps else coefficients, self.frames)
        return pooled.to(coefficients.device)  # (N, F, T)


class MelBands(nn.Module):
    """The power in Slaney's mel bands, as librosa has them: (N, 1, samples) -> (N, 1, bands, hops).

    Block by block, since what stays in the cache is several times faster than whole spectra, for whose memory the
    system is asked anew for every clip.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.n_fft, self.hop_length = front_end.n_fft, front_end.hop_length
        bins, rate = 1 + front_end.n_fft // 2, front_end.sample_rate
        bands = melscale_fbanks(
            bins, 0.0, rate / 2, front_end.n_mels, rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("bands", bands)  # (bins, bands)
        self.register_buffer("window", torch.hann_window(front_end.n_fft))

    def forward(self, clips: Tensor) -> Tensor:
        padded = pad(clips, (self.n_fft // 2, self.n_fft // 2))
        frames = padded.unfold(-1, self.n_fft, self.hop_length)  # (N, 1, hops, n_fft), a view
        return torch.cat([self._powers(block) for block in frames.split(BLOCK, dim=-2)], dim=-2).transpose(
            -1, -2
        )

    def _powers(self, frames: Tensor) -> Tensor:
        z = torch.fft.rfft(frames * self.window)
        return (z.real.square() + z.imag.square()) @ self.bands


class Cosines(nn.Module):
    """The orthonormal cosine transform of the second to last axis, its first coefficients."""

    def __init__(self, bands: int, coefficients: int) -> None:
        super().__init__()
        self.register_buffer("matrix", create_dct(coefficients, bands, norm="ortho"))  # (bands, coefficients)

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix.T @ x


def stft(front_end: FrontEnd) -> nn.Module:
    """The magnitudes of the short-time Fourier transform."""
    return T.Spectrogram(front_end.n_fft, hop_length=front_end.hop_length, power=1, pad_mode="constant")


def logmel(front_end: FrontEnd) -> nn.Module:
    """The power in mel bands, in dB."""
    return nn.Sequential(MelBands(front_end), T.AmplitudeToDB("power", FLOOR))


def mfcc(front_end: FrontEnd) -> nn.Module:
    """The cosine transform of the log-mel spectrum."""
    return nn.Sequential(logmel(front_end), Cosines(front_end.n_mels, front_end.n_mfcc))


TRANSFORMS: dict[str, Callable[[FrontEnd], nn.Module]] = {"mfcc": mfcc, "logmel": logmel, "stft": stft}


def read_clips(path: Path, front_end: FrontEnd, copy: str = "", name: str = "") -> Iterator[Clip]:
    """Read what the front-end keeps of a file, as one channel at its rate, padded with zeros.

    One clip, or for `long` = chunks as many as cover the file, but for silent ones. Any format, rate and channel count
    of libsndfile; of the few formats that are read forward alone, a file's start. `copy` is a perturbation, `name` that
    of the utterance, which seeds its noise.
    Raises `UnreadableAudio` for a file that is missing, not audio, empty, silent, or whose samples are no numbers.
    """
    path, silence, heard = Path(path), 0.0, False
    with _opened(path) as file:
        seconds, rate = file.frames / file.samplerate, file.samplerate * speed_of(copy)
        length = max(1, round(front_end.duration * rate))
        if front_end.long == "chunks" and seconds > LONGEST:
            raise UnreadableAudio(
                path, f"{seconds / 3600:.0f} hours, of which at most {LONGEST // 3600} can be cut up"
            )
        for start in starts(file.frames, length, front_end.long):
            if start:
                file.seek(start)
            sound = file.read(length, dtype="float32", always_2d=True).mean(axis=1)
            if not len(sound):  # a header that promises more than there is
                break
            if _is_silent(sound, path):
                silence = max(silence, len(sound) / rate)
                continue
            heard, end = True, start + len(sound)
            sound = perturb(sound, file.samplerate, copy, f"{name} {start}")
            fitted = _fitted(sound, rate, front_end)
            yield Clip(start / file.samplerate, end / file.samplerate, seconds, fitted)
    if not heard:
        raise UnreadableAudio(path, f"no sound in {silence:.3g} s" if silence else "empty (no samples)")


def starts(samples: int, length: int, long: str) -> Iterator[int]:
    """The first samples of the clips of a recording; those that cover it all are spread evenly, to its very end."""
    spare = samples - length
    if long == "first" or spare <= 0:
        yield 0
    elif long == "center":
        yield spare // 2
    else:
        last = math.ceil(samples / length) - 1
        yield from (spare * number // last for number in range(last + 1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread an operation while the caller's own threads share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """An audio file; what goes wrong while it is read is told in a few words."""
    if not os.path.isfile(path):  # never raises, whatever the name
        raise UnreadableAudio(path, "no such file")
    if path.suffix.lower() == ".raw":  # soundfile would ask for a rate
        raise UnreadableAudio(path, "not readable as audio (raw samples without a header)")
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames == UNKNOWN:
                raise UnreadableAudio(path, "a header that does not tell the length")
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise UnreadableAudio(
                    path, f"a rate of {file.samplerate} Hz; {RATES[0]} to {RATES[1]} are read"
                )
            yield file
    except soundfile.LibsndfileError as error:
        raise UnreadableAudio(path, f"not readable as audio ({error.error_string.rstrip('.')})") from None


def _is_silent(sound: np.ndarray, path: Path) -> bool:
    peak = np.abs(sound).max()
    if not peak < LOUDEST:  # NaN compares false
        raise UnreadableAudio(path, "samples that are not finite, or absurdly large")
    return peak == 0


def _fitted(sound: np.ndarray, rate: float, front_end: FrontEnd) -> np.ndarray:
    """Sound at the front-end's rate and of a clip's length."""
    if rate != front_end.sample_rate:
        sound = soxr.resample(sound, rate, front_end.sample_rate, quality="HQ")
    sound = sound[: front_end.samples]
    return np.pad(sound, (0, front_end.samples - len(sound)))
