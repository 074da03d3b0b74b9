"""Prediction: windows, several models, the ways to name recordings, and recordings that cannot be read."""

import csv
import io
import json
import math
import runpy
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT

import predict
from cli import parse
from config import FrontEnd, PredictConfig, PrepareConfig, VisualizeConfig
from data.features import Transform, read_clips
from data.segments import Segment
from genotypes import Genotype
from models.architecture import SearchedArchitecture
from models.joint_network import Size
from models.saved import SavedModel
from training.inference import Predictor, load_run
from utils import UserError

RATE = 8000
WINDOW = 4000  # samples
FRONT_END = FrontEnd(
    sample_rate=RATE, n_fft=256, hop_length=80, n_mels=8, n_mfcc=8, duration=0.5, frames=9, long="chunks"
)
CLASSES = ("angry", "happy", "sad")
GENOTYPE = Genotype(
    normal=[[["sep_conv_3x3", 0], ["skip_connect", 1]]],
    normal_concat=[2],
    reduce=[[["max_pool_3x3", 0], ["skip_connect", 1]]],
    reduce_concat=[2],
    rnn=[[["lstm_1", 0], ["rnn_att_1", 1]]],
    rnn_concat=[2],
)


def small_model(seed: int = 0, **front_end: object) -> SavedModel:
    """A network whose running statistics differ from the initial ones, and whose logits differ between windows."""
    torch.manual_seed(seed)
    architecture = SearchedArchitecture(
        GENOTYPE, Size(layers=2, init_channels=2, rnn_layers=1, rnn_channels=4, rnn_bands=2)
    )
    network = architecture.build(len(CLASSES))
    network(torch.randn(6, 1, *FRONT_END.shape) + 1)
    with torch.no_grad():
        network.network.head.weight.mul_(10)
    mean = np.linspace(-300, 5, 8, dtype=np.float32)
    std = np.linspace(2, 20, 8, dtype=np.float32)
    settings = FRONT_END.model_copy(update=front_end).model_dump()
    return SavedModel(network.eval(), architecture, mean, std, CLASSES, settings)


