"""The demo corpus: 16 speakers, 4 emotions and 12 sentences, spoken by eSpeak NG.

It stands in for a licensed corpus in first runs and tests: real audio, made in seconds, same seed, same bytes.
An emotion is a way of speaking (`Prosody`), and each utterance a draw from it. The ways overlap, and most of what tells
them apart is movement over time, so that a model which listens gains much over one which averages.
The voice is libespeak-ng, as the wheel `espeakng-loader` carries it, through `ctypes`; its interface is documented in
`speak_lib.h` of https://github.com/espeak-ng/espeak-ng.
"""

import ctypes
import math
import shutil
import tempfile
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path

import espeakng_loader
import numpy as np
import soundfile
import soxr

from utils import UserError, progress, write_text

SAMPLE_RATE = 16_000  # Hz, of the files
SESSION_SPEAKERS = 4
LEVEL = -27.0  # dB re full scale, RMS of a whole utterance of ordinary loudness
PEAK = 0.9  # of full scale; no sample is louder

# Neutral in content and shared by all emotions: the words tell nothing.
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
    """A voice of eSpeak (`language+variant`) and the habits of the one who uses it."""

    name: str
    voice: str
    pitch: int  # eSpeak's scale: 0-99, 50 is the voice's own
    rate: int  # words a minute


# In the order of the sessions, each of two women and two men; no two share a variant.
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
    """A way of saying something. `EMOTIONS` holds the mean over utterances, `SPREAD` the standard deviation."""

    rate: float  # change of tempo: natural logarithm of the ratio to the speaker's own
    pitch: float  # change of pitch, on eSpeak's scale
    pitch_range: float  # on eSpeak's scale: 0 is a monotone, 50 the voice's own, 99 the widest
    pause: float  # between words, in units of 10 ms at eSpeak's default tempo
    glide: float  # octaves that the pitch gains from beginning to end
    lilt: float  # depth of the swing of the pitch at LILT_RATE, octaves
    fade: float  # dB that the loudness gains from beginning to end
    accent: float  # expansion of the loudness contour: 0 as spoken, 1 doubles each rise and fall in dB
    loudness: float  # dB re LEVEL
    brightness: float  # coefficient of a first-order pre-emphasis: above 0 shrill, below 0 dull


EMOTIONS = {
    "angry": Prosody(0.12, 3, 60, 0.3, -0.18, 0.02, -2, 0.7, 2.5, 0.18),
    "happy": Prosody(0.08, 4, 70, 0.5, 0.10, 0.14, 3, 0.1, 1.0, 0.10),
    "neutral": Prosody(0.00, -1, 35, 0.8, 0.00, 0.02, -2, 0.0, 0.0, -0.05),
    "sad": Prosody(-0.18, -4, 25, 3.5, -0.05, 0.02, -10, -0.1, -2.5, -0.18),
}
SPREAD = Prosody(0.08, 3.5, 12, 1.2, 0.05, 0.025, 2.5, 0.15, 2, 0.10)
LILT_RATE = 2.5  # Hz, swings of the pitch
CONTOUR_STEP = 0.01  # seconds between points of the loudness contour
CONTOUR_FLOOR = -35.0  # dB re the loudest point; what is softer counts as this
GAIN_SPREAD = 2.0  # dB, the distance to the microphone
NOISE_LEVEL, NOISE_SPREAD = -62.0, 3.0  # dB re full scale, the room
NOISE_TAPS = 4  # samples averaged: rooms rumble more than they hiss

