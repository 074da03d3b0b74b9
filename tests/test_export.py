"""Export: the file gives the model's logits, describes itself, and replaces no file unless asked."""

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
from torch import Tensor

import export
from cli import exit_codes, parse
from config import ExportConfig, FrontEnd
from data.features import Transform, read_clips
from training.inference import load_run
from utils import UserError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a run and a recording."""
    monkeypatch.chdir(tmp_path)
    small_model().save(Path("runs/one/augment/model.safetensors"))
    write_wav(Path("wav/0.wav"), 10_000)
    return tmp_path


def run_export(*words: object) -> float:
    return export.run(parse(ExportConfig, ["--model", "runs/one", "--audio", "wav/0.wav", *map(str, words)]))


def first_features() -> Tensor:
    """(1, F, T) of the first window of the recording."""
    clip = soundfile.read("wav/0.wav", dtype="float32")[0][: FRONT_END.samples]
    return Transform(FRONT_END)(torch.from_numpy(clip)[None])


def test_exported_baseline_gives_the_probabilities_of_predict(workspace: Path):
    """Trained and exported by the commands, and run by ONNX Runtime."""
    flags = ["--config", "tiny.yaml", "--name", "portable", "--model", "cnn_lstm_att", "--epochs", 1]
    succeed("augment", *flags, cwd=workspace)
    wavs = sorted((workspace / "corpora/demo/wav/F01").iterdir())[:6]
    out = workspace / "exported/model.onnx"
    printed = succeed("export", "--model", "runs/portable", "--out", out, "--audio", *wavs, cwd=workspace)
    assert "no logit differs by more than" in printed
    front_end = FrontEnd(**json.loads(Path(f"{out}.json").read_text())["front_end"])
    model = load_run(workspace / "runs/portable")
    expected = np.stack([prediction.probabilities for prediction in model.predict(wavs)])
    sounds = np.stack([clip.sound for wav in wavs for clip in read_clips(wav, front_end)])
    features = model.transform(torch.from_numpy(sounds)).numpy()
    session = onnxruntime.InferenceSession(out)
    for size in (1, 3, 6):
        [logits] = session.run(["logits"], {"features": features[:size]})
        np.testing.assert_allclose(torch.from_numpy(logits).softmax(dim=1), expected[:size], atol=1e-5)


def test_onnx_file_gives_the_logits_and_holds_its_description(place: Path, capsys: pytest.CaptureFixture):
    assert run_export("--out", "new/model.onnx") < 1e-4
    printed = capsys.readouterr()
    assert "checked   on 8 inputs, of 1 recordings and of noise" in printed.out
    assert printed.err == ""
    x = first_features().repeat(5, 1, 1) + torch.linspace(0, 5, 5)[:, None, None]
    with torch.no_grad():
        expected = small_model().standardised(x).numpy()
    session = onnxruntime.InferenceSession("new/model.onnx")
    for size in (1, 2, 5):
        [logits] = session.run(None, {"features": x[:size].numpy()})
        np.testing.assert_allclose(logits, expected[:size], atol=1e-4)
    description = json.loads(Path("new/model.onnx.json").read_text())
    assert description["input"] == {"name": "features", "shape": ["N", 8, 9]}
    assert description["output"] == {"name": "logits", "shape": ["N", 3]}
    assert description["classes"] == list(CLASSES)
    assert description["front_end"] == FRONT_END.model_dump()
    assert description["standardised_inside"]["mean"] == pytest.approx(np.linspace(-300, 5, 8), rel=1e-6)
    metadata = {entry.key: entry.value for entry in onnx.load("new/model.onnx").metadata_props}
    assert json.loads(metadata["emodarts"]) == description
    assert sorted(path.name for path in Path("new").iterdir()) == ["model.onnx", "model.onnx.json"]


def test_torch_export_file_gives_the_logits_without_this_program(place: Path):
    assert run_export("--out", "model.pt2", "--format", "torch_export") < 1e-4
    extra_files = {"emodarts": ""}
    program = torch.export.load("model.pt2", extra_files=extra_files).module()
    x = first_features().repeat(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(program(x), small_model().standardised(x), atol=1e-4, rtol=0)
    assert json.loads(extra_files["emodarts"]) == json.loads(Path("model.pt2.json").read_text())


def test_files_are_replaced_only_with_overwrite(place: Path):
    for name in ("model.onnx", "model.onnx.json"):
        Path(name).write_text("mine")
        with pytest.raises(UserError, match=rf"--out: {name} exists; choose another, or pass --overwrite"):
            run_export("--out", "model.onnx")
        assert Path(name).read_text() == "mine"
        Path(name).unlink()
    Path("model.onnx.json").write_text("mine")
    run_export("--out", "model.onnx", "--overwrite")
    assert Path("model.onnx.json").read_text() != "mine"
    with pytest.raises(UserError, match=r"wav exists; choose another$"):
        run_export("--out", "wav", "--overwrite")


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_file_with_other_logits_is_not_exported(place: Path, monkeypatch: pytest.MonkeyPatch, error: float):
    write, open_exported = export.FORMATS["onnx"]

    def open_with_error(path: Path):
        exported = open_exported(path)
        return lambda x: exported(x) + error

    monkeypatch.setitem(export.FORMATS, "onnx", (write, open_with_error))
    with pytest.raises(UserError, match="the logits of the onnx file differ from the model's by up to"):
        run_export("--out", "model.onnx")
    assert not any(place.glob("*model*"))


def test_check_uses_all_clips_of_the_recordings_and_noise(place: Path):
    model = small_model()
    features = export.compute_features([Path("wav/0.wav")], model, FRONT_END)
    assert features.shape == (3 + 5, *FRONT_END.shape)
    torch.testing.assert_close(features[:1], first_features())
    noise = export.compute_features([], model, FRONT_END).numpy()
    standardised = (noise - model.mean[:, None]) / model.std[:, None]
    assert standardised.shape == (5, *FRONT_END.shape)
    assert abs(standardised.mean()) < 0.2
    assert standardised.std() == pytest.approx(1, abs=0.2)


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
def test_wrong_input_is_one_line_and_exit_code_2(place, monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["export.py", *words.split()])
    with pytest.raises(SystemExit) as exit_, exit_codes():
        export.run(parse(ExportConfig))
    printed = capsys.readouterr().err
    assert exit_.value.code == 2
    assert printed.count("\n") == 1
    assert message in printed
    assert not Path("m.onnx").exists()