def write_wav(path: Path, samples: int, seed: int = 0) -> None:
    """Write noise that grows louder, so that its windows differ."""
    noise = np.random.default_rng(seed).standard_normal(samples).clip(-1.9, 1.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.linspace(0.01, 0.5, samples) * noise, RATE, subtype="FLOAT")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a run, three recordings, and files that are not audio."""
    monkeypatch.chdir(tmp_path)
    small_model().save(Path("runs/one/augment/model.safetensors"))
    for number, samples in enumerate([3000, 10_000, 8000]):
        write_wav(Path(f"wav/{number}.wav"), samples, number)
    Path("wav/notes.txt").write_text("not audio, by its name")
    Path("wav/._0.wav").write_text("a file that macOS leaves")
    Path("bad.wav").write_text("not audio")
    return tmp_path


# ---------------------------------------------------------------- from Python


@torch.no_grad()
def predict_by_hand(model: SavedModel, windows: list[np.ndarray]) -> np.ndarray:
    """The probabilities (windows, classes)."""
    features = Transform(FRONT_END)(torch.from_numpy(np.stack(windows)))
    x = (features - torch.from_numpy(model.mean)[:, None]) / torch.from_numpy(model.std)[:, None]
    return model.network(x[:, None]).softmax(dim=1).numpy()


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_probabilities_of_a_recording_are_the_mean_over_its_windows(place: Path, batch_size: int):
    model = small_model()
    files = sorted(Path("wav").glob("?.wav"))
    predictions = list(Predictor([model]).predict(files, batch_size))
    for prediction, starts in zip(predictions, ([0], [0, 3000, 6000], [0, 4000]), strict=True):
        sound = soundfile.read(prediction.file, dtype="float32")[0]
        ends = [min(start + WINDOW, len(sound)) for start in starts]
        padded = np.pad(sound, (0, max(0, WINDOW - len(sound))))
        expected = predict_by_hand(model, [padded[start : start + WINDOW] for start in starts])
        assert len(starts) == 1 or np.ptp(expected, axis=0).max() > 1e-3
        np.testing.assert_allclose(prediction.probabilities, expected.mean(axis=0), rtol=0, atol=1e-5)
        assert prediction.emotion == CLASSES[expected.mean(axis=0).argmax()]
        assert [window.start for window in prediction.windows] == [start / RATE for start in starts]
        assert [window.end for window in prediction.windows] == [end / RATE for end in ends]


@pytest.mark.parametrize(("windows", "count"), [(False, 1), (True, 3)])
def test_windows_cover_a_recording_if_the_model_was_trained_on_starts_alone(place, windows, count):
    [prediction] = Predictor([small_model(long="first")], windows=windows).predict(["wav/1.wav"])
    assert len(prediction.windows) == count


def test_several_models_predict_their_mean_probabilities(place: Path):
    def probabilities(*models: SavedModel) -> np.ndarray:
        return next(Predictor(models).predict(["wav/1.wav"])).probabilities

    models = [small_model(seed) for seed in (0, 1)]
    singles = [probabilities(model) for model in models]
    assert np.abs(singles[0] - singles[1]).max() > 1e-3
    np.testing.assert_allclose(probabilities(*models), np.mean(singles, axis=0), atol=1e-6)


# ---------------------------------------------------------------- features standardised by speaker

SPOKEN = {"anna/0.wav": 3000, "anna/1.wav": 10_000, "ben/0.wav": 8000, "ben/1.wav": 4000}
"""Recordings and their samples."""


@pytest.fixture
def spoken(place: Path) -> Path:
    """Recordings in two folders, of different levels, and a run that standardises by speaker."""
    for number, (name, samples) in enumerate(SPOKEN.items()):
        write_wav(place / name, samples, number)
        sound, rate = soundfile.read(place / name, dtype="float32")
        soundfile.write(place / name, sound / 10**number, rate, subtype="FLOAT")
    replace(small_model(), normalise="speaker").save(Path("runs/spoken/augment/model.safetensors"))
    replace(small_model(), normalise="utterance").save(Path("runs/alone/augment/model.safetensors"))
    return place


@torch.no_grad()
def predict_by_group(model: SavedModel, groups: list[list[str]]) -> dict[str, np.ndarray]:
    """The probabilities of each recording, standardised by all frames of sound of its group."""
    transform = Transform(FRONT_END)
    found = {}
    for names in groups:
        clips = {name: list(read_clips(Path(name), FRONT_END)) for name in names}
        features = {
            name: [transform(torch.from_numpy(c.sound)[None])[0] for c in clips[name]] for name in names
        }
        pairs = [(x, c) for name in names for x, c in zip(features[name], clips[name], strict=True)]
        sound = torch.cat([x[:, : math.ceil((c.end - c.start) / 0.5 * 9)] for x, c in pairs], dim=1)
        mean, std = sound.mean(dim=1, keepdim=True), sound.std(dim=1, keepdim=True, correction=0)
        for name in names:
            x = torch.stack([(each - mean) / std for each in features[name]])
            found[name] = model.network(x[:, None]).softmax(dim=1).mean(dim=0).numpy()
    return found


def predictions_of(run: str, *recordings: str | Segment) -> dict[str, np.ndarray]:
    return {str(each.file): each.probabilities for each in load_run(run).predict(recordings, batch_size=2)}


def assert_equal_probabilities(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> None:
    assert found.keys() == truth.keys()
    for name in truth:
        np.testing.assert_allclose(found[name], truth[name], atol=1e-4, err_msg=name)


def test_recordings_one_by_one_in_folders_and_with_speakers_get_three_answers(spoken: Path):
    model = SavedModel.load(Path("runs/spoken/augment/model.safetensors"))
    names = list(SPOKEN)
    alone = predict_by_group(model, [[name] for name in names])
    by_folder = predict_by_group(model, [names[:2], names[2:]])
    by_speaker = predict_by_group(model, [names[::2], names[1::2]])
    answers = [np.concatenate(list(each.values())) for each in (alone, by_folder, by_speaker)]
    for one, other in combinations(answers, 2):
        assert np.abs(one - other).max() > 1e-2
    for name in names:
        assert_equal_probabilities(predictions_of("runs/spoken", name), {name: alone[name]})
    assert_equal_probabilities(predictions_of("runs/spoken", *names), by_folder)
    listed = [Segment(Path(name), speaker=f"S{i % 2 + 1:02d}") for i, name in enumerate(names)]
    assert_equal_probabilities(predictions_of("runs/spoken", *listed), by_speaker)
    spellings = ["S01", "S02", " s1", "s2"]
    respelt = [Segment(Path(name), speaker=who) for name, who in zip(names, spellings, strict=True)]
    assert_equal_probabilities(predictions_of("runs/spoken", *respelt), by_speaker)
    assert_equal_probabilities(predictions_of("runs/alone", *names), alone)


def test_copies_are_predicted_as_recordings_of_other_speakers(spoken: Path):
    """A copy at the speed 0.9 has the samples of the original and 0.9 times its rate. Each copy counts the same."""
    model = SavedModel.load(Path("runs/spoken/augment/model.safetensors"))
    replace(model, copies=("speed:0.9", "speed:1.1")).save(Path("runs/copies/augment/model.safetensors"))
    each = {name: [] for name in SPOKEN}
    for speed in (1, 0.9, 1.1):
        at_speed = {name: f"at_{speed}/{name}" for name in SPOKEN}
        for name, copy in at_speed.items():
            Path(copy).parent.mkdir(parents=True, exist_ok=True)
            samples = soundfile.read(name, dtype="float32")[0]
            soundfile.write(copy, samples, round(speed * RATE), subtype="FLOAT")
        names = list(at_speed.values())
        found = predict_by_group(model, [names[:2], names[2:]])
        for name, copy in at_speed.items():
            each[name].append(found[copy])
    truth = {name: np.mean(copies, axis=0) for name, copies in each.items()}
    assert_equal_probabilities(predictions_of("runs/copies", *SPOKEN), truth)
    without = predictions_of("runs/spoken", *SPOKEN)
    assert max(np.abs(without[name] - truth[name]).max() for name in truth) > 1e-2
    predictions = list(load_run("runs/copies").predict(SPOKEN))
    assert [len(prediction.windows) for prediction in predictions] == [1, 3, 2, 1]
    assert [len(prediction.copies["speed:0.9"]) for prediction in predictions] == [1, 3, 3, 2]
    with pytest.raises(UserError, match="the models average over different copies"):
        load_run("runs/copies", "runs/spoken")


def test_a_copy_that_is_silent_does_not_make_a_recording_unreadable(place: Path):
    """A tone that a higher speed moves above half of the features' sample rate."""
    rate = 2 * RATE
    time = np.arange(rate // 2) / rate
    fade = np.hanning(len(time))
    soundfile.write("high.wav", 0.5 * fade * np.sin(2 * np.pi * 3500 * time), rate, subtype="FLOAT")
    [alone] = Predictor([small_model()]).predict(["high.wav"])
    [prediction] = Predictor([replace(small_model(), copies=("speed:2",))]).predict(["high.wav"])
    assert not prediction.error
    assert not prediction.copies
    np.testing.assert_array_equal(prediction.probabilities, alone.probabilities)


@pytest.mark.parametrize(
    ("speakers", "words"),
    [
        (None, "4 recordings of 2 folders; a CSV with a column speaker tells who speaks"),
        (["A", "a", "B", "C"], "4 recordings of 3 speakers"),
        (["A", "", "nan", "C"], "4 recordings of 2 folders and 2 speakers; a CSV"),
    ],
)
def test_the_command_says_which_recordings_are_standardised_together(
    spoken: Path, capfd, speakers, words: str
):
    words_of_command = ["--model", "runs/spoken", "--gpus", "none"]
    if speakers is None:
        words_of_command += ["anna", "ben"]
    else:
        rows = "".join(f"{name},{who}\n" for name, who in zip(SPOKEN, speakers, strict=True))
        Path("list.csv").write_text("file,Speaker\n" + rows)
        words_of_command.append("list.csv")
    assert len(predict.run(parse(PredictConfig, words_of_command))) == 4
    assert f"note: features are standardised by speaker: {words}" in capfd.readouterr().err


def test_models_of_different_kinds_of_standardisation_are_refused(spoken: Path):
    with pytest.raises(UserError, match="the models were trained on different features"):
        load_run("runs/one", "runs/spoken")


# ---------------------------------------------------------------- other features, and from Python


def test_models_of_different_features_are_refused():
    with pytest.raises(UserError, match="the models were trained on different features"):
        Predictor([small_model(), small_model(duration=0.4)])


def test_load_run_predicts_in_a_few_lines_of_python(place: Path):
    model = load_run("runs/one")
    [prediction] = model.predict(["wav/0.wav"])
    assert prediction.emotion in CLASSES
    assert tuple(prediction.by_class) == CLASSES


# ---------------------------------------------------------------- the command


def run_predict(capsys: pytest.CaptureFixture, *files: str, **flags: object) -> str:
    """What the command prints."""
    predict.run(PredictConfig(files=files, model="runs/one", gpus="none", **flags))
    return capsys.readouterr().out


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_recordings_are_files_folders_patterns_and_files_of_a_csv(place: Path):
    Path("list.csv").write_text("note,file\nx,wav/2.wav\ny,wav/0.wav\n")
    paths = [Path(path) for path in ("wav", "wav/1.wav", "w*/[02].wav", "list.csv")]
    names = [recording.file.name for recording in predict.find_recordings(paths)]
    assert names == ["0.wav", "1.wav", "2.wav", "1.wav", "0.wav", "2.wav", "2.wav", "0.wav"]


def test_a_folder_gives_what_is_linked_once_and_tells_what_is_passed_over(place: Path, capsys):
    write_wav(Path("elsewhere/3.wav"), 3000)
    soundfile.write("elsewhere/4.sph", np.full(3000, 0.1), RATE, format="NIST")
    Path("wav/linked").symlink_to(place / "elsewhere")
    Path("wav/linked/loop").symlink_to(place / "wav")
    Path("wav/again.wav").symlink_to("0.wav")
    Path("wav/5.wav").symlink_to(place / "elsewhere/3.wav")
    names = [str(path) for path in predict.find_recordings([Path("wav")])]
    assert names == ["wav/0.wav", "wav/1.wav", "wav/2.wav", "wav/linked/3.wav", "wav/linked/4.sph"]
    assert capsys.readouterr().err == ""
    for name in ("b.webm", "a.m4a", "linked/c.M4A", "._d.m4a", "e.mp4.part"):
        Path("wav", name).write_bytes(b"video")
    assert len(list(predict.find_recordings([Path("wav")]))) == 5
    assert capsys.readouterr().err == (
        "note: passed over below wav: 3 files in formats that cannot be read (.m4a, .webm); "
        "convert them, for example: ffmpeg -i wav/a.m4a wav/a.wav\n"
    )
    Path("only").mkdir()
    Path("only/x.aac").write_bytes(b"video")
    with pytest.raises(UserError, match=r"no audio below the folder only, only 1 file .*\(\.aac\); convert"):
        list(predict.find_recordings([Path("only")]))


def test_json_csv_and_table_agree(place: Path, capsys: pytest.CaptureFixture):
    entries = json.loads(run_predict(capsys, "wav", json=True))
    rows = read_csv(run_predict(capsys, "wav", csv=True))
    header, *lines = [line.split() for line in run_predict(capsys, "wav").splitlines()]
    assert header == ["file", "emotion", *CLASSES]
    for entry, row, line in zip(entries, rows, lines, strict=True):
        assert entry["file"] == row["file"] == line[0]
        assert entry["emotion"] == row["emotion"] == line[1]
        probabilities = list(entry["probabilities"].values())
        assert [float(row[name]) for name in CLASSES] == pytest.approx(probabilities, abs=1e-6)
        percentages = [float(share.removesuffix("%")) for share in line[2:]]
        assert percentages == pytest.approx([100 * p for p in probabilities], abs=0.051)


def test_windows_are_printed_with_their_times(place: Path, capsys: pytest.CaptureFixture):
    rows = read_csv(run_predict(capsys, "wav/1.wav", csv=True, windows=True))
    times = [(row["start"], row["end"]) for row in rows]
    assert times == [("0.00", "0.50"), ("0.38", "0.88"), ("0.75", "1.25")]
    [entry] = json.loads(run_predict(capsys, "wav/1.wav", json=True, windows=True))
    assert [round(window["end"] - window["start"], 3) for window in entry["windows"]] == [0.5] * 3


def test_parts_of_a_recording_are_told_apart(place: Path, capsys: pytest.CaptureFixture):
    sound, _ = soundfile.read("wav/1.wav", dtype="float32")
    soundfile.write("alone.wav", sound[6000:10_000], RATE, subtype="FLOAT")
    rows = [
        "wav/1.wav;0,25;0,75",
        "wav/1.wav;0 days 00:00:00.75;",
        "wav/1.wav;;",
        "wav/1.wav;1;9",
        "alone.wav;;",
    ]
    Path("parts.tsv").write_text("\n".join(["File;START;End", *rows]))
    entries = json.loads(run_predict(capsys, "parts.tsv", json=True))
    assert [(entry.get("start"), entry.get("end")) for entry in entries] == [
        (0.25, 0.75), (0.75, None), (None, None), (1.0, 9.0), (None, None)
    ]  # fmt: skip
    assert entries[3]["error"] == "1.250 s long: it has no part from 1 s to 9 s"
    assert entries[1]["probabilities"] == pytest.approx(entries[4]["probabilities"], abs=1e-6)
    assert entries[1]["probabilities"] != pytest.approx(entries[0]["probabilities"], abs=1e-3)

    rows = read_csv(run_predict(capsys, "parts.tsv", csv=True))
    times = [("0.25", "0.75"), ("0.75", ""), ("0", ""), ("0", "")]
    assert [(row["start"], row["end"]) for row in rows] == times
    predict.run(PredictConfig(files=["parts.tsv"], model="runs/one", gpus="none"))
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].split()[:3] == ["wav/1.wav", "0.25", "0.75"]
    assert printed.err.startswith("unreadable  wav/1.wav#t=1,9: ")

    windows = read_csv(run_predict(capsys, "parts.tsv", csv=True, windows=True))[:2]
    assert [(row["start"], row["end"]) for row in windows] == [("0.25", "0.75"), ("0.75", "1.25")]


