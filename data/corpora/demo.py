"""The demo corpus: 16 speakers, 4 emotions and 12 sentences, synthesised by eSpeak NG on first use.

It replaces a licensed corpus in first runs and tests: real audio that is made in seconds, with the same
bytes for the same seed. Each emotion is a distribution of `Prosody`, and each utterance draws one. The
distributions overlap and differ mostly in changes over time, so that a model of the sequence does much
better than one of averages.
"""

import math
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from data.corpora import manifest
from data.corpora.espeak import Espeak
from data.corpora.utterance import Utterance
from utils import progress, write_text

SAMPLE_RATE = 16_000  # Hz, of the files
SPEAKERS_PER_SESSION = 4
LEVEL = -27.0  # dB re full scale: RMS of an utterance of ordinary loudness
PEAK = 0.9  # of full scale: the largest sample

# Neutral in content and the same for all emotions, so that the words reveal nothing.
SENTENCES = (
    "The blue cup is standing on the shelf.",
    "They will bring the parcel on Tuesday.",
    "The train to the coast leaves at seven.",
    "She put both letters into the drawer.",
    "It is about eleven in the morning.",
    "My brother has moved to the third floor.",
    "We are going to eat at the corner table.",
    "He left his grey coat in the hallway.",
    "The window in the kitchen is open.",
    "I will call you when the bus arrives.",
    "There are nine boxes under the stairs.",
    "You can find the keys beside the door.",
)


@dataclass(frozen=True)
class Speaker:
    """A voice of eSpeak (`language+variant`) with its usual pitch and rate."""

    name: str
    voice: str
    pitch: int  # on eSpeak's scale of 0-99; 50 is the default of the voice
    rate: int  # words per minute


# In the order of the sessions, each with two women and two men; each speaker has a different variant.
SPEAKERS = (
    Speaker("F01", "en-us+f1", 46, 172),
    Speaker("F02", "en-gb-x-rp+f2", 52, 180),
    Speaker("M01", "en-us+m1", 48, 168),
    Speaker("M02", "en-gb-scotland+m3", 55, 176),
    Speaker("F03", "en-us+f3", 44, 184),
    Speaker("F04", "en-gb-x-rp+linda", 42, 170),
    Speaker("M03", "en-us+m2", 45, 180),
    Speaker("M04", "en-gb-x-gbclan+m4", 52, 172),
    Speaker("F05", "en-us+f4", 50, 176),
    Speaker("F06", "en-gb-scotland+steph", 47, 168),
    Speaker("M05", "en-us+m6", 54, 174),
    Speaker("M06", "en-gb-x-rp+m7", 46, 184),
    Speaker("F07", "en-us+aunty", 50, 178),
    Speaker("F08", "en-gb-x-gbcwmd+f5", 45, 174),
    Speaker("M07", "en-us+m8", 56, 170),
    Speaker("M08", "en-029+Michael", 49, 178),
)


@dataclass(frozen=True)
class Prosody:
    """How an utterance is spoken. `EMOTIONS` holds means over utterances, `SPREAD` standard deviations."""

    rate: float  # natural logarithm of the ratio to the speaker's rate
    pitch: float  # difference from the speaker's pitch, on eSpeak's scale
    pitch_range: float  # on eSpeak's scale: 0 is a monotone, 50 the default of the voice, 99 the widest
    pause: float  # between words, in units of 10 ms at eSpeak's default rate
    pitch_slope: float  # octaves from beginning to end
    pitch_swing: float  # octaves, amplitude of an oscillation at SWING_RATE
    loudness_slope: float  # dB from beginning to end
    loudness_contrast: float  # stretches the loudness contour: 0 as spoken, 1 doubles each change in dB
    loudness: float  # dB re LEVEL
    brightness: float  # coefficient of a first-order pre-emphasis: above 0 shrill, below 0 dull


EMOTIONS = {
    "angry": Prosody(0.12, 3, 60, 0.3, -0.18, 0.02, -2, 0.7, 2.5, 0.18),
    "happy": Prosody(0.08, 4, 70, 0.5, 0.10, 0.14, 3, 0.1, 1.0, 0.10),
    "neutral": Prosody(0.00, -1, 35, 0.8, 0.00, 0.02, -2, 0.0, 0.0, -0.05),
    "sad": Prosody(-0.18, -4, 25, 3.5, -0.05, 0.02, -10, -0.1, -2.5, -0.18),
}
SPREAD = Prosody(0.08, 3.5, 12, 1.2, 0.05, 0.025, 2.5, 0.15, 2, 0.10)
SWING_RATE = 2.5  # Hz
CONTOUR_STEP = 0.01  # seconds between points of the loudness contour
CONTOUR_FLOOR = -35.0  # dB re the loudest point; anything softer counts as this
GAIN_SPREAD = 2.0  # dB: the distance to the microphone varies
NOISE_LEVEL = -62.0  # dB re full scale, of the room
NOISE_SPREAD = 3.0  # dB
NOISE_TAPS = 4  # samples averaged: the noise of rooms is mostly low
VOLUME = 60  # per cent; at 100 some variants clip


