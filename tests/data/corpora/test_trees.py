"""The audio in the test copies of corpora has the properties of real files."""

from io import BytesIO

import numpy as np
import pytest
import soundfile
from trees import plant, sounds


def test_audio_is_mono_or_stereo_silent_or_unreadable() -> None:
    speech, stereo = (soundfile.info(BytesIO(sounds()[kind])) for kind in ("speech", "stereo"))
    assert (speech.channels, stereo.channels) == (1, 2)
    assert speech.samplerate not in (16_000, stereo.samplerate)
    assert np.abs(soundfile.read(BytesIO(sounds()["speech"]))[0]).max() > 0.01
    assert not soundfile.read(BytesIO(sounds()["silence"]))[0].any()
    assert len(sounds()["stub"]) == 130
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(BytesIO(sounds()["stub"]))


def test_every_file_has_a_macos_file_beside_it(tmp_path) -> None:
    plant(tmp_path, {"a/b.wav": "speech", "a/c.txt": b"words", "a/d.wav": "absent"})
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"._b.wav", "._c.txt", "._d.wav", "b.wav", "c.txt"}