def test_a_list_that_may_have_times_under_other_names_is_noted(place: Path, capsys: pytest.CaptureFixture):
    Path("list.csv").write_text("file,speaker,start_time,offset\nwav/1.wav,A,0,1\n")
    list(predict.find_recordings([Path("list.csv")]))
    words = "start_time (rename it if it is the start), offset (rename it if it is the start)"
    assert capsys.readouterr().err == f"note: list.csv: columns that are not used: {words}\n"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("rec[1].wav", ["rec[1].wav"]),
        ("rec[[]1].wav", ["rec[1].wav"]),
        ("take[2]/*.wav", ["take[2]/a.wav"]),
        ("take[2]/a.*", ["take[2]/a.wav"]),
        ("wav/[01].wav", ["wav/0.wav", "wav/1.wav"]),
        ("J\u00fcrgen.wav", ["Ju\u0308rgen.wav"]),
        ("wav\\\\1.wav".replace("\\\\", "\\"), ["wav/1.wav"]),
    ],
)
def test_brackets_and_other_unicode_forms_name_the_files_that_are_there(
    place: Path, pattern: str, found: list[str]
):
    for name in ("rec[1].wav", "take[2]/a.wav", "take2/b.wav", "Ju\u0308rgen.wav"):
        write_wav(Path(name), 4000)
    assert [str(recording.file) for recording in predict.find_recordings([Path(pattern)])] == found


