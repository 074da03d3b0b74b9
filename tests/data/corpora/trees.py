"""Small trees of a corpus as its publisher ships it, with real sound in them."""

from collections.abc import Mapping
from contextlib import closing
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from data.demo import Espeak

STUB = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0123456789abcdef' * 4}\nsize 72188\n"
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        \xff\n"

Tree = Mapping[str, str | bytes]
"""Path -> the bytes of a file, or its kind: one of `sounds`, or "absent"."""


def plant(root: Path, tree: Tree) -> Path:
    """Make the files of `tree` at `root`.

    Each file, even an absent one, has a `._` twin at its side, as macOS leaves them.
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
    """What corpora have under the name of a sound: kind -> bytes."""
    with closing(Espeak()) as espeak:
        said, rate = espeak.speak("The lamp over the table is on.", "en-us", seed=1), espeak.sample_rate
    return {
        "speech": encoded(said, rate),
        "stereo": encoded(np.stack([said, 0.5 * said], axis=1), 48_000),
        "silence": encoded(np.zeros(8000), 16_000),
        "stub": STUB.encode(),
    }


def encoded(samples: np.ndarray, rate: int) -> bytes:
    """The bytes of a WAV file."""
    file = BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
