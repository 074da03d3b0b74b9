"""The command line overrides the file, which overrides the defaults; mistakes become one `UserError` each."""

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import Flags, build_parser, fields_by_flag, from_file, other_names, parse
from config import (
    CORPORA,
    AugmentConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    PrepareConfig,
    SearchConfig,
    VisualizeConfig,
)
from data.corpora import READERS
from genotypes import CNN_OPS, PUBLISHED_CNN_OPS, RNN_OPS
from training.experiment import start_experiment
from utils import UserError

ROOT = Path(__file__).parent.parent
KINDS = {
    "prepare": PrepareConfig,
    "search": SearchConfig,
    "augment": AugmentConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "visualize": VisualizeConfig,
}
LSTMS = ("lstm_1", "lstm_2", "lstm_3", "lstm_4", "skip_connect", "none")


def search(*words: object) -> SearchConfig:
    return parse(SearchConfig, [str(word) for word in words])


@pytest.fixture
def yaml_file(tmp_path: Path):
    """Write a configuration file; return its path."""

    def write(text: str) -> Path:
        (tmp_path / "flags.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "flags.yaml"

    return write


@pytest.mark.parametrize("command", ["search", "augment", "evaluate", "predict"])
@pytest.mark.parametrize("word", ["auto", "none", "cpu", "cuda", "mps", "1"])
def test_device_is_an_alias_of_gpus(yaml_file, command: str, word: str):
    needed = {"evaluate": ["--model", "m", "--out", "o"], "predict": ["--model", "m", "a.wav"]}.get(
        command, []
    )
    parsed = [parse(KINDS[command], [*needed, f"--{name}", word]) for name in ("gpus", "device")]
    assert parsed[0].gpus == word
    assert parsed[0] == parsed[1]
    path = yaml_file(f"{command}: {{device: {word}}}")
    assert parse(KINDS[command], [*needed, "--config", str(path)]).gpus == word
    assert "device" not in parsed[1].model_dump()


@pytest.mark.parametrize(("file", "line"), [("gpus", "device"), ("device", "gpus"), ("device", "device")])
def test_command_line_overrides_the_file_under_either_name(yaml_file, file: str, line: str):
    path = yaml_file(f"{{{file}: 0, search: {{{line}: 1}}}}")
    assert search("--config", path).gpus == "1"
    assert search(f"--{line}", "cpu", "--config", path).gpus == "cpu"
    assert from_file(SearchConfig, path, gpus="none").gpus == "none"


@pytest.mark.parametrize(
    "flag", ["cnn_nodes", "rnn_nodes", "w_lr", "w_momentum", "alpha_lr", "rnn_ops", "order"]
)
def test_augment_has_no_flags_of_the_search(flag: str):
    with pytest.raises(UserError, match=f"unknown flag --{flag}"):
        parse(AugmentConfig, [f"--{flag}", "2"])


@pytest.mark.parametrize(
    "words", [["--batch_size", "32"], ["--batch-size", "32"], ["--batch_size=32"], ["--batch-size=32"]]
)
def test_dashes_equal_underscores_in_flags(words: list[str]):
    assert search(*words).batch_size == 32


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--epoch 5", "epochs", 5),
        ("--epoch=5", "epochs", 5),
        ("--batch 6", "batch_size", 6),
        ("--batch-s 6", "batch_size", 6),
        ("--w_lr 0.5", "w_lr", 0.5),
        ("--dev cpu", "gpus", "cpu"),
        ("--overw", "overwrite", True),
    ],
)
def test_flags_may_be_abbreviated(words: str, field: str, value: object):
    assert getattr(search(*words.split()), field) == value


@pytest.mark.parametrize("word", ["--no-overwrite", "--no_overwrite"])
def test_command_line_turns_off_a_switch_of_the_file(yaml_file, word: str):
    path = yaml_file("overwrite: true")
    assert search("--config", path).overwrite
    assert not search("--config", path, word).overwrite


def test_values_keep_their_dashes():
    assert search("--name", "a-b", "--dataset=c-d").model_dump(include={"name", "dataset"}) == {
        "name": "a-b",
        "dataset": "c-d",
    }


