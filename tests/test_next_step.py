"""The commands that are advised: they can be pasted, keep the flags that matter, and are not refused."""

import shlex
from pathlib import Path

import pytest
from conftest import succeed
from hypothesis import given, settings
from hypothesis import strategies as st

import augment
import prepare
from cli import command_to_type, parse
from config import (
    AugmentConfig,
    CrossvalConfig,
    PredictConfig,
    PrepareConfig,
    SearchConfig,
    dataset_of,
    store_folder,
)
from data.folds import Fold
from data.leaks import find_leaks
from data.store import FeatureStore
from report.trials import TrialKey
from study.runner import trial_configs
from training.experiment import start_experiment
from training.run_folder import RunFolder
from utils import UserError


def words_of(line: str) -> list[str]:
    """The words that a shell makes of an advised command, after `python COMMAND.py`."""
    python, script, *words = shlex.split(line)
    assert python == "python"
    assert script.endswith(".py")
    return words


# ---------------------------------------------------------------- the line


@pytest.mark.parametrize(
    "path", ["my runs", "it's", 'a "b"', "-runs", "$HOME/`x`", "r;rm", "é/ü", "a\\b", "*"]
)
def test_a_path_is_quoted(path: str) -> None:
    line = command_to_type(PredictConfig, None, {"model": path, "files": ["FILE.wav"]})
    config = parse(PredictConfig, words_of(line))
    assert config.model == (Path(path),)
    assert config.files == (Path("FILE.wav"),)


folders = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@settings(max_examples=60)
@given(
    folder=folders,
    shown=st.fixed_dictionaries({"fold": st.integers(1, 9), "resume": st.booleans()}),
    others=st.fixed_dictionaries(
        {
            "folds_by": st.sampled_from(["auto", "speaker", "group7"]),
            "allow_leak": st.lists(st.sampled_from(["texts", "sessions"]), unique=True).map(tuple),
            "seed": st.integers(0, 9),
            "gpus": st.sampled_from(["auto", "none", "0"]),
        }
    ),
)
def test_the_line_gives_the_flags(folder: str, shown: dict, others: dict) -> None:
    line = command_to_type(SearchConfig, None, {**shown, "results_path": folder}, others)
    config = parse(SearchConfig, words_of(line))
    expected = {**shown, **others, "results_path": Path(folder)}
    assert {name: getattr(config, name) for name in expected} == expected
    assert len(config.model_fields_set) == len(shown) + 1 + sum(
        value != SearchConfig.model_fields[name].default for name, value in others.items()
    )


FILES = {
    "a section": ("search: {seed: 7, epochs: 3}", True),
    "the top": ("{seed: 7, epochs: 3}", True),
    "another command's section": ("prepare: {n_mels: 40}", False),
    "a flag that the command does not have": ("{n_mels: 40, seed: 7}", False),
    "a wrong value": ("search: {epochs: 0}", False),
}


@pytest.mark.parametrize("case", FILES)
def test_the_file_is_named_where_the_command_can_read_it(case: str, tmp_path: Path) -> None:
    text, is_named = FILES[case]
    path = tmp_path / "my flags.yaml"
    path.write_text(text)
    config = parse(SearchConfig, words_of(command_to_type(SearchConfig, path, {"fold": 2}, {"seed": 7})))
    assert (config.fold, config.seed, config.config) == (2, 7, path if is_named else None)
    assert config.epochs == (3 if is_named else 50)


def test_a_flag_that_the_next_command_would_refuse_is_left_out() -> None:
    shown = {"model": "m", "files": ["FILE.wav"]}
    assert "--gpus" not in command_to_type(PredictConfig, None, shown, {"gpus": "0,1"})
    assert "--gpus none" in command_to_type(PredictConfig, None, shown, {"gpus": "none"})


@pytest.mark.parametrize("program", ["prepare.py", "code/prepare.py", "/opt/my code/search.py"])
def test_the_next_command_is_beside_this_one(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [program])
    script = shlex.split(command_to_type(SearchConfig, None, {"fold": 1}))[1]
    assert Path(script) == Path(program).with_name("search.py")


# ---------------------------------------------------------------- datasets by path


@pytest.mark.parametrize(
    "folder", ["stores/x", "./x", "my stores/my x", "-x", "features/sub/x", "features/my x"]
)
def test_a_store_anywhere_can_be_named(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(folder), Path(folder).absolute()):
        config = parse(SearchConfig, [f"--dataset={dataset_of(path)}"])
        assert store_folder(config.dataset).absolute() == Path(folder).absolute()
        assert config.dataset_name == Path(folder).name
        assert parse(SearchConfig, [f"--dataset={config.dataset}"]) == config


