"""A store of other recordings is not replaced unasked; one of the same recordings is brought up to date."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from config import PrepareConfig
from data.datasets import list_corpus, pick_utterances, prepare_dataset
from data.store import FeatureStore
from utils import UserError

SMALL = {"sample_rate": 8000, "n_fft": 256, "hop_length": 128, "n_mels": 16, "n_mfcc": 8}
SMALL |= {"duration": 0.5, "frames": 8, "workers": 1}
EMOTIONS = ("angry", "happy", "sad")


def write_corpus(root: Path, seed: int, count: int = 6, folder: str = "wav", first: int = 0) -> Path:
    """Write recordings of one size and a CSV that lists them; return the path of the CSV."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = ["file,speaker,emotion"]
    for number in range(first, first + count):
        soundfile.write(root / folder / f"{number}.wav", rng.normal(0, 0.1, 2000), 8000)
        lines.append(f"{folder}/{number}.wav,S{number % 3},{EMOTIONS[number % 3]}")
    (root / "my.csv").write_text("\n".join(lines))
    return root / "my.csv"


def prepare(root: Path, out: Path, **flags: object) -> FeatureStore:
    config = PrepareConfig(**{"corpus": "manifest", "root": root, "out": out, **SMALL, **flags})
    utterances = list_corpus(config)
    return prepare_dataset(config, utterances, pick_utterances(config, utterances))[0]


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """A corpus whose store is `tmp_path / "store"`."""
    csv = write_corpus(tmp_path / "a", seed=1)
    prepare(csv, tmp_path / "store")
    return csv


def other_names(csv: Path) -> Path:
    return write_corpus(csv.parent.parent / "b", seed=2, folder="spoken", first=100)


def same_names(csv: Path) -> Path:
    return write_corpus(csv.parent.parent / "b", seed=2)


def one_folder(csv: Path) -> Path:
    return write_corpus(csv.parent, seed=2, first=100)


def few_of_the_old(csv: Path) -> Path:
    other = write_corpus(csv.parent, seed=2, first=100)
    other.write_text(other.read_text() + "\nwav/0.wav,S0,angry")
    return other


def other_lengths(csv: Path) -> Path:
    other = same_names(csv)
    for file in (other.parent / "wav").iterdir():
        soundfile.write(file, np.random.default_rng(3).normal(0, 0.1, 2001), 8000)
    shutil.rmtree(csv.parent)
    return other


@pytest.mark.parametrize("change", [other_names, same_names, one_folder, few_of_the_old, other_lengths])
def test_a_store_of_other_recordings_is_kept(
    csv: Path, tmp_path: Path, change: Callable[[Path], Path]
) -> None:
    before = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    other = change(csv)
    with pytest.raises(
        UserError, match=r"holds features of other recordings, such as .*a/wav/0\.wav: pass --o"
    ):
        prepare(other, tmp_path / "store")
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before
    assert not list(tmp_path.glob(".store.partial"))
    store = prepare(other, tmp_path / "store", overwrite=True)
    assert Path(store.manifest[0].file).parent == other.parent / Path(store.manifest[0].utterance).parent


def added(csv: Path) -> Path:
    write_corpus(csv.parent, seed=1, count=30)
    return csv


def removed(csv: Path) -> Path:
    csv.write_text("\n".join(csv.read_text().splitlines()[:3]))
    return csv


def relabelled(csv: Path) -> Path:
    csv.write_text(csv.read_text().replace("angry", "fear").replace("S0", "Anna"))
    return csv


def moved(csv: Path) -> Path:
    csv.parent.rename(csv.parent.with_name("moved"))
    return csv.parent.with_name("moved") / csv.name


def copied(csv: Path) -> Path:
    shutil.copytree(csv.parent, csv.parent.with_name("copy"), copy_function=shutil.copyfile)
    return csv.parent.with_name("copy") / csv.name


def listed_from_above(csv: Path) -> Path:
    above = moved(csv).parent.parent / "all.csv"
    rows = (above.parent / "moved" / csv.name).read_text()
    above.write_text(rows.replace("wav/", "moved/wav/"))
    return above


def converted(csv: Path) -> Path:
    for file in (csv.parent / "wav").iterdir():
        soundfile.write(file.with_suffix(".flac"), *soundfile.read(file))
        file.unlink()
    csv.write_text(csv.read_text().replace(".wav", ".flac"))
    return csv


def recorded_again(csv: Path) -> Path:
    return write_corpus(csv.parent, seed=9)


UPDATES = [added, removed, relabelled, moved, copied, listed_from_above, converted, recorded_again]


@pytest.mark.parametrize("change", UPDATES)
def test_a_store_of_the_same_recordings_is_brought_up_to_date(
    csv: Path, tmp_path: Path, change: Callable[[Path], Path]
) -> None:
    changed = change(csv)
    store = prepare(changed, tmp_path / "store")
    listed = list_corpus(PrepareConfig(root=changed))
    assert {row.utterance: row.emotion for row in store.manifest} == {
        each.utterance: each.emotion for each in listed
    }


def test_other_classes_of_a_corpus_are_an_update(csv: Path, tmp_path: Path) -> None:
    for emotions in (("sad", "angry"), ("angry", "happy"), ("happy", "sad")):
        store = prepare(csv, tmp_path / "store", emotions=emotions)
        assert {row.emotion for row in store.manifest} == set(emotions)


def test_a_published_corpus_elsewhere_is_kept_too(tmp_path: Path) -> None:
    for seed, root in enumerate(("a", "b")):
        for number in range(6):
            name = f"0{3 + number}a0{1 + number % 2}{'FNT'[number % 3]}a.wav"
            (tmp_path / root / "wav").mkdir(parents=True, exist_ok=True)
            sound = np.random.default_rng(10 * seed + number).normal(0, 0.1, 2000)
            soundfile.write(tmp_path / root / "wav" / name, sound, 8000)
    flags = {"corpus": "emodb", "emotions": ("all",)}
    prepare(tmp_path / "a", tmp_path / "store", **flags)
    with pytest.raises(UserError, match="holds features of other recordings"):
        prepare(tmp_path / "b", tmp_path / "store", **flags)
    (tmp_path / "a").rename(tmp_path / "c")
    prepare(tmp_path / "c", tmp_path / "store", **flags)
