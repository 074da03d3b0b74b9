"""Predictions: windows, several models, every way to name recordings, and recordings that cannot be read."""

import csv
import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import predict
from config import FrontEnd, PredictConfig
from data.features import Transform
from genotypes import Genotype
from models.architecture import Searched
from models.augment_network import AugmentNetwork
from models.joint_network import Size
from models.saved import SavedModel
from training.inference import Predictor, load_run
from utils import UserError

ROOT = Path(__file__).parent.parent


RATE = 8000
FRONT_END = FrontEnd(
    sample_rate=RATE, n_fft=256, hop_length=80, n_mels=8, n_mfcc=8, duration=0.5, frames=9, long="chunks"
)
CLASSES = ("angry", "happy", "sad")


def small_model(seed: int = 0, **front_end: object) -> SavedModel:
    """A network whose running statistics and standardisation are those of no fresh one."""
    genotype = Genotype(
        normal=[[["sep_conv_3x3", 0], ["skip_connect", 1]]],
        normal_concat=[2],
        reduce=[[["max_pool_3x3", 0], ["skip_connect", 1]]],
        reduce_concat=[2],
        rnn=[[["lstm_1", 0], ["rnn_att_1", 1]]],
        rnn_concat=[2],
    )
    torch.manual_seed(seed)
    size = Size(layers=2, init_channels=2, rnn_layers=1, rnn_channels=4)
    network = AugmentNetwork(genotype, size, 3)
    network(torch.randn(6, 1, *FRONT_END.shape) + 1)
    with torch.no_grad():
        network.network.head.weight.mul_(10)  # windows that are heard alike would prove nothing
    mean, std = (np.linspace(*ends, 8, dtype=np.float32) for ends in ((-300, 5), (2, 20)))
    settings = FRONT_END.model_copy(update=front_end).model_dump()
    return SavedModel(network.eval(), Searched(genotype, size), mean, std, CLASSES, settings)


def write_wav(path: Path, samples: int, seed: int = 0) -> Path:
    """Noise that grows louder, so that its windows are told apart."""
    drift = np.linspace(0.01, 0.5, samples)
    sound = drift * np.random.default_rng(seed).standard_normal(samples).clip(-1.9, 1.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, RATE, subtype="FLOAT")
    return path


