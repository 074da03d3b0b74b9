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
from config import FrontEnd, PrepareConfig
from data.corpora.utterance import Utterance
from data.folds import make_folds
from data.preparation import Settings
from data.preparation import prepare as make_store
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
    assert "\nfair: 96 utterances (192 clips) of 4 speakers, 0.01 hours in " in stores
    for words in ("1 files skipped (see skipped.csv)", "test speakers", "balance.png", "spectrograms.png"):
        assert words in stores
    advice = (
        "next     no fold can be searched yet: fold 1: session 0 is in training and test; --folds_by session"
    )
    assert stores.splitlines()[-1].startswith(advice)


def store_of(folder: Path, seconds: dict[str, float], **front_end: object) -> FeatureStore:
    """A store of noise: four seconds loud, and then a tenth as loud."""
    listed = []
    for name, length in seconds.items():
        sound = np.random.default_rng(0).uniform(-0.5, 0.5, round(8000 * length))
        sound[32_000:] /= 10
        soundfile.write(folder / f"{name}.wav", sound, 8000)
        listed.append(Utterance(name, folder / f"{name}.wav", "S", "sad"))
    settings = {"sample_rate": 8000, "n_fft": 256, "n_mels": 8, "n_mfcc": 8, "hop_length": 128, "frames": 8}
    return make_store(listed, Settings("noise", FrontEnd(**settings | front_end)), folder / "store")[0]


LENGTHS = {"a": 1.0, "b": 4.5, "c": 5.0, "d": 7.25}
DURATIONS = "durations    1.00 to 7.25 s, median 4.75 s, 18 s in all"


def test_the_summary_tells_what_clips_cut_off(tmp_path: Path) -> None:
    headline, durations, cut = (
        prepare.summary(store_of(tmp_path, LENGTHS, duration=4)).split("\n\n")[0].splitlines()
    )
    assert headline.startswith("noise: 4 utterances of 1 speakers")
    assert durations == DURATIONS
    lost = np.mean([after / 100 / (4 + after / 100) for after in (0.5, 1, 3.25)])
    assert cut == (
        "cut          3 utterances are longer than the clip of 4 s, by 1.00 s (median) to 3.25 s; "
        f"on average {100 * lost:.1f} % of their energy is lost"
    )


CUT = "cut          4 utterances are longer than the clip of 0.5 s, by 4.25 s (median) to 6.75 s; on average "
WHOLE = {"chunks": {"duration": 0.5, "long": "chunks"}, "long clips": {"duration": 7.25}}


def test_advice_is_given_where_the_loss_matters(tmp_path: Path) -> None:
    [cut] = prepare.summary(store_of(tmp_path, LENGTHS, duration=0.5)).split("\n\n")[0].splitlines()[2:]
    assert cut.startswith(CUT)
    assert cut.endswith(" of their energy is lost; --duration 8 or --long chunks keeps all")


@pytest.mark.parametrize("case", WHOLE)
def test_nothing_is_said_where_nothing_is_cut(tmp_path: Path, case: str) -> None:
    block = prepare.summary(store_of(tmp_path, LENGTHS, **WHOLE[case])).split("\n\n")[0]
    assert block.splitlines()[1:] == [DURATIONS]


def test_a_skipped_file_is_named_with_the_reason(stores: str) -> None:
    assert "\nskipped      lost.wav: no such file\n" in stores


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


def prepare_list(
    folder: Path, rows: list[str], header: str = "file,speaker,emotion", **flags: object
) -> FeatureStore:
    """Prepare a list of the recordings of the corpus, as `list.csv`, without its pictures."""
    (folder / "list.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    small = dict(zip(SMALL.split()[::2], SMALL.split()[1::2], strict=True))
    settings = {name.removeprefix("--"): value for name, value in small.items()}
    out = folder / "features" / "list"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "draw_folds", lambda *_: None)
        patch.setattr(prepare, "draw_examples", lambda *_: False)
        config = PrepareConfig(root=folder / "list.csv", out=out, overwrite=True, **settings, **flags)
        prepare.run(config)
    return FeatureStore.open(out)


