"""Audio file -> clips -> features: reading a recording, and the transform of its clips.

soundfile and soxr read and resample, as librosa.load does inside. librosa itself is not used here,
because its import would make every predict.py start more than a second later.

Shapes: N clips, F coefficients, T frames; a hop is a window of the Fourier transform before pooling.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
import torchaudio.transforms as T
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool1d, pad
from torchaudio.functional import create_dct, melscale_fbanks

from config import FrontEnd
from data.perturbation import perturb, speed_of
from data.recordings import Recording, UnreadableAudio, is_silent, measure, mono, opened

BLOCK = 32  # hops that are transformed at a time
MAX_SILENT_SHARE = 0.1  # of a clip that may be digital silence at either end before it is moved to the sound
TOP_DB = 80.0  # range of a log spectrogram: lower values are raised to this far below its maximum


@dataclass(frozen=True)
class Clip:
    """The samples of one clip and its place in the recording."""

    start: float  # seconds
    end: float  # seconds; padding is not counted
    recording: float  # seconds, length of the whole recording, or of the part of it that is read
    audio: str  # digest of its samples
    lost: float  # share of its energy that is in none of its clips
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
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[Clip]:
    """Yield the clips that the front-end keeps of a file: mono, resampled, padded with zeros.

    There is one clip, or if `front_end.long` is "chunks", as many as cover the file; silent ones
    are skipped. The one clip of a longer recording is not spent on digital silence; see `part_with_sound`.
    All formats and channel counts of libsndfile are read; of the few formats that cannot seek, only the
    start of a file. Only one clip is in memory at a time.

    copy: a perturbation such as "speed:0.9", or "" for the original.
    start, end: the part of the file that is read, in seconds; an `end` of None is the end of the file.

    Raises `UnreadableAudio` if the file is missing, not audio, empty, silent, shorter than one window
    of the Fourier transform, ends before `end`, or has samples that are not finite.
    """
    path = Path(path)
    recording = measure(path, start, end)
    if reason := _why_unusable(recording, front_end):
        raise UnreadableAudio(path, reason)
    rate = recording.rate * speed_of(copy)
    length = max(1, round(front_end.duration * rate))
    heard = part_with_sound(recording, length, front_end.long)
    in_chunks = front_end.long == "chunks"
    found = False
    with opened(path) as file:
        for begin in (heard.start + offset for offset in clip_starts(len(heard), length, front_end.long)):
            if begin or file.seekable():
                file.seek(begin)
            block = file.read(min(length, recording.part.stop - begin), dtype="float32", always_2d=True)
            clip = mono(block, recording.channel)
            if is_silent(clip):
                continue
            sound = perturb(clip, recording.rate, copy, f"{recording.audio} {begin - recording.part.start}")
            sound = _resampled(sound, rate, front_end)
            if is_silent(sound):
                continue
            found = True
            lost = 0.0 if in_chunks else recording.share_outside(clip)
            times = begin / recording.rate, (begin + len(clip)) / recording.rate, recording.seconds
            yield Clip(*times, recording.audio, lost, sound)
            if not in_chunks:
                break
    if not found:
        limit = front_end.sample_rate / 2
        raise UnreadableAudio(path, f"no sound below {limit:,.0f} Hz, half of the features' sample rate")


def part_with_sound(recording: Recording, length: int, long: str) -> range:
    """The samples from which clips of `length` samples are taken.

    These are all samples, unless the recording is longer than its one clip: then digital silence before
    the first sound and after the last is left out, if it is longer than `MAX_SILENT_SHARE` of the clip.
    """
    everything = recording.part
    if long == "chunks" or len(everything) <= length:
        return everything
    sounding = recording.sounding
    allowed = MAX_SILENT_SHARE * length
    start = sounding.start if sounding.start - everything.start > allowed else everything.start
    stop = sounding.stop if everything.stop - sounding.stop > allowed else everything.stop
    return range(start, stop)


def _why_unusable(recording: Recording, front_end: FrontEnd) -> str:
    """Why a recording gives no features; empty if it does."""
    window = front_end.n_fft / front_end.sample_rate
    if not recording.part:
        return "empty (no samples)"
    if not recording.sounding:
        return f"no sound in {recording.seconds:.3g} s"
    if recording.seconds < window:
        lengths = f"{1000 * recording.seconds:.3g} ms, shorter than one window of {1000 * window:.3g} ms"
        return f"too short: {lengths} (--n_fft)"
    return ""


def clip_starts(samples: int, length: int, long: str) -> Iterator[int]:
    """Yield the first sample of each clip; chunks are spread evenly over the recording.

    For "center", the start of the recording comes second: it is taken if the middle is silent.
    """
    spare = samples - length
    if long == "first" or spare <= 0:
        yield 0
    elif long == "center":
        yield from (spare // 2, 0)
    else:
        last = math.ceil(samples / length) - 1
        yield from (spare * number // last for number in range(last + 1))


def _resampled(sound: np.ndarray, rate: float, front_end: FrontEnd) -> np.ndarray:
    """Resample to the front-end's rate; cut or pad to the length of a clip."""
    if rate != front_end.sample_rate:
        sound = soxr.resample(sound, rate, front_end.sample_rate, quality="HQ")
    sound = sound[: front_end.samples]
    return np.pad(sound, (0, front_end.samples - len(sound)))
