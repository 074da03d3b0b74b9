"""eSpeak NG through `ctypes`: text to speech with the library in the wheel `espeakng-loader`.

The constants and functions of the library are documented in `speak_lib.h` of
https://github.com/espeak-ng/espeak-ng.
"""

import ctypes
import shutil
import tempfile
from pathlib import Path

import espeakng_loader
import numpy as np

from utils import UserError

AUDIO_OUTPUT_SYNCHRONOUS = 2
DONT_EXIT = 0x8000
POS_CHARACTER = 1
CHARS_UTF8 = 1
SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

PARAMETERS = {  # name -> number in the library, minimum, maximum
    "rate": (1, 80, 450),
    "volume": (2, 0, 200),
    "pitch": (3, 0, 99),
    "range": (4, 0, 99),
    "wordgap": (7, 0, 100),
}


class Espeak:
    """A speech synthesiser with a private copy of the library.

    The library keeps the phase of its flutter in a static variable that cannot be reset, so its output
    depends on what it has spoken before. A copy with a new file name starts in the initial state.
    """

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.callback = SynthCallback(self._collect)  # kept here: C holds no reference to it
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
        self.library.espeak_SetSynthCallback(self.callback)

    def speak(self, text: str, voice: str, seed: int, **parameters: float) -> np.ndarray:
        """Return `text` as speech: samples at `self.sample_rate`; full scale is 1.

        `voice` is `language+variant`; `parameters` are named in PARAMETERS and clipped to their range.
        Raises `UserError` if the variant does not exist.
        """
        _, plus, variant = voice.partition("+")
        if plus and not (self.data / "voices" / "!v" / variant).is_file():
            # eSpeak itself would silently use the voice without the variant.
            raise UserError(
                f"eSpeak NG has no voice variant {variant} in {self.data}; reinstall espeakng-loader"
            )
        self.chunks.clear()
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))  # for breath; the default is the time
        self._call("espeak_SetVoiceByName", voice.encode())
        for name, value in parameters.items():
            number, lowest, highest = PARAMETERS[name]
            self._call("espeak_SetParameter", number, round(min(max(value, lowest), highest)), 0)
        size = ctypes.c_size_t(len(text.encode()) + 1)  # with the final zero
        self._call("espeak_Synth", text.encode(), size, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        return np.frombuffer(b"".join(self.chunks), np.int16) / 32768

    def close(self) -> None:
        """Free the memory of the library."""
        self.library.espeak_Terminate()

    def _collect(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0  # continue

    def _call(self, function: str, *arguments) -> None:
        if status := getattr(self.library, function)(*arguments):
            raise RuntimeError(f"{function}{arguments} of eSpeak NG failed with status {status}")
