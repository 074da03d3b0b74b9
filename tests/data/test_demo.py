"""The demo corpus: what it holds, that it is the same every time, and that it is neither too easy nor too hard."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
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
def corpus(tmp_path_factory) -> pd.DataFrame:
    """The manifest of one demo corpus, with the audio of each row."""
    root = tmp_path_factory.mktemp("demo")
    table = pd.read_csv(demo.write_demo(root), dtype=str)
    table.attrs["root"] = str(root)
    table["audio"] = [soundfile.read(root / file, dtype="int16")[0] for file in table.file]
    return table


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


def test_manifest(corpus):
    assert list(corpus.columns.drop("audio")) == ["file", "speaker", "emotion", "session"]
    assert corpus.file.is_unique
    root = Path(corpus.attrs["root"])
    assert {path.relative_to(root).as_posix() for path in root.rglob("*.wav")} == set(corpus.file)


def test_every_speaker_says_twelve_sentences_in_every_emotion(corpus):
    assert sorted(corpus.emotion.unique()) == EMOTIONS
    assert corpus.speaker.nunique() == 16
    assert len(set(demo.SENTENCES)) == 12
    sentences = corpus.file.str[-6:-4].groupby([corpus.speaker, corpus.emotion]).agg(["size", "nunique"])
    assert len(sentences) == 16 * 4
    assert (sentences == 12).all(axis=None)
    lengths = corpus.audio.map(len).groupby([corpus.speaker, corpus.emotion]).nunique()
    assert (lengths == 12).all()


def test_sessions_share_no_speaker_and_hold_two_women_and_two_men(corpus):
    assert (corpus.groupby("speaker").session.nunique() == 1).all()
    speakers = corpus.drop_duplicates("speaker")
    assert sorted(speakers.session.unique()) == ["1", "2", "3", "4"]
    assert (speakers.groupby(["session", speakers.speaker.str[0]]).size() == 2).all()
    assert set(speakers.speaker.str[0]) == {"F", "M"}


def test_files_are_16_bit_mono_at_16_khz_of_one_to_four_seconds(corpus):
    for file in corpus.file:
        info = soundfile.info(Path(corpus.attrs["root"]) / file)
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 16_000, 1)
        assert 1 < info.duration < 4


def test_no_file_is_silent_or_clipped(corpus):
    peaks = corpus.audio.map(lambda audio: np.abs(audio.astype(int)).max())
    levels = corpus.audio.map(lambda audio: np.sqrt(np.mean(audio.astype(float) ** 2)))
    assert peaks.max() <= 0.9 * 32768 + 1
    assert levels.min() > 0.004 * 32768  # -48 dB re full scale


@pytest.mark.parametrize("speaker", demo.SPEAKERS, ids=lambda speaker: speaker.name)
def test_the_voice_of_every_speaker_exists(espeak, speaker):
    """eSpeak falls back silently on the plain language where it does not know a variant."""
    with_variant = espeak.speak(demo.SENTENCES[0], speaker.voice, seed=0)
    plain = espeak.speak(demo.SENTENCES[0], speaker.voice.partition("+")[0] + "+Alex", seed=0)
    assert len(with_variant) != len(plain) or np.abs(with_variant - plain).max() > 0.01


def test_no_two_speakers_share_a_variant():
    assert len({speaker.voice.partition("+")[2] for speaker in demo.SPEAKERS}) == len(demo.SPEAKERS)


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


def test_written_again_it_is_the_same_to_the_bit(corpus, tmp_path):
    """In this process, which has spoken before, and in a fresh one with another hash seed."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    demo.write_demo(tmp_path / "again")
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    command = "import sys, pathlib; from data.demo import write_demo; write_demo(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", command, tmp_path / "fresh"], env=environment, cwd=tmp_path, check=True)
    assert digest(Path(corpus.attrs["root"])) == digest(tmp_path / "again") == digest(tmp_path / "fresh")


def test_another_seed_gives_other_audio(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SPEAKERS", demo.SPEAKERS[:1])
    for file in pd.read_csv(demo.write_demo(tmp_path, seed=1)).file:
        assert (tmp_path / file).read_bytes() != (Path(corpus.attrs["root"]) / file).read_bytes()


def test_the_manifest_is_absent_while_the_corpus_is_not_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SPEAKERS", demo.SPEAKERS[:1])
    manifest = demo.write_demo(tmp_path)
    monkeypatch.setattr(demo, "SENTENCES", (*demo.SENTENCES[:2], ""))
    with pytest.raises(RuntimeError, match="says nothing"):
        demo.write_demo(tmp_path)
    assert not manifest.exists()


def test_averages_tell_something_but_not_all(corpus):
    """Logistic regression on the mean of each MFCC, on speakers that it has not heard."""
    means = np.array(
        [librosa.feature.mfcc(y=audio / np.float32(32768), sr=16_000, n_mfcc=40).mean(1) for audio in corpus.audio]
    )
    recalls = []
    for session in sorted(corpus.session.unique()):
        test = (corpus.session == session).to_numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        predicted = model.fit(means[~test], corpus.emotion[~test]).predict(means[test])
        recalls.append(balanced_accuracy_score(corpus.emotion[test], predicted))
    assert 0.40 < np.mean(recalls) < 0.80, recalls
    assert 0.40 < min(recalls)
    assert max(recalls) < 0.80
