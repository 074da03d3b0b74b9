"""Every flag of every command that is given twice: lists are joined, anything else is an error."""

from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import get_origin

import pytest

import export
import predict
from cli import Flags, build_parser, fields_by_flag, is_positional, other_names, parse
from config import (
    AugmentConfig,
    CrossvalConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    PrepareConfig,
    SearchConfig,
    VisualizeConfig,
)
from evaluate import run as evaluate
from genotypes import RNN_SCOPES, resolve
from models.saved import SavedModel
from utils import UserError

KINDS = (
    PrepareConfig,
    SearchConfig,
    AugmentConfig,
    EvaluateConfig,
    PredictConfig,
    ExportConfig,
    VisualizeConfig,
    CrossvalConfig,
)
FLAGS = [
    (kind, name)
    for kind in KINDS
    for name in (*fields_by_flag(kind), *kind.ignored, *kind.instead)
    if name not in fields_by_flag(kind) or not is_positional(fields_by_flag(kind)[name])
]


parser = cache(build_parser)


def spellings(kind: type[Flags], name: str) -> list[str]:
    """The ways to type a flag: its names, with dashes, and the shortest beginning that no other flag has."""
    field = fields_by_flag(kind).get(name)
    names = [name, *(other_names(field) if field else ())]
    known = [flag.lstrip("-") for action in parser(kind)._actions for flag in action.option_strings]
    for length in range(1, len(name)):
        if [each for each in known if each.startswith(name[:length])] == [name]:
            names.append(name[:length])
            break
    return [f"--{each}" for each in dict.fromkeys([*names, *(each.replace("_", "-") for each in names)])]


def given(kind: type[Flags], flag: str, name: str, value: str) -> list[list[str]]:
    """The words by which a value may follow a flag; a switch takes none."""
    field = fields_by_flag(kind).get(name)
    return [[flag]] if field and field.annotation is bool else [[flag, value], [f"{flag}={value}"]]


@pytest.mark.parametrize(("kind", "name"), FLAGS, ids=lambda part: getattr(part, "command", part))
def test_each_flag_given_twice_is_joined_or_refused(kind: type[Flags], name: str) -> None:
    field = fields_by_flag(kind).get(name)
    is_list = field is not None and get_origin(field.annotation) is tuple
    for one, other in product(spellings(kind, name), repeat=2):
        for first, second in product(given(kind, one, name, "a"), given(kind, other, name, "b")):
            if is_list:
                words = vars(parser(kind).parse_args([*first, *second]))
                assert words[name] == ["a", "b"]
            else:
                with pytest.raises(UserError, match=r"is given twice.*: give it once"):
                    parser(kind).parse_args([*first, *second])


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, name in FLAGS if name in fields_by_flag(kind)],
    ids=lambda part: getattr(part, "command", part),
)
def test_each_key_given_twice_in_a_file_is_refused(kind: type[Flags], name: str, tmp_path: Path) -> None:
    path = tmp_path / "flags.yaml"
    field = fields_by_flag(kind)[name]
    keys = dict.fromkeys([name, name.replace("_", "-"), *other_names(field)])
    for first, second in [(name, name), *combinations(keys, 2)]:
        for text in ("{0}: 1\n{1}: 2\n", "{2}: {{{0}: 1, {1}: 2}}", '{{"{0}": 1, "{1}": 2}}'):
            path.write_text(text.format(first, second, kind.command))
            with pytest.raises(UserError, match=rf"--config {path}: .*is given twice"):
                parse(kind, ["--config", str(path)])


@pytest.mark.parametrize(
    "words", ["--overwrite --no_overwrite", "--no-overwrite --overw", "--resume --resume"]
)
def test_a_switch_given_twice_is_refused(words: str) -> None:
    with pytest.raises(
        UserError, match=r"^--(overwrite|resume) is given twice, (True|False) and (True|False)"
    ):
        parse(SearchConfig, words.split())


def test_a_section_given_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flags.yaml"
    path.write_text("search: {epochs: 3}\nsearch: {seed: 1}\n")
    with pytest.raises(UserError, match="search is given twice"):
        parse(SearchConfig, ["--config", str(path)])


def test_scopes_of_ops_are_joined() -> None:
    joined = parse(SearchConfig, ["--rnn_ops", "lstm", "--rnn_ops=rnn", "--rnn-ops", "rnn_att_1"]).rnn_ops
    assert set(joined) == {*RNN_SCOPES["lstm"], *RNN_SCOPES["rnn"], "rnn_att_1"}


@pytest.mark.parametrize(
    "other", ["{0}", "{0}/", "{0}/augment", "{0}/augment/model.safetensors", "{0}/../one"]
)
@pytest.mark.parametrize(("kind", "words"), [(PredictConfig, ["a.wav"]), (EvaluateConfig, ["--out", "o"])])
def test_a_model_counts_once(kind: type[Flags], words: list[str], other: str, tmp_path: Path) -> None:
    (tmp_path / "one" / "augment").mkdir(parents=True)
    (tmp_path / "one" / "augment" / "model.safetensors").touch()
    run = str(tmp_path / "one")
    with pytest.raises(UserError, match="give each model once"):
        parse(kind, [*words, "--model", run, "--model", other.format(run)])


def test_two_formats_of_predictions_are_refused() -> None:
    with pytest.raises(UserError, match="--json and --csv are two formats: choose one"):
        parse(PredictConfig, ["--json", "--csv", "--model", "m", "a.wav"])


@pytest.mark.parametrize(
    ("kind", "words"), [(VisualizeConfig, ["a", "b"]), (SearchConfig, ["b"]), (EvaluateConfig, ["b"])]
)
def test_a_word_that_no_flag_takes_is_refused(kind: type[Flags], words: list[str]) -> None:
    with pytest.raises(UserError, match=r"^b is one word too many: --help tells what \w+\.py takes"):
        parse(kind, words)


PATHS = {
    "a model of evaluate.py": (evaluate, EvaluateConfig, "--model TYPO --out out"),
    "the second model of evaluate.py": (evaluate, EvaluateConfig, "--model one TYPO --out out"),
    "a model of predict.py": (predict.run, PredictConfig, "--model TYPO x.wav"),
    "the second model of predict.py": (predict.run, PredictConfig, "--model one --model TYPO x.wav"),
    "a recording of predict.py": (predict.run, PredictConfig, "--model one x.wav TYPO"),
    "a pattern of predict.py": (predict.run, PredictConfig, "--model one x.wav TYPO*.wav"),
    "a model of export.py": (export.run, ExportConfig, "--model TYPO --out out"),
    "a genotype of visualize.py": (lambda config: resolve(config.genotype), VisualizeConfig, "TYPO"),
}


@pytest.mark.parametrize("case", PATHS)
def test_a_path_that_does_not_exist_is_an_error_before_anything_runs(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, kind, line = PATHS[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SavedModel, "rebuild", lambda *_: pytest.fail("a network was built"))
    Path("x.wav").touch()
    load = SavedModel.load
    monkeypatch.setattr(SavedModel, "load", lambda path: None if "one" in path.parts else load(path))
    with pytest.raises(UserError, match="TYPO"):
        run(parse(kind, line.split()))
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]
