"""Preparation against the procedure of the publication, on one tree, in one run.

python benchmarks/prepare.py --files 200 --rounds 3

The published procedure goes through the corpus once for each of five folds; each time it loads every file with librosa,
computes its MFCCs, pools them, and saves them beside a copy of the sound. Ours goes through it once for all folds.
"""

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile
import soxr
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from config import FrontEnd, available_cores
from data.corpora.demo import write_demo
from data.corpora.utterance import Utterance
from data.features import Transform, one_thread
from data.preparation import Settings, prepare

FOLDS = 5
RATE = 16_000
FRONT_END = FrontEnd()


def make_tree(folder: Path, files: int) -> list[Utterance]:
    """Files of 1 to 12 seconds of speech, as long as those of IEMOCAP."""
    write_demo(folder / "demo")
    voices = np.concatenate(
        [soundfile.read(file, dtype="float32")[0] for file in sorted(folder.glob("demo/wav/*/*"))]
    )
    rng, listed = np.random.default_rng(0), []
    (folder / "wav").mkdir()
    for number in range(files):
        samples = round(rng.uniform(1, 12) * RATE)
        start = rng.integers(len(voices) - samples)
        file = folder / "wav" / f"{number:05d}.wav"
        soundfile.write(file, voices[start : start + samples], RATE)
        listed.append(Utterance(file.stem, file, f"S{number % 10}", "neutral"))
    return listed


def published(listed: list[Utterance], out: Path) -> None:
    """What the published procedure does for each fold, written anew from its description."""
    for fold in range(FOLDS):
        folder = out / str(fold)
        folder.mkdir(parents=True)
        for utterance in listed:
            shutil.copy(utterance.file, folder)
            sound, rate = librosa.load(utterance.file, sr=FRONT_END.sample_rate)
            sound = librosa.util.fix_length(sound, size=FRONT_END.samples)
            mfcc = librosa.feature.mfcc(y=sound, sr=rate, n_mfcc=FRONT_END.n_mfcc)
            hops = mfcc.shape[1] // FRONT_END.frames * FRONT_END.frames
            pooled = mfcc[:, :hops].reshape(len(mfcc), FRONT_END.frames, -1).max(axis=2)
            np.save(folder / f"{utterance.utterance}.npy", pooled)


def ours(listed: list[Utterance], out: Path) -> None:
    """`prepare.py`, by all cores."""
    prepare(listed, Settings("tree", FRONT_END, workers=available_cores()), out)


@torch.inference_mode()
def alone(listed: list[Utterance], out: Path) -> None:
    """Resampling and MFCCs alone, by one thread; the sound is read beforehand and nothing is written."""
    transform = Transform(FRONT_END)
    for sound in SOUNDS:
        clip = soxr.resample(sound, RATE, FRONT_END.sample_rate)[: FRONT_END.samples]
        transform(torch.from_numpy(np.pad(clip, (0, FRONT_END.samples - len(clip))))[None])


SOUNDS: list[np.ndarray] = []
SIDES: dict[str, Callable[[list[Utterance], Path], None]] = {
    "published": published,
    "ours": ours,
    "alone": alone,
}


def main() -> None:
    """Measure all three in alternation and print medians and ratios."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    own.add_argument("--files", type=int, default=200, help="files in the tree (200)")
    own.add_argument("--rounds", type=int, default=3, help="rounds, each of all three (3)")
    options = own.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    size: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name, one_thread():
        listed = make_tree(Path(name), options.files)
        limit = round(FRONT_END.duration * RATE)
        SOUNDS.extend(soundfile.read(u.file, frames=limit, dtype="float32")[0] for u in listed)
        published(listed[:1], Path(name) / "warm-up")
        for number in range(options.rounds):
            for side, work in SIDES.items():
                out = Path(name) / f"{side}{number}"
                start = time.perf_counter()
                work(listed, out)
                seconds[side].append(time.perf_counter() - start)
                size[side] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
                shutil.rmtree(out, ignore_errors=True)
    report(options.files, {side: statistics.median(times) for side, times in seconds.items()}, size)


def report(files: int, median: dict[str, float], size: dict[str, int]) -> None:
    """Print what was measured."""
    per_core = median["ours"] * available_cores() / median["alone"]
    capability = torch.backends.cpu.get_cpu_capability()
    print(
        f"{capability} on {platform.machine()}, {available_cores()} cores, torch {torch.__version__}, "
        f"{files} files of 1-12 s\n"
    )
    print(f"{'':12}{'seconds':>10}{'ms a file':>12}{'MB':>10}")
    for side, each in median.items():
        print(f"{side:12}{each:10.2f}{1000 * each / files:12.2f}{size[side] / 1e6:10.1f}")
    print(f"\nours is {median['published'] / median['ours']:.1f} times faster than the published procedure")
    print(f"ours takes 1/{size['published'] / size['ours']:.1f} of its disk")
    print(f"ours takes {per_core:.2f} times the resampling and MFCCs alone, per file and core")


if __name__ == "__main__":
    main()