def test_every_flag_has_a_help_text_that_is_printed():
    for command, kind in KINDS.items():
        printed = " ".join(build_parser(kind).format_help().split())
        for name, field in fields_by_flag(kind).items():
            assert field.description, f"{command} --{name}"
            assert " ".join(field.description.split()) in printed
            assert re.search(rf"--{name}\b|\b{name.upper()}\b", printed)
            assert all(f"--{other} " in printed for other in other_names(field))


@pytest.mark.parametrize(
    "text", ["epochs: 3\nw_lr: 0.5", "search: {epochs: 3, w_lr: 0.5}", "{epochs: 3, search: {w-lr: 0.5}}"]
)
def test_file_has_flags_at_the_top_or_under_the_command(yaml_file, text: str):
    config = search("--config", yaml_file(text))
    assert (config.epochs, config.w_lr) == (3, 0.5)


def test_precedence_is_line_then_section_then_top(yaml_file):
    path = yaml_file("{epochs: 3, seed: 4, fold: 5, search: {seed: 6}, augment: {seed: 8, lr: 1}}")
    config = search("--fold", 7, "--config", path)
    assert (config.epochs, config.seed, config.fold) == (3, 6, 7)
    assert config.batch_size == SearchConfig().batch_size


def test_from_file_reads_the_section_without_a_command_line(yaml_file):
    path = yaml_file("search: {epochs: 3, seed: 1}")
    assert from_file(SearchConfig, path, seed=2) == SearchConfig(epochs=3, seed=2, config=path)
    assert from_file(SearchConfig, None, seed=2) == SearchConfig(seed=2)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "search: {}", "augment: {lr: 1}"])
def test_file_without_flags_leaves_the_defaults(yaml_file, text: str):
    path = yaml_file(text)
    assert search("--config", path) == SearchConfig(config=path)


@pytest.mark.parametrize(("flag", "text", "value"), [("gpus", "0", "0"), ("name", "2024", "2024")])
def test_numbers_in_the_file_become_text_where_text_is_due(yaml_file, flag: str, text: str, value: str):
    assert getattr(search(f"--{flag}", text), flag) == value
    assert getattr(search("--config", yaml_file(f"{flag}: {text}")), flag) == value


@pytest.mark.parametrize(
    ("command", "values"),
    [
        (
            "search",
            {"epochs": 3, "w_lr": 0.5, "rnn_ops": ("lstm_1", "none"), "gpus": "0,1", "order": "first"},
        ),
        ("augment", {"genotype": "darts_v2", "protocol": "paper", "drop_path_prob": 0.1}),
        ("augment", {}),
        ("prepare", {"n_mels": 64, "n_mfcc": 40, "root": "somewhere"}),
    ],
)
def test_config_json_of_a_run_is_a_config_file(tmp_path: Path, command: str, values: dict):
    config = KINDS[command](**values)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.model_dump(mode="json", exclude={"resume", "overwrite", "config"})))
    assert parse(KINDS[command], ["--config", str(path)]) == config.model_copy(update={"config": path})


def test_flags_at_the_top_do_not_prepare_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The flags at the top are of the run; only those under `prepare` prepare the demo corpus."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"epochs": 3, "dataset": "nowhere", "prepare": {"n_mels": 40, "n_mfcc": 20}}))
    config = search("--config", path)
    with pytest.raises(UserError, match="no features at features/nowhere"):
        start_experiment(config)


@pytest.mark.parametrize("command", ["prepare", "search", "augment"])
def test_defaults_are_the_published_settings(command: str):
    path = ROOT / "configs" / "paper.yaml"
    config = from_file(KINDS[command], path)
    assert config.model_dump(exclude={"config"}) == KINDS[command]().model_dump(exclude={"config"})


@pytest.mark.parametrize("command", ["prepare", "search", "augment"])
def test_demo_file_is_valid_and_differs_from_the_defaults(command: str):
    config = from_file(KINDS[command], ROOT / "configs" / "demo.yaml")
    assert config.model_dump() != KINDS[command]().model_dump()


@pytest.mark.parametrize("name", ["demo", "small"])
def test_searches_of_the_small_files_are_corrected(name: str):
    config = from_file(SearchConfig, ROOT / "configs" / f"{name}.yaml")
    assert (config.op_norm, config.halves, config.edges_by) == (True, "speakers", "without_none")
    assert config.frozen_epochs == round(0.3 * config.epochs)
    assert (config.alpha_lr, config.alpha_reach, config.balance) == (None, 3, "weights")


