"""Export through the command: the file answers as the model does, says what it is, and replaces nothing unasked."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from conftest import succeed
from test_predict import CLASSES, FRONT_END, small_model, write_wav

import export
from cli import exit_codes, parse
from config import ExportConfig, FrontEnd
from data.features import Transform, read_clips
from training.inference import load_run
from utils import UserError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run and a recording."""
    monkeypatch.chdir(tmp_path)
    small_model().save(Path("runs/one/augment/model.safetensors"))
    write_wav(Path("wav/0.wav"), 10_000)
    return tmp_path


def features(path: str) -> torch.Tensor:
    """(N, F, T) of the first seconds of a recording."""
    clip = soundfile.read(path, dtype="float32")[0][: FRONT_END.samples]
    return Transform(FRONT_END)(torch.from_numpy(clip)[None])


def flags(*words: object) -> ExportConfig:
    line = ["--model", "runs/one", "--audio", "wav/0.wav", *map(str, words)]
    return parse(ExportConfig, line)


def test_a_baseline_goes_the_whole_way_to_onnx_runtime(workspace: Path):
    """Trained and exported by the commands; the probabilities are those of a prediction."""
    run = ("--config", "tiny.yaml", "--name", "portable", "--model", "cnn_lstm_att", "--epochs", 1)
    succeed("augment", *run, cwd=workspace)
    wavs = sorted((workspace / "corpora/demo/wav/F01").iterdir())[:6]
    said = succeed(
        "export", "--model", "runs/portable", "--out", "exported/model.onnx", "--audio", *wavs, cwd=workspace
    )
    assert "no logit differs by more than" in said
    about = json.loads((workspace / "exported/model.onnx.json").read_text())
    session = onnxruntime.InferenceSession(workspace / "exported/model.onnx")
    model = load_run(workspace / "runs/portable")
    expected = np.stack([answer.probabilities for answer in model.predict(wavs)])
    sounds = np.stack(
        [clip.sound for wav in wavs for clip in read_clips(wav, FrontEnd(**about["front_end"]))]
    )
    heard = model.transform(torch.from_numpy(sounds)).numpy()
    for size in (1, 3, 6):
        (logits,) = session.run(["logits"], {"features": heard[:size]})
        np.testing.assert_allclose(torch.from_numpy(logits).softmax(dim=1), expected[:size], atol=1e-5)


def test_the_onnx_file_holds_the_network_and_what_there_is_to_know(
    place: Path, capsys: pytest.CaptureFixture
):
    gap = export.run(flags("--out", "new/model.onnx"))
    assert gap < 1e-4
    printed = capsys.readouterr()
    assert "checked   on 8 inputs, of 1 recordings and of noise" in printed.out
    assert printed.err == ""
    x = features("wav/0.wav").repeat(5, 1, 1) + torch.linspace(0, 5, 5)[:, None, None]
    session = onnxruntime.InferenceSession("new/model.onnx")
    with torch.no_grad():
        expected = small_model().standardised(x).numpy()
    for size in (1, 2, 5):
        found = session.run(None, {"features": x[:size].numpy()})[0]
        np.testing.assert_allclose(found, expected[:size], atol=1e-4)
    about = json.loads(Path("new/model.onnx.json").read_text())
    assert about["input"] == {"name": "features", "shape": ["N", 8, 9]}
    assert about["output"] == {"name": "logits", "shape": ["N", 3]}
    assert (about["classes"], about["front_end"]) == (list(CLASSES), FRONT_END.model_dump())
    assert about["standardised_inside"]["mean"] == pytest.approx(np.linspace(-300, 5, 8), rel=1e-6)
    inside = {each.key: each.value for each in onnx.load("new/model.onnx").metadata_props}
    assert json.loads(inside["emodarts"]) == about
    assert sorted(path.name for path in Path("new").iterdir()) == ["model.onnx", "model.onnx.json"]


def test_the_program_of_torch_export_needs_nothing_of_this_one(place: Path):
    assert export.run(flags("--out", "model.pt2", "--format", "torch_export")) < 1e-4
    extra = {"emodarts": ""}
    program = torch.export.load("model.pt2", extra_files=extra).module()
    x = features("wav/0.wav").repeat(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(program(x), small_model().standardised(x), atol=1e-4, rtol=0)
    assert json.loads(extra["emodarts"]) == json.loads(Path("model.pt2.json").read_text())


def test_nothing_is_replaced_unasked(place: Path):
    for name in ("model.onnx", "model.onnx.json"):
        Path(name).write_text("mine")
        with pytest.raises(UserError, match=rf"--out: {name} exists; choose another, or pass --overwrite"):
            export.run(flags("--out", "model.onnx"))
        assert Path(name).read_text() == "mine"
        Path(name).unlink()
    Path("model.onnx.json").write_text("mine")
    export.run(flags("--out", "model.onnx", "--overwrite"))
    assert Path("model.onnx.json").read_text() != "mine"
    with pytest.raises(UserError, match=r"wav exists; choose another$"):
        export.run(flags("--out", "wav", "--overwrite"))


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_file_that_answers_otherwise_is_not_exported(
    place: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
):
    write, open_again = export.FORMATS["onnx"]
    spoilt = lambda path: lambda x: open_again(path)(x) + wrong  # noqa: E731
    monkeypatch.setitem(export.FORMATS, "onnx", (write, spoilt))
    with pytest.raises(UserError, match="the onnx file's logits differ from the model's by up to"):
        export.run(flags("--out", "model.onnx"))
    assert not any(place.glob("*model*"))


def test_every_clip_of_the_recordings_is_compared(place: Path):
    model = small_model()
    found = export.features_of([Path("wav/0.wav")], model, FRONT_END)
    assert found.shape == (3 + 5, *FRONT_END.shape)
    torch.testing.assert_close(found[:1], features("wav/0.wav"))
    noise = (export.features_of([], model, FRONT_END).numpy() - model.mean[:, None]) / model.std[:, None]
    assert noise.shape == (5, *FRONT_END.shape)
    assert (abs(noise.mean()), noise.std()) == (pytest.approx(0, abs=0.2), pytest.approx(1, abs=0.2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model runs/nowhere --out m.onnx", "no model at runs/nowhere/augment/model.safetensors"),
        ("--model wav/0.wav --out m.onnx", "wav/0.wav is not a model of this program"),
        ("--model runs/one --out m.onnx --audio no.wav", "no.wav: no such file"),
        ("--model runs/one", "--out is missing"),
        (
            "--model runs/one --out m.onnx --format tflite",
            "--format tflite: Input should be 'onnx' or 'torch_export'",
        ),
    ],
)
def test_wrong_input_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: str, message: str
):
    monkeypatch.setattr(sys, "argv", ["export.py", *words.split()])
    with pytest.raises(SystemExit) as exit_, exit_codes():
        export.run(parse(ExportConfig))
    printed = capsys.readouterr().err
    assert (exit_.value.code, printed.count("\n")) == (2, 1)
    assert message in printed
    assert not Path("m.onnx").exists()