@pytest.mark.parametrize(
    "words", [["--json", "--", "-a.wav"], ["wav/1.wav", "--", "-a.wav", "--b-c.wav"], ["--", "--json"]]
)
def test_words_after_two_dashes_are_recordings(words: list[str]):
    config = parse(PredictConfig, ["--model", "runs/one", *words])
    at = words.index("--")
    assert [str(file) for file in config.files] == [*(w for w in words[:at] if w[0] != "-"), *words[at + 1 :]]
    assert config.json_ == ("--json" in words[:at])


def test_other_commands_refuse_words_after_two_dashes():
    assert parse(VisualizeConfig, ["--", "-x.json"]).genotype == "-x.json"
    with pytest.raises(UserError, match="'x' after -- belongs to no flag"):
        parse(PrepareConfig, ["--", "x"])


def test_unreadable_files_are_listed_and_the_exit_code_is_1(place, capsys, monkeypatch):
    Path("lost.csv").write_text("file\nnowhere.wav\n")
    files = ["wav/0.wav", "bad.wav", "lost.csv", "wav/2.wav"]
    words = ["predict.py", "--model", "runs/one", *files, "--gpus", "none", "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "predict.py"), run_name="__main__")
    assert exit_.value.code == 1
    printed = capsys.readouterr()
    entries = json.loads(printed.out)
    assert ["error" in entry for entry in entries] == [False, True, True, False]
    assert entries[2]["error"] == "no such file"
    assert printed.err.splitlines() == [
        "predict   wav/0.wav and 3 more by runs/one",
        f"unreadable  bad.wav: {entries[1]['error']}",
        "unreadable  nowhere.wav: no such file",
    ]


# ---------------------------------------------------------------- audio files


def make_tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    sound = 0.5 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)
    return np.stack([sound] * channels, axis=1)


