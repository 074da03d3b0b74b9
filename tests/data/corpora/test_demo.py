"""The demo corpus: its contents, its reproducibility, and its difficulty."""

import csv
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from conftest import ROOT
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.corpora import demo
from data.corpora.espeak import Espeak
from data.emotions import FOUR
from utils import UserError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """The manifest of a demo corpus that the tests do not change."""
    return demo.write_demo(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def rows(manifest) -> list[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def audio(manifest, rows) -> list[np.ndarray]:
    """The 16-bit samples of each row."""
    return [soundfile.read(manifest.parent / row["file"], dtype="int16")[0] for row in rows]


@pytest.fixture(scope="module")
def espeak() -> Iterator[Espeak]:
    with closing(Espeak()) as espeak:
        yield espeak


def digest(root: Path) -> str:
    """Return a hash of the names and bytes of all files below `root`."""
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_manifest_lists_all_files(manifest, rows) -> None:
    assert list(rows[0]) == ["file", "speaker", "emotion", "session", "text"]
    files = [path.relative_to(manifest.parent).as_posix() for path in manifest.parent.rglob("*.wav")]
    assert sorted(row["file"] for row in rows) == sorted(files)
    assert all(row["file"].split("/")[:2] == ["wav", row["speaker"]] for row in rows)


def test_every_speaker_says_twelve_sentences_in_every_emotion(rows) -> None:
    assert len(set(demo.SENTENCES)) == 12
    counts = Counter((row["speaker"], row["emotion"], Path(row["file"]).stem[-2:]) for row in rows)
    assert len(counts) == len(rows) == 16 * 4 * 12
    assert len({row["speaker"] for row in rows}) == 16
    assert {row["emotion"] for row in rows} == set(FOUR)


def test_sessions_have_two_women_and_two_men_each(rows) -> None:
    pairs = {(row["session"], row["speaker"]) for row in rows}
    assert len(pairs) == 16, "no speaker is in two sessions"
    counts = Counter((session, speaker[0]) for session, speaker in pairs)
    assert counts == {(session, sex): 2 for session in "1234" for sex in "FM"}


def test_files_are_16_bit_mono_at_16_khz_of_one_to_four_seconds(manifest, rows) -> None:
    for row in rows:
        info = soundfile.info(manifest.parent / row["file"])
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 16_000, 1)
        assert 1 < info.duration < 4


def test_no_file_is_silent_or_clipped(audio) -> None:
    assert max(np.abs(samples.astype(int)).max() for samples in audio) <= demo.PEAK * 32768 + 1
    assert min(np.std(samples) for samples in audio) > 0.004 * 32768  # -48 dB re full scale


def test_voices_of_all_speakers_differ(espeak) -> None:
    """eSpeak would silently use the voice without the variant if it did not know the variant."""
    voices = ["en-us", *("en-us+" + speaker.voice.partition("+")[2] for speaker in demo.SPEAKERS)]
    spoken = {voice: espeak.speak(demo.SENTENCES[0], voice, seed=0) for voice in voices}
    assert len(spoken) == 1 + len(demo.SPEAKERS)
    for one, other in combinations(spoken.values(), 2):
        assert len(one) != len(other) or np.abs(one - other).max() > 0.01


def test_unknown_variant_or_language_is_an_error(espeak) -> None:
    with pytest.raises(UserError, match="no voice variant"):
        espeak.speak("Hello.", "en-us+nobody", seed=0)
    with pytest.raises(RuntimeError, match="espeak_SetVoiceByName"):
        espeak.speak("Hello.", "nowhere+f1", seed=0)


def test_library_that_does_not_load_is_a_user_error(monkeypatch, tmp_path) -> None:
    (tmp_path / "broken.so").write_bytes(b"no library")
    monkeypatch.setattr("espeakng_loader.get_library_path", lambda: str(tmp_path / "broken.so"))
    with pytest.raises(UserError, match="does not load"):
        Espeak()


@pytest.mark.slow
def test_corpus_is_reproducible_to_the_bit(manifest, tmp_path) -> None:
    """In this process, which has used eSpeak before, and in a new one with another hash seed."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    demo.write_demo(tmp_path / "again")
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    code = "import sys, pathlib; from data.corpora import demo; demo.write_demo(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, tmp_path / "new"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert digest(manifest.parent) == digest(tmp_path / "again") == digest(tmp_path / "new")


def test_another_seed_gives_different_audio(manifest, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "SPEAKERS", demo.SPEAKERS[:1])
    demo.write_demo(tmp_path, seed=1)
    files = list(tmp_path.rglob("*.wav"))
    assert len(files) == 4 * 12
    for file in files:
        assert file.read_bytes() != (manifest.parent / file.relative_to(tmp_path)).read_bytes()


def test_incomplete_corpus_has_no_manifest(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "SPEAKERS", demo.SPEAKERS[:1])
    manifest = demo.write_demo(tmp_path)
    monkeypatch.setattr(demo, "SPEAKERS", (*demo.SPEAKERS, demo.Speaker("F09", "en-us+nobody", 50, 170)))
    with pytest.raises(UserError, match="no voice variant"):
        demo.write_demo(tmp_path)
    assert not manifest.exists()


def test_averages_predict_the_emotion_partly(rows, audio) -> None:
    """Logistic regression on the mean of each MFCC, tested on unseen speakers."""
    mfccs = [librosa.feature.mfcc(y=each / np.float32(32768), sr=16_000, n_mfcc=40) for each in audio]
    means = np.array([mfcc.mean(1) for mfcc in mfccs])
    emotion = np.array([row["emotion"] for row in rows])
    session = np.array([row["session"] for row in rows])
    recalls = []
    for test in (session == name for name in "1234"):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(means[~test], emotion[~test])
        recalls.append(balanced_accuracy_score(emotion[test], model.predict(means[test])))
    assert 0.40 < np.mean(recalls) < 0.80
    assert all(0.40 < recall < 0.80 for recall in recalls)
