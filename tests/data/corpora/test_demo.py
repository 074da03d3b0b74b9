"""The demo corpus: what it holds, that it is the same every time, and that it is neither too easy nor too hard."""

import csv
import hashlib
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data import demo
from utils import UserError

REPOSITORY = Path(__file__).parents[2]
EMOTIONS = ["angry", "happy", "neutral", "sad"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """The manifest of one demo corpus, which the tests of this file read and do not change."""
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
def espeak():
    voice = demo.Espeak()
    yield voice
    voice.close()


def digest(root: Path) -> str:
    """A hash of the names and bytes of all files under `root`."""
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_the_manifest_lists_all_files(manifest, rows):
    assert list(rows[0]) == ["file", "speaker", "emotion", "session", "text"]
    files = [row["file"] for row in rows]
    assert sorted(files) == sorted(
        p.relative_to(manifest.parent).as_posix() for p in manifest.parent.rglob("*.wav")
    )
    assert all(row["file"].split("/")[:2] == ["wav", row["speaker"]] for row in rows)


def test_every_speaker_says_twelve_sentences_in_every_emotion(rows):
    assert len(set(demo.SENTENCES)) == 12
    counts = Counter((row["speaker"], row["emotion"], Path(row["file"]).stem[-2:]) for row in rows)
    assert len(counts) == len(rows) == 16 * 4 * 12
    assert len({row["speaker"] for row in rows}) == 16
    assert sorted({row["emotion"] for row in rows}) == EMOTIONS


def test_sessions_share_no_speaker_and_hold_two_women_and_two_men(rows):
    pairs = {(row["session"], row["speaker"]) for row in rows}
    assert len(pairs) == 16
    assert Counter((session, speaker[0]) for session, speaker in pairs) == {
        (s, g): 2 for s in "1234" for g in "FM"
    }


def test_files_are_16_bit_mono_at_16_khz_of_one_to_four_seconds(manifest, rows):
    for row in rows:
        info = soundfile.info(manifest.parent / row["file"])
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 16_000, 1)
        assert 1 < info.duration < 4


def test_no_file_is_silent_or_clipped(audio):
    assert max(np.abs(samples.astype(int)).max() for samples in audio) <= demo.PEAK * 32768 + 1
    assert min(np.std(samples) for samples in audio) > 0.004 * 32768  # -48 dB re full scale


def test_the_variants_of_all_speakers_exist_and_differ(espeak):
    """eSpeak quietly takes the plain voice of the language where it does not know a variant."""
    voices = ["en-us", *("en-us+" + speaker.voice.partition("+")[2] for speaker in demo.SPEAKERS)]
    spoken = {voice: espeak.speak(demo.SENTENCES[0], voice, seed=0) for voice in voices}
    assert len(spoken) == 1 + len(demo.SPEAKERS)
    for one, other in combinations(spoken.values(), 2):
        assert len(one) != len(other) or np.abs(one - other).max() > 0.01


def test_an_unknown_variant_or_language_is_an_error(espeak):
    with pytest.raises(UserError, match="no voice variant"):
        espeak.speak("Hello.", "en-us+nobody", seed=0)
    with pytest.raises(RuntimeError, match="espeak_SetVoiceByName"):
        espeak.speak("Hello.", "nowhere+f1", seed=0)


def test_a_library_that_does_not_load_is_the_users_to_mend(monkeypatch, tmp_path):
    (tmp_path / "broken.so").write_bytes(b"no library")
    monkeypatch.setattr(demo.espeakng_loader, "get_library_path", lambda: str(tmp_path / "broken.so"))
    with pytest.raises(UserError, match="does not load"):
        demo.Espeak()


@pytest.mark.slow
def test_written_again_it_is_the_same_to_the_bit(manifest, tmp_path):
    """In this process, which has spoken before, and in a fresh one with another hash seed."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    demo.write_demo(tmp_path / "again")
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    command = "import sys, pathlib; from data.demo import write_demo; write_demo(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(
        [sys.executable, "-c", command, tmp_path / "fresh"], env=environment, cwd=tmp_path, check=True
    )
    assert digest(manifest.parent) == digest(tmp_path / "again") == digest(tmp_path / "fresh")


def test_another_seed_gives_other_audio(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SPEAKERS", demo.SPEAKERS[:1])
    demo.write_demo(tmp_path, seed=1)
    others = list(tmp_path.rglob("*.wav"))
    assert len(others) == 4 * 12
    assert all(o.read_bytes() != (manifest.parent / o.relative_to(tmp_path)).read_bytes() for o in others)


def test_the_manifest_is_absent_while_the_corpus_is_not_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SPEAKERS", demo.SPEAKERS[:1])
    manifest = demo.write_demo(tmp_path)
    monkeypatch.setattr(demo, "SPEAKERS", (*demo.SPEAKERS, demo.Speaker("F09", "en-us+nobody", 50, 170)))
    with pytest.raises(UserError, match="no voice variant"):
        demo.write_demo(tmp_path)
    assert not manifest.exists()


def test_averages_tell_something_but_not_all(rows, audio):
    """Logistic regression on the mean of each MFCC, on speakers that it has not heard."""
    scaled = (samples / np.float32(32768) for samples in audio)
    means = np.array([librosa.feature.mfcc(y=samples, sr=16_000, n_mfcc=40).mean(1) for samples in scaled])
    emotion = np.array([row["emotion"] for row in rows])
    session = np.array([row["session"] for row in rows])
    recalls = []
    for test in (session == name for name in "1234"):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
            means[~test], emotion[~test]
        )
        recalls.append(balanced_accuracy_score(emotion[test], model.predict(means[test])))
    assert 0.40 < np.mean(recalls) < 0.80
    assert all(0.40 < recall < 0.80 for recall in recalls)