SPELT = {
    "case": ("F{}", "f{}"),
    "zeros": ("{}", "0{}"),
    "decimals": ("{}.0", "{}"),
    "Unicode forms": ("J\u00fcrgen {}", "Ju\u0308rgen {}"),
    "blanks": ("Ann {}", "\u200bAnn  {}"),
}


@pytest.mark.parametrize("way", SPELT)
def test_no_spelling_makes_two_speakers_of_one(corpus: Path, way: str, capsys: pytest.CaptureFixture) -> None:
    rows = [f"{n:02d}.wav,{SPELT[way][n // 4 % 2].format(n % 4)},{EMOTIONS[n // 4 % 4]}" for n in range(48)]
    store = prepare_list(corpus, rows)
    assert len(set(store.speakers)) == 4
    printed = capsys.readouterr()
    assert printed.out.startswith("list: 48 utterances of 4 speakers,")
    assert printed.err.count("note: speakers that differ only in spelling are taken for one: ") == 1
    folds = make_folds(store.manifest, "speaker")
    for fold in folds:
        people = [
            {int(store.manifest[row].file[-6:-4]) % 4 for row in part}
            for part in prepare.parts_of(fold).values()
        ]
        assert sum(map(len, people)) == 4


def test_utterances_that_no_class_has_are_counted_by_label(
    corpus: Path, capsys: pytest.CaptureFixture
) -> None:
    spelt = [
        "Angry",
        "angry",
        "HAPPY ",
        "happy",
        "Neutral",
        "neutral",
        "sad",
        "Sad",
        "fear",
        "Fear",
        "nan",
        "",
    ]
    rows = [f"{n:02d}.wav,{n % 4},{spelt[n % 12]}" for n in range(72)]
    store = prepare_list(corpus, rows, emotions=EMOTIONS)
    assert (len(store), store.classes) == (48, EMOTIONS)
    left_out = "left out     24 of 72 utterances, by label: fear 12, (no label) 6, nan 6"
    assert capsys.readouterr().out.splitlines()[0] == left_out
    store = prepare_list(corpus, rows)
    assert len(store) == 60
    assert sorted(name.lower() for name in store.classes) == sorted(("fear", *EMOTIONS))
    assert "12 of 72 utterances, by label: (no label) 6, nan 6" in capsys.readouterr().out


