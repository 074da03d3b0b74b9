"""Hostile files: a strategy that damages a file, and how to make and use each file that is read.

`READERS` lists the files. The fuzz tests make each of them, damage it, and use it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from synthetic import manifest, write_trial
from torch import nn

import data.preparation
import prepare
from cli import parse
from config import FrontEnd, PrepareConfig, SearchConfig
from data.corpora.manifest import read, segments_of
from data.features import Transform, read_clips
from data.journal import Entry, Job
from data.preparation import Settings
from data.speakers import SpeakerSet
from genotypes import BUILT_IN, read_source, resolve
from models.architecture import BaselineArchitecture
from models.saved import SavedModel
from report.writer import write_report
from training.given_genotypes import parse_speakers
from training.inference import load_run
from training.loop import fit
from training.retraining import BestEpoch
from training.run_folder import RunFolder
from training.steps import weight_step

FRONT_END = FrontEnd(
    sample_rate=4000, n_fft=128, hop_length=64, n_mels=8, n_mfcc=8, duration=0.25, frames=8, long="chunks"
)
WORDS = [
    b"", b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b'"word"', b"word", b"[0]", b'{"a": 1}',
    b'"\\ud800"', b"\xff\xfe", b"\0", b"\x1b[2J", b"\r", b"\n", b",", b'"', b"9" * 400, b"9" * 5000, b"-1.5", b"1e308",
    b"[" * 3000, b'{"a":' * 3000, b"(" * 300, b"../../x", b"/etc/hostname", "\N{OGHAM SPACE MARK}é\u202e".encode(),
    b"*a", b"&a [*a, *a]", b"!!python/object/apply:os.mkdir ['sprung']", b"__import__('os').mkdir('sprung')",
    b"<script>", b"{{ 7 * 7 }}", b"%n%s", b"x" * 5000,
]  # fmt: skip
"""Replacements of a word in a file."""
NUMBERS = [int.to_bytes(n % 2**64, 8, o) for n in (0, 1, -1, 2**31, 2**60, 2**63) for o in ("little", "big")]
TOKEN = re.compile(rb'"[^"\n]*"|[\w.+/-]+|[^\w\s]')


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """The bytes of a good file with one to three parts replaced, removed, doubled or cut off."""
    content = good
    for _ in range(draw(st.integers(1, 3))):
        spans = [match.span() for match in TOKEN.finditer(content[:50_000])]
        if spans and draw(st.booleans()):
            start, end = draw(st.sampled_from(spans))
            new = draw(st.sampled_from(WORDS) | st.binary(max_size=4))
        else:
            start = draw(st.integers(0, len(content)))
            end = draw(st.sampled_from([start, start + 1, start + 4, start + 8, len(content)]))
            part = content[start:end]
            new = draw(st.sampled_from([b"", 2 * part, *NUMBERS]) | st.binary(max_size=16))
        content = content[:start] + new + content[end:]
    return content


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run every test in its own folder; return the folder around it, where nothing may be written."""
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    return tmp_path


class Toy:
    """A task for `fit`: train a linear map for two epochs, and keep the best of it."""

    steps = 2
    wait_seconds = 0.0

    def __init__(self) -> None:
        self.config = SearchConfig(name="toy", epochs=2, print_freq=1, checkpoint_every="1", resume=True)
        torch.manual_seed(0)
        self.network = nn.Linear(3, 2)
        self.optimizer = torch.optim.Adam(self.network.parameters())
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 2)
        self.best = BestEpoch(self.network)
        parts = ("network", "optimizer", "scheduler", "best")
        self.parts = {name: getattr(self, name) for name in parts}

    def step(self, i: int) -> dict[str, torch.Tensor]:
        batch = torch.randn(4, 3), torch.randint(2, (4,))
        return weight_step(self.network, self.optimizer, batch, F.cross_entropy, 5.0)

    def after_epoch(self, epoch: int) -> dict[str, float]:
        self.best.update((0.5, float(epoch)), epoch)
        self.scheduler.step()
        return {"lr": self.scheduler.get_last_lr()[0]}


def train() -> None:
    """Run the toy task to its end, from its checkpoint if it has one."""
    toy = Toy()
    with RunFolder("search", toy.config) as folder:
        fit(folder, toy, torch.device("cpu"))


def write_corpus() -> None:
    """Write eight utterances of four speakers, and their manifest."""
    noise = np.random.default_rng(0).normal(0, 0.1, 1500)
    lines = ["file,speaker,emotion,session,text"]
    for number in range(8):
        soundfile.write(f"{number}.wav", noise, 4000)
        lines.append(f"{number}.wav,S{number % 4},{('sad', 'angry')[number // 4]},{number % 2},text {number}")
    Path("list.csv").write_text("\n".join(lines) + "\n")