# ---------------------------------------------------------------- the learning rate of the alphas


def test_alpha_lr_and_alpha_reach_in_one_place_are_refused(yaml_file):
    for words in (
        ["--alpha_lr", "0.1", "--alpha_reach", "2"],
        ["--config", yaml_file("{alpha_lr: 1, alpha_reach: 2}")],
    ):
        with pytest.raises(UserError, match="--alpha_lr and --alpha_reach both set the learning rate"):
            search(*words)
    with pytest.raises(UserError, match="--alpha_lr or --alpha_reach must be given"):
        search("--config", yaml_file("alpha_lr: null"))


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("", "", (3e-4, None)),
        ("", "--alpha_reach 2", (None, 2)),
        ("alpha_reach: 2", "", (None, 2)),
        ("alpha_reach: 2", "--alpha_lr 0.1", (0.1, None)),
        ("alpha_lr: 0.1", "--alpha_reach 2", (None, 2)),
        ("{alpha_lr: 0.1, search: {alpha_reach: 2}}", "", (None, 2)),
        ("{alpha_reach: 2, search: {alpha_lr: 0.1}}", "", (0.1, None)),
    ],
)
def test_nearer_place_decides_between_alpha_lr_and_alpha_reach(
    yaml_file, text: str, words: str, expected: tuple
):
    config = search(*words.split(), "--config", yaml_file(text))
    assert (config.alpha_lr, config.alpha_reach) == expected
    again = yaml_file(config.model_dump_json(exclude={"config"}))  # as config.json of the run
    assert search("--config", again).model_dump(exclude={"config"}) == config.model_dump(exclude={"config"})


def test_flags_given_in_python_also_replace_those_that_they_exclude(yaml_file):
    config = from_file(SearchConfig, yaml_file("search: {alpha_lr: 0.1}"), alpha_reach=5)
    assert (config.alpha_lr, config.alpha_reach) == (None, 5)


@pytest.mark.parametrize(
    ("epochs", "share", "frozen"),
    [(10, 0, 0), (10, 0.3, 3), (8, 0.3, 2), (100, 0.29, 29), (1, 0.9, 0), (3, 0.99, 2)],
)
def test_alphas_are_frozen_for_a_share_of_the_epochs(epochs: int, share: float, frozen: int):
    assert SearchConfig(epochs=epochs, alpha_start=share).frozen_epochs == frozen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lstm", LSTMS),
        ("rnn", ("rnn_1", "rnn_2", "rnn_3", "rnn_4", "skip_connect", "none")),
        ("lstm_att", ("lstm_att_1", "lstm_att_2", "skip_connect", "none")),
        ("rnn_att", ("rnn_att_1", "rnn_att_2", "skip_connect", "none")),
        ("all", RNN_OPS),
        ("none rnn_1 lstm_2", ("lstm_2", "rnn_1", "none")),
        ("rnn_1 rnn_1", ("rnn_1",)),
        ("lstm_4", ("lstm_4",)),
    ],
)
def test_rnn_ops_are_a_scope_or_a_sorted_list(yaml_file, words: str, expected: tuple):
    assert search("--rnn_ops", *words.split()).rnn_ops == expected
    assert search("--config", yaml_file(f"rnn_ops: [{words.replace(' ', ', ')}]")).rnn_ops == expected


def test_scope_in_the_file_needs_no_list(yaml_file):
    config = search("--config", yaml_file("{rnn_ops: lstm, cnn_ops: all}"))
    assert (config.rnn_ops, config.cnn_ops) == (LSTMS, CNN_OPS)


def test_cnn_ops_are_a_scope_or_a_list():
    assert search().cnn_ops == search("--cnn_ops", "published").cnn_ops == PUBLISHED_CNN_OPS
    assert search("--cnn_ops", "all").cnn_ops == CNN_OPS
    assert search("--cnn_ops", "sep_conv_1x7", "published").cnn_ops == (
        *PUBLISHED_CNN_OPS[:-1],
        "sep_conv_1x7",
        "none",
    )
    assert search("--cnn_ops", "none", "skip_connect").cnn_ops == ("skip_connect", "none")


NO_INTERVALS = (
    "-1",
    "2.5",
    "0min",
    "0.0min",
    "min",
    "10m",
    "10minutes",
    "1e3",
    "nanmin",
    "1:30",
    "\u0663min",
)