def test_speakers_without_a_name_are_tested_in_no_fold(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    names = ["Ann", "Bob", "Eve", "nan", "NA", "?"]
    store = prepare_list(corpus, [f"{n:02d}.wav,{names[n % 6]},{EMOTIONS[n // 6 % 4]}" for n in range(96)])
    printed = capsys.readouterr()
    assert printed.out.startswith("list: 96 utterances of 3 speakers,")
    assert "the speaker of 48 utterances is not known ('nan', 'NA', '?')" in printed.err
    tested = {store.speakers[row] for fold in make_folds(store.manifest, "speaker") for row in fold.test}
    assert tested == {"Ann", "Bob", "Eve"}


def test_headers_in_capitals_keep_the_leak_check(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [
        f"{n:02d}.wav;S{n % 4};{EMOTIONS[n // 4 % 4]};room {n % 2};I am {EMOTIONS[n // 4 % 4]}"
        for n in range(96)
    ]
    store = prepare_list(corpus, rows, "\ufeffFile; SPEAKER;Emotion;Session;Text", folds_by="speaker")
    assert {row.session for row in store.manifest} == {"room 0", "room 1"}
    printed = capsys.readouterr()
    assert "fold 1: session room 0 is in training and test" in printed.out
    assert "fold 1: 4 texts are in training and test" in printed.out
    assert printed.err == ""


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


def write_csv(folder: Path, name: str, rows: list[str], header: str = "file,speaker,emotion") -> None:
    (folder / f"{name}.csv").write_text("\n".join([header, *rows]))


def test_leaks_are_marked_and_harmless_texts_have_one_line(corpus: Path, stores: str) -> None:
    """Each of the four folds by speaker shares a session, and six texts that everyone says in every emotion."""
    printed = execute("prepare", "--root", "fair.csv", "--check", "--folds_by", "speaker", cwd=corpus).stdout
    lines = [
        line
        for line in printed.splitlines()
        if " in training and test" in line or "training and test share" in line
    ]
    assert [line[:12] for line in lines] == [*(f"LEAK  fold {n}" for n in range(1, 5)), "no leak: in "]
    assert "in 4 of 4 folds, training and test share up to 6 texts" in lines[-1]


def test_a_recording_of_two_speakers_is_named_and_stops_a_check(corpus: Path) -> None:
    rows = [f"{n:02d}.wav,S{n % 4},{EMOTIONS[n // 4 % 4]}" for n in range(64)]
    for copy, original in (
        ("64.wav", "00.wav"),
        ("65.flac", "02.wav"),
    ):  # of S0 and S2, but now listed as S1's
        sound, rate = soundfile.read(corpus / original)
        soundfile.write(corpus / f"copy{copy}", sound, rate)
        rows.append(f"copy{copy},S1,angry")
    write_csv(corpus, "equal", rows)
    printed = succeed("prepare", "--root", "equal.csv", *SMALL.split(), cwd=corpus)
    assert "warning: equal recordings of two speakers: 00 = copy64, 02 = copy65" in printed
    done = execute("prepare", "--root", "equal.csv", "--check", "--folds_by", "speaker", cwd=corpus)
    assert done.returncode == 2
    found = "2 recordings are in two of training, validation and test (00 = copy64, 02 = copy65)"
    assert done.stderr.startswith(f"error: fold 1: {found}; keep one of each of these recordings; ")
    allow = ["--allow_leak", "recordings"]
    succeed("prepare", "--root", "equal.csv", "--check", "--folds_by", "speaker", *allow, cwd=corpus)


def test_drop_leaks_leaves_out_the_texts_that_reveal_the_emotion(corpus: Path, stores: str) -> None:
    """The first half of the recordings has such texts."""
    rows = []
    for name in ("telling", "fair"):
        lines = (corpus / f"{name}.csv").read_text().splitlines()[1:97]
        rows += lines[:48] if name == "telling" else lines[48:]
    write_csv(corpus, "mixed", rows, "file,speaker,emotion,session,text")
    flags = ["--root", "mixed.csv", *SMALL.split(), "--drop_leaks", "texts"]
    done = execute("prepare", *flags, cwd=corpus)
    assert done.returncode == 0
    assert done.stderr == "note: --drop_leaks texts leaves out 48 of 96 utterances\n"
    assert {row.text for row in FeatureStore.open(corpus / "features" / "mixed").manifest} == {
        f"take {n}" for n in (3, 4, 5)
    }
    assert " texts are in training and test" not in done.stdout


@pytest.mark.parametrize("emotion", ["sad", "angry:sad sad"])
def test_one_class_is_refused_before_anything_is_written(corpus: Path, emotion: str) -> None:
    flags = ["--root", "fair.csv", "--out", "features/single", *SMALL.split(), "--emotions", *emotion.split()]
    done = execute("prepare", *flags, cwd=corpus)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: the utterances have 1 classes (sad); a classifier needs two")
    assert not (corpus / "features" / "single").exists()


FOLDLESS = {
    "two speakers": [0, 1],
    "one speaker": [0, 0],
    "unknown speakers": [0, 1, "unknown"],
}


@pytest.mark.parametrize("case", FOLDLESS)
def test_without_folds_the_store_is_written_and_the_exit_code_is_1(corpus: Path, case: str) -> None:
    rows = [f"{n:02d}.wav,{FOLDLESS[case][n % len(FOLDLESS[case])]},{EMOTIONS[n % 2]}" for n in range(12)]
    name = case.replace(" ", "_")
    write_csv(corpus, name, rows)
    done = execute("prepare", "--root", f"{name}.csv", *SMALL.split(), cwd=corpus)
    notes = "note: the speaker of 4 utterances is not known" if "unknown" in case else ""
    assert (done.returncode, done.stderr.partition(" (")[0]) == (1, notes)
    assert "no speaker-independent folds: " in done.stdout
    assert "with a column split" in done.stdout
    assert "next " not in done.stdout
    assert len(FeatureStore.open(corpus / "features" / name)) == 12


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
