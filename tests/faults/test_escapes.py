"""Names, links and pipes that would lead out of a folder or block a command."""

import os
from pathlib import Path

import pytest
from hostile import Toy, outside, prepare_corpus, train, write_corpus, write_store

from cli import parse
from config import EvaluateConfig, SearchConfig
from data.journal import stamp
from data.store import FeatureStore
from training.run_folder import RunFolder
from utils import UserError


@pytest.mark.parametrize("name", ["config.json", "manifest.csv", "skipped.csv", "features.npy"])
def test_a_pipe_in_a_store_is_refused(name: str):
    write_store()
    Path("store", name).unlink()
    os.mkfifo(Path("store", name))
    with pytest.raises(UserError, match=r"regular file|no features"):
        FeatureStore.open(Path("store"))


@pytest.mark.parametrize("word", ["../x", "/abs", "a/../../x", "a\n", ".hidden", "a/", "-"])
def test_the_name_of_a_run_that_is_a_path_is_refused(word: str):
    with pytest.raises(UserError, match="--name"):
        parse(SearchConfig, [f"--name={word}"])


@pytest.mark.parametrize("word", ["a\n", ".hidden", "-", "a b"])
def test_the_name_of_a_dataset_has_no_other_characters(word: str):
    for kind, others in ((SearchConfig, []), (EvaluateConfig, ["--model=m", "--out=o"])):
        with pytest.raises(UserError, match="--dataset"):
            parse(kind, [f"--dataset={word}", *others])


def test_manifest_paths_outside_the_folder_write_nothing_there(outside: Path):
    write_corpus()
    text = (
        Path("list.csv")
        .read_text()
        .replace("0.wav", "../inside/0.wav")
        .replace("1.wav", str(Path("1.wav").resolve()))
    )
    Path("list.csv").write_text(text + "a\0b.wav,S1,sad,1,x\n" + "x" * 5000 + ".wav,S1,sad,1,x\n")
    before = set(outside.iterdir())
    prepare_corpus()
    assert set(outside.iterdir()) == before
    assert len(FeatureStore.open(Path("store")).skipped) == 2
    assert stamp(Path("a\0b")) == ""


def test_a_link_in_a_run_is_refused(outside: Path):
    train()
    (outside / "thesis").write_text("a thesis")
    log = Path("runs/toy/search/search.log")
    log.unlink()
    log.symlink_to(outside / "thesis")
    with pytest.raises(UserError, match="is a link"):
        train()
    assert (outside / "thesis").read_text() == "a thesis"


def test_overwriting_a_linked_run_deletes_only_the_link(outside: Path):
    train()
    Path("runs/toy/search").rename(outside / "disk")
    Path("runs/toy/search").symlink_to(outside / "disk")
    train()
    config = Toy().config.model_copy(update={"resume": False, "overwrite": True})
    for _ in range(2):
        with RunFolder("search", config):
            assert not Path("runs/toy/search").is_symlink()
        assert (outside / "disk" / "checkpoint.pt").exists()
