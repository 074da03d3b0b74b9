"""The front-end: equal to librosa's, utterance by utterance, on sound with the traits of speech."""

import librosa
import numpy as np
import pytest
import soundfile
import torch
from pydantic import ValidationError

from data.features import MFCC, UnreadableAudio, load_audio
from data.front_end import FrontEnd

DEFAULT = FrontEnd()
TELEPHONE = FrontEnd(sample_rate=8000, n_fft=400, hop_length=160, n_mels=40, n_mfcc=13, duration=3, frames=50)


def voiced(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Harmonics of a gliding pitch under formants, in syllables and pauses, over faint noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * 0.6 * t + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = np.zeros_like(t)
    for k in range(1, 25):
        gain = sum(np.exp(-(((k * pitch - formant) / 250) ** 2)) for formant in rng.uniform(300, 3300, 3))
        sound += gain * np.sin(k * phase) * (k * pitch < rate / 2)
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(1, 3) * t), 0, None)
    sound = sound * syllables + 1e-3 * rng.standard_normal(len(t))
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def oracle(clip: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """librosa, with its defaults, and max-pooling spelt out: (F, T)."""
    mfcc = librosa.feature.mfcc(
        y=clip,
        sr=front_end.sample_rate,
        n_mfcc=front_end.n_mfcc,
        n_fft=front_end.n_fft,
        hop_length=front_end.hop_length,
        n_mels=front_end.n_mels,
    )
    hops = mfcc.shape[1]
    edges = [(i * hops // front_end.frames, -(-(i + 1) * hops // front_end.frames)) for i in range(front_end.frames)]
    return np.stack([mfcc[:, start:stop].max(axis=1) for start, stop in edges], axis=1)


def transform(clips: list[np.ndarray], front_end: FrontEnd) -> np.ndarray:
    with torch.inference_mode():
        return MFCC(front_end)(torch.from_numpy(np.stack(clips))).numpy()


def padded(sound: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    return librosa.util.fix_length(sound, size=front_end.samples)


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()


@pytest.mark.parametrize("front_end", [DEFAULT, TELEPHONE, DEFAULT.model_copy(update={"frames": 100})])
@pytest.mark.parametrize("seconds", [0.3, 2.7, 8.0])
def test_mfcc_equals_librosa(front_end: FrontEnd, seconds: float) -> None:
    clip = padded(voiced(seconds, front_end.sample_rate, seed=int(10 * seconds)), front_end)
    assert_close(transform([clip], front_end)[0], oracle(clip, front_end))


def test_the_default_pools_each_four_windows() -> None:
    clip = padded(voiced(5, DEFAULT.sample_rate), DEFAULT)
    mfcc = librosa.feature.mfcc(y=clip, sr=32750, n_mfcc=128)
    assert mfcc.shape == (128, 512)
    assert_close(transform([clip], DEFAULT)[0], mfcc.reshape(128, 128, 4).max(axis=2))


def test_an_utterance_does_not_depend_on_its_batch() -> None:
    loud = padded(voiced(6, DEFAULT.sample_rate, seed=1), DEFAULT)
    quiet = 1e-4 * padded(voiced(2, DEFAULT.sample_rate, seed=2), DEFAULT)  # under the loud one's 80 dB
    together = transform([loud, quiet, loud[::-1].copy()], DEFAULT)
    for clip, got in zip([loud, quiet], together, strict=False):
        np.testing.assert_allclose(got, transform([clip], DEFAULT)[0], rtol=0, atol=1e-4)
        assert_close(got, oracle(clip, DEFAULT))


@pytest.mark.parametrize("seconds", [0.5, 3.0, 11.0])
@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("mono16.wav", 16000, 1, "PCM_16"),
        ("stereo48.wav", 48000, 2, "PCM_24"),
        ("telephone.wav", 8000, 1, "ULAW"),
        ("same_rate.wav", 32750, 1, "FLOAT"),
        ("cd.flac", 44100, 2, "PCM_16"),
    ],
)
def test_files_read_as_by_librosa(tmp_path, name: str, rate: int, channels: int, subtype: str, seconds: float) -> None:
    sound = np.stack([voiced(seconds, rate, seed) for seed in range(channels)], axis=1)
    soundfile.write(tmp_path / name, sound, rate, subtype=subtype)
    clip, duration = load_audio(tmp_path / name, DEFAULT)
    want, _ = librosa.load(tmp_path / name, sr=32750, mono=True, duration=8.0, res_type="soxr_hq")
    assert clip.shape == (DEFAULT.samples,)
    assert clip.dtype == np.float32
    assert duration == pytest.approx(seconds)
    np.testing.assert_allclose(clip, padded(want, DEFAULT), rtol=0, atol=1e-6)
    if len(want) < len(clip):
        assert not clip[len(want) :].any()


def test_no_more_is_read_than_needed(tmp_path, monkeypatch) -> None:
    soundfile.write(tmp_path / "long.wav", voiced(20, 8000), 8000)
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, n, **kw: asked.append(n) or read(self, n, **kw))
    _, duration = load_audio(tmp_path / "long.wav", TELEPHONE)
    assert asked == [3 * 8000]
    assert duration == 20


def nothing(path) -> None:
    pass


def text(path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def sound_of(samples: list[float]):
    return lambda path: soundfile.write(path, np.array(samples, dtype=np.float32), 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (nothing, "a.wav", "no such file"),
        (lambda path: path.mkdir(), "a.wav", "no such file"),
        (text, "a.wav", "not readable as audio"),
        (text, "a.raw", "not readable as audio"),
        (lambda path: path.touch(), "a.wav", "not readable as audio"),
        (sound_of([]), "a.wav", "empty"),
        (sound_of([0.0] * 500), "a.wav", "no sound"),
        (sound_of([0.1, np.nan, 0.2]), "a.wav", "not finite"),
        (sound_of([0.1, np.inf, 0.2]), "a.wav", "not finite"),
        (sound_of([0.1, 1e30, 0.2]), "a.wav", "absurdly large"),
    ],
)
def test_unreadable_audio_says_which_file_and_why(tmp_path, make, name: str, reason: str) -> None:
    make(tmp_path / name)
    with pytest.raises(UnreadableAudio, match=reason) as caught:
        load_audio(tmp_path / name, DEFAULT)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_sound_after_the_clip_does_not_count(tmp_path) -> None:
    sound_of([0.0] * 16000 * 4 + [0.5] * 16000)(tmp_path / "late.wav")
    with pytest.raises(UnreadableAudio, match="no sound in the first 3 s"):
        load_audio(tmp_path / "late.wav", TELEPHONE)
    assert load_audio(tmp_path / "late.wav", DEFAULT)[0].any()


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"n_mfcc": 64, "n_mels": 40}, ["n_mfcc", "n_mels"]),
        ({"hop_length": 4096}, ["hop_length", "n_fft"]),
        ({"duration": 0.01}, ["n_fft", "duration"]),
        ({"frames": 513}, ["frames", "hop_length"]),
        ({"sample_rate": 0}, ["greater than 0"]),
        ({"duration": float("nan")}, ["less than"]),
        ({"n_mel": 128}, ["Extra"]),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict, fields: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        FrontEnd(**settings)
    message = caught.value.errors()[0]["msg"]
    assert all(field in message for field in fields)
    assert "\n" not in message


def test_every_setting_has_its_help() -> None:
    assert all(field.description for field in FrontEnd.model_fields.values())
    assert (DEFAULT.samples, DEFAULT.hops) == (262_000, 512)