def heard(model: SavedModel, windows: list[np.ndarray]) -> np.ndarray:
    """The probabilities of windows, one at a time and by hand."""
    features = Transform(FRONT_END)(torch.from_numpy(np.stack(windows)))
    x = (features - torch.from_numpy(model.mean)[:, None]) / torch.from_numpy(model.std)[:, None]
    with torch.no_grad():
        return model.network(x[:, None]).softmax(dim=1).numpy()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run in it, three recordings, and files that are none."""
    monkeypatch.chdir(tmp_path)
    Path("runs/one/augment").mkdir(parents=True)
    small_model().save(Path("runs/one/augment/model.safetensors"))
    for number, samples in enumerate([3000, 10_000, 8000]):
        write_wav(Path(f"wav/{number}.wav"), samples, number)
    Path("wav/notes.txt").write_text("not audio, and not named so")
    Path("wav/._0.wav").write_text("what macOS leaves")
    Path("bad.wav").write_text("not audio")
    return tmp_path


def output(capsys: pytest.CaptureFixture, *files: str, **flags: object) -> str:
    predict.run(PredictConfig(files=files, model="runs/one", gpus="none", **flags))
    return capsys.readouterr().out


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_recording_is_predicted_by_the_mean_over_its_windows(place: Path, batch_size: int):
    model = small_model()
    answers = list(Predictor([model]).predict(sorted(Path("wav").glob("?.wav")), batch_size))
    for answer, firsts in zip(answers, ([0], [0, 3000, 6000], [0, 4000]), strict=True):
        sound = soundfile.read(answer.file, dtype="float32")[0]
        padded = np.pad(sound, (0, max(0, 4000 - len(sound))))
        each = heard(model, [padded[first : first + 4000] for first in firsts])
        assert len(each) == 1 or np.ptp(each, axis=0).max() > 1e-3
        np.testing.assert_allclose(answer.probabilities, each.mean(axis=0), rtol=0, atol=1e-5)
        assert answer.emotion == CLASSES[each.mean(axis=0).argmax()]
        assert [window.start for window in answer.windows] == [first / RATE for first in firsts]
        assert [window.end for window in answer.windows] == [min(f + 4000, len(sound)) / RATE for f in firsts]


def test_windows_hear_all_of_a_recording_also_where_the_model_was_trained_on_its_start(place: Path):
    start, whole = (Predictor([small_model(long="first")], windows=windows) for windows in (False, True))
    assert [len(a.windows) for p in (start, whole) for a in p.predict(["wav/1.wav"])] == [1, 3]


def test_several_models_answer_by_their_mean(place: Path):
    models = [small_model(seed) for seed in (0, 1)]
    singles = [next(Predictor([model]).predict(["wav/1.wav"])).probabilities for model in models]
    assert np.abs(singles[0] - singles[1]).max() > 1e-3
    both = next(Predictor(models).predict(["wav/1.wav"])).probabilities
    np.testing.assert_allclose(both, np.mean(singles, axis=0), atol=1e-6)


def test_models_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match="features of other kinds"):
        Predictor([small_model(), small_model(duration=0.4)])


def test_three_lines_of_python_do(place: Path):
    model = load_run("runs/one")
    assert [answer.emotion in CLASSES for answer in model.predict(["wav/0.wav"])] == [True]


def test_recordings_are_files_folders_patterns_and_the_files_of_a_csv(place: Path):
    Path("list.csv").write_text("note,file\nx,wav/2.wav\ny,wav/0.wav\n")
    words = [Path(word) for word in ("wav", "wav/1.wav", "w*/[02].wav", "list.csv", "nowhere.wav")]
    names = [path.name for path in predict.found(words)]
    assert names == ["0.wav", "1.wav", "2.wav", "1.wav", "0.wav", "2.wav", "2.wav", "0.wav", "nowhere.wav"]


def test_the_three_outputs_say_the_same(place: Path, capsys: pytest.CaptureFixture):
    said = json.loads(output(capsys, "wav", json=True))
    lines = list(csv.DictReader(io.StringIO(output(capsys, "wav", csv=True))))
    table = [line.split() for line in output(capsys, "wav").splitlines()]
    assert table[0] == ["file", "emotion", *CLASSES]
    for one, line, row in zip(said, lines, table[1:], strict=True):
        assert one["file"] == line["file"] == row[0]
        assert one["emotion"] == line["emotion"] == row[1]
        assert [float(line[name]) for name in CLASSES] == pytest.approx(
            list(one["probabilities"].values()), abs=1e-6
        )
        assert [float(share[:-1]) / 100 for share in row[2:]] == pytest.approx(
            list(one["probabilities"].values()), abs=5.1e-4
        )


def test_windows_are_told_with_their_times(place: Path, capsys: pytest.CaptureFixture):
    lines = list(csv.DictReader(io.StringIO(output(capsys, "wav/1.wav", csv=True, windows=True))))
    assert [(line["start"], line["end"]) for line in lines] == [
        ("0.00", "0.50"),
        ("0.38", "0.88"),
        ("0.75", "1.25"),
    ]
    said = json.loads(output(capsys, "wav/1.wav", json=True, windows=True))[0]["windows"]
    assert [round(window["end"] - window["start"], 3) for window in said] == [0.5] * 3


def test_a_bad_file_is_listed_the_others_are_predicted_and_the_exit_code_is_1(
    place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    words = ["predict.py", "--model", "runs/one", "wav/0.wav", "bad.wav", "nowhere.wav", "wav/2.wav"]
    monkeypatch.setattr(sys, "argv", [*words, "--gpus", "none", "--json"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "predict.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert exit_.value.code == 1
    said = json.loads(printed.out)
    assert ["error" in one for one in said] == [False, True, True, False]
    assert said[2]["error"] == "no such file"
    assert printed.err.splitlines() == [
        f"unreadable  bad.wav: {said[1]['error']}",
        "unreadable  nowhere.wav: no such file",
    ]


def test_where_no_recording_can_be_read_there_is_still_an_answer_for_each(place: Path):
    answers = list(load_run("runs/one").predict(["bad.wav", "nowhere.wav"]))
    assert [bool(answer.error) for answer in answers] == [True, True]
    assert [answer.windows for answer in answers] == [[], []]


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """A loud tone."""
    sound = 0.5 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)
    return np.stack([sound] * channels, axis=1)


ANY = {
    "mulaw.wav": lambda path: soundfile.write(path, tone(2, 8000), 8000, subtype="ULAW"),
    "wide.flac": lambda path: soundfile.write(path, tone(2, 96_000, 2), 96_000),
    "radio.mp3": lambda path: soundfile.write(path, tone(2, 44_100), 44_100, format="MP3"),
    "short.wav": lambda path: soundfile.write(path, tone(0.01, 16_000), 16_000),
}
NONE = {
    "silence.wav": (lambda path: soundfile.write(path, np.zeros(16_000), 16_000), "no sound in 0.5 s"),
    "text.wav": (lambda path: path.write_text("not audio"), "not readable as audio"),
    "empty.wav": (lambda path: path.write_bytes(b""), "not readable as audio"),
    "header.wav": (lambda path: soundfile.write(path, np.zeros(0), 16_000), "empty (no samples)"),
}


@pytest.mark.parametrize("name", ANY)
def test_any_format_rate_and_channel_count_is_heard(place: Path, name: str):
    ANY[name](Path(name))
    answer = next(load_run("runs/one").predict([name]))
    assert answer.error == ""
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", NONE)
def test_what_cannot_be_heard_is_told_in_a_few_words(place: Path, name: str):
    make, reason = NONE[name]
    make(Path(name))
    assert next(load_run("runs/one").predict([name])).error.startswith(reason)


def test_an_hour_is_heard_window_by_window(place: Path):
    soundfile.write("hour.flac", np.tile(tone(60, RATE)[:, 0], 60), RATE)
    answer = next(load_run("runs/one", windows=True).predict(["hour.flac"], batch_size=256))
    assert len(answer.windows) == 7200
    assert answer.windows[-1].end == 3600
