"""Configuration files that extend others."""

from pathlib import Path

import pytest

from cli import from_file, parse
from config import AugmentConfig, SearchConfig
from utils import UserError

ROOT = Path(__file__).parent.parent
BASE = "{epochs: 3, seed: 4, search: {seed: 6, alpha_reach: 3}, augment: {lr: 1}}"


def write(folder: Path, **files: str) -> None:
    """Write YAML files, and base.yaml."""
    for name, text in {"base": BASE, **files}.items():
        (folder / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", (3, 6, None, 3)),
        ("epochs: 9", (9, 6, None, 3)),
        ("search: {epochs: 9}", (9, 6, None, 3)),
        ("seed: 9", (3, 9, None, 3)),  # the file over the section of the one that it extends
        ("seed: 8\nsearch: {seed: 9}", (3, 9, None, 3)),
        ("search: {alpha_lr: 0.5}", (3, 6, 0.5, None)),
        ("augment: {epochs: 9}", (3, 6, None, 3)),
    ],
)
def test_flags_of_a_file_override_those_of_the_file_that_it_extends(tmp_path: Path, text: str, values: tuple):
    write(tmp_path, own=f"extends: base.yaml\n{text}")
    config = parse(SearchConfig, ["--config", str(tmp_path / "own.yaml")])
    assert (config.epochs, config.seed, config.alpha_lr, config.alpha_reach) == values


def test_the_section_of_a_file_extends_that_section_alone(tmp_path: Path):
    write(tmp_path, own="extends: base.yaml\nsearch: {epochs: 9}")
    config = from_file(SearchConfig, tmp_path / "own.yaml", fold=2)
    assert (config.epochs, config.seed, config.fold, config.config) == (9, 6, 2, tmp_path / "own.yaml")
    assert from_file(AugmentConfig, tmp_path / "own.yaml").lr == 1


def test_the_command_line_overrides_all_files(tmp_path: Path):
    write(tmp_path, middle="{extends: base.yaml, seed: 7}", own="{extends: middle.yaml, seed: 8}")
    words = ["--config", str(tmp_path / "own.yaml")]
    assert parse(SearchConfig, words).seed == 8
    assert parse(SearchConfig, [*words, "--seed", "9"]).seed == 9
    assert parse(SearchConfig, ["--config", str(tmp_path / "middle.yaml")]).seed == 7


def test_a_file_is_found_from_the_folder_of_the_one_that_extends_it(tmp_path: Path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    write(tmp_path)
    (tmp_path / "a" / "middle.yaml").write_text("extends: ../base.yaml")
    (tmp_path / "a" / "b" / "own.yaml").write_text("extends: ../middle.yaml")
    monkeypatch.chdir(tmp_path / "a")
    assert parse(SearchConfig, ["--config", "b/own.yaml"]).epochs == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"own": "extends: own.yaml"}, "own.yaml: extends must name another file"),
        (
            {"own": "extends: other.yaml", "other": "extends: ./own.yaml"},
            "own.yaml: extends must name another",
        ),
        ({"own": "extends: [base.yaml]"}, "own.yaml: extends must name another"),
        ({"own": "extends:"}, "own.yaml: extends must name another"),
        ({"own": "extends: none.yaml"}, "none.yaml: no such file"),
        ({"own": "extends: other.yaml", "other": "- 1"}, "other.yaml: must map flags to values"),
        ({"own": "extends: other.yaml", "other": "epoch: 1"}, "did you mean --epochs?"),
        ({"own": '{extends: "a\\0b"}'}, "not a readable YAML file"),
        ({"own": "extends: ''"}, "not a readable YAML file"),
        ({"own": "search: {extends: base.yaml}"}, "unknown flag --extends"),
    ],
)
def test_a_file_that_cannot_be_extended_is_one_error(tmp_path: Path, files: dict[str, str], message: str):
    write(tmp_path, **files)
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        parse(SearchConfig, ["--config", str(tmp_path / "own.yaml")])


@pytest.mark.parametrize("base", ["small", "demo"])
def test_the_published_variant_searches_as_published(base: str):
    config = from_file(SearchConfig, ROOT / "configs" / base / "published.yaml")
    flags = {"order", "op_norm", "halves", "alpha_start", "alpha_average", "edges_by", "pick", "relaxation"}
    flags |= {"alpha_lr", "alpha_reach", "alpha_weight_decay", "w_lr", "w_lr_min", "w_momentum", "selection"}
    assert config.model_dump(include=flags) == SearchConfig().model_dump(include=flags)
    assert config.strategy == "darts"
    assert config.epochs == from_file(SearchConfig, ROOT / "configs" / f"{base}.yaml").epochs
