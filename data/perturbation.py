"""Perturbed copies of the training utterances: another speed, noise, another pitch."""

import zlib

import numpy as np
import soxr
import torch
from torchaudio.functional import phase_vocoder

from config import parse_perturbation

VOCODER_FFT = 0.064  # seconds: resolves the harmonics of a low voice


def perturb(sound: np.ndarray, rate: int, copy: str, name: str) -> np.ndarray:
    """Add a copy's noise, or shift its pitch. `name` tells whose noise it is: same name, same noise.

    sound (samples,) float32 at `rate`; so is what it returns. A copy of another speed is left as it is: it is read
    as if it had been recorded at another rate.
    """
    kind, amount = parse_perturbation(copy) if copy else ("", 0.0)
    if kind == "noise":
        return add_noise(sound, amount, np.random.default_rng(zlib.crc32(f"{name} {copy}".encode())))
    return shift_pitch(sound, rate, amount) if kind == "pitch" else sound


def add_noise(sound: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """White noise at `ratio` dB below the sound's mean power."""
    power = np.mean(np.square(sound, dtype=np.float64)) / 10 ** (ratio / 10)
    return sound + np.float32(np.sqrt(power)) * rng.standard_normal(len(sound), np.float32)


def shift_pitch(sound: np.ndarray, rate: int, semitones: float) -> np.ndarray:
    """Another pitch at the same tempo: stretched in time by a phase vocoder, then played as much faster."""
    ratio = 2 ** (semitones / 12)
    n_fft = max(16, 2 * round(rate * VOCODER_FFT / 2))
    hop, window = n_fft // 4, torch.hann_window(n_fft)
    padded = torch.from_numpy(np.pad(sound, (0, max(hop, n_fft - len(sound)))))  # whole hops are stretched
    # Silence before the sound, no mirror image: the phases of the first window are those all others build upon.
    spectrum = torch.stft(padded, n_fft, hop, window=window, pad_mode="constant", return_complex=True)
    advance = torch.linspace(0, torch.pi * hop, n_fft // 2 + 1)[:, None]
    stretched = torch.istft(phase_vocoder(spectrum, 1 / ratio, advance), n_fft, hop, window=window)
    shifted = soxr.resample(stretched.numpy(), rate * ratio, rate, quality="HQ")[: len(sound)]
    return np.pad(shifted, (0, len(sound) - len(shifted)))


def speed_of(copy: str) -> float:
    """The factor by which a perturbed copy is played faster than the original; 1 for all kinds but `speed`."""
    kind, amount = parse_perturbation(copy) if copy else ("", 1.0)
    return amount if kind == "speed" else 1.0