READABLE = {
    "mulaw.wav": (make_tone(2, 8000), 8000, "ULAW"),
    "stereo.flac": (make_tone(2, 96_000, 2), 96_000, None),
    "radio.mp3": (make_tone(2, 44_100), 44_100, None),
    "short.wav": (make_tone(0.04, 16_000), 16_000, None),
}


@pytest.mark.parametrize("name", READABLE)
def test_any_format_rate_and_number_of_channels_is_read(place: Path, name: str):
    sound, rate, subtype = READABLE[name]
    soundfile.write(name, sound, rate, subtype=subtype)
    [prediction] = load_run("runs/one").predict([name])
    assert prediction.error == ""
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_unreadable_files_get_a_reason_and_no_windows(place: Path):
    soundfile.write("silence.wav", np.zeros(16_000), 16_000)
    soundfile.write("header.wav", np.zeros(0), 16_000)
    Path("empty.wav").write_bytes(b"")
    reasons = {
        "silence.wav": "no sound in 1 s",
        "header.wav": "empty (no samples)",
        "empty.wav": "not readable as audio",
        "bad.wav": "not readable as audio",
        "nowhere.wav": "no such file",
    }
    predictions = list(load_run("runs/one").predict(reasons))
    for prediction, (name, reason) in zip(predictions, reasons.items(), strict=True):
        assert str(prediction.file) == name
        assert prediction.error.startswith(reason)
        assert prediction.windows == []


