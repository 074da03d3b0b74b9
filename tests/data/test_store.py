"""The feature store: whole or absent, in one order, read back as it was written."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import data.preparation
from data.corpora import Utterance
from data.features import MFCC, load_audio
from data.folds import make_folds
from data.front_end import FrontEnd
from data.preparation import prepare
from data.store import FeatureStore, statistics
from prepare import summary
from utils import UserError

SMALL = FrontEnd(sample_rate=8000, n_fft=512, hop_length=256, n_mels=24, n_mfcc=12, duration=1.0, frames=16)
EMOTIONS = ("angry", "neutral", "sad")


@pytest.fixture
def corpus(tmp_path) -> list[Utterance]:
    """Four speakers, three emotions, four takes: 48 noisy tones, in no order."""
    rng, utterances = np.random.default_rng(0), []
    (tmp_path / "wav").mkdir()
    for number in rng.permutation(48):
        speaker, emotion = f"S{number % 4}", EMOTIONS[number // 4 % 3]
        file = tmp_path / "wav" / f"{number:02d}.wav"
        t = np.arange(rng.integers(4000, 20000)) / 8000
        soundfile.write(file, 0.3 * np.sin(2 * np.pi * (200 + 20 * number) * t) + rng.normal(0, 0.01, len(t)), 8000)
        utterances.append(Utterance(file.stem, file, speaker, emotion, session=str(number % 2)))
    return utterances


def make(corpus, folder: Path, **options) -> FeatureStore:
    return prepare(corpus, SMALL, folder, corpus="tones", workers=2, **options)


def visible(folder: Path) -> list[str]:
    """What is in a folder, but for the lock that processes pass around."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def spoil(utterance: Utterance) -> None:
    utterance.file.write_text("no audio")


