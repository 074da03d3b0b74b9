"""Small copies of a corpus in its published form, with real audio."""

from collections.abc import Mapping
from contextlib import closing
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from data.corpora.espeak import Espeak

STUB = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0123456789abcdef' * 4}\nsize 72188\n"
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        \xff\n"

Tree = Mapping[str, str | bytes]
"""Path -> the bytes of the file, or its kind: one of `sounds`, or "absent"."""


def plant(root: Path, tree: Tree) -> Path:
    """Write the files of `tree` to `root`, each with a `._` file beside it, as macOS does.

    An absent file has only its `._` file.
    """
    for path, content in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_name(f"._{file.name}").write_bytes(APPLE_DOUBLE)
        if content != "absent":
            file.write_bytes(content if isinstance(content, bytes) else sounds()[content])
    return root


@cache
def sounds() -> dict[str, bytes]:
    """Return the kinds of audio file that occur in corpora, and the bytes of each."""
    with closing(Espeak()) as espeak:
        speech = espeak.speak("The lamp over the table is on.", "en-us", seed=1)
        rate = espeak.sample_rate
    return {
        "speech": wav_bytes(speech, rate),
        "stereo": wav_bytes(np.stack([speech, 0.5 * speech], axis=1), 48_000),
        "silence": wav_bytes(np.zeros(8000), 16_000),
        "stub": STUB.encode(),
    }


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    file = BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
