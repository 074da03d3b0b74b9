"""The command lines of pt.darts and emoDARTS: they are accepted here, or one line says what to type instead."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

import augment
import crossval
import evaluate
import search
import visualize
from augment import find_genotype, without_missing_rnn
from cli import parse
from config import (
    AugmentConfig,
    CrossvalConfig,
    EvaluateConfig,
    PrepareConfig,
    SearchConfig,
    VisualizeConfig,
)
from genotypes import RNN_SCOPES, resolve
from training.experiment import start_experiment
from utils import UserError

KINDS = {
    "search": SearchConfig,
    "augment": AugmentConfig,
    "evaluate": EvaluateConfig,
    "prepare": PrepareConfig,
    "visualize": VisualizeConfig,
}

# The genotype of the pt.darts readme, with its line breaks
CIFAR10 = """Genotype(
    normal=[[('sep_conv_3x3', 0), ('dil_conv_5x5', 1)], [('skip_connect', 0), ('dil_conv_3x3', 2)], [('sep_conv_3x3', 1), ('skip_connect', 0)], [('sep_conv_3x3', 1), ('skip_connect', 0)]],
    normal_concat=range(2, 6),
    reduce=[[('max_pool_3x3', 0), ('max_pool_3x3', 1)], [('max_pool_3x3', 0), ('skip_connect', 2)], [('skip_connect', 3), ('max_pool_3x3', 0)], [('skip_connect', 2), ('max_pool_3x3', 0)]],
    reduce_concat=range(2, 6)
)"""  # noqa: E501
# A genotype as a search of emoDARTS logs it
JOINT = (
    "Genotype(normal=[[('sep_conv_3x3', 0), ('skip_connect', 1)]], normal_concat=range(2, 3), "
    "reduce=[[('max_pool_3x3', 0), ('max_pool_3x3', 1)]], reduce_concat=range(2, 3), "
    "rnn=[[('lstm_att_1', 0), ('rnn_2', 1)]], rnn_concat=range(2, 3))"
)

MULTI_GPU = "--name cifar10-mg --dataset cifar10 --gpus 0,1,2,3"
COMMON = {"fold": 3, "seed": 5, "gpus": "0", "workers": 1, "init_channels": 9, "layers": 6, "rnn_layers": 3}
WEIGHTS = {"w_lr": 0.5, "w_lr_min": 0.25, "w_momentum": 0.75, "w_weight_decay": 0.125, "w_grad_clip": 1.5}
SEARCH = {**COMMON, **WEIGHTS, "cnn_nodes": 3, "rnn_nodes": 2, "alpha_lr": 0.75, "alpha_weight_decay": 0.0625}
AUGMENT = {
    **COMMON,
    "lr": 0.5,
    "momentum": 0.75,
    "weight_decay": 0.125,
    "grad_clip": 1.5,
    "aux_weight": 0.25,
    "cutout_length": 3,
    "drop_path_prob": 0.375,
}
SHORT = {"batch_size": 32, "print_freq": 11, "epochs": 7}


def flags(values: dict) -> str:
    """The values as they are typed."""
    return " ".join(f"--{name} {value}" for name, value in values.items())


# A command line, and the values that it must parse to. Where a script has another name there, a comment says so.
LINES = {
    # the readme of pt.darts; its Docker line runs the first
    "search.py --name cifar10 --dataset cifar10": {"name": "cifar10", "dataset": "cifar10"},
    f"search.py {MULTI_GPU} --batch_size 256 --workers 16 --print_freq 10 --w_lr 0.1 --w_lr_min 0.004"
    " --alpha_lr 0.0012": {
        "gpus": "0,1,2,3",
        "batch_size": 256,
        "workers": 16,
        "print_freq": 10,
        "w_lr": 0.1,
        "w_lr_min": 0.004,
        "alpha_lr": 0.0012,
    },
    "search.py --name cifar10 --dataset cifar10 --gpus all": {"gpus": "all"},
    f'augment.py --name cifar10 --dataset cifar10 --genotype "{CIFAR10}"': {"genotype": CIFAR10},
    f'augment.py {MULTI_GPU} --batch_size 384 --workers 16 --print_freq 50 --lr 0.1 --genotype "{CIFAR10}"': {
        "batch_size": 384,
        "lr": 0.1,
        "genotype": CIFAR10,
    },
    f'augment.py --name mnist --dataset mnist --epochs 300 --genotype "{CIFAR10}"': {"epochs": 300},
    # every flag of the parsers of pt.darts and emoDARTS; SearchConfig
    f"search.py --name n --dataset iemocap_kfold --features mfcc {flags(SEARCH)} {flags(SHORT)}"
    " --lstm true --base_archi all": {"dataset": "iemocap", "features": "mfcc", **SEARCH, **SHORT},
    # AugmentConfig
    f"augment.py --name n --dataset mspimprov_kfold --features mfcc {flags(AUGMENT)} {flags(SHORT)}"
    f' --lstm false --search-id s1 --base_archi all --results-path augments --genotype "{JOINT}"': {
        "dataset": "msp_improv",
        "features": "mfcc",
        "search_id": "s1",
        "results_path": Path("augments"),
        "genotype": JOINT,
        **AUGMENT,
        **SHORT,
    },
    # TrainConfig of the networks designed by hand: run.py there
    f"augment.py --name n --dataset msppodcast_kfold --features mfcc --model cnnlstm --fold 2 {flags(SHORT)}"
    " --gpus 0 --workers 2 --seed 2 --learning_rate 0.001": {
        "dataset": "msp_podcast",
        "model": "cnn_lstm",
        "lr": 0.001,
        **SHORT,
    },
    **{
        f"augment.py --name n --dataset iemocap_kfold --features mfcc --model {there}": {"model": here}
        for there, here in {"cnn": "cnn", "RNN": "rnn", "lstm": "lstm", "cnnlstmatt": "cnn_lstm_att"}.items()
    },
    # the scripts that prepare the corpora, whose paths are edited there
    "prepare.py --corpus iemocap --root IEMOCAP_full_release": {"corpus": "iemocap", "features": "mfcc"},
    "prepare.py --corpus msp_improv --root MSP-IMPROV": {"corpus": "msp_improv"},
    "prepare.py --corpus msp_podcast --root MSP-Podcast": {"corpus": "msp_podcast"},
    # visualize.py takes a genotype alone
    f'visualize.py "{CIFAR10}"': {"genotype": CIFAR10},
    f'visualize.py "{JOINT}"': {"genotype": JOINT},
}


def read(line: str):
    """The configuration of a command line."""
    command, *words = shlex.split(line)
    return parse(KINDS[command.removesuffix(".py")], words)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:60])
def test_command_line_is_accepted(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = read(line)
    assert {name: getattr(config, name) for name in LINES[line]} == LINES[line]


def test_flags_are_ignored_with_one_note_each(capsys: pytest.CaptureFixture):
    assert parse(SearchConfig, ["--lstm", "true", "--base-archi=all"]) == SearchConfig()
    out, err = capsys.readouterr()
    assert out == ""
    assert [line[:25] for line in err.splitlines()] == [
        "note: --lstm true is igno",
        "note: --base_archi all is",
    ]


def test_only_the_first_process_prints_notes(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    parse(SearchConfig, ["--lstm", "true"])
    assert capsys.readouterr().err == ""


def test_validating_a_pickled_model_says_what_to_type():
    line = f'evaluate.py --name n --dataset iemocap_kfold --features mfcc --model_file m.pth.tar --search-id s1 {flags(AUGMENT)} --genotype "{JOINT}"'  # noqa: E501
    with pytest.raises(
        UserError, match=r"--model_file is not a flag here: .* give --model RUN, .* --out FOLDER"
    ):
        read(line)


def test_missing_dataset_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for dataset in ("cifar10", "iemocap_kfold"):
        with pytest.raises(
            UserError, match=rf"no features at features/{dataset[:7]}.*prepare\.py makes them"
        ):
            start_experiment(parse(SearchConfig, ["--dataset", dataset, "--gpus", "none"]))


# Datasets


@pytest.mark.parametrize(
    ("typed", "dataset"),
    [
        ("iemocap", "iemocap"),
        ("IEMOCAP", "iemocap"),
        ("IEMOCAP_KFold", "iemocap"),
        ("mspimprov_kfold", "msp_improv"),
        ("Msp_Improv", "msp_improv"),
        ("mine", "Mine"),
        ("Mine_kfold", "Mine"),
        ("OTHER", "other_kfold"),
        ("Demo", "demo"),
        ("nowhere_kfold", "nowhere_kfold"),
    ],
)
def test_dataset_is_found_without_regard_to_case_and_kfold(
    typed: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("iemocap", "Mine", "other_kfold"):
        Path("features", name).mkdir(parents=True)
    for kind in (SearchConfig, AugmentConfig, CrossvalConfig):
        assert parse(kind, ["--dataset", typed]).dataset == dataset


def test_dataset_that_matches_several_stores_must_be_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("iemocap", "iemocap_kfold"):
        Path("features", name).mkdir(parents=True)
    assert parse(SearchConfig, ["--dataset", "iemocap_kfold"]).dataset == "iemocap_kfold"
    with pytest.raises(UserError, match="--dataset IEMOCAP: it could be any of iemocap, iemocap_kfold"):
        parse(SearchConfig, ["--dataset", "IEMOCAP"])


@pytest.mark.parametrize("command", ["search", "augment", "evaluate", "crossval"])
def test_features_must_be_those_of_the_store(command: str, workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(evaluate, "find_model", lambda path: path)
    monkeypatch.setattr(evaluate, "SavedModel", SimpleNamespace(load=lambda path: None))
    words = ["--config", "tiny.yaml", "--features", "STFT"]
    run = {
        "search": lambda: search.run(parse(SearchConfig, words)),
        "augment": lambda: augment.run(parse(AugmentConfig, [*words, "--genotype", "cnn_lstm"])),
        "evaluate": lambda: evaluate.run(parse(EvaluateConfig, [*words, "--model", "m", "--out", "o"])),
        "crossval": lambda: crossval.run(parse(CrossvalConfig, words)),
    }
    with pytest.raises(UserError, match="--features stft, but features/demo holds mfcc"):
        run[command]()


# The environment


@pytest.mark.parametrize("scope", RNN_SCOPES)
def test_environment_sets_the_rnn_ops(
    scope: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("RNN_PRIMITIVES", scope.upper())
    assert parse(SearchConfig, []).rnn_ops == RNN_SCOPES[scope]
    assert (
        capsys.readouterr().err == f"note: --rnn_ops {scope}, from the environment variable RNN_PRIMITIVES\n"
    )


def test_flags_and_files_override_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("RNN_PRIMITIVES", "lstm")
    (tmp_path / "flags.yaml").write_text("search: {rnn-ops: rnn}")
    assert parse(SearchConfig, ["--rnn_ops", "rnn_att"]).rnn_ops == RNN_SCOPES["rnn_att"]
    assert parse(SearchConfig, ["--config", str(tmp_path / "flags.yaml")]).rnn_ops == RNN_SCOPES["rnn"]
    assert SearchConfig().rnn_ops == RNN_SCOPES["all"]
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RNN_PRIMITIVES", "gru")
    with pytest.raises(UserError, match="--rnn_ops gru: unknown op 'gru'"):
        parse(SearchConfig, [])
    monkeypatch.setenv("RNN_PRIMITIVES", "")
    assert parse(SearchConfig, []) == SearchConfig()


# Genotypes and results


def test_genotype_without_rnn_implies_no_rnn_layers(capsys: pytest.CaptureFixture):
    config = parse(AugmentConfig, ["--genotype", CIFAR10])
    assert without_missing_rnn(config, find_genotype(config)[0]).rnn_layers == 0
    assert capsys.readouterr().err == "note: the genotype has no rnn part: --rnn_layers is 0, not 4\n"
    for words in (["--genotype", CIFAR10, "--rnn_layers", "0"], ["--genotype", JOINT], ["--model", "cnn"]):
        config = parse(AugmentConfig, words)
        assert without_missing_rnn(config, find_genotype(config)[0]) == config
    assert capsys.readouterr().err == ""


def test_visualize_draws_a_genotype_of_pt_darts(tmp_path: Path):
    visualize.run(VisualizeConfig(genotype=CIFAR10, out=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["normal.png", "reduce.png"]


def test_results_path_is_the_folder_of_all_runs(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workspace)
    words = ["--config", "tiny.yaml", "--name", "s1", "--strategy", "random"]
    genotype = search.run(parse(SearchConfig, [*words, "--results-path", "searchs"]))
    assert Path("searchs/s1/search/genotype.json").exists()
    assert not Path("runs/s1").exists()
    retraining = ["--name", "a1", "--results-path", "searchs", "--search-id", "s1"]
    assert find_genotype(parse(AugmentConfig, retraining))[0] == genotype
    other = [*retraining, "--genotype", "cnn_lstm"]
    assert find_genotype(parse(AugmentConfig, other))[0] == resolve("cnn_lstm")
    with pytest.raises(
        UserError, match=re.escape("no runs/s1/search/genotype.json; first run: python search.py --name s1")
    ):
        find_genotype(parse(AugmentConfig, ["--name", "a1", "--search-id", "s1"]))

    Path("searchs").rename("moved")  # a run that has moved can still be resumed
    search.run(parse(SearchConfig, [*words, "--results-path", "moved", "--features", "mfcc", "--resume"]))