# From speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS, DONT_EXIT = 2, 0x8000
POS_CHARACTER, CHARS_UTF8 = 1, 1
LIMITS = {
    "rate": (1, 80, 450),
    "volume": (2, 0, 200),
    "pitch": (3, 0, 99),
    "range": (4, 0, 99),
    "wordgap": (7, 0, 100),
}
VOLUME = 60  # per cent; at 100 some variants clip
SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """eSpeak NG in a private copy of its library.

    The library keeps the phase of its flutter in a static variable that nothing resets: what it says depends on what it
    said before. A copy under a new name is loaded in its first state, whatever the process has done until then.
    """

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.listen = SynthCallback(self._listen)  # C holds no reference to it
        try:
            self.data = Path(espeakng_loader.get_data_path())
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                self.library = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), folder))
        except (OSError, RuntimeError) as error:
            hint = "set TMPDIR to a folder that may hold programs, or reinstall espeakng-loader"
            raise UserError(f"eSpeak NG does not load: {error}; {hint}") from error
        self.sample_rate = self.library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, bytes(self.data), DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise UserError(f"eSpeak NG finds no data in {self.data}; reinstall espeakng-loader")
        self.library.espeak_SetSynthCallback(self.listen)

    def _listen(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0  # go on

    def _call(self, function: str, *arguments) -> None:
        if status := getattr(self.library, function)(*arguments):
            raise RuntimeError(f"{function}{arguments} of eSpeak NG fails with status {status}")

    def speak(self, text: str, voice: str, seed: int, **parameters: float) -> np.ndarray:
        """Say `text`; returns samples at `self.sample_rate`, full scale is 1. `parameters` are those of LIMITS."""
        _, plus, variant = voice.partition("+")
        if (
            plus and not (self.data / "voices" / "!v" / variant).is_file()
        ):  # eSpeak would quietly take the plain voice
            raise UserError(
                f"eSpeak NG has no voice variant {variant} in {self.data}; reinstall espeakng-loader"
            )
        self.chunks.clear()
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))  # breath; by default seeded with the time
        self._call("espeak_SetVoiceByName", voice.encode())
        for name, value in parameters.items():
            number, lowest, highest = LIMITS[name]
            self._call("espeak_SetParameter", number, round(min(max(value, lowest), highest)), 0)
        size = ctypes.c_size_t(len(text.encode()) + 1)  # with the final zero
        self._call("espeak_Synth", text.encode(), size, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        return np.frombuffer(b"".join(self.chunks), np.int16) / 32768

    def close(self) -> None:
        """Free what the library holds."""
        self.library.espeak_Terminate()


def bend_pitch(audio: np.ndarray, rate: int, glide: float, lilt: float, phase: float) -> np.ndarray:
    """Play `audio` faster and slower as a tape does, so that its pitch glides and swings (octaves)."""
    time = np.arange(len(audio)) / rate
    swing = lilt * np.sin(2 * math.pi * (LILT_RATE * time + phase))
    octaves = swing + glide * (time / time[-1] - 0.5)
    played = np.cumsum(2.0**-octaves)  # the time at which each sample is heard, in samples
    return np.interp(np.arange(played[0], played[-1]), played, audio)


def shape_loudness(audio: np.ndarray, rate: int, fade: float, accent: float) -> np.ndarray:
    """Scale the rises and falls of the loudness by `1 + accent`, in dB, and add `fade` dB from beginning to end."""
    step = round(CONTOUR_STEP * rate)
    frames = audio[: len(audio) // step * step].reshape(-1, step)
    power = np.convolve((frames**2).mean(1), np.hanning(7)[1:-1], "same")
    contour = 10 * np.log10(power / power.max() + 10 ** (CONTOUR_FLOOR / 10))
    gain = accent * contour + fade * np.linspace(-0.5, 0.5, len(contour))
    middles = (np.arange(len(contour)) + 0.5) * step
    return audio * 10 ** (np.interp(np.arange(len(audio)), middles, gain) / 20)


def record(audio: np.ndarray, loudness: float, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """Colour `audio`, bring it to `loudness` dB re LEVEL, and add a room."""
    audio = audio - brightness * np.concatenate([[0.0], audio[:-1]])
    level = LEVEL + loudness + GAIN_SPREAD * rng.standard_normal()
    audio = audio * 10 ** (level / 20) / math.sqrt(np.mean(audio**2))
    noise = np.convolve(rng.standard_normal(len(audio)), np.full(NOISE_TAPS, NOISE_TAPS**-0.5), "same")
    audio = audio + noise * 10 ** ((NOISE_LEVEL + NOISE_SPREAD * rng.standard_normal()) / 20)
    return audio * min(1.0, PEAK / np.abs(audio).max())


def utter(espeak: Espeak, speaker: Speaker, emotion: str, text: str, rng: np.random.Generator) -> np.ndarray:
    """Say `text` in a way drawn from `emotion`; returns samples at SAMPLE_RATE, full scale is 1."""
    way = Prosody(*rng.normal(astuple(EMOTIONS[emotion]), astuple(SPREAD)))
    audio = espeak.speak(
        text,
        speaker.voice,
        seed=int(rng.integers(2**31)),
        volume=VOLUME,
        rate=speaker.rate * math.exp(way.rate),
        pitch=speaker.pitch + way.pitch,
        range=way.pitch_range,
        wordgap=way.pause,
    )
    audio = bend_pitch(audio, espeak.sample_rate, way.glide, way.lilt, phase=rng.random())
    audio = shape_loudness(audio, espeak.sample_rate, way.fade, way.accent)
    return record(soxr.resample(audio, espeak.sample_rate, SAMPLE_RATE), way.loudness, way.brightness, rng)


def write_speaker(root: Path, index: int, espeak: Espeak, seed: int) -> list[str]:
    """Write all that one of SPEAKERS says; returns the rows of the manifest."""
    speaker = SPEAKERS[index]
    rows = []
    for e, emotion in enumerate(EMOTIONS):
        for t, text in enumerate(SENTENCES):
            audio = utter(espeak, speaker, emotion, text, np.random.default_rng([seed, index, e, t]))
            file = f"wav/{speaker.name}/{speaker.name}-{emotion}-{t + 1:02d}.wav"
            soundfile.write(root / file, audio, SAMPLE_RATE, subtype="PCM_16")
            rows.append(
                f"{file},{speaker.name},{emotion},{index // SESSION_SPEAKERS + 1},sentence{t + 1:02d}\n"
            )
    return rows


def write_demo(root: Path, seed: int = 0) -> Path:
    """Write the demo corpus under `root` and return the path of its manifest.

    The files are `wav/<speaker>/<speaker>-<emotion>-<sentence>.wav`, 16 bits at SAMPLE_RATE.
    The manifest comes last: where it is, the corpus is whole. The same seed gives the same bytes.
    """
    manifest = root / "manifest.csv"
    manifest.unlink(missing_ok=True)
    rows = ["file,speaker,emotion,session,text\n"]
    with closing(Espeak()) as espeak:
        for index in progress(range(len(SPEAKERS)), "demo corpus"):
            (root / "wav" / SPEAKERS[index].name).mkdir(parents=True, exist_ok=True)
            rows += write_speaker(root, index, espeak, seed)
    write_text(manifest, "".join(rows))
    return manifest