def prepare_corpus() -> None:
    settings = Settings("manifest", FRONT_END, ("speed:1.1",))
    data.preparation.prepare(read(Path("list.csv")), settings, Path("store"))


def write_store() -> None:
    write_corpus()
    prepare_corpus()


def check_store() -> None:
    """Check a store, and prepare the corpus again."""
    prepare.run(PrepareConfig(out="store", check=True, allow_leak=["texts", "sessions", "recordings"]))
    prepare_corpus()


def write_partial_store() -> None:
    """Write what a preparation leaves if it is killed before the last two files."""
    write_store()
    Path("store").rename(".store.partial")
    jobs = [Job(utterance, copy) for utterance in read(Path("list.csv")) for copy in ("", "speed:1.1")]
    entries = [asdict(Entry.of(job, duration=0.375, clips=((0.0, 0.1), (0.1, 0.2)))) for job in jobs[:-2]]
    Path(".store.partial/journal.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    settings = {"overwrite": False, "front_end": FRONT_END.model_dump()}
    Path(".store.partial/settings.json").write_text(json.dumps(settings))


def write_model() -> None:
    write_corpus()
    architecture = BaselineArchitecture("cnn", FRONT_END.shape)
    parts = architecture.build(2), architecture, np.zeros(8, np.float32), np.ones(8, np.float32)
    SavedModel(*parts, ("angry", "sad"), FRONT_END.model_dump()).save(Path("model.safetensors"))


def write_genotype() -> None:
    searched_on = SpeakerSet(dataset="toy", corpus="manifest", speakers=("S1", "Zoë"))
    BUILT_IN["cnn_lstm"].save("genotype.json", searched_on.model_dump())


def read_searched_genotype() -> None:
    source = read_source("genotype.json")
    parse_speakers(source.searched_on, "genotype.json")


def write_flags() -> None:
    Path("flags.yaml").write_text(
        "search: {epochs: 3, w_lr: 0.1, rnn_ops: [lstm_1, none]}\nname: x\nresume: yes\n"
    )


class Reader(NamedTuple):
    """How to make a good file and how to use it, both in the working folder."""

    make: Callable[[], object]
    use: Callable[[], object]


def sound(name: str) -> Reader:
    """A sound file that is transformed to features."""
    noise = np.random.default_rng(0).normal(0, 0.1, (1500, 2))

    def transform() -> None:
        clips = [clip.sound for clip in read_clips(Path(name), FRONT_END)]
        Transform(FRONT_END)(torch.from_numpy(np.stack(clips)))

    return Reader(lambda: soundfile.write(name, noise, 8000), transform)


def write_study() -> None:
    write_trial(Path("study"), "darts", 1, 1, manifest(1, speakers=2, each=4))


TRIAL = ("augment/metrics.json", "augment/predictions.csv", "augment/config.json", "augment/history.jsonl",
         "search/genotype.json", "search/history.jsonl", "seconds.json")  # fmt: skip
READERS = {
    "genotype.json": Reader(write_genotype, read_searched_genotype),
    "genotype": Reader(lambda: Path("genotype").write_text(str(BUILT_IN["cnn_lstm"])), lambda: resolve("genotype")),
    "flags.yaml": Reader(write_flags, lambda: parse(SearchConfig, ["--config", "flags.yaml"])),
    "list.csv": Reader(write_corpus, lambda: (segments_of(Path("list.csv")), prepare_corpus())),
    "model.safetensors": Reader(write_model, lambda: list(load_run("model.safetensors").predict(["0.wav"]))),
    **{f"store/{file}": Reader(write_store, check_store)
       for file in ("config.json", "manifest.csv", "skipped.csv", "features.npy")},
    **{f".store.partial/{file}": Reader(write_partial_store, prepare_corpus)
       for file in ("journal.jsonl", "settings.json", "features.npy")},
    **{f"sound.{kind}": sound(f"sound.{kind}") for kind in ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64")},
    **{f"runs/toy/search/{file}": Reader(train, train)
       for file in ("config.json", "origin.json", "history.jsonl", "checkpoint.pt")},
    **{f"study/darts-fold1-seed1/{file}": Reader(write_study, lambda: write_report(Path("study"))) for file in TRIAL},
}  # fmt: skip
"""By the name of the file that is damaged."""
