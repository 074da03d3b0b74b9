"""Perturbed copies of the utterances: another speed, added noise, another pitch."""

import threading
import zlib

import numpy as np

from config import parse_perturbation

VOCODER_WINDOW = 0.064
"""Window of the phase vocoder in seconds, long enough to separate the harmonics of a low voice."""
IMPORTING = threading.Lock()
"""Held while a thread imports librosa, whose modules import each other."""


def perturb(sound: np.ndarray, rate: int, copy: str, seed: str) -> np.ndarray:
    """Add the noise of a copy, or shift its pitch.

    sound: (samples,) float32 at `rate` Hz; the result has the same shape.
    copy: a perturbation such as "noise:10". A "speed" copy is returned as it is, because
    `read_clips` changes the speed by resampling from another rate.
    seed: of the noise; the same seed and copy always give the same noise.
    """
    kind, amount = parse_perturbation(copy) if copy else ("", 0.0)
    if kind == "noise":
        number = zlib.crc32(f"{seed} {copy}".encode())
        return add_noise(sound, amount, np.random.default_rng(number))
    if kind == "pitch":
        return shift_pitch(sound, rate, amount)
    return sound


def add_noise(sound: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Add white noise with a signal-to-noise ratio of `ratio` dB."""
    power = np.mean(np.square(sound, dtype=np.float64)) / 10 ** (ratio / 10)
    return sound + np.float32(np.sqrt(power)) * rng.standard_normal(len(sound), np.float32)


def shift_pitch(sound: np.ndarray, rate: int, semitones: float) -> np.ndarray:
    """Shift the pitch and keep the tempo, by librosa's phase vocoder and soxr."""
    with IMPORTING:
        from librosa.effects import pitch_shift  # here, because the import takes more than a second

    n_fft = max(16, 2 * round(rate * VOCODER_WINDOW / 2))
    margin = max(n_fft // 4, n_fft - len(sound))  # at least one window; the last hop must be whole
    padded = np.pad(sound, (0, margin))
    return pitch_shift(padded, sr=rate, n_steps=semitones, n_fft=n_fft)[: len(sound)]


def speed_of(copy: str) -> float:
    """How much faster than the original a copy is played; 1 unless it is a "speed" copy."""
    kind, amount = parse_perturbation(copy) if copy else ("", 1.0)
    return amount if kind == "speed" else 1.0
