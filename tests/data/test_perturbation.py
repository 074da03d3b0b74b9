"""Perturbed copies: the level of the noise, the shift of the pitch, and the spelling of a perturbation."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from pydantic import TypeAdapter, ValidationError
from torchaudio.functional import phase_vocoder

from config import Perturbation, parse_perturbation
from data.perturbation import perturb, shift_pitch, speed_of

RATE = 16000
ROOT = Path(__file__).parents[2]


def tone(frequency: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def peak(sound: np.ndarray, rate: int = RATE) -> float:
    """The frequency of the loudest component, in Hz."""
    n = 8 * len(sound)
    return float(np.abs(np.fft.rfft(sound * np.hanning(len(sound)), n)).argmax() * rate / n)


def snr(sound: np.ndarray, noisy: np.ndarray) -> float:
    """The signal-to-noise ratio in dB."""
    noise = noisy.astype(np.float64) - sound
    return 10 * np.log10(np.sum(sound.astype(np.float64) ** 2) / np.sum(noise**2))


@pytest.mark.parametrize(
    ("written", "name", "meaning"),
    [
        ("speed:0.9", "speed:0.9", ("speed", 0.9)),
        ("speed:0.90", "speed:0.9", ("speed", 0.9)),
        ("speed:01.50", "speed:1.5", ("speed", 1.5)),
        ("speed:2", "speed:2", ("speed", 2.0)),
        ("noise:10", "noise:10", ("noise", 10.0)),
        ("noise:-5.50", "noise:-5.5", ("noise", -5.5)),
        ("noise:0.00001", "noise:0.00001", ("noise", 1e-5)),
        ("pitch:+2", "pitch:2", ("pitch", 2.0)),
        ("noise:-0", "noise:0", ("noise", 0.0)),
        ("pitch:-12.0", "pitch:-12", ("pitch", -12.0)),
        ("pitch:1.2345678", "pitch:1.2345678", ("pitch", 1.2345678)),
    ],
)
def test_a_perturbation_has_one_canonical_spelling(written: str, name: str, meaning: tuple[str, float]):
    found = TypeAdapter(Perturbation).validate_python(written)
    assert found == name
    assert TypeAdapter(Perturbation).validate_python(found) == found
    assert parse_perturbation(written) == parse_perturbation(found) == meaning


MALFORMED = ["", "speed", "speed:", "speed:fast", "speed:1e0", "speed:.9", "0.9", "echo:1", "Speed:1"]
MALFORMED += ["noise:nan", "noise:inf", " noise:1", "noise:1\n", "noise:1:2"]


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        *[
            (copy, f"{copy!r} is not a perturbation: give speed:0.9, noise:10 or pitch:-2")
            for copy in MALFORMED
        ],
        ("speed:0.49", "speed:0.49: speed must be between 0.5 and 2"),
        ("speed:-1", "speed:-1: speed must be between 0.5 and 2"),
        ("speed:2.01", "speed:2.01: speed must be between 0.5 and 2"),
        ("noise:61", "noise:61: noise must be between -20 and 60"),
        ("noise:-20.5", "noise:-20.5: noise must be between -20 and 60"),
        ("pitch:13", "pitch:13: pitch must be between -12 and 12"),
        ("pitch:-12.1", "pitch:-12.1: pitch must be between -12 and 12"),
    ],
)
def test_a_malformed_perturbation_is_refused(copy: str, message: str):
    with pytest.raises(ValueError, match=r"perturbation|between") as parsed:
        parse_perturbation(copy)
    assert message in str(parsed.value)
    with pytest.raises(ValidationError) as validated:
        TypeAdapter(Perturbation).validate_python(copy)
    assert message in validated.value.errors()[0]["msg"]


def test_only_a_speed_copy_has_another_speed():
    assert [speed_of(copy) for copy in ("", "speed:0.9", "noise:3", "pitch:2")] == [1.0, 0.9, 1.0, 1.0]


@pytest.mark.parametrize("copy", ["", "speed:0.9"])
def test_originals_and_speed_copies_keep_their_samples(copy: str):
    sound = tone(300, 0.1)
    np.testing.assert_array_equal(perturb(sound, RATE, copy, "u"), sound)


@pytest.mark.parametrize("ratio", [-20, -3.5, 0, 10, 30])
@pytest.mark.parametrize("loudness", [1e-4, 1.0, 1e6])
def test_noise_has_the_given_level_at_any_loudness(ratio: float, loudness: float):
    sound = np.float32(loudness) * tone(440, 5)
    noisy = perturb(sound, RATE, f"noise:{ratio}", "u")
    assert (noisy.dtype, noisy.shape) == (np.float32, sound.shape)
    assert snr(sound, noisy) == pytest.approx(ratio, abs=0.3)


def test_the_noise_is_white():
    sound = tone(440, 5)
    noise = perturb(sound, RATE, "noise:0", "u") - sound
    bands = np.array([np.mean(part) for part in np.array_split(np.abs(np.fft.rfft(noise)[1:]) ** 2, 10)])
    assert np.abs(10 * np.log10(bands / bands.mean())).max() < 0.5
    assert abs(noise.mean()) < 0.01 * noise.std()


def test_noise_depends_on_the_name_and_the_copy_alone():
    sound = tone(440, 0.5)
    first, other, louder = (
        perturb(sound, RATE, copy, name) - sound
        for copy, name in [("noise:10", "a"), ("noise:10", "b"), ("noise:5", "a")]
    )
    for noise in (other, louder):
        assert abs(np.corrcoef(first, noise)[0, 1]) < 0.1
    np.testing.assert_array_equal(perturb(sound, RATE, "noise:10", "a") - sound, first)  # after the others


def test_noise_is_the_same_in_another_process():
    code = (
        "import sys, numpy as np; from data.perturbation import perturb;"
        "sys.stdout.write(perturb(np.ones(50, np.float32), 8000, 'noise:3', 'Ses01F ü').tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == perturb(np.ones(50, np.float32), 8000, "noise:3", "Ses01F ü").tobytes().hex()


def test_noise_does_not_use_numpys_global_random_state():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    perturb(tone(440, 0.1), RATE, "noise:3", "u")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("semitones", [-12, -5, -1.5, 2, 7, 12])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_shifted_tone_keeps_its_length_and_loudness(semitones: float, rate: int):
    sound = tone(330, 1.5, rate)
    shifted = perturb(sound, rate, f"pitch:{semitones}", "u")
    assert (shifted.dtype, shifted.shape) == (np.float32, sound.shape)
    assert peak(shifted, rate) == pytest.approx(330 * 2 ** (semitones / 12), rel=2e-3)
    assert shifted.std() == pytest.approx(sound.std(), rel=0.2)
    ends = np.abs(shifted[: rate // 50]).max(), np.abs(shifted[-rate // 50 :]).max()
    assert min(ends) > 0.2, "cut off at an end"


@pytest.mark.parametrize("semitones", [-4, 3])
def test_the_pitch_is_shifted_as_by_torchaudio_and_soxr(semitones: float):
    """The sound is a gliding voice with faint noise, so that the phase of every frequency is well defined."""
    time = np.arange(2 * RATE) / RATE
    phase = np.cumsum(2 * np.pi * (150 + 40 * np.sin(4 * time)) / RATE)
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    sound = (voice + 0.01 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)
    shifted = perturb(sound, RATE, f"pitch:{semitones}", "u")
    ratio = 2 ** (semitones / 12)
    window = torch.hann_window(1024)
    spectrum = torch.stft(
        torch.from_numpy(sound), 1024, 256, window=window, pad_mode="constant", return_complex=True
    )
    advance = torch.linspace(0, torch.pi * 256, 513)[:, None]
    stretched = torch.istft(phase_vocoder(spectrum, 1 / ratio, advance), 1024, 256, window=window)
    expected = soxr.resample(stretched.numpy(), RATE * ratio, RATE, quality="HQ")
    # rounding adds up in the phases
    np.testing.assert_allclose(shifted[:RATE], expected[:RATE], rtol=0, atol=2e-3)


def test_the_pitch_is_shifted_the_same_in_every_thread():
    sound = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: shift_pitch(sound, RATE, 2.0), range(8))
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("semitones", [-7, -2, 2, 7])
def test_a_pitch_shift_keeps_the_time_of_a_change_of_note(semitones: float):
    notes, at = (300, 450), 0.9
    sound = np.concatenate([tone(notes[0], at), tone(notes[1], 0.7)])
    shifted = shift_pitch(sound, RATE, semitones)
    low, high = (note * 2 ** (semitones / 12) for note in notes)
    window = np.hanning(640)
    places = np.arange(0, len(sound) - 640, 16)

    def strength(frequency: float) -> np.ndarray:
        wave = window * np.exp(-2j * np.pi * frequency * np.arange(640) / RATE)
        return np.array([abs(shifted[place : place + 640] @ wave) for place in places])

    changed = (places[strength(high) > strength(low)][0] + 320) / RATE
    assert changed == pytest.approx(at, abs=0.03), "off by more than half a window"
    assert peak(shifted[: round(at * RATE)]) == pytest.approx(low, rel=5e-3)
    assert peak(shifted[round(at * RATE) :]) == pytest.approx(high, rel=5e-3)


@pytest.mark.parametrize("copy", ["pitch:-12", "pitch:-0.1", "pitch:12", "noise:10"])
@pytest.mark.parametrize("rate", [1, 100, 8000, 192_000])
@pytest.mark.parametrize("samples", [1, 2, 17, 1023, 1024, 1025])
def test_very_short_sounds_are_perturbed(copy: str, rate: int, samples: int):
    found = perturb(np.ones(samples, np.float32), rate, copy, "u")
    assert found.shape == (samples,)
    assert np.isfinite(found).all()
