"""Wrong input: one line that says what is wrong, exit code 2, and no file changed."""

import json
from pathlib import Path

import pytest
import soundfile
from conftest import contents, execute, succeed
from safetensors import safe_open
from safetensors.torch import save_file

import augment
import predict
import prepare
import search
from cli import exit_codes, parse
from config import AugmentConfig, PredictConfig, PrepareConfig, SearchConfig
from utils import UserError, printable

COMMANDS = {
    "prepare": (prepare, PrepareConfig),
    "search": (search, SearchConfig),
    "augment": (augment, AugmentConfig),
    "predict": (predict, PredictConfig),
}
FOREIGN = {
    "version": 1,
    "normal": [[["conv_7x1_1x7", 0], ["skip_connect", 1]]],
    "normal_concat": [2],
    "reduce": [[["skip_connect", 0], ["skip_connect", 1]]],
    "reduce_concat": [2],
    "rnn": [],
    "rnn_concat": [],
}


@pytest.fixture(scope="module")
def place(workspace: Path) -> Path:
    """The workspace with finished runs, and with files that are wrong in different ways."""
    for command in ("search", "augment"):
        succeed(command, "--config", "tiny.yaml", "--name", "there", "--epochs", 1, cwd=workspace)
    by_hand = ("--name", "by-hand", "--model", "cnn")
    succeed("augment", "--config", "tiny.yaml", *by_hand, "--epochs", 1, cwd=workspace)
    (workspace / "foreign.json").write_text(json.dumps(FOREIGN))
    (workspace / "text.wav").write_text("not a sound")
    (workspace / "empty.wav").write_bytes(b"")
    soundfile.write(workspace / "silent.wav", [0.0] * 8000, 8000)
    (workspace / "no_column.csv").write_text("file,emotion\na.wav,sad\n")
    (workspace / "no_audio.csv").write_text("path\na.wav\n")
    (workspace / "no_file.csv").write_text("file,speaker,emotion\na.wav,S1,sad\nb.wav,S1,angry\n")
    (workspace / "typo.yaml").write_text("search: {epoch: 3}\n")
    return workspace