def read(root: Path) -> list[Utterance]:
    """Return the utterances of the demo corpus in the folder `root`; make it first if it is not complete."""
    path = root / "manifest.csv"
    return manifest.read(path if path.exists() else write_demo(root))


def write_demo(root: Path, seed: int = 0) -> Path:
    """Write the demo corpus below `root` and return the path of its manifest.

    The files are `wav/<speaker>/<speaker>-<emotion>-<sentence>.wav`, 16 bits at SAMPLE_RATE. The manifest
    is written last, so it exists only if the corpus is complete. The same seed gives the same bytes.
    """
    path = root / "manifest.csv"
    path.unlink(missing_ok=True)
    rows = ["file,speaker,emotion,session,text\n"]
    with closing(Espeak()) as espeak:
        for index in progress(range(len(SPEAKERS)), "demo corpus"):
            rows += _write_speaker(root, index, espeak, seed)
    write_text(path, "".join(rows))
    return path


def _write_speaker(root: Path, index: int, espeak: Espeak, seed: int) -> list[str]:
    """Write all utterances of one of SPEAKERS; return the rows of the manifest."""
    speaker = SPEAKERS[index]
    session = index // SPEAKERS_PER_SESSION + 1
    (root / "wav" / speaker.name).mkdir(parents=True, exist_ok=True)
    rows = []
    for e, emotion in enumerate(EMOTIONS):
        for t, text in enumerate(SENTENCES):
            audio = synthesise(espeak, speaker, emotion, text, np.random.default_rng([seed, index, e, t]))
            file = f"wav/{speaker.name}/{speaker.name}-{emotion}-{t + 1:02d}.wav"
            soundfile.write(root / file, audio, SAMPLE_RATE, subtype="PCM_16")
            rows.append(f"{file},{speaker.name},{emotion},{session},sentence{t + 1:02d}\n")
    return rows


def synthesise(
    espeak: Espeak, speaker: Speaker, emotion: str, text: str, rng: np.random.Generator
) -> np.ndarray:
    """Return `text` spoken with a prosody drawn for `emotion`: samples at SAMPLE_RATE; full scale is 1."""
    prosody = Prosody(*rng.normal(astuple(EMOTIONS[emotion]), astuple(SPREAD)))
    audio = espeak.speak(
        text,
        speaker.voice,
        seed=int(rng.integers(2**31)),
        volume=VOLUME,
        rate=speaker.rate * math.exp(prosody.rate),
        pitch=speaker.pitch + prosody.pitch,
        range=prosody.pitch_range,
        wordgap=prosody.pause,
    )
    rate = espeak.sample_rate
    audio = bend_pitch(audio, rate, prosody.pitch_slope, prosody.pitch_swing, phase=rng.random())
    audio = shape_loudness(audio, rate, prosody.loudness_slope, prosody.loudness_contrast)
    audio = soxr.resample(audio, rate, SAMPLE_RATE)
    return simulate_room(audio, prosody.loudness, prosody.brightness, rng)


def bend_pitch(audio: np.ndarray, sample_rate: int, slope: float, swing: float, phase: float) -> np.ndarray:
    """Vary the playback speed, as of a tape, so that the pitch rises by `slope` octaves and oscillates."""
    time = np.arange(len(audio)) / sample_rate
    oscillation = swing * np.sin(2 * math.pi * (SWING_RATE * time + phase))
    octaves = oscillation + slope * (time / time[-1] - 0.5)
    played_at = np.cumsum(2.0**-octaves)  # the time at which each sample is played, in samples
    return np.interp(np.arange(played_at[0], played_at[-1]), played_at, audio)


def shape_loudness(audio: np.ndarray, sample_rate: int, slope: float, contrast: float) -> np.ndarray:
    """Multiply the loudness contour, in dB, by `1 + contrast`, and add `slope` dB from beginning to end."""
    step = round(CONTOUR_STEP * sample_rate)
    frames = audio[: len(audio) // step * step].reshape(-1, step)
    power = np.convolve((frames**2).mean(1), np.hanning(7)[1:-1], "same")
    contour = 10 * np.log10(power / power.max() + 10 ** (CONTOUR_FLOOR / 10))
    gain = contrast * contour + slope * np.linspace(-0.5, 0.5, len(contour))
    middles = (np.arange(len(contour)) + 0.5) * step
    return audio * 10 ** (np.interp(np.arange(len(audio)), middles, gain) / 20)


def simulate_room(
    audio: np.ndarray, loudness: float, brightness: float, rng: np.random.Generator
) -> np.ndarray:
    """Filter `audio` by `brightness`, scale it to `loudness` dB re LEVEL, and add the noise of a room."""
    audio = audio - brightness * np.concatenate([[0.0], audio[:-1]])
    level = LEVEL + loudness + GAIN_SPREAD * rng.standard_normal()
    audio = audio * 10 ** (level / 20) / math.sqrt(np.mean(audio**2))
    noise = np.convolve(rng.standard_normal(len(audio)), np.full(NOISE_TAPS, NOISE_TAPS**-0.5), "same")
    noise_level = NOISE_LEVEL + NOISE_SPREAD * rng.standard_normal()
    audio = audio + noise * 10 ** (noise_level / 20)
    return audio * min(1.0, PEAK / np.abs(audio).max())
