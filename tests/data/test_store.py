"""A feature store is read back as it was written, and refused if its files are damaged."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from config import FrontEnd
from data.arrays import RowReader
from data.corpora import Utterance
from data.preparation import Settings, prepare
from data.store import COLUMNS, FeatureStore, read_csv, write_csv
from utils import UserError

SMALL = FrontEnd(sample_rate=8000, n_fft=512, hop_length=256, n_mels=24, n_mfcc=12, duration=1.0, frames=16)
EMOTIONS = ("angry", "neutral", "sad")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> FeatureStore:
    """48 utterances of four speakers, all from one file of noise, and one utterance without a file."""
    folder = tmp_path_factory.mktemp("store")
    soundfile.write(folder / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    utterances = [Utterance(f"{i:02d}", folder / "a.wav", f"S{i % 4}", EMOTIONS[i % 3]) for i in range(48)]
    lost = Utterance("lost", folder / "lost.wav", "S0", "sad")
    return prepare([*utterances, lost], Settings("noise", SMALL), folder / "features" / "noise")[0]


def test_a_reopened_store_is_the_same(made) -> None:
    again = FeatureStore.open(made.folder)
    assert again.manifest == made.manifest
    assert (again.corpus, again.front_end, again.classes, len(again)) == ("noise", SMALL, EMOTIONS, 48)
    assert again.skipped == [(str(made.folder.parents[1] / "lost.wav"), "no such file")]
    np.testing.assert_array_equal(again.features[:], made.features[:])
    np.testing.assert_array_equal(again.labels, made.labels)


def test_labels_are_indices_into_the_sorted_classes(made) -> None:
    assert made.labels.dtype == np.int64
    assert made.labels.tolist() == [0, 1, 2] * 16
    assert made.speakers[:5] == ["S0", "S1", "S2", "S3", "S0"]


def test_the_features_stay_on_disk(made) -> None:
    assert isinstance(made.features, RowReader)
    assert made.features.shape == (48, 12, 16)
    np.testing.assert_array_equal(made.features[:], np.load(made.folder / "features.npy"))


def test_the_error_for_a_missing_store_lists_other_stores(made, tmp_path) -> None:
    with pytest.raises(UserError, match=r"no features at .*prepare.py makes them; .*/features has noise$"):
        FeatureStore.open(made.folder.with_name("noize"))
    with pytest.raises(UserError, match="nowhere has no stores"):
        FeatureStore.open(tmp_path / "nowhere" / "noise")


def save(array: np.ndarray, **options):
    return lambda folder: np.save(folder / "features.npy", array, **options)


def replace(name: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def add(name: str, line: str):
    return lambda folder: (folder / name).write_text((folder / name).read_text() + line) and None


def name_rows(names: list[tuple[str, str]]):
    """Change the utterances and copies of the first rows."""

    def change(folder: Path) -> None:
        rows = read_csv(folder / "manifest.csv", COLUMNS)
        for row, (utterance, copy) in zip(rows, names, strict=False):
            row[0], row[COLUMNS.index("copy")] = utterance, copy
        write_csv(folder / "manifest.csv", COLUMNS, rows)

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
    "header": lambda folder: (
        (folder / "features.npy").open("r+b").write(b"\x93NUMPY\x01\x00v\x00{'descr': {") and None
    ),
    "gone": lambda folder: (folder / "features.npy").unlink(),
    "version": replace("config.json", '"version": 3', '"version": 2'),
    "no version": replace("config.json", '"version": 3', '"x": 3'),
    "classes": replace("config.json", '"sad"', '"bad"'),
    "front-end": replace("config.json", '"n_mfcc": 12', '"n_mfcc": 99'),
    "no corpus": replace("config.json", '"corpus"', '"corpse"'),
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "columns": replace("manifest.csv", "speaker,", "talker,"),
    "a short line": replace("manifest.csv", "S1,", ""),
    "a duration": add("manifest.csv", "a,b,c,d,sad,f,long,g,h,0.0,i,1.0,j,0.0,female\n"),
    "a start": add("manifest.csv", "a,b,c,d,sad,f,1.0,g,h,late,i,1.0,j,0.0,female\n"),
    "an end": add("manifest.csv", "a,b,c,d,sad,f,1.0,g,h,0.0,i,inf,j,0.0,female\n"),
    "a row more": add("manifest.csv", "a,b,c,d,sad,f,1.0,g,h,0.0,i,1.0,j,0.0,female\n"),
    "a line of skipped.csv": add("skipped.csv", "a\n"),
    "no skipped.csv": lambda folder: (folder / "skipped.csv").unlink(),
    "an utterance in two places": name_rows([("00", ""), ("01", ""), ("00", "")]),
    "a copy in two places": name_rows([("00", ""), ("00", "speed:0.9"), ("00", "")]),
    "no manifest": lambda folder: (folder / "manifest.csv").write_text(""),
}


def test_rows_of_an_utterance_and_of_its_copies_follow_each_other(made, tmp_path) -> None:
    shutil.copytree(made.folder, tmp_path / "x")
    names = [("00", ""), ("00", ""), ("00", "noise:20"), ("00", "noise:20"), ("01", "")]
    name_rows([*names, *((f"{i:02d}", "") for i in range(2, 45))])(tmp_path / "x")
    assert FeatureStore.open(tmp_path / "x").copies == ("noise:20",)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_is_refused(made, tmp_path, damage: str) -> None:
    shutil.copytree(made.folder, tmp_path / "x")
    FeatureStore.open(tmp_path / "x")
    DAMAGE[damage](tmp_path / "x")
    with pytest.raises(UserError, match="damaged"):
        FeatureStore.open(tmp_path / "x")
