"""The methods of a cross-validation: how they are typed, their names, and the flags of their trials."""

import json
from pathlib import Path

import pytest
from conftest import succeed
from hypothesis import given
from hypothesis import strategies as st

from config import CrossvalConfig, is_svm, method_name, parse_method, strategy_of
from config.methods import KINDS
from darts.candidates import retraining_config
from report.figures import method_colour
from report.results import choose_pairs
from report.text import method_title
from report.trials import TrialKey, sort_keys
from study.runner import note_methods_without_deltas, planned_trials, trial_configs


@pytest.mark.parametrize(
    ("method", "name", "flags"),
    [
        ("darts", "darts", {"strategy": "darts", "candidates": 1}),
        ("evolution:4", "evolution_4", {"strategy": "evolution", "candidates": 4}),
        ("random:3", "random_3", {"strategy": "random", "candidates": 3}),
    ],
)
def test_a_method_is_a_strategy_with_a_number_of_candidates(method: str, name: str, flags: dict):
    config = CrossvalConfig(methods=[method], folds=["2"], seeds=[5])
    key = next(planned_trials(config, 3))
    assert key == TrialKey(name, 2, 5)
    search, retraining = trial_configs(key, config)
    assert search.model_dump(include={"strategy", "candidates", "fold", "seed"}) == {
        **flags,
        "fold": 2,
        "seed": 5,
    }
    assert (retraining.model, retraining.seed) == ("searched", 5)
    assert not config.tables


@pytest.mark.parametrize("method", ["random:3", "evolution:3", "darts:3"])
def test_candidates_of_a_trial_are_retrained_by_the_flags_of_the_file(method: str, tmp_path: Path):
    file = tmp_path / "study.yaml"
    file.write_text("augment: {epochs: 33, layers: 2, lr: 0.125}")
    config = CrossvalConfig(methods=[method], folds=["1"], seeds=[1], config=file)
    search, retraining = trial_configs(next(planned_trials(config, 2)), config)
    candidate = retraining_config(search)
    assert (candidate.epochs, candidate.layers, candidate.lr) == (33, 2, 0.125)
    same = {"search_id", "name", "resume", "model", "genotype", "config"}
    assert candidate.model_dump(exclude=same) == retraining.model_dump(exclude=same)


def test_flags_of_darts_and_candidates_in_the_file_are_not_for_other_methods(tmp_path: Path):
    (tmp_path / "study.yaml").write_text("search: {guard: keep, cuda_graphs: true, candidates: 5}")
    config = CrossvalConfig(
        methods=["darts", "random"], folds=["1"], seeds=[1], config=tmp_path / "study.yaml"
    )
    searches = [trial_configs(key, config)[0] for key in planned_trials(config, 3)][:2]
    assert [(each.strategy, each.guard, each.cuda_graphs, each.candidates) for each in searches] == [
        ("darts", "keep", True, 1),
        ("random", "warn", False, 1),
    ]


def test_relaxation_and_selection_of_the_file_are_for_darts_alone(tmp_path: Path):
    file = tmp_path / "study.yaml"
    file.write_text("search: {relaxation: gumbel, selection: perturbation}")
    config = CrossvalConfig(methods=["darts", "evolution", "random"], folds=["1"], seeds=[1], config=file)
    searches = [trial_configs(key, config)[0] for key in planned_trials(config, 3)][:3]
    assert [(each.strategy, each.relaxation, each.selection) for each in searches] == [
        ("darts", "gumbel", "perturbation"),
        ("evolution", "softmax", "alphas"),
        ("random", "softmax", "alphas"),
    ]


@pytest.mark.parametrize(
    "method",
    [
        "random:0",
        "random:x",
        "random:",
        "cnn:3",
        "darts:-1",
        "svm:",
        "cnn:.yaml",
        "darts:x.txt",
        "mlp:x.yaml",
    ],
)
def test_a_wrong_method_is_refused(method: str):
    with pytest.raises(ValueError, match="random:K, the best of K candidates"):
        CrossvalConfig(methods=[method])


