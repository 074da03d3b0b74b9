"""`prepare.py` beside the procedure of the publication, on the same files.

python benchmarks/prepare.py --files 200 --rounds 3

The published procedure reads the corpus once for each of five folds. Each time it loads every file
with librosa, computes its MFCCs, pools them, and saves them beside a copy of the sound. Ours reads the
corpus once for all folds.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import librosa
import numpy as np
import soundfile
import soxr
import torch
from search_step import machine

from config import FrontEnd, available_cores
from data.corpora.demo import write_demo
from data.corpora.utterance import Utterance
from data.features import Transform, one_thread
from data.preparation import Settings, prepare

FOLDS = 5
RATE = 16_000
FRONT_END = FrontEnd()


def make_corpus(folder: Path, files: int) -> list[Utterance]:
    """Write files of 1 to 12 seconds of speech, as long as those of IEMOCAP."""
    write_demo(folder / "demo")
    recordings = sorted(folder.glob("demo/wav/*/*"))
    speech = np.concatenate([soundfile.read(file, dtype="float32")[0] for file in recordings])
    rng = np.random.default_rng(0)
    utterances = []
    (folder / "wav").mkdir()
    for number in range(files):
        samples = round(rng.uniform(1, 12) * RATE)
        start = rng.integers(len(speech) - samples)
        file = folder / "wav" / f"{number:05d}.wav"
        soundfile.write(file, speech[start : start + samples], RATE)
        utterances.append(Utterance(file.stem, file, f"S{number % 10}", "neutral"))
    return utterances


def run_published(utterances: list[Utterance], out: Path) -> None:
    """The published procedure for each fold, written anew from its description."""
    for fold in range(FOLDS):
        folder = out / str(fold)
        folder.mkdir(parents=True)
        for utterance in utterances:
            shutil.copy(utterance.file, folder)
            sound, rate = librosa.load(utterance.file, sr=FRONT_END.sample_rate)
            sound = librosa.util.fix_length(sound, size=FRONT_END.samples)
            mfcc = librosa.feature.mfcc(y=sound, sr=rate, n_mfcc=FRONT_END.n_mfcc)
            hops = mfcc.shape[1] // FRONT_END.frames * FRONT_END.frames
            pooled = mfcc[:, :hops].reshape(len(mfcc), FRONT_END.frames, -1).max(axis=2)
            np.save(folder / f"{utterance.utterance}.npy", pooled)


def run_ours(utterances: list[Utterance], out: Path) -> None:
    """`prepare.py` on all cores."""
    prepare(utterances, Settings("tree", FRONT_END, workers=available_cores()), out)


@torch.inference_mode()
def compute_only(sounds: list[np.ndarray]) -> None:
    """Resampling and MFCCs on one thread, without reading or writing a file."""
    transform = Transform(FRONT_END)
    for sound in sounds:
        clip = soxr.resample(sound, RATE, FRONT_END.sample_rate)[: FRONT_END.samples]
        transform(torch.from_numpy(np.pad(clip, (0, FRONT_END.samples - len(clip))))[None])


def main() -> None:
    """Measure all three in alternation, and print the medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200, help="files in the corpus (200)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each of all three (3)")
    options = parser.parse_args()
    times: dict[str, list[float]] = {"published": [], "ours": [], "compute only": []}
    size = dict.fromkeys(times, 0)
    with tempfile.TemporaryDirectory() as name, one_thread():
        folder = Path(name)
        utterances = make_corpus(folder, options.files)
        limit = round(FRONT_END.duration * RATE)
        sounds = [soundfile.read(each.file, frames=limit, dtype="float32")[0] for each in utterances]
        sides = {
            "published": lambda out: run_published(utterances, out),
            "ours": lambda out: run_ours(utterances, out),
            "compute only": lambda out: compute_only(sounds),
        }
        run_published(utterances[:1], folder / "warm-up")
        for number in range(options.rounds):
            for side, work in sides.items():
                out = folder / f"{side}{number}"
                start = time.perf_counter()
                work(out)
                times[side].append(time.perf_counter() - start)
                size[side] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
                shutil.rmtree(out, ignore_errors=True)
    report(options.files, {side: statistics.median(seconds) for side, seconds in times.items()}, size)


def report(files: int, seconds: dict[str, float], size: dict[str, int]) -> None:
    """Print the table of the medians, and the ratios."""
    per_core = seconds["ours"] * available_cores() / seconds["compute only"]
    print(f"{machine(torch.device('cpu'))}, {available_cores()} cores; {files} files of 1-12 s\n")
    print(f"{'':14}{'seconds':>10}{'ms per file':>13}{'MB':>10}")
    for side, median in seconds.items():
        print(f"{side:14}{median:10.2f}{1000 * median / files:13.2f}{size[side] / 1e6:10.1f}")
    print(f"\nours is {seconds['published'] / seconds['ours']:.1f} times as fast as the published procedure")
    print(f"ours takes 1/{size['published'] / size['ours']:.1f} of its disk space")
    print(f"ours takes {per_core:.2f} times as long as the computation only, per file and core")


if __name__ == "__main__":
    main()