def damaged(run: Path, front_end: dict[str, object], out: Path) -> Path:
    """Write the model of a finished run with changes to its front-end."""
    with safe_open(run / "augment" / "model.safetensors", "pt") as file:
        header = json.loads(file.metadata()["emodarts"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header["front_end"] |= front_end
    save_file(tensors, out, {"emodarts": json.dumps(header)})
    return out


WAV = "corpora/demo/wav/F01/F01-sad-01.wav"
TINY = "--config tiny.yaml --name new "
THERE = "--config tiny.yaml --name there --epochs 1 "
WRONG = [
    ("search", TINY + "--dataset nowhere", "no features at features/nowhere"),
    ("search", TINY + "--fold 9", "fold 9 out of range: this dataset has folds 1 to 4"),
    ("search", TINY + "--fold 0", "--fold 0: Input should be greater than 0"),
    ("search", TINY + "--folds_by group99", "16 speakers make 2 to 16 groups"),
    ("search", TINY + "--batch_size 500", "--batch_size 500 is more than the 216 training utterances"),
    ("search", TINY + "--gpus 0", "no GPU"),
    ("augment", TINY + "--genotype cnn_lstm --device cuda", "--device cuda: torch finds none"),
    ("predict", "--model runs/there text.wav --device mps", "--device mps: torch finds none"),
    ("search", TINY + "--epochss 3", "unknown flag --epochss; did you mean --epochs?"),
    ("search", TINY + "--rnn_ops gru_1", "unknown op 'gru_1'"),
    ("search", "--config tiny.yaml --name ../escape", "--name ../escape"),
    ("search", THERE, "runs/there/search holds a run: --resume continues it"),
    ("search", THERE + "--resume --w_lr 0.5", "--w_lr is 0.5, but runs/there/search was started with 0.025"),
    ("search", "--config typo.yaml", "unknown flag --epoch; did you mean --epochs?"),
    ("search", "--config nowhere.yaml", "--config nowhere.yaml: no such file"),
    ("augment", TINY, "there is no runs/new/search/genotype.json; first run: python search.py --name new"),
    ("augment", TINY + "--genotype foreign.json", "unknown op 'conv_7x1_1x7'"),
    ("augment", TINY + "--genotype nowhere.json", "'nowhere.json' is not known"),
    ("augment", TINY + "--model gru", "--model gru: Input should be 'searched', 'cnn'"),
    ("augment", TINY + "--model lstm --genotype darts_v2", "--genotype is for --model searched"),
    ("augment", TINY + "--model cnn --deltas 1", "--deltas is for --model searched or acrnn; cnn is as"),
    (
        "augment",
        TINY + "--model cnn --test_copies speed:0.9 speed:0.90",
        "--test_copies speed:0.9 speed:0.90: give each copy once",
    ),
    ("search", TINY + "--rnn_bands 99", "--rnn_bands 99: the CNN's last map has 4 rows for 16"),
    (
        "augment",
        TINY + "--genotype cnn_lstm --rnn_bands 99",
        "--rnn_bands 99: the CNN's last map has 4 rows for 16",
    ),
    ("search", TINY + "--deltas 3", "--deltas 3: Input should be less than or equal to 2"),
    ("augment", THERE, "runs/there/augment holds a run"),
    ("augment", TINY + "--genotype cnn_lstm --batch_size 1000", "--batch_size 1000 is more than the 432"),
    ("augment", THERE + "--overwrite --batch_size 1000", "--batch_size 1000 is more"),
    ("predict", "--model runs/there", "FILES is missing"),
    ("predict", "--model runs/there features", "no audio below the folder features"),
    ("predict", "--model runs/there no_audio.csv", "no_audio.csv, line 1: column 'file' is missing"),
    ("predict", "--model runs/there TYPO text.wav", "TYPO: no such recording, folder or list, and no run"),
    ("predict", "--model runs/nowhere text.wav", "no model at runs/nowhere/augment/model.safetensors"),
    ("predict", "--model runs/there/augment/metrics.json text.wav", "is not a model of this program"),
    (
        "prepare",
        "--root corpora/demo/manifest.csv --out features/demo",
        "holds features of demo: pass --overwrite",
    ),
    ("prepare", "--corpus demo --out corpora", "holds something other than features"),
    ("prepare", "--corpus demo --perturb echo:3", "'echo:3' is not a perturbation"),
    ("prepare", "--corpus demo --out features/nowhere --check", "no features at features/nowhere"),
    ("search", TINY + "--folds_by official", "has no split"),
    ("search", TINY + "--folds_by speaker", "session 1 is in training and test"),
    ("prepare", "--corpus iemocap7 --root .", "unknown corpus 'iemocap7'"),
    ("prepare", "--corpus emodb --root . --label intended", "emodb takes no --label; msp_improv does"),
    ("prepare", "--corpus emodb --root corpora", "has a name like"),
    (
        "prepare",
        "--corpus demo --emotions angry bored --out features/b",
        "no 'bored'; it has angry (192), happy (192)",
    ),
    ("prepare", "", "--root is missing"),
    ("prepare", "--root nowhere.csv", "no manifest at nowhere.csv"),
    ("prepare", "--root no_column.csv", "column 'speaker' is missing"),
    ("prepare", "--root no_file.csv", "none of its 2 files is readable"),
    ("prepare", "--root no_file.csv --n_mfcc 200", "n_mfcc (200) must be at most n_mels (128)"),
]


@pytest.mark.parametrize(("command", "words", "message"), WRONG, ids=[f"{c} {w}" for c, w, _ in WRONG])
def test_wrong_input_is_one_error_line_and_changes_no_file(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    command: str,
    words: str,
    message: str,
):
    monkeypatch.chdir(place)
    before = contents(place)
    module, kind = COMMANDS[command]
    with pytest.raises(SystemExit) as exit_, exit_codes():
        module.run(parse(kind, words.split()))
    printed = capsys.readouterr().err
    assert exit_.value.code == 2
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert message in printed
    assert contents(place) == before


@pytest.mark.parametrize(
    ("front_end", "message"),
    [
        ({"sample_rate": 0}, "front-end is damaged"),
        ({"more": 1}, "front-end is damaged"),
        ({"n_mfcc": 9}, "computes 9"),
    ],
)
def test_a_model_with_another_front_end_is_refused(place: Path, front_end: dict[str, object], message: str):
    model = damaged(place / "runs" / "there", front_end, place / f"{message.replace(' ', '_')}.safetensors")
    config = PredictConfig(files=[place / WAV], model=model, gpus="none")
    with pytest.raises(UserError, match=message):
        predict.run(config)


def test_a_baseline_for_inputs_of_another_length_is_refused(place: Path):
    model = damaged(place / "runs" / "by-hand", {"frames": 12}, place / "length.safetensors")
    config = PredictConfig(files=[place / WAV], model=model, gpus="none")
    with pytest.raises(UserError, match=r"takes inputs of \(16, 24\), but its front-end computes \(16, 12\)"):
        predict.run(config)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_ends_the_process_with_exit_code_2(tmp_path: Path, command: str):
    done = execute(command, "--nonsense", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown flag --nonsense")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_mps_lacks_is_one_line_with_advice(capsys: pytest.CaptureFixture):
    message = (
        "The operator 'aten::foo' is not currently implemented for the MPS device. As a temporary fix, "
        "you can set the environment variable `PYTORCH_ENABLE_MPS_FALLBACK=1` to use the CPU for this op."
    )

    def fail(message: str) -> None:
        raise NotImplementedError(message)

    with pytest.raises(SystemExit, match="2"), exit_codes():
        fail(message)
    assert capsys.readouterr().err == (
        "error: The operator 'aten::foo' is not currently implemented for the MPS device: "
        "export PYTORCH_ENABLE_MPS_FALLBACK=1 and the CPU computes it, or pass --device cpu\n"
    )
    with pytest.raises(NotImplementedError, match="a bug"), exit_codes():
        fail("a bug")


def test_control_characters_in_an_error_message_are_escaped(capsys: pytest.CaptureFixture):
    def fail() -> None:
        raise UserError("a \x1b[2J \u202e \udcff ü")

    with pytest.raises(SystemExit), exit_codes():
        fail()
    assert capsys.readouterr().err == "error: a \\x1b[2J \\u202e \\udcff ü\n"
    assert printable("ok ü") == "ok ü"
