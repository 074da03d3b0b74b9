"""Names, links, pipes and messages that would lead out of a folder, a run or a line."""

import json
import os
from pathlib import Path

import pytest
from hostile import Toy, here, prepare_corpus, train, write_corpus, write_store

from cli import exit_codes, parse
from config import EvaluateConfig, SearchConfig
from data.journal import stamp
from data.store import FeatureStore
from training.run_folder import RunFolder
from utils import UserError, printable


@pytest.mark.parametrize("name", ["config.json", "manifest.csv", "skipped.csv", "features.npy"])
def test_a_pipe_in_a_store_is_not_waited_for(name: str):
    write_store()
    Path("store", name).unlink()
    os.mkfifo(Path("store", name))
    with pytest.raises(UserError, match=r"regular file|no features"):
        FeatureStore.open(Path("store"))


@pytest.mark.parametrize("word", ["../x", "/abs", "a/../../x", "a\n", ".hidden", "a/", "-"])
def test_a_name_stays_in_its_folder(word: str):
    for kind, flag in ((SearchConfig, "--name"), (SearchConfig, "--dataset"), (EvaluateConfig, "--dataset")):
        with pytest.raises(UserError, match=flag):
            parse(kind, [f"{flag}={word}", *(["--model=m", "--out=o"] if kind is EvaluateConfig else [])])


def test_utterances_named_out_of_their_folder_write_nothing_there(here: Path):
    write_corpus()
    text = (
        Path("list.csv")
        .read_text()
        .replace("0.wav", "../inside/0.wav")
        .replace("1.wav", str(Path("1.wav").resolve()))
    )
    Path("list.csv").write_text(text + "a\0b.wav,S1,sad,1,x\n" + "x" * 5000 + ".wav,S1,sad,1,x\n")
    before = set(here.iterdir())
    prepare_corpus()
    assert set(here.iterdir()) == before
    assert len(FeatureStore.open(Path("store")).skipped) == 2
    assert stamp(Path("a\0b")) == ""


def test_a_link_in_a_run_is_not_written_through(here: Path):
    train()
    (here / "thesis").write_text("a thesis")
    log = Path("runs/toy/search/search.log")
    log.unlink()
    log.symlink_to(here / "thesis")
    with pytest.raises(UserError, match="is a link"):
        train()
    assert (here / "thesis").read_text() == "a thesis"


def test_a_run_may_be_a_link_and_overwriting_it_deletes_the_link_alone(here: Path):
    train()
    Path("runs/toy/search").rename(here / "disk")
    Path("runs/toy/search").symlink_to(here / "disk")
    train()
    config = Toy().config.model_copy(update={"resume": False, "overwrite": True})
    for _ in range(2):
        with RunFolder("search", config):
            assert not Path("runs/toy/search").is_symlink()
        assert (here / "disk" / "checkpoint.pt").exists()


@pytest.mark.parametrize("origin", [{"inputs": [1]}, {"starts": 5}, [], {"inputs": None}])
def test_an_origin_of_another_form_is_refused(origin: object):
    train()
    Path("runs/toy/search/origin.json").write_text(json.dumps(origin))
    with pytest.raises(UserError, match="is damaged"):
        train()


def test_what_torch_lacks_on_an_apple_is_one_line_that_tells_what_to_do(capsys: pytest.CaptureFixture):
    said = (
        "The operator 'aten::foo' is not currently implemented for the MPS device. If you want this op to be "
        "considered for addition please comment on an issue. As a temporary fix, you can set the environment variable "
        "`PYTORCH_ENABLE_MPS_FALLBACK=1` to use the CPU as a fallback for this op."
    )

    def fail(message: str) -> None:
        raise NotImplementedError(message)

    with pytest.raises(SystemExit, match="2"), exit_codes():
        fail(said)
    assert capsys.readouterr().err == (
        "error: The operator 'aten::foo' is not currently implemented for the MPS device: "
        "export PYTORCH_ENABLE_MPS_FALLBACK=1 and the CPU computes it, or pass --device cpu\n"
    )
    with pytest.raises(NotImplementedError, match="a bug"), exit_codes():
        fail("a bug")


def test_what_a_message_says_cannot_move_the_cursor(capsys: pytest.CaptureFixture):
    def fail() -> None:
        raise UserError("a \x1b[2J \u202e \udcff ü")

    with pytest.raises(SystemExit), exit_codes():
        fail()
    assert capsys.readouterr().err == "error: a \\x1b[2J \\u202e \\udcff ü\n"
    assert printable("ok ü") == "ok ü"
