"""The transform equals librosa's on speech-like sound; recordings are read as librosa reads them."""

import shutil
import tracemalloc
from contextlib import suppress
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import soxr
import torch
from pydantic import ValidationError

from config import FrontEnd
from data.features import Clip, Transform, UnreadableAudio, clip_starts, one_thread, read_clips

DEFAULT = FrontEnd()
TELEPHONE = FrontEnd(sample_rate=8000, n_fft=400, hop_length=160, n_mels=40, n_mfcc=13, duration=3, frames=50)
PAPER = FrontEnd(
    features="stft", sample_rate=16000, n_fft=278, hop_length=229, n_mels=64, n_mfcc=64, frames=300
)
KINDS = ["mfcc", "logmel", "stft"]


def load_clips(path: Path, *arguments: object) -> tuple[float, list[Clip]]:
    """The length of a file in seconds, and all its clips."""
    clips = list(read_clips(path, *arguments))
    return clips[0].recording, clips


def voiced(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Harmonics of a gliding pitch, with formants, syllables and pauses, over faint noise."""
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


def expected_features(clip: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """The features by librosa with its default settings, then max-pooling by NumPy: (F, T)."""
    windows = {"y": clip, "n_fft": front_end.n_fft, "hop_length": front_end.hop_length}
    bands = {**windows, "sr": front_end.sample_rate, "n_mels": front_end.n_mels}
    if front_end.features == "mfcc":
        spectrum = librosa.feature.mfcc(n_mfcc=front_end.n_mfcc, **bands)
    elif front_end.features == "logmel":
        spectrum = librosa.power_to_db(librosa.feature.melspectrogram(**bands))
    else:
        spectrum = np.abs(librosa.stft(**windows))
    hops, frames = spectrum.shape[1], front_end.frames
    edges = [(i * hops // frames, -(-(i + 1) * hops // frames)) for i in range(frames)]
    return np.stack([spectrum[:, start:stop].max(axis=1) for start, stop in edges], axis=1)


def transform(clips: list[np.ndarray], front_end: FrontEnd) -> np.ndarray:
    with torch.inference_mode():
        return Transform(front_end)(torch.from_numpy(np.stack(clips))).numpy()


def changed(front_end: FrontEnd, **settings: object) -> FrontEnd:
    return FrontEnd(**{**front_end.model_dump(), **settings})


def load_one(path: Path, front_end: FrontEnd) -> tuple[np.ndarray, float]:
    """The sound of a file that has one clip, and the length of the file in seconds."""
    seconds, clips = load_clips(path, front_end)
    assert [clip.start for clip in clips] == [0.0]
    return clips[0].sound, seconds


def padded(sound: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    return librosa.util.fix_length(sound, size=front_end.samples)


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()


@pytest.mark.parametrize("front_end", [DEFAULT, TELEPHONE, PAPER, changed(DEFAULT, frames=100)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [0.3, 2.7, 8.0])
def test_features_equal_those_of_librosa(front_end: FrontEnd, kind: str, seconds: float) -> None:
    front_end = changed(front_end, features=kind)
    clip = padded(voiced(seconds, front_end.sample_rate, seed=int(10 * seconds)), front_end)
    features = transform([clip], front_end)[0]
    assert features.dtype == np.float32
    assert features.shape == front_end.shape
    assert_close(features, expected_features(clip, front_end))


def test_the_default_front_end_pools_four_windows_to_a_frame() -> None:
    clip = padded(voiced(5, DEFAULT.sample_rate), DEFAULT)
    mfcc = librosa.feature.mfcc(y=clip, sr=32750, n_mfcc=128)
    assert mfcc.shape == (128, 512)
    assert_close(transform([clip], DEFAULT)[0], mfcc.reshape(128, 128, 4).max(axis=2))


def test_the_shape_depends_on_the_kind_of_features() -> None:
    assert PAPER.shape == (140, 300)
    assert changed(PAPER, features="logmel").shape == (64, 300)
    assert DEFAULT.shape == (128, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_does_not_depend_on_its_batch(kind: str) -> None:
    front_end = changed(DEFAULT, features=kind)
    loud = padded(voiced(6, DEFAULT.sample_rate, seed=1), DEFAULT)
    quiet = 1e-4 * padded(voiced(2, DEFAULT.sample_rate, seed=2), DEFAULT)  # under the loud one's 80 dB
    together = transform([loud, quiet, loud[::-1].copy()], front_end)
    for clip, got in zip([loud, quiet], together, strict=False):
        alone = transform([clip], front_end)[0]
        np.testing.assert_array_equal(alone, transform([clip], front_end)[0])
        np.testing.assert_allclose(got, alone, rtol=0, atol=1e-4)
        assert_close(got, expected_features(clip, front_end))


@pytest.mark.parametrize("seconds", [0.5, 3.0, 11.0])
@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("mono16.wav", 16000, 1, "PCM_16"),
        ("stereo48.wav", 48000, 2, "PCM_24"),
        ("telephone.wav", 8000, 1, "ULAW"),
        ("same_rate.wav", 32750, 1, "FLOAT"),
        ("cd.flac", 44100, 2, "PCM_16"),
        ("stereo22.flac", 22050, 2, "PCM_16"),
    ],
)
def test_files_are_read_as_by_librosa(
    tmp_path, name: str, rate: int, channels: int, subtype: str, seconds: float
) -> None:
    sound = np.stack([voiced(seconds, rate, seed) for seed in range(channels)], axis=1)
    soundfile.write(tmp_path / name, sound, rate, subtype=subtype)
    clip, duration = load_one(tmp_path / name, DEFAULT)
    want, _ = librosa.load(tmp_path / name, sr=32750, mono=True, duration=8.0, res_type="soxr_hq")
    assert clip.shape == (DEFAULT.samples,)
    assert clip.dtype == np.float32
    assert duration == pytest.approx(seconds)
    np.testing.assert_allclose(clip, padded(want, DEFAULT), rtol=0, atol=1e-6)
    if len(want) < len(clip):
        assert not clip[len(want) :].any()


def test_a_long_recording_takes_no_more_memory_than_a_clip(tmp_path) -> None:
    write_noise(tmp_path / "long.wav", 200 * 8000, 8000, channels=2)
    tracemalloc.start()
    _, duration = load_one(tmp_path / "long.wav", TELEPHONE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6, "bytes; the whole recording has 13 MB"
    assert duration == 200


def write_noise(path: Path, samples: int, rate: int, channels: int = 1) -> np.ndarray:
    """Write loud noise to a file; return the samples that soundfile reads from it, as one channel."""
    soundfile.write(path, np.random.default_rng(samples).uniform(-0.9, 0.9, (samples, channels)), rate)
    return soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)


def at_8000(sound: np.ndarray, rate: float) -> np.ndarray:
    """Resample by soxr, then cut or pad to three seconds."""
    return padded(soxr.resample(sound, rate, 8000, quality="HQ") if rate != 8000 else sound, TELEPHONE)


@pytest.mark.parametrize("long", ["first", "center", "chunks"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (11025, 2), (44100, 3), (7919, 1)])
@pytest.mark.parametrize("seconds", [0.06, 2.2, 3.0, 3.001, 6.0, 10.3])
def test_clips_are_the_windows_that_soundfile_and_soxr_give(
    tmp_path, long: str, rate: int, channels: int, seconds: float
) -> None:
    whole = write_noise(tmp_path / "a.wav", round(seconds * rate), rate, channels)
    duration, clips = load_clips(tmp_path / "a.wav", changed(TELEPHONE, long=long))
    assert duration == len(whole) / rate
    firsts = [round(clip.start * rate) for clip in clips]
    for clip, first in zip(clips, firsts, strict=True):
        assert clip.sound.dtype == np.float32
        np.testing.assert_allclose(
            clip.sound, at_8000(whole[first : first + 3 * rate], rate), rtol=0, atol=1e-6
        )
    spare = len(whole) - 3 * rate
    if long == "first" or spare <= 0:
        assert firsts == [0]
    elif long == "center":
        assert len(firsts) == 1
        assert firsts[0] == pytest.approx(spare / 2, abs=1)
    else:
        assert (firsts[0], firsts[-1]) == (0, spare)
        assert len(firsts) == -(-len(whole) // (3 * rate)), "more chunks than needed"


@pytest.mark.parametrize("length", [1, 2, 7, 100, 333])
def test_chunks_cover_every_sample_and_are_spread_evenly(length: int) -> None:
    for samples in [*range(1, 50), 100, 101, 199, 200, 201, 998, 999, 1000]:
        firsts = list(clip_starts(samples, length, "chunks"))
        covered = {place for first in firsts for place in range(first, first + length)}
        assert covered >= set(range(samples))
        if samples >= length:
            assert max(covered) == samples - 1
            steps = np.diff(firsts)
            assert len(firsts) == 1 or 0 < steps.min() <= steps.max() <= min(steps.min() + 1, length)


def test_silent_chunks_are_skipped(tmp_path) -> None:
    whole = np.concatenate([voiced(3, 8000), np.zeros(24000), voiced(3, 8000, seed=1)])
    soundfile.write(tmp_path / "a.wav", whole, 8000, subtype="FLOAT")
    seconds, clips = load_clips(tmp_path / "a.wav", changed(TELEPHONE, long="chunks"))
    assert (seconds, [clip.start for clip in clips]) == (9.0, [0.0, 6.0])
    np.testing.assert_array_equal(clips[1].sound, whole[48000:].astype(np.float32))
    soundfile.write(tmp_path / "b.wav", np.zeros(80000), 8000)
    for long in ("first", "center", "chunks"):
        with pytest.raises(UnreadableAudio, match=r"no sound in 10 s$"):
            load_clips(tmp_path / "b.wav", changed(TELEPHONE, long=long))


@pytest.mark.parametrize("long", ["first", "center", "chunks"])
def test_one_bad_sample_makes_the_file_unreadable(tmp_path, long: str) -> None:
    sound = voiced(9, 8000)
    sound[-100] = np.nan
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    with pytest.raises(UnreadableAudio, match="not finite"):
        load_clips(tmp_path / "a.wav", changed(TELEPHONE, long=long))


def digest_of(path: Path, front_end: FrontEnd = TELEPHONE, copy: str = "") -> str:
    [digest] = {clip.audio for clip in read_clips(path, front_end, copy)}
    return digest


def test_equal_samples_have_equal_digests_in_every_lossless_format(tmp_path) -> None:
    sound = np.round(voiced(9, 8000) * 2**15).astype(np.int16)
    formats = ["a.wav", "a.flac", "a.aiff", "a.au", "a.caf", "b.wav"]
    for name in formats:
        soundfile.write(tmp_path / name, sound, 8000, subtype="PCM_16")
    digests = {digest_of(tmp_path / name) for name in formats}
    digests |= {digest_of(tmp_path / "a.wav", changed(TELEPHONE, long=long)) for long in ("center", "chunks")}
    digests |= {digest_of(tmp_path / "a.wav", DEFAULT), digest_of(tmp_path / "a.wav", copy="speed:0.9")}
    soundfile.write(tmp_path / "stereo.wav", np.stack([sound] * 2, axis=1), 8000, subtype="PCM_16")
    digests.add(digest_of(tmp_path / "stereo.wav"))
    assert len(digests) == 1
    assert len(digests.pop()) == 16


@pytest.mark.parametrize("place", [0, 40_000, 71_999], ids=["first", "behind the clip", "last"])
def test_one_other_sample_gives_another_digest(tmp_path, place: int) -> None:
    sound = np.round(voiced(9, 8000) * 2**14).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", sound, 8000)
    sound[place] += 1
    soundfile.write(tmp_path / "b.wav", sound, 8000)
    assert digest_of(tmp_path / "a.wav") != digest_of(tmp_path / "b.wav")


@pytest.mark.parametrize(("long", "first"), [("first", 0), ("center", 24000), ("chunks", None)])
def test_the_lost_share_is_the_energy_outside_the_clips(tmp_path, long: str, first: int | None) -> None:
    whole = write_noise(tmp_path / "a.wav", 72000, 8000) ** 2
    for clip in read_clips(tmp_path / "a.wav", changed(TELEPHONE, long=long)):
        want = 0 if first is None else 1 - whole[first : first + 24000].sum() / whole.sum()
        assert clip.lost == pytest.approx(want, abs=1e-6)
    [clip] = read_clips(tmp_path / "a.wav", changed(TELEPHONE, long=long, duration=9.0))
    assert clip.lost == 0


@pytest.mark.parametrize(
    ("ending", "subtype"), [("wav", "GSM610"), ("au", "G721_32"), ("wav", "NMS_ADPCM_16")]
)
def test_of_formats_that_cannot_seek_the_start_is_read(tmp_path, ending: str, subtype: str) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, voiced(5, 8000), 8000, subtype=subtype)
    with soundfile.SoundFile(path) as file:
        assert not file.seekable()
        np.testing.assert_array_equal(load_one(path, TELEPHONE)[0], file.read(24000, dtype="float32"))
    with pytest.raises(UnreadableAudio, match=r"not readable as audio .*[Ss]eek"):
        load_clips(path, changed(TELEPHONE, long="chunks"))


def write_false_header(path: Path, samples: int) -> None:
    """Write five seconds of noise, and a header that states another number of samples."""
    soundfile.write(path, np.random.default_rng(0).uniform(-0.9, 0.9, 40000), 8000)
    content = bytearray(path.read_bytes())
    if path.suffix == ".flac":  # 36 bits of the stream's first block
        field = slice(18, 26)
        bits = int.from_bytes(content[field], "big") >> 36 << 36 | samples
        content[field] = bits.to_bytes(8, "big")
    elif path.suffix == ".wav":
        place = content.index(b"data") + 4
        content[place : place + 4] = (2 * samples).to_bytes(4, "little")
    else:
        content[8:12] = (2 * samples).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("long", ["first", "center", "chunks"])
@pytest.mark.parametrize(
    ("name", "samples"),
    [("a.wav", 2**31 - 1), ("a.wav", 2**30), ("a.au", 2**30 - 1), ("a.flac", 2**36 - 1), ("a.flac", 50_000)],
)
def test_a_header_that_states_too_many_samples_takes_no_memory(tmp_path, name, samples, long) -> None:
    write_false_header(tmp_path / name, samples)
    tracemalloc.start()
    try:
        _, clips = load_clips(tmp_path / name, changed(TELEPHONE, long=long))
    except UnreadableAudio:
        clips = []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert clips or name != "a.wav"
    for clip in clips:
        assert 0 < np.abs(clip.sound).max() < 1


def test_a_header_without_a_length_is_refused(tmp_path) -> None:
    write_false_header(tmp_path / "streamed.flac", 0)
    with pytest.raises(UnreadableAudio, match="does not state its length"):
        load_clips(tmp_path / "streamed.flac", TELEPHONE)


@pytest.mark.parametrize("rate", [999, 1_000, 1_000_000, 1_000_001])
def test_sample_rates_from_1_khz_to_1_mhz_are_read(tmp_path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(3 * rate // 10, 0.1), rate)
    if 1_000 <= rate <= 1_000_000:
        seconds, clips = load_clips(tmp_path / "a.wav", TELEPHONE)
        assert (seconds, len(clips)) == (pytest.approx(0.3, abs=1e-3), 1)
    else:
        with pytest.raises(UnreadableAudio, match=f"a rate of {rate} Hz; 1000 to 1000000 Hz can be read"):
            load_clips(tmp_path / "a.wav", TELEPHONE)


@pytest.mark.parametrize("factor", [0.9, 1.1, 2.0])
@pytest.mark.parametrize("long", ["first", "chunks"])
def test_a_speed_copy_is_read_at_a_scaled_sample_rate(tmp_path, factor: float, long: str) -> None:
    whole = write_noise(tmp_path / "a.wav", 80000, 16000)
    seconds, clips = load_clips(tmp_path / "a.wav", changed(TELEPHONE, long=long), f"speed:{factor}")
    assert seconds == 5, "not the length of the file"
    length = round(3 * 16000 * factor)
    assert len(clips) == (1 if long == "first" else -(-80000 // length))
    for clip in clips:
        first = round(clip.start * 16000)
        want = at_8000(whole[first : first + length], 16000 * factor)
        np.testing.assert_allclose(clip.sound, want, rtol=0, atol=1e-6)
    if long == "chunks":
        assert clips[-1].start == pytest.approx(max(0, 5 - 3 * factor)), "not a time in the recording"


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.25])
def test_a_faster_copy_is_higher_and_shorter(tmp_path, factor: float) -> None:
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 500 * np.arange(16000) / 16000), 16000)
    sound = load_clips(tmp_path / "a.wav", TELEPHONE, f"speed:{factor}")[1][0].sound
    assert np.flatnonzero(sound)[-1] + 1 == pytest.approx(8000 / factor, abs=2)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    peak = spectrum.argmax() / 3  # Hz: the clip has three seconds
    assert peak == pytest.approx(500 * factor, abs=1)


def test_noise_is_added_before_the_clip_is_padded(tmp_path) -> None:
    whole = write_noise(tmp_path / "a.wav", 16000, 8000)
    sound = load_clips(tmp_path / "a.wav", TELEPHONE, "noise:10")[1][0].sound
    assert not sound[16000:].any()
    added = sound[:16000] - whole
    assert 10 * np.log10(np.mean(whole**2) / np.mean(added**2)) == pytest.approx(10, abs=0.3)


def test_noise_depends_on_the_samples_and_the_place_of_the_clip(tmp_path) -> None:
    tone = 0.5 * np.tile(np.sin(2 * np.pi * np.arange(8) / 8), 9000)
    soundfile.write(tmp_path / "a.wav", tone, 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "other.wav", [*tone, 0.1], 8000, subtype="FLOAT")
    quiet = np.concatenate([np.zeros(8000), tone])
    soundfile.write(tmp_path / "late.wav", quiet, 8000, subtype="FLOAT")

    def noises(name: str, **part: float) -> list[np.ndarray]:
        front_end = changed(TELEPHONE, long="chunks")
        sounds, originals = (
            [clip.sound for clip in read_clips(tmp_path / name, front_end, copy, **part)]
            for copy in ("noise:10", "")
        )
        return [sound - original for sound, original in zip(sounds, originals, strict=True)]

    first, second, _ = noises("a.wav")
    assert np.abs(first - second).max() > 0.1, "two clips have the same noise"
    assert np.abs(first - noises("other.wav")[0]).max() > 0.1, "two recordings have the same noise"
    np.testing.assert_allclose(noises("a.wav")[0], first, atol=0)
    np.testing.assert_allclose(noises("late.wav", start=1.0)[0], first, atol=1e-5)
    shutil.copy(tmp_path / "a.wav", tmp_path / "renamed.wav")
    np.testing.assert_allclose(noises("renamed.wav")[0], first, atol=0)


def test_one_thread_restores_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with suppress(ZeroDivisionError), one_thread():
        inside = torch.get_num_threads()
        raise ZeroDivisionError
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (inside, after) == (1, 2)


def text(path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def sound_of(samples: list[float]):
    return lambda path: soundfile.write(path, np.array(samples, dtype=np.float32), 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (lambda path: None, "a.wav", "no such file"),
        (lambda path: path.mkdir(), "a.wav", "no such file"),
        (text, "a.wav", "not readable as audio"),
        (text, "a.raw", "not readable as audio"),
        (lambda path: path.touch(), "a.wav", "not readable as audio"),
        (sound_of([]), "a.wav", "empty"),
        (sound_of([0.0] * 500), "a.wav", "no sound"),
        (sound_of([0.1, np.nan, 0.2]), "a.wav", "not finite"),
        (sound_of([0.1, np.inf, 0.2]), "a.wav", "not finite"),
        (sound_of([0.1, 1e30, 0.2]), "a.wav", "larger than"),
    ],
)
def test_unreadable_audio_states_the_file_and_the_reason(tmp_path, make, name: str, reason: str) -> None:
    make(tmp_path / name)
    with pytest.raises(UnreadableAudio, match=reason) as caught:
        load_clips(tmp_path / name, DEFAULT)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


# ---------------------------------------------------------------- where there is no sound


STEP = 2**-15  # of 16-bit audio
TAKE = np.round(voiced(4, 8000, seed=7) * 2**15) / 2**15  # four seconds of 16-bit sound
TAKE[[0, -1]] = 0.1


def write_take(path: Path, before: np.ndarray, after: np.ndarray = (), rate: int = 8000) -> Path:
    soundfile.write(path, np.concatenate([before, TAKE, after]), rate, subtype="PCM_16")
    return path


def quiet(kind: str, seconds: float) -> np.ndarray:
    """Nothing, a constant of one step, or the dither of digital silence."""
    samples = round(8000 * seconds)
    dither = np.random.default_rng(0).integers(-1, 2, samples) * STEP
    return {"zeros": np.zeros(samples), "offset": np.full(samples, -STEP), "dither": dither}[kind]


@pytest.mark.parametrize("kind", ["zeros", "offset", "dither"])
@pytest.mark.parametrize("seconds", [0.4, 1.6, 3.0, 30.0])
def test_the_first_clip_starts_where_sound_starts(tmp_path, kind: str, seconds: float) -> None:
    path = write_take(tmp_path / "late.wav", quiet(kind, seconds))
    [clip] = read_clips(path, TELEPHONE)
    assert (clip.start, clip.end) == (pytest.approx(seconds), pytest.approx(seconds + 3))
    [want] = read_clips(write_take(tmp_path / "take.wav", []), TELEPHONE)
    np.testing.assert_array_equal(clip.sound, want.sound)


@pytest.mark.parametrize("kind", ["zeros", "dither"])
@pytest.mark.parametrize(("before", "after"), [(2.0, 0.0), (0.0, 5.0), (1.0, 7.0)])
def test_the_middle_clip_is_the_middle_of_the_sound(tmp_path, kind, before: float, after: float) -> None:
    path = write_take(tmp_path / "a.wav", quiet(kind, before), quiet(kind, after))
    [clip] = read_clips(path, changed(TELEPHONE, long="center"))
    assert clip.start == pytest.approx(before + 0.5)


def test_a_silent_middle_is_not_taken(tmp_path) -> None:
    path = write_take(tmp_path / "a.wav", np.concatenate([TAKE, np.zeros(80_000)]))
    [clip] = read_clips(path, changed(TELEPHONE, long="center"))
    assert clip.start == 0


UNTOUCHED = {
    "a tenth of a clip of silence": (np.zeros(2400), "first"),
    "a noise floor above one step": (quiet("dither", 2.0) * 2, "first"),
    "sound before silence": (np.concatenate([[2 * STEP], np.zeros(16_000)]), "first"),
    "a noise floor around the middle": (quiet("dither", 2.0) * 2, "center"),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_ordinary_recordings_are_cut_as_ever(tmp_path, case: str) -> None:
    before, long = UNTOUCHED[case]
    path = write_take(tmp_path / "a.wav", before)
    [clip] = read_clips(path, changed(TELEPHONE, long=long))
    assert clip.start == (0 if long == "first" else (len(before) + 32_000 - 24_000) // 2 / 8000)


@pytest.mark.parametrize("seconds", [0.2, 1.6])
def test_a_recording_that_fits_a_clip_keeps_its_silence(tmp_path, seconds: float) -> None:
    path = write_take(tmp_path / "a.wav", np.zeros(round(8000 * seconds)))
    [clip] = read_clips(path, changed(TELEPHONE, duration=8))
    assert clip.start == 0
    assert not clip.sound[: round(8000 * seconds)].any()


@pytest.mark.parametrize("long", ["first", "center", "chunks"])
@pytest.mark.parametrize("kind", ["zeros", "offset", "dither"])
@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_a_recording_without_sound_is_unreadable(tmp_path, long: str, kind: str, seconds: float) -> None:
    soundfile.write(tmp_path / "a.wav", quiet(kind, seconds), 8000, subtype="PCM_16")
    with pytest.raises(UnreadableAudio, match=rf"no sound in {seconds:.3g} s$"):
        load_clips(tmp_path / "a.wav", changed(TELEPHONE, long=long))


@pytest.mark.parametrize(("samples", "rate"), [(1, 8000), (10, 8000), (399, 8000), (50, 1000), (2399, 48000)])
def test_less_than_one_window_is_unreadable(tmp_path, samples: int, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.3), rate)
    if samples / rate < 400 / 8000:
        with pytest.raises(UnreadableAudio, match=r"too short: .* ms, shorter than one window of 50 ms"):
            load_clips(tmp_path / "a.wav", TELEPHONE)
    else:
        assert load_one(tmp_path / "a.wav", TELEPHONE)[0].any()


@pytest.mark.parametrize("frequency", [6000, 15_000, 20_000])
def test_sound_that_resampling_removes_is_unreadable(tmp_path, frequency: int) -> None:
    tone = np.sin(2 * np.pi * frequency * np.arange(48_000) / 48_000) * np.hanning(48_000)
    soundfile.write(tmp_path / "a.wav", 0.5 * tone, 48_000, subtype="PCM_24")
    with pytest.raises(UnreadableAudio, match="no sound below 4,000 Hz"):
        load_clips(tmp_path / "a.wav", TELEPHONE)
    assert load_one(tmp_path / "a.wav", changed(DEFAULT, sample_rate=48_000))[0].any()


# ---------------------------------------------------------------- channels that cancel


def write_channels(path: Path, *channels: np.ndarray) -> Path:
    soundfile.write(path, np.stack(channels, axis=1), 8000, subtype="PCM_16")
    return path


HISS = np.random.default_rng(3).normal(0, 0.003, len(TAKE))
CANCELLING = {
    "inverted": ((TAKE, -TAKE), 0),
    "inverted and weaker": ((0.8 * TAKE, -TAKE), 1),
    "inverted, with noise": ((TAKE + HISS, HISS - TAKE), 0),
    "inverted by converters one step apart": ((TAKE, -TAKE - STEP), 0),
    "three channels": ((TAKE / 2, TAKE / 2, -TAKE), 2),
    "four channels": ((TAKE, -TAKE, TAKE, -TAKE), 0),
    "surround": ((0 * TAKE, TAKE, -TAKE, 0 * TAKE, 0 * TAKE, 0 * TAKE), 1),
}


@pytest.mark.parametrize("case", CANCELLING)
@pytest.mark.parametrize("long", ["first", "center", "chunks"])
def test_of_channels_that_cancel_the_strongest_is_heard(tmp_path, case: str, long: str) -> None:
    channels, strongest = CANCELLING[case]
    front_end = changed(TELEPHONE, long=long)
    clips = list(read_clips(write_channels(tmp_path / "a.wav", *channels), front_end))
    alone = list(read_clips(write_channels(tmp_path / "b.wav", channels[strongest]), front_end))
    for clip, want in zip(clips, alone, strict=True):
        np.testing.assert_array_equal(clip.sound, want.sound)
        assert (clip.audio, clip.lost) == (want.audio, want.lost)


ADDING = {
    "equal": (TAKE, TAKE),
    "one silent": (TAKE, 0 * TAKE),
    "unlike": (TAKE, voiced(4, 8000, seed=8)),
    "delayed": (TAKE, np.roll(TAKE, 7)),
    "one of eight": (TAKE, *[0 * TAKE] * 7),
    "inverted and much weaker": (TAKE, -TAKE / 4),
}


@pytest.mark.parametrize("case", ADDING)
def test_other_channels_are_averaged(tmp_path, case: str) -> None:
    path = write_channels(tmp_path / "a.wav", *ADDING[case])
    want = soundfile.read(path, dtype="float32")[0].mean(axis=1)[:24000]
    np.testing.assert_array_equal(load_clips(path, TELEPHONE)[1][0].sound, want)


def test_the_channel_is_the_same_for_the_whole_recording(tmp_path) -> None:
    """One second of it cancels, but not the recording; then the other way round."""
    for inverted, kept in ((slice(0, 8000), False), (slice(1600, None), True)):
        other = TAKE.copy()
        other[inverted] *= -1
        path = write_channels(tmp_path / "a.wav", TAKE, other)
        sound = np.concatenate(
            [clip.sound for clip in read_clips(path, changed(TELEPHONE, long="chunks", duration=1))]
        )
        want = TAKE if kept else (TAKE + other) / 2
        np.testing.assert_allclose(sound, want[-len(sound) :], rtol=0, atol=STEP)


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
        ({"features": "cqt"}, ["'mfcc'", "'logmel'", "'stft'"]),
        ({"long": "last"}, ["'first'", "'center'", "'chunks'"]),
    ],
)
def test_front_end_settings_that_do_not_fit_are_refused(settings: dict, fields: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        FrontEnd(**settings)
    message = caught.value.errors()[0]["msg"]
    assert all(field in message for field in fields)
    assert "\n" not in message


def test_every_front_end_setting_has_a_help_text() -> None:
    assert all(field.description for field in FrontEnd.model_fields.values())
    assert (DEFAULT.samples, DEFAULT.hops) == (262_000, 512)
