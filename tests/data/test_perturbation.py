"""Perturbed copies: the noise at its level, the pitch at its height and in its time, each by its one name."""

import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from config import Perturbation, parse_perturbation
from data.perturbation import perturb, shift_pitch, speed_of

RATE = 16000
ROOT = Path(__file__).parents[2]


def tone(frequency: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def peak(sound: np.ndarray, rate: int = RATE) -> float:
    """The frequency of the loudest partial, in Hz."""
    n = 8 * len(sound)
    return float(np.abs(np.fft.rfft(sound * np.hanning(len(sound)), n)).argmax() * rate / n)


def snr(sound: np.ndarray, noisy: np.ndarray) -> float:
    """In dB, by the definition."""
    noise = noisy.astype(np.float64) - sound
    return 10 * np.log10(np.sum(sound.astype(np.float64) ** 2) / np.sum(noise**2))


@pytest.mark.parametrize(
    ("written", "name", "meaning"),
    [
        ("speed:0.9", "speed:0.9", ("speed", 0.9)),
        ("speed:0.90", "speed:0.9", ("speed", 0.9)),
        ("speed:01.0", "speed:1", ("speed", 1.0)),
        ("speed:2", "speed:2", ("speed", 2.0)),
        ("noise:10", "noise:10", ("noise", 10.0)),
        ("noise:-5.50", "noise:-5.5", ("noise", -5.5)),
        ("noise:0.00001", "noise:0.00001", ("noise", 1e-5)),
        ("pitch:+2", "pitch:2", ("pitch", 2.0)),
        ("pitch:-0", "pitch:0", ("pitch", 0.0)),
        ("pitch:-12.0", "pitch:-12", ("pitch", -12.0)),
        ("pitch:1.2345678", "pitch:1.2345678", ("pitch", 1.2345678)),
    ],
)
def test_a_copy_has_one_spelling_that_means_the_same(written: str, name: str, meaning: tuple[str, float]):
    found = TypeAdapter(Perturbation).validate_python(written)
    assert found == name
    assert TypeAdapter(Perturbation).validate_python(found) == found
    assert parse_perturbation(written) == parse_perturbation(found) == meaning


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        *[
            (copy, f"{copy!r} is not a perturbation: give speed:0.9, noise:10 or pitch:-2, for example")
            for copy in [
                "",
                "speed",
                "speed:",
                "speed:fast",
                "speed:1e0",
                "speed:.9",
                "0.9",
                "echo:1",
                "Speed:1",
            ]
        ],
        *[
            (copy, "is not a perturbation")
            for copy in ["noise:nan", "noise:inf", " noise:1", "noise:1\n", "noise:1:2"]
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
def test_what_cannot_be_made_is_told(copy: str, message: str):
    with pytest.raises(ValueError, match=r"perturbation|between") as caught:
        parse_perturbation(copy)
    assert message in str(caught.value)
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Perturbation).validate_python(copy)
    assert message in refused.value.errors()[0]["msg"]


def test_only_a_speed_changes_the_speed():
    assert [speed_of(copy) for copy in ("", "speed:0.9", "noise:3", "pitch:2")] == [1.0, 0.9, 1.0, 1.0]


@pytest.mark.parametrize("copy", ["", "speed:0.9"])
def test_an_original_and_a_speed_leave_the_samples_alone(copy: str):
    sound = tone(300, 0.1)
    np.testing.assert_array_equal(perturb(sound, RATE, copy, "u"), sound)


@pytest.mark.parametrize("ratio", [-20, -3.5, 0, 10, 30])
@pytest.mark.parametrize("loudness", [1e-4, 1.0, 1e6])
def test_noise_has_its_level_whatever_the_loudness(ratio: float, loudness: float):
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


def test_the_same_name_has_the_same_noise_and_another_name_another():
    sound = tone(440, 0.5)
    first, other, louder = (
        perturb(sound, RATE, copy, name) - sound
        for copy, name in [("noise:10", "a"), ("noise:10", "b"), ("noise:5", "a")]
    )
    for noise in (other, louder):
        assert abs(np.corrcoef(first, noise)[0, 1]) < 0.1
    np.testing.assert_array_equal(perturb(sound, RATE, "noise:10", "a") - sound, first)  # after the others


def test_another_process_adds_the_same_noise():
    code = (
        "import sys, numpy as np; from data.perturbation import perturb;"
        "sys.stdout.write(perturb(np.ones(50, np.float32), 8000, 'noise:3', 'Ses01F ü').tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == perturb(np.ones(50, np.float32), 8000, "noise:3", "Ses01F ü").tobytes().hex()


def test_noise_leaves_numpys_random_state_alone():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    perturb(tone(440, 0.1), RATE, "noise:3", "u")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("semitones", [-12, -5, -1.5, 2, 7, 12])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_moves_by_the_semitones_and_keeps_its_length_and_its_loudness(semitones: float, rate: int):
    sound = tone(330, 1.5, rate)
    shifted = perturb(sound, rate, f"pitch:{semitones}", "u")
    assert (shifted.dtype, shifted.shape) == (np.float32, sound.shape)
    assert peak(shifted, rate) == pytest.approx(330 * 2 ** (semitones / 12), rel=2e-3)
    assert shifted.std() == pytest.approx(sound.std(), rel=0.2)
    ends = np.abs(shifted[: rate // 50]).max(), np.abs(shifted[-rate // 50 :]).max()
    assert min(ends) > 0.2, "cut off at an end"


@pytest.mark.parametrize("semitones", [-4, 3])
def test_the_pitch_is_shifted_as_by_librosa(semitones: float):
    """A gliding voice over faint noise, which keeps every phase well defined."""
    time = np.arange(2 * RATE) / RATE
    phase = np.cumsum(2 * np.pi * (150 + 40 * np.sin(4 * time)) / RATE)
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    sound = (voice + 0.01 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)
    want = librosa.effects.pitch_shift(sound, sr=RATE, n_steps=semitones, n_fft=1024, hop_length=256)
    found = perturb(sound, RATE, f"pitch:{semitones}", "u")
    np.testing.assert_allclose(found[:RATE], want[:RATE], rtol=0, atol=2e-3)  # rounding adds up in the phases


@pytest.mark.parametrize("semitones", [-7, -2, 2, 7])
def test_a_change_of_note_stays_in_its_time(semitones: float):
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
    assert changed == pytest.approx(at, abs=0.03), "half a window of the vocoder"
    assert peak(shifted[: round(at * RATE)]) == pytest.approx(low, rel=5e-3)
    assert peak(shifted[round(at * RATE) :]) == pytest.approx(high, rel=5e-3)


@pytest.mark.parametrize("copy", ["pitch:-12", "pitch:-0.1", "pitch:0", "pitch:12", "noise:10"])
@pytest.mark.parametrize("rate", [1, 100, 8000, 192_000])
@pytest.mark.parametrize("samples", [1, 2, 17, 1023, 1024, 1025])
def test_very_short_sounds_survive(copy: str, rate: int, samples: int):
    found = perturb(np.ones(samples, np.float32), rate, copy, "u")
    assert found.shape == (samples,)
    assert np.isfinite(found).all()