@pytest.mark.parametrize("word", ["0", "200", "10min", "0.5min", "90min"])
def test_checkpoint_interval_is_in_steps_or_minutes(yaml_file, word: str):
    assert search("--checkpoint_every", word).checkpoint_every == word
    assert search("--config", yaml_file(f"checkpoint_every: {word}")).checkpoint_every == word


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rnn_ops gru_1", "--rnn_ops gru_1: unknown op 'gru_1'; known are lstm_1"),
        ("--rnn_ops sep_conv_3x3", "unknown op 'sep_conv_3x3'"),
        ("--cnn_ops lstm", "unknown op 'lstm'"),
        ("--cnn_ops none", "at least one op besides none"),
        ("--rnn_ops none none", "at least one op besides none"),
        ("--guard on", "--guard on: "),
        ("--guard keep --epochs 16", "--guard keep needs 17 epochs or more"),
        ("--guard keep --strategy random", "--guard keep is for --strategy darts"),
        ("--epochs 0", "--epochs 0: "),
        ("--epochs -5", "--epochs -5: "),
        ("--epochs 3.5", "--epochs 3.5: "),
        ("--epochs many", "--epochs many: "),
        ("--batch_size 1", "--batch_size 1: "),
        ("--fold 0", "--fold 0: "),
        ("--seed -1", "--seed -1: "),
        *(
            (f"--checkpoint_every {word}", f"--checkpoint_every {word}: give a number of steps")
            for word in NO_INTERVALS
        ),
        ("--w_lr -1", "--w_lr -1: "),
        ("--w_lr 0", "--w_lr 0: "),
        ("--w_lr nan", "--w_lr nan: "),
        ("--w_lr inf", "--w_lr inf: "),
        ("--w_lr 1e999", "--w_lr 1e999: "),
        ("--w_momentum 1", "--w_momentum 1: "),
        ("--w_weight_decay -0.1", "--w_weight_decay -0.1: "),
        ("--dropout 1", "--dropout 1: "),
        ("--train_portion 0", "--train_portion 0: "),
        ("--train_portion 1", "--train_portion 1: "),
        ("--order third", "--order third: "),
        ("--gpus gpu0", "--gpus gpu0: "),
        ("--gpus 0,", "--gpus 0,: "),
        ("--gpus -1", "--gpus -1: "),
        ("--device tpu", "--gpus tpu: "),
        ("--devise cpu", "unknown flag --devise; did you mean --device?"),
        ("--folds_by group0", "--folds_by group0: "),
        ("--name ../escape", "--name ../escape: "),
        ("--name a//b", "--name a//b: "),
        ("--name ..", "--name ..: "),
        ("--dataset ..", "--dataset ..: "),
        ("--dataset a*b", "--dataset a*b: "),
        ("--resume --overwrite", "choose one"),
        ("--epochs", "--epochs"),
        ("--epochss 3", "unknown flag --epochss; did you mean --epochs?"),
        ("--epochss=3", "unknown flag --epochss; did you mean --epochs?"),
        ("--w_l 3", "ambiguous option: --w_l could match --w_lr, --w_lr_min"),
        ("--w-l=3", "ambiguous option: --w_l"),
        ("--batch-sice 3", "did you mean --batch_size?"),
        ("--zzzzzzzz", "unknown flag --zzzzzzzz; --help lists them all"),
        ("stray", "stray"),
    ],
)
def test_wrong_command_line_is_an_error_that_names_the_flag(words: str, message: str):
    with pytest.raises(UserError) as error:
        search(*words.split())
    assert message in str(error.value)


