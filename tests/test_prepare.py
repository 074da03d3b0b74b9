"""prepare.py as a user runs it: its output, its exit code, its pictures, and kills."""

import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import environment, execute, line, succeed
from PIL import Image

import prepare
from data.store import FeatureStore

SMALL = "--sample_rate 8000 --n_fft 256 --hop_length 128 --n_mels 16 --n_mfcc 8 --duration 0.5 --frames 8"
STORE = {"manifest.csv", "features.npy", "config.json", "skipped.csv"}
EMOTIONS = ("angry", "happy", "neutral", "sad")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Four speakers in two sessions, four emotions. In telling.csv, the text reveals the emotion."""
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    fair, telling = (["file,speaker,emotion,session,text"] for _ in range(2))
    for number in range(96):
        speaker, emotion = number % 4, EMOTIONS[number // 4 % 4]
        soundfile.write(folder / f"{number:02d}.wav", rng.normal(0, 0.1, 4000), 8000)
        values = f"{number:02d}.wav,S{speaker},{emotion},{speaker // 2}"
        fair.append(f"{values},take {number // 16}")
        telling.append(f"{values},I am {emotion}")
    (folder / "telling.csv").write_text("\n".join(telling))
    (folder / "fair.csv").write_text("\n".join([*fair, "lost.wav,S0,sad,0,"]))
    return folder


@pytest.fixture(scope="module")
def stores(corpus: Path) -> str:
    """The output of prepare.py for fair.csv. The store features/telling is made as well."""
    succeed("prepare", "--root", "telling.csv", *SMALL.split(), cwd=corpus)
    done = execute("prepare", "--root", "fair.csv", *SMALL.split(), "--perturb", "pitch:1", cwd=corpus)
    assert (done.returncode, done.stderr) == (0, ""), "a progress bar is only for a terminal"
    return done.stdout


def test_the_output_describes_the_store(stores: str) -> None:
    assert stores.startswith("prepare   the corpus manifest at fair.csv\n")
    assert "96 utterances (192 clips) of 4 speakers, 0.01 hours in " in stores
    for words in ("1 files skipped (see skipped.csv)", "test speakers", "balance.png", "spectrograms.png"):
        assert words in stores
    advice = (
        "next     no fold can be searched yet: fold 1: session 1 is in training and test; --folds_by session"
    )
    assert stores.splitlines()[-1].startswith(advice)


@pytest.mark.parametrize("name", ["balance.png", "spectrograms.png"])
def test_the_pictures_are_drawn(corpus: Path, stores: str, name: str) -> None:
    with Image.open(corpus / "features" / "fair" / name) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_example_utterances_are_of_one_speaker_where_possible(corpus: Path, stores: str) -> None:
    store = FeatureStore.open(corpus / "features" / "fair")
    examples = prepare.example_rows(store)
    assert [(row.speaker, row.emotion, row.copy) for row in examples] == [
        ("S0", name, "") for name in EMOTIONS
    ]
    incomplete = [row for row in store.manifest if (row.speaker, row.emotion) != ("S0", "sad")]
    others = prepare.example_rows(replace(store, manifest=incomplete))
    assert [row.speaker for row in others] == ["S1"] * 4
    alone = [row for row in store.manifest if (row.speaker == "S1") == (row.emotion == "sad")]
    mixed = prepare.example_rows(replace(store, manifest=alone))
    assert [row.speaker for row in mixed] == ["S0", "S0", "S0", "S1"]


def test_spectrograms_are_not_drawn_if_the_recordings_are_gone(
    corpus: Path, stores: str, tmp_path: Path
) -> None:
    store = FeatureStore.open(corpus / "features" / "fair")
    lost = [replace(row, file="lost.wav") for row in store.manifest]
    assert not prepare.draw_examples(replace(store, manifest=lost), tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


CHECKS = {
    "a session": ("fair", [], "error: fold 1: session 0 is in training and test"),
    "a session allowed": ("fair", ["sessions"], ""),
    "a text that reveals the emotion": (
        "telling",
        ["sessions"],
        "error: fold 1: 4 texts are in training and test",
    ),
    "such a text allowed": ("telling", ["sessions", "texts"], ""),
}


@pytest.mark.parametrize("case", CHECKS)
def test_a_check_fails_if_a_fold_leaks_what_is_not_allowed(corpus: Path, stores: str, case: str) -> None:
    name, allowed, error = CHECKS[case]
    allow = ["--allow_leak", *allowed] if allowed else []
    done = execute("prepare", "--root", f"{name}.csv", "--check", "--folds_by", "speaker", *allow, cwd=corpus)
    assert done.returncode == (2 if error else 0)
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == bool(error)
    assert ("no leak in 4 folds by speaker" in done.stdout) == (not error)


def test_a_check_writes_nothing(corpus: Path, stores: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in (corpus / "features").rglob("*")}
    for store in (("--root", "fair.csv"), ("--out", "features/fair")):
        printed = succeed("prepare", *store, "--check", "--folds_by", "session", cwd=corpus)
        assert "no leak in 2 folds by session" in printed
    assert {path: path.stat().st_mtime_ns for path in (corpus / "features").rglob("*")} == before


def test_a_closed_output_pipe_prints_no_traceback(corpus: Path, stores: str) -> None:
    words = [*line("prepare", "--root", "fair.csv", "--check", "--folds_by", "session")]
    piped = ["bash", "-c", '"$@" | head -1', "bash", *words]
    done = subprocess.run(piped, cwd=corpus, env=environment(), capture_output=True, text=True, check=True)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_run_killed_three_times_makes_the_same_store(corpus: Path, stores: str) -> None:
    flags = ["--perturb", "pitch:1", "--workers", 1, "--out", "killed/x"]
    arguments = ("prepare", "--root", "fair.csv", *SMALL.split(), *flags)
    journal = corpus / "killed" / ".x.partial" / "journal.jsonl"
    done, moments = 0, random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(line(*arguments), cwd=corpus, env=environment(), stdout=subprocess.DEVNULL)
        due = done + moments.randint(5, 40)
        while process.poll() is None and (not journal.exists() or journal.read_text().count("\n") < due):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        assert journal.read_text().count("\n") >= done
        done = journal.read_text().count("\n")
    assert f"up to date   {done} files" in succeed(*arguments, cwd=corpus)
    for name in STORE:
        undisturbed = (corpus / "features" / "fair" / name).read_bytes()
        assert (corpus / "killed" / "x" / name).read_bytes() == undisturbed