def test_rows_are_the_mfccs_of_their_files_in_the_order_of_names(corpus, tmp_path) -> None:
    store = make(corpus, tmp_path / "features" / "tones")
    assert [row.utterance for row in store.manifest] == [f"{i:02d}" for i in range(48)]
    assert store.features.shape == (48, 12, 16)
    assert isinstance(store.features, np.memmap)
    assert store.labels.dtype == np.int64
    assert store.speakers[:5] == ["S0", "S1", "S2", "S3", "S0"]
    for row, features, label in zip(store.manifest, store.features, store.labels, strict=True):
        clip, seconds = load_audio(Path(row.file), SMALL)
        np.testing.assert_allclose(features, MFCC(SMALL)(torch.from_numpy(clip)[None])[0], rtol=0, atol=1e-4)
        assert row.duration == pytest.approx(seconds, abs=1e-3)
        assert store.classes[label] == row.emotion == EMOTIONS[int(row.utterance) // 4 % 3]


def test_the_files_are_what_the_contract_says(corpus, tmp_path) -> None:
    spoil(corpus[0])
    folder = tmp_path / "features" / "tones"
    make(corpus, folder)
    assert sorted(os.listdir(folder)) == ["config.json", "features.npy", "manifest.csv", "skipped.csv"]
    assert visible(folder.parent) == ["tones"]
    rows = list(csv.reader((folder / "manifest.csv").open()))
    assert rows[0] == ["utterance", "file", "speaker", "session", "emotion", "split", "duration"]
    assert len(rows) == 48
    assert np.load(folder / "features.npy", allow_pickle=False).shape == (47, 12, 16)
    config = json.loads((folder / "config.json").read_text())
    assert config["version"] == 1
    assert config["corpus"] == "tones"
    assert config["classes"] == list(EMOTIONS)
    assert config["front_end"] == SMALL.model_dump()
    skipped = list(csv.reader((folder / "skipped.csv").open()))
    assert skipped[0] == ["file", "reason"]
    assert skipped[1][0] == str(corpus[0].file)
    assert "not readable as audio" in skipped[1][1]


def test_order_and_workers_change_no_byte(corpus, tmp_path) -> None:
    make(corpus, tmp_path / "a")
    prepare(corpus[::-1], SMALL, tmp_path / "b", corpus="tones", workers=0)
    for name in data.preparation.FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_skipped_files_leave_no_holes(corpus, tmp_path) -> None:
    whole = make(corpus, tmp_path / "whole")
    for utterance in corpus:
        if utterance.utterance in ("00", "20", "21", "47"):
            spoil(utterance)
    part = make(corpus, tmp_path / "part")
    kept = [i for i in range(48) if i not in (0, 20, 21, 47)]
    assert [row.utterance for row in part.manifest] == [f"{i:02d}" for i in kept]
    np.testing.assert_allclose(part.features, whole.features[kept], rtol=0, atol=1e-4)
    assert len(part.skipped) == 4


def test_a_reopened_store_is_the_same(corpus, tmp_path) -> None:
    made = make(corpus, tmp_path / "x")
    again = FeatureStore.open(tmp_path / "x")
    assert again.manifest == made.manifest
    assert again.front_end == SMALL
    assert (again.corpus, again.classes, len(again)) == ("tones", EMOTIONS, 48)
    np.testing.assert_array_equal(again.features, made.features)
    np.testing.assert_array_equal(again.labels, made.labels)


def test_an_interrupted_preparation_leaves_nothing(corpus, tmp_path, monkeypatch) -> None:
    def interrupt(path, front_end):
        if Path(path).stem == "40":
            raise KeyboardInterrupt
        return load_audio(path, front_end)

    monkeypatch.setattr(data.preparation, "load_audio", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(corpus, tmp_path / "features" / "tones")
    assert visible(tmp_path / "features") == []


def test_what_a_killed_attempt_left_is_removed(corpus, tmp_path) -> None:
    (tmp_path / ".x.partial").mkdir()
    (tmp_path / ".x.partial" / "features.npy").write_text("half")
    make(corpus, tmp_path / "x")
    assert visible(tmp_path) == ["wav", "x"]
    assert not (tmp_path / ".x.partial").exists()


def test_a_store_is_replaced_only_when_told(corpus, tmp_path) -> None:
    make(corpus, tmp_path / "x")
    before = (tmp_path / "x" / "features.npy").read_bytes()
    with pytest.raises(UserError, match="pass --overwrite"):
        make(corpus[:10], tmp_path / "x")
    assert (tmp_path / "x" / "features.npy").read_bytes() == before
    with pytest.raises(UserError, match="none of its 1 files is readable"):
        make([Utterance("n", tmp_path / "n.wav", "S", "sad")], tmp_path / "x", overwrite=True)
    assert (tmp_path / "x" / "features.npy").read_bytes() == before
    assert len(make(corpus[:10], tmp_path / "x", overwrite=True)) == 10
    assert visible(tmp_path) == ["wav", "x"]


def test_a_folder_of_something_else_is_never_replaced(corpus, tmp_path) -> None:
    for folder in (tmp_path / "wav", corpus[0].file):
        with pytest.raises(UserError, match="something other than features"):
            make(corpus, folder, overwrite=True)
    assert len(list((tmp_path / "wav").iterdir())) == 48


def test_corpora_that_make_no_store(corpus, tmp_path) -> None:
    for utterance in corpus:
        spoil(utterance)
    with pytest.raises(UserError, match=r"none of its 48 files is readable \(the first, .*00\.wav: not"):
        make(corpus, tmp_path / "x")
    with pytest.raises(UserError, match="'00' for one"):
        make([*corpus, *corpus], tmp_path / "x")
    assert visible(tmp_path) == ["wav"]


def test_a_missing_store_lists_its_neighbours(corpus, tmp_path) -> None:
    make(corpus, tmp_path / "features" / "tones")
    with pytest.raises(UserError, match=r"no features at .*prepare.py makes them; there are tones beside"):
        FeatureStore.open(tmp_path / "features" / "tonez")
    with pytest.raises(UserError, match="there are none"):
        FeatureStore.open(tmp_path / "nowhere" / "tones")


def save(array: np.ndarray, **options):
    return lambda folder: np.save(folder / "features.npy", array, **options)


def replace(name: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


DAMAGE = {
    "too few rows": save(np.zeros((47, 12, 16), np.float32)),
    "another shape": save(np.zeros((48, 12, 17), np.float32)),
    "doubles": save(np.zeros((48, 12, 16))),
    "pickled objects": save(np.array([None] * 48), allow_pickle=True),
    "flat": save(np.zeros(48, np.float32)),
    "no array": lambda folder: (folder / "features.npy").write_bytes(b"PK\x03\x04 hello"),
    "empty array": lambda folder: (folder / "features.npy").write_bytes(b""),
    "cut off": lambda folder: os.truncate(folder / "features.npy", 5000),
    "header": lambda folder: (folder / "features.npy").open("r+b").write(b"\x93NUMPY\x01\x00v\x00{'descr': {") and None,
    "gone": lambda folder: (folder / "features.npy").unlink(),
    "version": replace("config.json", '"version": 1', '"version": 2'),
    "no version": replace("config.json", '"version": 1', '"x": 1'),
    "classes": replace("config.json", '"sad"', '"bad"'),
    "front-end": replace("config.json", '"n_mfcc": 12', '"n_mfcc": 99'),
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "columns": replace("manifest.csv", "speaker,", "talker,"),
    "a short line": replace("manifest.csv", "S1,", ""),
    "a duration": lambda folder: (folder / "manifest.csv").open("a").write("a,b,c,d,sad,f,long\n") and None,
    "a row more": lambda folder: (folder / "manifest.csv").open("a").write("a,b,c,d,sad,f,1.0\n") and None,
    "no manifest": lambda folder: (folder / "manifest.csv").write_text(""),
}


@pytest.fixture(scope="module")
def sound_store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    soundfile.write(folder / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    utterances = [Utterance(f"{i:02d}", folder / "a.wav", f"S{i % 4}", EMOTIONS[i % 3]) for i in range(48)]
    make(utterances, folder / "x")
    return folder / "x"


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_is_refused(sound_store, tmp_path, damage: str) -> None:
    shutil.copytree(sound_store, tmp_path / "x")
    FeatureStore.open(tmp_path / "x")
    DAMAGE[damage](tmp_path / "x")
    with pytest.raises(UserError, match="damaged"):
        FeatureStore.open(tmp_path / "x")


def test_statistics_are_numpys_over_the_given_rows() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(rng.normal(0, 300, (1, 5, 1)), 20, (200, 5, 7)).astype(np.float32)
    features[:, 3] = 555.5
    rows = rng.permutation(200)[:130]
    mean, std = statistics(features, rows)
    assert mean.dtype == std.dtype == np.float32
    chosen = features[rows].astype(np.float64)
    np.testing.assert_allclose(mean, chosen.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, np.maximum(chosen.std(axis=(0, 2)), 1e-6), rtol=1e-6)
    for again, first in zip(statistics(features, rows[::-1]), (mean, std), strict=True):
        np.testing.assert_array_equal(again, first)
    with pytest.raises(ValueError, match="no rows"):
        statistics(features, rows[:0])


def test_the_summary_tells_classes_speakers_and_folds(corpus, tmp_path) -> None:
    spoil(corpus[0])
    store = make(corpus, tmp_path / "x")
    text = summary(store, make_folds(store.manifest, "speaker"))
    assert "tones: 47 utterances of 4 speakers" in text
    assert "1 files skipped" in text
    for word in ("angry", "session", "S3", "test speakers"):
        assert word in text