def test_resume_and_overwrite_exclude_each_other(yaml_file):
    with pytest.raises(UserError, match="choose one"):
        search("--config", yaml_file("resume: true"), "--overwrite")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown flag --epoch; did you mean --epochs?"),
        ("search: {w_ir: 3}", "unknown flag --w_ir; did you mean --w_lr?"),
        ("augment_: {}", "unknown flag --augment_"),
        ("epochs: 0", "--epochs 0: "),
        ("epochs: 3.5", "--epochs 3.5: "),
        ("epochs: [3]", "--epochs 3: "),
        ("epochs: {a: 3}", "--epochs {'a': 3}: "),
        ("w_lr: .nan", "--w_lr nan: "),
        ("w_lr: .inf", "--w_lr inf: "),
        ("resume: maybe", "--resume maybe: "),
        ("rnn_ops: 3", "--rnn_ops 3"),
        ("rnn_ops: null", "--rnn_ops"),
        ("rnn_ops: [[1]]", "--rnn_ops"),
        ("rnn_ops: [null]", "--rnn_ops"),
        ("cnn_ops: {a: b}", "--cnn_ops"),
        ("cnn_ops: []", "--cnn_ops"),
        ("cnn_ops: lstm_1", "--cnn_ops lstm_1"),
        ("resume: true\noverwrite: true", "choose one"),
        ("1: 2", "unknown flag --1"),
        ("null: 2", "unknown flag --None"),
        ("2001-01-01: 2", "unknown flag --2001"),
        ("- epochs", "must map flags to values"),
        ("epochs", "must map flags to values"),
        ("search: 3", "must map flags to values"),
        ("search: [epochs]", "must map flags to values"),
        ("a: b: c", "not a readable YAML file"),
        ("a: 1\n---\nb: 2", "not a readable YAML file"),
        ("? [1]\n: 2", "not a readable YAML file"),
        ("? {a: 1}\n: 2", "not a readable YAML file"),
        ("<<: 3", "not a readable YAML file"),
        ("a: *nowhere", "not a readable YAML file"),
        ("\0", "not a readable YAML file"),
        ("[" * 20_000, "not a readable YAML file"),
        ("a: " + "{a: " * 5_000, "not a readable YAML file"),
        ("epochs: &a [*a]", "alias"),
        ("&a {search: *a}", "alias"),
        ("x: 2001-99-99", "not a readable YAML file"),
        ("x: 0x_", "not a readable YAML file"),
        ("x: !!timestamp soon", "not a readable YAML file"),
        ("x: !!bool perhaps", "not a readable YAML file"),
        ("x: !!int ''", "not a readable YAML file"),
        (f"epochs: {'9' * 5000}", "not a readable YAML file"),
        (f"dropout: 0x{'f' * 5000}", "a whole number of more than"),
    ],
    ids=lambda text: text[:30],
)
def test_wrong_file_is_a_user_error(yaml_file, text: str, message: str):
    with pytest.raises(UserError) as error:
        search("--config", yaml_file(text))
    assert message in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "words", ["--fold 1 --fold 2", "--fold=2 --fold=2", "--gpus 0 --device 1", "--w-lr 1 --epochs 2 --w_lr 2"]
)
def test_a_value_given_twice_is_an_error(words: str):
    with pytest.raises(UserError, match=r"is given twice, \S+ and \S+: give it once"):
        search(*words.split())


@pytest.mark.parametrize("words", ["--rnn_ops lstm_1 rnn_1", "--rnn_ops rnn_1 --epochs 2 --rnn_ops lstm_1"])
def test_a_list_given_in_parts_is_one_list(words: str):
    assert search(*words.split()).rnn_ops == ("lstm_1", "rnn_1")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa", "folder"])
def test_unreadable_file_is_a_user_error(tmp_path: Path, content: bytes | str | None):
    path = tmp_path / "flags.yaml"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    message = "no such file" if content is None else "not a readable YAML file"
    with pytest.raises(UserError, match=f"--config .*{message}"):
        search("--config", path)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{}]]",
        "!!python/object/new:os.system [touch {}]",
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/name:os.system",
        "!!python/module:this",
    ],
)
@pytest.mark.parametrize("place", ["name: {}", "{}", "? {}\n: 1", "search: {}"])
def test_python_tags_of_a_file_are_not_run(yaml_file, tmp_path: Path, tag: str, place: str):
    touched = tmp_path / "touched"
    with pytest.raises(UserError, match="not a readable YAML file"):
        search("--config", yaml_file(place.format(tag.format(touched))))
    assert not touched.exists()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3)
)


@pytest.mark.parametrize("command", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_values_give_a_config_or_a_user_error(command: str, data: st.DataObject):
    kind: type[Flags] = KINDS[command]
    names = st.sampled_from(sorted([*fields_by_flag(kind), "device"]))
    values = data.draw(st.dictionaries(names, TREES, max_size=3))
    with suppress(UserError):
        assert isinstance(from_file(kind, None, **values), kind)


@settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from([f"--{name}" for name in fields_by_flag(SearchConfig)]) | st.text(max_size=6),
        max_size=4,
    )
)
def test_any_line_gives_a_config_or_a_user_error(words: list[str]):
    with suppress(UserError):
        search(*(word for word in words if not word.startswith(("-h", "--h", "--co"))))