def test_deltas_of_the_file_are_for_the_methods_that_take_them(tmp_path: Path, capsys):
    (tmp_path / "own.yaml").write_text("search: {deltas: 1}\naugment: {deltas: 2}\n")
    config = CrossvalConfig(config=tmp_path / "own.yaml", methods=["darts", "cnn", "acrnn", "lstm"])
    trials = {method: trial_configs(TrialKey(method, 1, 1), config) for method in config.methods[:-1]}
    assert trials["darts"][0].deltas == 1
    found = {method: augment_config.deltas for method, (_, augment_config) in trials.items()}
    assert found == {"darts": 2, "cnn": 0, "acrnn": 2, "lstm": 0}
    note_methods_without_deltas(config)
    assert capsys.readouterr().err.startswith("note: --deltas 2 is not for cnn, lstm:")
    note_methods_without_deltas(config.model_copy(update={"methods": ("darts", "acrnn")}))
    note_methods_without_deltas(config.model_copy(update={"config": None}))
    assert not capsys.readouterr().err


def test_svm_is_in_every_study():
    assert CrossvalConfig().methods[-1] == "svm"
    assert CrossvalConfig(methods=["cnn", "svm:x/big-set.csv"]).methods == ("cnn", "svm:x/big-set.csv", "svm")
    config = CrossvalConfig(methods=["svm", "svm:x/big-set.csv"], seeds=[1], folds=["2"])
    assert list(map(str, planned_trials(config, 5))) == ["svm-fold2-seed1", "svm_big_set-fold2-seed1"]
    assert config.tables == {"svm_big_set": Path("x/big-set.csv")}


@pytest.mark.parametrize("method", ["cnn:lstm.yaml", "cnn:lstm_att.yaml", "darts:3.yaml", "cnn:lstm_x.yaml"])
def test_a_file_whose_trials_would_be_named_as_those_of_another_method_is_refused(method: str):
    with pytest.raises(ValueError, match=f"would be named {method_name(method)}.*rename the file"):
        CrossvalConfig(methods=[method])


@given(st.sampled_from(KINDS), st.from_regex(r"[a-z0-9_.-]{1,12}", fullmatch=True))
def test_the_name_of_an_accepted_method_says_its_kind(kind: str, stem: str):
    typed = f"{kind}:folder/{stem}.{'csv' if kind == 'svm' else 'yaml'}"
    try:
        config = CrossvalConfig(methods=[typed])
    except ValueError:
        return
    method = parse_method(method_name(config.methods[0]))
    assert (method.kind, method.candidates) == (kind, 1)
    assert method.variant


def test_a_table_may_have_a_number_for_a_name():
    assert CrossvalConfig(methods=["svm:3"]).tables == {"svm_3": Path("3")}
    assert parse_method("svm_3") == ("svm", 1, "3")


def test_names_of_unknown_methods_are_their_kinds():
    assert parse_method("darts_v2") == ("darts", 1, "v2")
    assert parse_method("darts_0") == ("darts", 1, "0")
    assert parse_method("dartsv2") == ("dartsv2", 1, "")
    assert (strategy_of("dartsv2"), is_svm("svmx"), is_svm("svm_x")) == (None, False, True)


# ---------------------------------------------------------------- settings of its own


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """small.yaml, and wide.yaml, which extends it."""
    (tmp_path / "small.yaml").write_text(
        "search: {epochs: 5, alpha_reach: 3, strategy: evolution}\naugment: {epochs: 7, layers: 2}"
    )
    (tmp_path / "wide.yaml").write_text(
        "extends: small.yaml\nsearch: {alpha_lr: 0.5}\naugment: {layers: 4, lr: 0.125, deltas: 1}"
    )
    return tmp_path


def test_a_method_has_the_flags_of_its_own_file(settings: Path):
    file = settings / "wide.yaml"
    methods = ["darts", f"darts:{file}", f"acrnn:{file}"]
    config = CrossvalConfig(methods=methods, folds=["1"], seeds=[1], config=settings / "small.yaml")
    plain, wide, acrnn, _ = (trial_configs(key, config) for key in planned_trials(config, 3))
    assert [each.strategy for each in (plain[0], wide[0])] == ["darts", "darts"]
    assert [(each.alpha_lr, each.alpha_reach) for each in (plain[0], wide[0])] == [(None, 3), (0.5, None)]
    assert [each[1].lr for each in (plain, wide, acrnn)] == [0.025, 0.125, 0.125]
    assert (wide[1].epochs, acrnn[1].epochs, wide[1].name) == (7, 7, "crossval/darts_wide-fold1-seed1")
    candidate = retraining_config(wide[0])
    assert (candidate.epochs, candidate.layers, candidate.lr) == (7, 4, 0.125)