@pytest.mark.parametrize(
    "typed", ["x", "features/x", "./features/x/", "features/../features/x", "~/features/x"]
)
def test_a_store_in_features_has_one_name(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in (SearchConfig, AugmentConfig):
        assert parse(kind, ["--dataset", typed]).dataset == "x"


def test_a_path_without_a_store_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no features at nowhere/x: prepare"):
        start_experiment(parse(SearchConfig, ["--dataset", "nowhere/x", "--gpus", "none"]))


def test_trials_of_a_study_use_the_store(tmp_path: Path) -> None:
    config = parse(CrossvalConfig, ["--dataset", str(tmp_path)])
    assert [each.dataset for each in trial_configs(TrialKey("darts", 1, 1), config)] == [str(tmp_path)] * 2


# ---------------------------------------------------------------- what the commands print


@pytest.fixture(scope="module")
def elsewhere(workspace: Path) -> str:
    """What prepare.py prints for a store outside features/."""
    line = (
        "--corpus demo --config tiny.yaml --out 'my stores/it' --folds_by group4 --allow_leak sessions texts"
    )
    return succeed("prepare", *shlex.split(line), cwd=workspace)


def test_prepare_advises_a_search_that_runs(
    elsewhere: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    label, line = elsewhere.splitlines()[-1].split(maxsplit=1)
    assert label == "next"
    config = parse(SearchConfig, words_of(line))
    assert config.epochs == 4, "the flags of tiny.yaml"
    assert (config.folds_by, config.allow_leak) == ("group4", ("sessions", "texts"))
    experiment = start_experiment(config)
    assert experiment.store.folder.resolve() == (workspace / "my stores" / "it").resolve()
    assert experiment.speakers(experiment.fold.test).dataset == "it"


def next_step_of(store: FeatureStore, folds: list[Fold], config: PrepareConfig) -> str:
    return prepare.next_step(store, folds, [find_leaks(store.manifest, fold) for fold in folds], config)


@pytest.mark.parametrize(("allowed", "advice"), [((), "sessions"), (("texts",), "sessions")])
def test_prepare_advises_no_search_that_is_refused(
    allowed: tuple, advice: str, elsewhere: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    config = PrepareConfig(out="my stores/it", folds_by="group4", allow_leak=allowed)
    store = FeatureStore.open(config.out)
    line = next_step_of(store, prepare.dataset_folds(store, config), config)
    assert line.startswith("no fold can be searched yet: fold 1: sessions ")
    assert "python" not in line
    assert f"--allow_leak {advice}" in line


def test_prepare_advises_the_first_fold_without_a_leak(
    elsewhere: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    config = PrepareConfig(out="my stores/it")
    store = FeatureStore.open(config.out)
    by_session = prepare.dataset_folds(store, config)
    by_group = prepare.dataset_folds(store, PrepareConfig(folds_by="group4"))
    line = next_step_of(store, [by_group[0], by_session[0]], config)
    assert parse(SearchConfig, words_of(line)).fold == 2


def test_search_advises_an_augment_of_the_same_experiment(
    elsewhere: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    line = elsewhere.splitlines()[-1].split(maxsplit=1)[1]
    own = ["--name", "n/1", "--results_path", "my runs", "--strategy", "random", "--seed", "5"]
    printed = succeed("search", *words_of(line), *own, cwd=workspace)
    line = printed.splitlines()[-1].split(maxsplit=1)[1]
    config = parse(AugmentConfig, words_of(line))
    assert config.seed == 5
    assert (config.folds_by, config.allow_leak) == ("group4", ("sessions", "texts"))
    assert augment.find_genotype(config)[0]
    start_experiment(config)


def test_augment_names_the_search_that_is_missing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    line = "--name lost --results_path 'my lost' --fold 2 --folds_by group4 --allow_leak sessions"
    config = parse(AugmentConfig, [*shlex.split(line), "--config", "tiny.yaml"])
    with pytest.raises(UserError, match="--genotype is missing, and there is no my lost/lost") as error:
        augment.find_genotype(config)
    advised = parse(SearchConfig, words_of(str(error.value).partition("first run: ")[2]))
    assert advised.folder == config.folder
    assert (advised.fold, advised.folds_by, advised.allow_leak) == (2, "group4", ("sessions",))


def test_augment_continues_the_search_that_is_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unfinished = parse(SearchConfig, ["--results_path", "my runs", "--w_lr", "0.5", "--cnn_nodes", "1"])
    with RunFolder("search", unfinished) as folder:
        folder.checkpoints.newest.touch()
    with pytest.raises(UserError, match="the search demo is unfinished; first run: python ") as error:
        augment.find_genotype(parse(AugmentConfig, ["--results_path", "my runs"]))
    advised = parse(SearchConfig, words_of(str(error.value).partition("first run: ")[2]))
    RunFolder("search", advised)  # it is not refused: the settings are the same
    assert (advised.resume, advised.w_lr) == (True, 0.5)