@pytest.mark.parametrize(
    "words", ["a.wav b.wav --model m --json", "--json --model m a.wav b.wav", "a.wav --model m --json b.wav"]
)
def test_predict_takes_files_in_any_position(words: str):
    config = parse(PredictConfig, words.split())
    assert config.files == (Path("a.wav"), Path("b.wav"))
    assert (config.model, config.json_, config.csv) == ((Path("m"),), True, False)


def test_predict_takes_words_after_the_runs_as_recordings(tmp_path: Path):
    for run in ("one", "two/augment"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "model.safetensors").touch()
    words = ["--model", str(tmp_path / "one"), str(tmp_path / "two"), "m.safetensors", "a.wav", str(tmp_path)]
    config = parse(PredictConfig, words)
    assert config.model == (tmp_path / "one", tmp_path / "two", Path("m.safetensors"))
    assert config.files == (Path("a.wav"), tmp_path)
    apart = parse(
        PredictConfig, ["--model", str(tmp_path / "one"), "a.wav", "--model", str(tmp_path / "two")]
    )
    assert apart.model == (tmp_path / "one", tmp_path / "two")
    assert apart.files == (Path("a.wav"),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model m", "FILES is missing"),
        ("a.wav", "--model is missing"),
        ("a.wav --model m --gpus 0,1", "--gpus 0,1: "),
        ("a.wav --model m --device all", "--gpus all: "),
        ("a.wav --model m --batch_size 0", "--batch_size 0: "),
    ],
)
def test_predict_names_wrong_and_missing_flags(words: str, message: str):
    with pytest.raises(UserError) as error:
        parse(PredictConfig, words.split())
    assert message in str(error.value)


def test_positional_is_not_suggested_as_a_flag():
    with pytest.raises(UserError) as error:
        parse(PredictConfig, ["--files", "a.wav", "--model", "m"])
    assert "did you mean --files" not in str(error.value)


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        SearchConfig().epochs = 3


def test_prepare_checks_that_its_sizes_fit():
    with pytest.raises(UserError, match=re.escape("n_mfcc (200) must be at most n_mels (128)")):
        parse(PrepareConfig, ["--n_mfcc", "200"])


@pytest.mark.parametrize(
    ("word", "corpus"),
    [
        ("RAVDESS", "ravdess"),
        ("EMO-DB", "emodb"),
        ("Crema_D", "cremad"),
        ("MSP-Improv", "msp_improv"),
        ("MSPPodcast", "msp_podcast"),
        ("Manifest", "manifest"),
        ("unknown-Corpus", "unknown-Corpus"),
    ],
)
def test_corpora_are_named_in_any_case(word: str, corpus: str) -> None:
    assert parse(PrepareConfig, ["--corpus", word]).corpus == corpus


def test_every_reader_can_be_named() -> None:
    assert {*CORPORA, "manifest"} == set(READERS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objectives", "loss", "weights"], "--objectives is for --strategy evolution, not for darts"),
        (
            ["--strategy", "evolution", "--candidates", "40"],
            "--candidates 40 must be at most --population 32",
        ),
        (
            ["--guard", "keep", "--epochs", "20", "--alpha_start", "0.5"],
            "--guard keep needs 17 epochs or more",
        ),
        (
            ["--strategy", "evolution", "--relaxation", "gumbel"],
            "--relaxation gumbel is for --strategy darts, not for evolution",
        ),
        (["--cuda_graphs", "--relaxation", "dirichlet"], "--cuda_graphs replays one step"),
        (["--parallel", "2", "--gpus", "0,1"], "--parallel shares out all GPUs, and --gpus 0,1 names some"),
        (
            ["--selection", "perturbation", "--pick", "best"],
            "--selection perturbation uses the final supernet",
        ),
        (
            ["--selection", "perturbation", "--strategy", "evolution"],
            "--selection perturbation is for --strategy darts, not for evolution",
        ),
        (["--relaxation", "sigmoid"], "--relaxation sigmoid: "),
    ],
)
def test_flags_of_the_searches_that_do_not_fit_are_refused(words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        parse(SearchConfig, words)
