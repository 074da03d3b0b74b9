"""A feature store has the same bytes however it was made: at once, updated, or continued after a kill."""

import csv
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, environment

import data.preparation
from config import FrontEnd
from data.arrays import RowWriter
from data.corpora import Utterance
from data.features import Transform, read_clips
from data.preparation import Settings, prepare
from data.store import FeatureStore
from utils import UserError

SMALL = FrontEnd(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16, n_mfcc=8, duration=0.5, frames=8)
OTHER = SMALL.model_copy(update={"frames": 9})
CHUNKS = SMALL.model_copy(update={"long": "chunks"})
EMOTIONS = ("angry", "neutral", "sad")


def write_sound(file: Path, seed: int) -> None:
    """A noisy tone of 0.2 to 1.4 s."""
    rng = np.random.default_rng(seed)
    t = np.arange(rng.integers(1600, 11200)) / 8000
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * (200 + 20 * seed) * t) + rng.normal(0, 0.01, len(t)), 8000)


def utterance(folder: Path, number: int) -> Utterance:
    file = folder / f"{number:02d}.wav"
    write_sound(file, number)
    emotion = EMOTIONS[number // 4 % 3]
    return Utterance(
        file.stem, file, f"S{number % 4}", emotion, session=str(number % 2), text=f"say {number % 3}"
    )


@pytest.fixture
def corpus(tmp_path: Path) -> list[Utterance]:
    """Twelve utterances of four speakers, in random order."""
    (tmp_path / "wav").mkdir()
    numbers = np.random.default_rng(0).permutation(12).tolist()
    return [utterance(tmp_path / "wav", number) for number in numbers]


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """A list to which the name of every file is added when it is read."""
    names: list[str] = []

    def load(path, *arguments):
        names.append(path.stem)
        return read_clips(path, *arguments)

    monkeypatch.setattr(data.preparation, "read_clips", load)
    return names


def make(listed: list[Utterance], folder: Path, **settings) -> FeatureStore:
    return prepare(listed, Settings(**{"corpus": "tones", "front_end": SMALL, **settings}), folder)[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made_at_once(listed: list[Utterance], beside: Path, **settings) -> dict[str, bytes]:
    """The files that a single run makes, without an earlier store."""
    fresh = beside.with_name("fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    make(listed, fresh, **settings)
    return contents(fresh)


def visible(folder: Path) -> list[str]:
    """The names in a folder, without lock files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def digest_of(file: Path) -> str:
    """Of 16-bit samples in one channel."""
    return hashlib.sha256(soundfile.read(file, dtype="float32")[0]).hexdigest()[:16]


def named(corpus: list[Utterance], name: str) -> Utterance:
    return next(each for each in corpus if each.utterance == name)


def damage(each: Utterance) -> None:
    each.file.write_text("no audio")


def interrupt(corpus: list[Utterance], folder: Path, at: str, **settings) -> None:
    """Prepare the corpus, but stop at the file `at`."""

    def load(path, *arguments):
        if path.stem == at:
            raise KeyboardInterrupt
        return read_clips(path, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.preparation, "read_clips", load)
        with pytest.raises(KeyboardInterrupt):
            make(corpus, folder, **settings)


# ---------------------------------------------------------------- the content of a store


@pytest.mark.parametrize("front_end", [SMALL, CHUNKS], ids=lambda each: each.long)
@pytest.mark.parametrize("copies", [(), ("speed:0.9", "noise:10", "pitch:2")], ids=len)
def test_features_are_the_transform_of_the_clips(corpus, tmp_path, front_end, copies) -> None:
    store = make(corpus, tmp_path / "x", front_end=front_end, copies=copies)
    transform = Transform(front_end)
    number = 0
    for each in sorted(corpus, key=lambda each: each.utterance):
        for copy in ("", *copies):
            for clip in read_clips(each.file, front_end, copy):
                row, features = store.manifest[number], store.features[number]
                with torch.inference_mode():
                    want = transform(torch.from_numpy(clip.sound)[None])[0].numpy()
                np.testing.assert_array_equal(features, want)
                assert (row.utterance, row.file, row.copy) == (each.utterance, str(each.file), copy)
                assert (row.speaker, row.session, row.emotion) == (each.speaker, each.session, each.emotion)
                assert (row.split, row.text) == (each.split, each.text)
                assert (row.duration, row.start) == (round(clip.recording, 3), round(clip.start, 3))
                assert (row.end, row.lost) == (round(clip.end, 3), round(clip.lost, 4))
                assert row.audio == digest_of(each.file)
                assert store.classes[store.labels[number]] == each.emotion
                number += 1
    assert len(store) == number


def test_chunks_are_rows_of_one_utterance_in_order(corpus, tmp_path) -> None:
    store = make(corpus, tmp_path / "x", front_end=CHUNKS)
    by_name = itertools.groupby(store.manifest, key=lambda row: row.utterance)
    starts = {name: [row.start for row in rows] for name, rows in by_name}
    assert len(starts) == 12
    assert max(map(len, starts.values())) >= 3
    for times in starts.values():
        assert times[0] == 0
        assert times == sorted(set(times))


def test_the_order_of_utterances_and_the_number_of_threads_change_no_byte(corpus, tmp_path) -> None:
    damage(corpus[3])
    settings = {"front_end": CHUNKS, "copies": ("noise:5",)}
    want = made_at_once(corpus, tmp_path / "x", **settings)
    make(corpus[::-1], tmp_path / "x", workers=3, **settings)
    assert contents(tmp_path / "x") == want


def test_the_files_have_the_documented_layout(corpus, tmp_path) -> None:
    damage(corpus[0])
    folder = tmp_path / "features" / "tones"
    make(corpus, folder, copies=("speed:0.9", "noise:10"))
    assert sorted(os.listdir(folder)) == ["config.json", "features.npy", "manifest.csv", "skipped.csv"]
    assert visible(folder.parent) == ["tones"]
    header, *rows = csv.reader((folder / "manifest.csv").open())
    columns = "utterance,file,speaker,session,emotion,split,duration,text,copy,start,stamp,end,audio,lost,sex"
    assert ",".join(header) == columns
    assert [row[8] for row in rows] == ["", "speed:0.9", "noise:10"] * 11
    found = Path(rows[0][1]).stat()
    assert rows[0][10] == f"{found.st_size}-{found.st_mtime_ns}"
    assert np.load(folder / "features.npy", allow_pickle=False).shape == (33, 8, 8)
    config = json.loads((folder / "config.json").read_text())
    want = {"version": 3, "corpus": "tones", "classes": list(EMOTIONS), "front_end": SMALL.model_dump()}
    assert config == want
    header, *skipped = csv.reader((folder / "skipped.csv").open())
    assert header == ["file", "reason"]
    assert [file for file, _ in skipped] == [str(corpus[0].file)], "not listed once"
    assert "not readable as audio" in skipped[0][1]


def test_skipped_files_leave_no_empty_rows(corpus, tmp_path) -> None:
    whole = make(corpus, tmp_path / "whole")
    for name in ("00", "05", "06", "11"):
        damage(named(corpus, name))
    part = make(corpus, tmp_path / "part")
    kept = [number for number in range(12) if number not in (0, 5, 6, 11)]
    assert [row.utterance for row in part.manifest] == [f"{number:02d}" for number in kept]
    np.testing.assert_array_equal(part.features[:], whole.features[kept])
    assert len(part.skipped) == 4


def test_a_repeated_copy_is_made_once(corpus, tmp_path) -> None:
    for _ in range(2):
        store = make(corpus, tmp_path / "x", copies=("speed:0.9", "speed:0.9"))
        assert len(store) == 24


@pytest.mark.parametrize("name", ["a, b", 'a "b"', "a\nb", "a\rb", "\u2028", "\x85"], ids=ascii)
def test_unusual_file_names_are_read_back(tmp_path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    corpus = [replace(utterance(folder, number), text=name) for number in range(3)]
    interrupt(corpus, tmp_path / "x", at="02")
    store = make(corpus, tmp_path / "x")
    assert [(row.file, row.text) for row in store.manifest] == [(str(each.file), name) for each in corpus]
    assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x")


def test_a_corpus_without_readable_files_is_refused(corpus, tmp_path) -> None:
    with pytest.raises(UserError, match="12 utterance names more than once"):
        make([*corpus, *corpus], tmp_path / "x")
    with pytest.raises(UserError, match="the corpus is empty"):
        make([], tmp_path / "x")
    for each in corpus:
        damage(each)
    with pytest.raises(UserError, match=r"none of its 12 files is readable \(the first, .*00\.wav: not"):
        make(corpus, tmp_path / "x", copies=("speed:0.9",))
    assert visible(tmp_path) == ["wav"]


# ---------------------------------------------------------------- replacing a folder


def test_a_store_of_another_corpus_is_replaced_only_with_overwrite(corpus, tmp_path, reads) -> None:
    make(corpus, tmp_path / "x")
    before = contents(tmp_path / "x")
    reads.clear()
    with pytest.raises(UserError, match="holds features of tones: pass --overwrite"):
        make(corpus, tmp_path / "x", corpus="other")
    assert (contents(tmp_path / "x"), reads) == (before, [])
    make(corpus, tmp_path / "x", corpus="other", overwrite=True)
    assert len(reads) == 12
    assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x", corpus="other")


def test_a_store_is_kept_if_the_new_corpus_has_no_readable_file(corpus, tmp_path) -> None:
    make(corpus, tmp_path / "x")
    before = contents(tmp_path / "x")
    with pytest.raises(UserError, match="none of its 1 files is readable"):
        make([Utterance("n", tmp_path / "n.wav", "S", "sad")], tmp_path / "x", overwrite=True)
    assert contents(tmp_path / "x") == before
    assert visible(tmp_path) == ["wav", "x"]


def test_a_folder_of_other_files_is_never_replaced(corpus, tmp_path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".config.json").touch()
    for folder in (tmp_path / "wav", tmp_path / "hidden", corpus[0].file):
        before = folder.stat().st_ino, folder.stat().st_mtime_ns
        with pytest.raises(UserError, match="something other than features"):
            make(corpus, folder, overwrite=True)
        assert (folder.stat().st_ino, folder.stat().st_mtime_ns) == before
    assert len(list((tmp_path / "wav").iterdir())) == 12


def test_a_damaged_store_is_computed_again(corpus, tmp_path, reads) -> None:
    make(corpus, tmp_path / "x")
    for name in ("config.json", "manifest.csv", "features.npy", "skipped.csv"):
        (tmp_path / "x" / name).write_bytes(b"{")
        reads.clear()
        make(corpus, tmp_path / "x")
        assert len(reads) == 12
        assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x")


# ---------------------------------------------------------------- updating a store


def unchanged(corpus):
    return corpus


def two_more(corpus):
    folder = corpus[0].file.parent
    return [*corpus, utterance(folder, 30), replace(utterance(folder, 31), utterance="005")]


def a_change(corpus):
    write_sound(named(corpus, "04").file, 99)
    return corpus


def a_touch(corpus):
    os.utime(named(corpus, "04").file, ns=(0, 0))
    return corpus


def a_loss(corpus):
    named(corpus, "04").file.unlink()
    return corpus


def fewer(corpus):
    return corpus[:7]


def other_labels(corpus):
    relabelled = [replace(each, emotion="happy", speaker="S9", text="other") for each in corpus[::2]]
    return [*corpus[1::2], *relabelled]


def a_swap(corpus):
    """Exchange the names of two files."""
    first, second = named(corpus, "04"), named(corpus, "05")
    rest = [each for each in corpus if each not in (first, second)]
    return [*rest, replace(first, file=second.file), replace(second, file=first.file)]


ALL = [f"{number:02d}" for number in range(12)]
UPDATES = {
    "nothing": (unchanged, {}, []),
    "two files more": (two_more, {}, ["30", "31"]),
    "a file changed": (a_change, {}, ["04"]),
    "a file touched": (a_touch, {}, ["04"]),
    "a file lost": (a_loss, {}, ["04"]),
    "files no longer listed": (fewer, {}, []),
    "labels": (other_labels, {}, []),
    "names exchanged": (a_swap, {}, ["04", "05"]),
    "a copy more": (unchanged, {"copies": ("noise:5", "speed:0.9", "speed:1.1")}, ALL),
    "copies in another order": (unchanged, {"copies": ("speed:1.1", "noise:5")}, []),
    "a copy fewer": (unchanged, {"copies": ("speed:1.1",)}, []),
    "another front-end": (unchanged, {"front_end": OTHER}, ALL),
    "--overwrite": (unchanged, {"overwrite": True}, ALL),
    "--workers": (unchanged, {"workers": 3}, []),
}


@pytest.mark.parametrize("update", UPDATES)
def test_only_changed_files_are_read_again(corpus, tmp_path, reads, update: str) -> None:
    settings = {"front_end": CHUNKS, "copies": ("noise:5", "speed:1.1")}
    make(corpus, tmp_path / "x", **settings)
    reads.clear()
    change, other, names = UPDATES[update]
    corpus, settings = change(corpus), settings | other
    make(corpus, tmp_path / "x", **settings)
    assert sorted(set(reads)) == names
    assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x", **settings)
    assert visible(tmp_path) == ["fresh", "wav", "x"]


def test_prepare_returns_the_number_of_files_that_were_up_to_date(corpus, tmp_path) -> None:
    settings = Settings("tones", SMALL)
    assert prepare(corpus[:9], settings, tmp_path / "x")[1] == 0
    assert prepare(corpus, settings, tmp_path / "x")[1] == 9
    assert prepare(corpus, replace(settings, overwrite=True), tmp_path / "x")[1] == 0


# ---------------------------------------------------------------- continuing after a kill

KILLED = """
import itertools, json, os, signal, sys
from pathlib import Path
from data.corpora.utterance import Utterance
from config import FrontEnd
from data.preparation import Settings, prepare

work = json.loads(Path(sys.argv[1]).read_text())
listed = [Utterance(**{**each, "file": Path(each["file"])}) for each in work["listed"]]
settings, folder = Settings("tones", FrontEnd(**work["front_end"])), Path(work["folder"])
names = ("data/arrays.py", "data/journal.py", "data/preparation.py", "data/store.py", "utils.py")
sources = {str(Path(name).resolve()) for name in names}

def prepare_until(line):
    count = itertools.count()

    def trace(frame, event, _):
        if frame.f_code.co_filename not in sources:
            return None
        if event == "line" and next(count) == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    prepare(listed, settings, folder)

for line in sys.stdin:
    if (child := os.fork()) == 0:
        prepare_until(int(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""For each number n on its input, start a preparation that kills itself at its n-th line of code."""


def test_a_line_of_the_journal_is_written_after_its_features(corpus, tmp_path, monkeypatch) -> None:
    append, journal, found = RowWriter.append, tmp_path / ".x.partial" / "journal.jsonl", []

    def look(writer, rows):
        before = journal.read_text().count("\n")
        append(writer, rows)
        found.append((before, journal.read_text().count("\n")))

    monkeypatch.setattr(RowWriter, "append", look)
    make(corpus, tmp_path / "x")
    assert found == [(number, number) for number in range(12)]


@pytest.mark.parametrize("before", ["nothing", "a store"])
def test_a_run_killed_at_any_line_of_code_can_be_continued(corpus, tmp_path, reads, before: str) -> None:
    corpus, folder = sorted(corpus, key=lambda each: each.utterance)[:4], tmp_path / "features" / "x"
    damage(corpus[1])
    if before == "a store":
        make(corpus[1:], tmp_path / "earlier")
    write_sound(corpus[3].file, 77)
    want = made_at_once(corpus, tmp_path / "x")
    work = {"listed": [asdict(each) for each in corpus], "front_end": SMALL.model_dump(), "folder": folder}
    (tmp_path / "work").write_text(json.dumps(work, default=str))
    words = [sys.executable, "-c", KILLED, str(tmp_path / "work")]
    processes = subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    for line in itertools.count(0, 23):
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir()
        if before == "a store":
            shutil.copytree(tmp_path / "earlier", folder)
        processes.stdin.write(b"%d\n" % line)
        processes.stdin.flush()
        code = int(processes.stdout.readline())
        journal = folder.with_name(".x.partial") / "journal.jsonl"
        done = journal.read_text().count("\n") if journal.exists() else 0
        reads.clear()
        make(corpus, folder)
        assert len(reads) <= 4 - done, "a file in the journal was read again"
        assert contents(folder) == want, f"killed at line {line}"
        assert visible(folder.parent) == ["x"]
        if code != -signal.SIGKILL:
            break
    processes.communicate()
    assert (code, line > 300) == (0, True)


def cut(name: str) -> Callable[[Path], None]:
    """Cut off the last nine bytes of a file."""
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 9)


def longer(folder: Path) -> None:
    with (folder / "features.npy").open("ab") as file:
        file.write(bytes(1000))


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
        (folder / "journal.jsonl").write_text("".join(change(text)))

    return apply


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


LEFT = {
    "as it was": (lambda folder: None, 8),
    "half of the last line": (cut("journal.jsonl"), 7),
    "features shorter than the journal": (cut("features.npy"), 7),
    "features longer than the journal": (longer, 8),
    "a half-written file": (written(".journal.jsonl.4242", b"{"), 8),
    "a line of nonsense": (lines(lambda text: [*text[:3], "[]\n", *text[4:]]), 3),
    "a missing line": (lines(lambda text: [*text[:2], *text[3:]]), 2),
    "a line that states too many rows": (
        lines(lambda text: [text[0].replace("[[", "[" + "[0.0, 0.1], " * 8 + "[")]),
        0,
    ),
    "no journal": (lambda folder: (folder / "journal.jsonl").unlink(), 0),
    "no features": (lambda folder: (folder / "features.npy").unlink(), 0),
    "no array": (written("features.npy", b"PK"), 0),
    "a damaged header": (written("features.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': {" + bytes(9999)), 0),
    "no settings": (lambda folder: (folder / "settings.json").unlink(), 0),
    "settings of something else": (written("settings.json", b"[1]"), 0),
}


@pytest.mark.parametrize("left", LEFT)
def test_a_damaged_attempt_is_continued_from_its_last_valid_line(corpus, tmp_path, reads, left: str) -> None:
    change, kept = LEFT[left]
    interrupt(corpus, tmp_path / "x", at="08")
    change(tmp_path / ".x.partial")
    reads.clear()
    make(corpus, tmp_path / "x")
    assert sorted(reads) == ALL[kept:]
    assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x")


BETWEEN = {
    "a file changed": (a_change, {}, ALL[4:]),
    "a file lost": (a_loss, {}, ALL[4:]),
    "files more": (two_more, {}, ["31", *ALL[1:], "30"]),
    "labels": (other_labels, {}, ALL[8:]),
    "another front-end": (unchanged, {"front_end": OTHER}, ALL),
    "another corpus": (unchanged, {"corpus": "other"}, ALL[8:]),
    "--overwrite": (unchanged, {"overwrite": True}, ALL),
    "--strict": (unchanged, {"strict": True}, ALL[8:]),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_changes_between_two_attempts_are_noticed(corpus, tmp_path, reads, between: str) -> None:
    change, settings, names = BETWEEN[between]
    interrupt(corpus, tmp_path / "x", at="08")
    reads.clear()
    corpus = change(corpus)
    make(corpus, tmp_path / "x", **settings)
    assert sorted(reads) == sorted(names)
    assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x", **settings)


def test_an_interrupted_overwrite_is_continued(corpus, tmp_path, reads) -> None:
    make(corpus, tmp_path / "x")
    for settings in ({"overwrite": True}, {}):
        interrupt(corpus, tmp_path / "x", at="08", overwrite=True)
        reads.clear()
        make(corpus, tmp_path / "x", **settings)
        assert sorted(reads) == (ALL[8:] if settings else [])


def test_the_old_store_is_restored_after_a_kill_between_two_renames(corpus, tmp_path, reads) -> None:
    make(corpus[:9], tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / ".x.old")
    with pytest.raises(UserError, match="holds features of tones"):
        make(corpus, tmp_path / "x", corpus="other")
    assert visible(tmp_path) == ["wav", "x"]
    (tmp_path / "x").rename(tmp_path / ".x.old")
    reads.clear()
    make(corpus, tmp_path / "x")
    assert len(reads) == 3
    assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x")


@pytest.mark.parametrize(
    "name", [".balance.png.4242", "journal.jsonl", "settings.json", "balance.png", "spectrograms.png"]
)
def test_unfinished_files_and_pictures_do_not_prevent_an_update(corpus, tmp_path, name: str) -> None:
    make(corpus, tmp_path / "x")
    (tmp_path / "x" / name).write_text("half")
    make(corpus, tmp_path / "x")
    assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x")


# ---------------------------------------------------------------- --strict, and memory


def test_strict_stops_at_the_first_unreadable_file_until_it_is_repaired(corpus, tmp_path, reads) -> None:
    for name in ("05", "09"):
        damage(named(corpus, name))
    for name in ("05", "09"):
        with pytest.raises(UserError, match=rf"{name}\.wav: not readable as audio .* \(without --strict"):
            make(corpus, tmp_path / "x", strict=True, copies=("noise:5",))
        assert not (tmp_path / "x").exists()
        write_sound(named(corpus, name).file, 50)
        reads.clear()
    make(corpus, tmp_path / "x", strict=True, copies=("noise:5",))
    assert sorted(set(reads)) == ["09", "10", "11"]
    assert contents(tmp_path / "x") == made_at_once(corpus, tmp_path / "x", copies=("noise:5",))


def test_strict_reads_files_again_that_an_attempt_left_out(corpus, tmp_path) -> None:
    damage(named(corpus, "02"))
    interrupt(corpus, tmp_path / "x", at="08")
    with pytest.raises(UserError, match=r"02\.wav: not readable"):
        make(corpus, tmp_path / "x", strict=True)


GROWTH = """
import resource, sys
from pathlib import Path
from data.corpora import Utterance
from config import FrontEnd
from data.preparation import Settings, prepare

front_end = FrontEnd(features="stft", sample_rate=8000, n_fft=2048, hop_length=128, duration=1, frames=60)  # 250 kB
for count in (100, 400):
    corpus = [Utterance(f"{number:03d}", Path(sys.argv[1]), "S", "sad") for number in range(count)]
    prepare(corpus, Settings("tones", front_end, workers=2, overwrite=True), Path(sys.argv[2]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path) -> None:
    write_sound(tmp_path / "a.wav", 0)
    words = [sys.executable, "-c", GROWTH, str(tmp_path / "a.wav"), str(tmp_path / "x")]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    few, many = map(int, done.stdout.split())
    assert many - few < 25, "MB; the features of 300 more files have 70 MB"
