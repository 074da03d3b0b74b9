"""From an audio file to MFCCs: the reader of files, and the transform.

Axes: N utterances, F coefficients, T frames.
"""

from pathlib import Path

import numpy as np
import soundfile
import soxr
import torchaudio
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool1d

from data.front_end import FrontEnd
from utils import UserError

LOUDEST = 1e9  # above any sensible sample, far below where the power spectrum leaves float32


class UnreadableAudio(UserError):
    """A file that gives no features; `reason` says why, in a few words."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class MFCC(nn.Module):
    """librosa's `feature.mfcc` with its defaults, in batches, then max-pooled along time.

    (N, samples) float32 -> (N, F, T). What an utterance gives does not depend on the others in its batch.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.frames = front_end.frames
        self.mfcc = torchaudio.transforms.MFCC(
            sample_rate=front_end.sample_rate,
            n_mfcc=front_end.n_mfcc,
            melkwargs={
                "n_fft": front_end.n_fft,
                "hop_length": front_end.hop_length,
                "n_mels": front_end.n_mels,
                "mel_scale": "slaney",
                "norm": "slaney",
                "pad_mode": "constant",
            },
        )

    def forward(self, clips: Tensor) -> Tensor:
        # torchaudio clamps at 80 dB below the maximum of a whole 3-D spectrogram, of each item of a 4-D one:
        # a channel axis gives every utterance a floor of its own.
        coefficients = self.mfcc(clips.unsqueeze(1)).squeeze(1)  # (N, F, hops)
        return adaptive_max_pool1d(coefficients, self.frames)  # (N, F, T)


def load_audio(path: Path, front_end: FrontEnd) -> tuple[np.ndarray, float]:
    """Read a file's start as one channel at the front-end's rate: (samples,) float32, padded with zeros.

    Returns the clip and the seconds that the whole file lasts. Any format, rate and channel count of libsndfile.
    Raises `UnreadableAudio` for a file that is missing, not audio, empty, silent, or whose samples are no numbers.
    """
    sound, rate, seconds = _read_mono(Path(path), front_end.duration)
    if rate != front_end.sample_rate:
        sound = soxr.resample(sound, rate, front_end.sample_rate, quality="HQ")
    sound = sound[: front_end.samples]
    return np.pad(sound, (0, front_end.samples - len(sound))), seconds


def _read_mono(path: Path, duration: float) -> tuple[np.ndarray, int, float]:
    """The first `duration` seconds as the mean of the channels, the sample rate, the seconds of the whole file."""
    if not path.is_file():
        raise UnreadableAudio(path, "no such file")
    try:
        with soundfile.SoundFile(path) as file:
            rate, seconds = file.samplerate, file.frames / file.samplerate
            sound = file.read(int(duration * rate), dtype="float32", always_2d=True).mean(axis=1)
    except soundfile.LibsndfileError as error:
        raise UnreadableAudio(path, f"not readable as audio ({error.error_string.rstrip('.')})") from None
    except TypeError:  # soundfile asks for a rate where the name ends in .raw
        raise UnreadableAudio(path, "not readable as audio (raw samples without a header)") from None
    if not len(sound):
        raise UnreadableAudio(path, "empty (no samples)")
    peak = np.abs(sound).max()
    if not peak < LOUDEST:  # NaN compares false
        raise UnreadableAudio(path, "samples that are not finite, or absurdly large")
    if peak == 0:
        raise UnreadableAudio(path, f"no sound in the first {min(duration, seconds):.3g} s")
    return sound, rate, seconds