def test_a_trial_is_no_plan_and_has_the_genotype_of_its_own_search(tmp_path: Path):
    (tmp_path / "study.yaml").write_text(
        "search: {plan: true, overwrite: true}\naugment: {search_id: other, overwrite: true, genotype: darts_v2}"
    )
    config = CrossvalConfig(methods=["darts"], folds=["1"], seeds=[1], config=tmp_path / "study.yaml")
    search, retraining = trial_configs(next(planned_trials(config, 1)), config)
    assert (search.plan, search.resume, search.overwrite) == (False, True, False)
    assert (retraining.search_id, retraining.genotype, retraining.overwrite) == (None, None, False)


def test_the_note_on_deltas_is_on_the_methods_whose_file_has_them(settings: Path, capsys):
    methods = ["cnn", f"cnn:{settings / 'wide.yaml'}", f"darts:{settings / 'wide.yaml'}"]
    note_methods_without_deltas(CrossvalConfig(methods=methods))
    assert capsys.readouterr().err.startswith("note: --deltas 1 is not for cnn_wide:")


def test_a_variant_is_compared_with_the_plain_method_and_random_search():
    methods = ["darts", "darts_gumbel", "random_3", "acrnn", "acrnn_wide", "svm", "svm_egemaps"]
    pairs = choose_pairs(methods, baseline="svm")
    assert pairs[: len(methods) - 1] == [(method, "svm") for method in methods if method != "svm"]
    assert pairs[len(methods) - 1 :] == [
        ("darts", "random_3"),
        ("darts_gumbel", "random_3"),
        ("darts_gumbel", "darts"),
        ("acrnn_wide", "acrnn"),
    ]
    with_best = choose_pairs(methods, baseline="acrnn_wide")
    assert len(set(map(frozenset, with_best))) == len(with_best)


def test_variants_are_shown_beside_the_plain_method():
    names = ["svm_egemaps", "acrnn_wide", "darts_gumbel", "darts_3", "acrnn", "darts", "new"]
    ordered = [key.method for key in sort_keys(TrialKey(name, 1, 1) for name in names)]
    assert ordered == ["darts", "darts_3", "darts_gumbel", "acrnn", "acrnn_wide", "svm_egemaps", "new"]
    assert [method_title(name) for name in ordered] == [
        "DARTS",
        "DARTS, best of 3",
        "DARTS (gumbel)",
        "ACRNN",
        "ACRNN (wide)",
        "SVM on egemaps",
        "new",
    ]
    colours = ["darts", "darts_3", "darts_gumbel", "darts_published"]
    assert len(set(map(method_colour, colours))) == len(colours)


def test_a_study_trains_and_reports_a_variant(workspace: Path):
    (workspace / "shorter.yaml").write_text("extends: tiny.yaml\naugment: {epochs: 2}")
    flags = ["--name", "variants", "--config", "tiny.yaml", "--dataset", "demo", "--folds", 1, "--seeds", 1]
    succeed("crossval", *flags, "--methods", "cnn", "cnn:shorter.yaml", cwd=workspace)
    folder = workspace / "runs" / "variants"
    epochs = {
        name: len((folder / f"{name}-fold1-seed1/augment/history.jsonl").read_text().splitlines())
        for name in ("cnn", "cnn_shorter")
    }
    assert epochs == {"cnn": 4, "cnn_shorter": 2}
    results = json.loads((folder / "results.json").read_text())
    assert ("cnn_shorter", "cnn") in {tuple(found[x] for x in "ab") for found in results["comparisons"]} | {
        tuple(found[x] for x in "ba") for found in results["comparisons"]
    }
    assert results["settings"]["augment"]["differing"]["epochs"] == {"cnn": [4], "cnn_shorter": [2]}
    assert "CNN (shorter)" in (folder / "results.md").read_text()
    printed = succeed("crossval", *flags, "--methods", "cnn", "--resume", cwd=workspace)
    assert "CNN (shorter)" in printed, "a variant of an earlier line is no longer reported"
    command = json.loads((folder / "results.json").read_text())["command"]
    expected = "crossval.py --config tiny.yaml --name variants --folds 1 --seeds 1 --methods cnn cnn:shorter.yaml svm"
    assert {*expected.split()[1:]} <= {*command.split()}
    assert "--resume" not in command