USED = "note: only a part was used: wav/1.wav (0.0 to 0.5 s of 1.2 s)"


def test_recordings_that_are_heard_in_part_are_named(place: Path, capsys: pytest.CaptureFixture):
    small_model(long="first").save(Path("runs/one/augment/model.safetensors"))
    for flags in ({}, {"json": True}, {"csv": True}):
        predict.run(PredictConfig(files=["wav/0.wav", "wav/1.wav"], model="runs/one", gpus="none", **flags))
        assert capsys.readouterr().err == f"{USED}; --windows uses all of a recording\n"
    predict.run(PredictConfig(files=["wav"], model="runs/one", gpus="none", windows=True))
    assert capsys.readouterr().err == ""
    for number in range(9):
        write_wav(Path(f"more/{number}.wav"), 9000)
    predict.run(PredictConfig(files=["more"], model="runs/one", gpus="none"))
    assert ", and 4 more; --windows" in capsys.readouterr().err


@pytest.mark.parametrize("silence", [0.3, 0.6, 60])
def test_silence_around_a_recording_does_not_change_its_prediction(place: Path, silence: float):
    model = Predictor([small_model(long="first")])
    sound = soundfile.read("wav/0.wav", dtype="float32")[0]
    nothing = np.zeros(round(silence * RATE), np.float32)
    soundfile.write("late.wav", np.concatenate([nothing, sound, nothing]), RATE, subtype="FLOAT")
    alone, late = model.predict(["wav/0.wav", "late.wav"])
    np.testing.assert_allclose(late.probabilities, alone.probabilities, atol=1e-6)
    assert late.windows[0].start == silence
    assert not late.is_partial


def test_long_recording_is_predicted_window_by_window(place: Path):
    soundfile.write("hour.flac", np.tile(make_tone(60, RATE)[:, 0], 60), RATE)
    [prediction] = load_run("runs/one", windows=True).predict(["hour.flac"], batch_size=256)
    assert len(prediction.windows) == 7200
    assert prediction.windows[-1].end == 3600
