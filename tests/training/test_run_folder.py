"""A run's folder: who may write to it, what is refused, and that nothing in it is run."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from matplotlib.image import imsave
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from config import AugmentConfig, SearchConfig
from training.meters import Cost
from training.provenance import Origin
from training.run_folder import MAY_DIFFER, RunFolder, log
from utils import UserError

CPU = torch.device("cpu")
COST = Cost(0.25, 0.5, 128.0, 812.0, None)
STATE = {
    "network": {"w": torch.arange(4.0)},
    "position": {"epoch": 3, "history": [{"a": 1.5, "b": [None, "c"]}]},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs go to a folder of their own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def earlier() -> Path:
    """A run that was begun with the defaults and has a checkpoint."""
    folder = RunFolder("search", SearchConfig(name="mine"))
    folder.take()
    folder.save_checkpoint(STATE)
    return folder.path


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_lies_under_its_name_and_kind_with_its_configuration():
    config = SearchConfig(name="mine", epochs=3, rnn_ops="lstm")
    folder = RunFolder("search", config)
    assert not Path("runs").exists(), "looking must touch nothing"
    folder.take()
    assert folder.path == Path("runs/mine/search")
    stored = json.loads((folder.path / "config.json").read_text())
    assert not {"resume", "overwrite", "config"} & stored.keys()
    assert SearchConfig(**stored) == config
    assert folder.plots.is_dir()


def test_a_run_that_is_there_is_refused_and_not_touched(earlier: Path):
    before = contents(earlier)
    with pytest.raises(
        UserError, match="runs/mine/search holds a run: --resume goes on with it, --overwrite starts"
    ):
        RunFolder("search", SearchConfig(name="mine"))
    assert contents(earlier) == before


def test_search_and_augment_of_one_name_are_two_runs(earlier: Path):
    before = contents(earlier)
    RunFolder("augment", AugmentConfig(name="mine", overwrite=True)).take()
    assert contents(earlier) == before


def test_overwrite_replaces_the_run_and_only_when_it_is_taken(earlier: Path):
    (earlier / "old.txt").write_text("old")
    before = contents(earlier)
    folder = RunFolder("search", SearchConfig(name="mine", overwrite=True, epochs=7))
    assert contents(earlier) == before
    folder.take()
    assert not (earlier / "old.txt").exists()
    assert folder.checkpoints.load(CPU) is None
    assert json.loads((earlier / "config.json").read_text())["epochs"] == 7


def test_resume_keeps_what_is_there(earlier: Path):
    folder = RunFolder("search", SearchConfig(name="mine", resume=True))
    folder.take()
    assert torch.equal(folder.checkpoints.load(CPU)["network"]["w"], STATE["network"]["w"])


@pytest.mark.parametrize(
    ("flag", "value", "then"),
    [("epochs", 7, "50"), ("w_lr", 0.5, "0.025"), ("dataset", "other", "demo"), ("order", "first", "second")],
)
def test_resume_under_another_setting_names_the_flag(earlier: Path, flag: str, value: object, then: str):
    before = contents(earlier)
    with pytest.raises(
        UserError, match=f"--{flag} is {value}, but runs/mine/search was started with {then}: "
    ):
        RunFolder("search", SearchConfig(name="mine", resume=True, **{flag: value}))
    assert contents(earlier) == before


def test_every_setting_but_a_few_is_compared(earlier: Path):
    """Whatever flag is added: a stored run that differs in it is not resumed, unless it is said not to matter."""
    stored = json.loads((earlier / "config.json").read_text())
    for flag in stored:
        (earlier / "config.json").write_text(json.dumps({**stored, flag: "something else"}))
        if flag in MAY_DIFFER:
            RunFolder("search", SearchConfig(name="mine", resume=True))
        else:
            with pytest.raises(UserError, match=f"--{flag} is "):
                RunFolder("search", SearchConfig(name="mine", resume=True))


def test_all_settings_that_differ_are_named(earlier: Path):
    with pytest.raises(
        UserError, match=r"^--epochs is 7 and --seed is 3, but runs/mine/search was started with 50 and 2: "
    ):
        RunFolder("search", SearchConfig(name="mine", resume=True, seed=3, epochs=7))


def test_another_runs_checkpoint_is_refused_and_what_differs_is_named(earlier: Path):
    """Its network may be of the same form: of another fold, say, whose training has heard this one's test."""
    other = RunFolder("search", SearchConfig(name="other", fold=2))
    other.take()
    other.save_checkpoint(STATE)
    shutil.copy(other.path / "checkpoint.pt", earlier)
    found = "--fold is 1, but runs/mine/search/checkpoint.pt was started with 2: "
    with pytest.raises(UserError, match=found):
        RunFolder("search", SearchConfig(name="mine", resume=True)).load_checkpoint(CPU)
    own = RunFolder("search", SearchConfig(name="other", fold=2, resume=True, workers=0)).load_checkpoint(CPU)
    assert own["position"] == STATE["position"]


def test_a_checkpoint_from_other_features_is_refused(earlier: Path):
    config, inputs = SearchConfig(name="mine", resume=True), {"features/demo": "a"}
    RunFolder("search", config, origin=Origin(inputs, {})).save_checkpoint(STATE)
    assert RunFolder("search", config, origin=Origin(inputs, {"torch": "9"})).load_checkpoint(CPU)
    with pytest.raises(
        UserError, match=r"features/demo is no longer what runs/mine/search/checkpoint.pt was"
    ):
        RunFolder("search", config, origin=Origin({"features/demo": "b"}, {})).load_checkpoint(CPU)


@pytest.mark.parametrize(
    "label", [None, 3, "", "[]", '{"flags": {}}', '{"flags": 3, "inputs": {}}', "[" * 10**5, torch.zeros(2)]
)
def test_a_checkpoint_that_does_not_say_what_it_is_of_is_refused(earlier: Path, label: object):
    folder = RunFolder("search", SearchConfig(name="mine", resume=True))
    folder.checkpoints.save({**STATE, "made": label})
    with pytest.raises(UserError, match="does not say what it is of"):
        folder.load_checkpoint(CPU)


@pytest.mark.parametrize(
    "setting", [{"workers": 0}, {"gpus": "none"}, {"print_freq": 1}, {"checkpoint_every": 3}]
)
def test_settings_that_do_not_change_the_result_may_change(earlier: Path, setting: dict):
    RunFolder("search", SearchConfig(name="mine", resume=True, **setting)).take()


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_that_holds_no_run_is_never_taken(flags: dict):
    path = Path("runs/mine/search")
    path.mkdir(parents=True)
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not empty and holds no run; choose another --name"):
        RunFolder("search", SearchConfig(name="mine", **flags))
    assert (path / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_may_be_taken():
    Path("runs/mine/search").mkdir(parents=True)
    RunFolder("search", SearchConfig(name="mine")).take()
    assert Path("runs/mine/search/config.json").exists()


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_run_that_is_being_written_is_nobody_elses(earlier: Path, flags: dict):
    writer, second = (RunFolder("search", SearchConfig(name="mine", resume=True)) for _ in range(2))
    with writer:
        before = contents(Path("runs"))
        with pytest.raises(UserError, match=r"runs/mine/search (is in use by another process|holds a run)"):
            RunFolder("search", SearchConfig(name="mine", **flags)).take()
        with pytest.raises(UserError, match="runs/mine/search is in use by another process: wait, or choose"):
            second.__enter__()
        RunFolder("search", SearchConfig(name="mine", **flags), writes=False).take()
        RunFolder("augment", AugmentConfig(name="mine")).take()
        assert before.items() <= contents(Path("runs")).items()
    with second:
        pass


def test_who_comes_second_judges_the_folder_anew():
    first, second = (RunFolder("search", SearchConfig(name="mine", epochs=epochs)) for epochs in (1, 2))
    with first:
        pass
    before = contents(first.path)
    with pytest.raises(UserError, match="runs/mine/search holds a run"):
        second.take()
    assert contents(first.path) == before


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_process_killed_over_its_first_file_leaves_a_folder_that_may_be_taken(flags: dict):
    path = Path("runs/mine/search")
    path.mkdir(parents=True)
    (path / ".config.json.123").write_text('{"na')
    with RunFolder("search", SearchConfig(name="mine", **flags)):
        assert (path / "config.json").exists()


def test_a_run_is_overwritten_whole_or_not_at_all(earlier: Path, monkeypatch: pytest.MonkeyPatch):
    """A process killed while it deletes leaves no folder that is neither a run nor free."""

    def killed(*_: object, **__: object) -> None:
        if not earlier.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        with RunFolder("search", SearchConfig(name="mine", overwrite=True)):
            pytest.fail("nothing was deleted")
    with RunFolder("search", SearchConfig(name="mine", overwrite=True)) as folder:
        assert folder.checkpoints.load(CPU) is None
    assert [path.name for path in earlier.parent.iterdir() if path.is_dir()] == ["search"]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "\ud800"])
def test_a_damaged_configuration_is_a_user_error(earlier: Path, text: str):
    (earlier / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match="runs/mine/search"):
        RunFolder("search", SearchConfig(name="mine", resume=True))


def test_a_process_that_does_not_write_leaves_no_file(capsys):
    folder = RunFolder("search", SearchConfig(name="mine"), writes=False)
    folder.take()
    folder.open_events(1)
    log.info("not for you")
    folder.record([{"epoch": 1, "train/loss": 1.0}], COST)
    folder.save_checkpoint(STATE)
    assert not Path("runs").exists()
    assert capsys.readouterr().out == ""


def test_a_process_that_does_not_write_deletes_nothing(earlier: Path):
    before = contents(earlier)
    RunFolder("search", SearchConfig(name="mine", overwrite=True), writes=False).take()
    assert contents(earlier) == before


def test_the_log_goes_to_the_terminal_and_the_file_once(capsys):
    for flags in ({}, {"resume": True}):
        RunFolder("search", SearchConfig(name="mine", **flags)).take()
        log.info("line of %s", flags)
    assert capsys.readouterr().out.splitlines() == ["line of {}", "line of {'resume': True}"]
    lines = Path("runs/mine/search/search.log").read_text().splitlines()
    assert [line[-24:].partition("line")[2] for line in lines] == [" of {}", " of {'resume': True}"]


def test_the_record_is_in_the_history_the_events_and_the_log(capsys):
    folder = RunFolder("search", SearchConfig(name="mine"))
    folder.take()
    folder.open_events(1)
    history = []
    for epoch, loss in enumerate((1.5, 0.5), 1):
        history.append({"epoch": epoch, "train/loss": loss, "lr": 0.1 * epoch, "genotype": {"normal": []}})
        folder.record(history, COST)
    folder.events.close()
    lines = (folder.path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    events = EventAccumulator(str(folder.path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "lr", *COST.scalars()}
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.5), (2, 0.5)]
    assert [event.value for event in events.Scalars("machine/step_seconds")] == [0.25, 0.25]
    printed = [
        f"epoch   {epoch}  train/loss {loss}  {COST}\n" for epoch, loss in ((1, "1.500"), (2, "0.500"))
    ]
    assert capsys.readouterr().out == "".join(printed)


def test_pictures_are_shown_and_sources_are_not():
    folder = RunFolder("search", SearchConfig(name="mine"))
    folder.take()
    folder.open_events(1)
    imsave(folder.plots / "cell.png", np.random.default_rng(0).random((4, 6, 3)))
    (folder.plots / "cell.dot").write_text("digraph {}")
    folder.show("cell", folder.plots / "cell.png", 1)
    folder.show("source", folder.plots / "cell.dot", 1)
    folder.events.close()
    events = EventAccumulator(str(folder.path))
    events.Reload()
    assert events.Tags()["images"] == ["cell"]
    assert [(image.height, image.width) for image in events.Images("cell")] == [(4, 6)]


def test_a_checkpoint_comes_back_as_it_was_and_appears_whole(earlier: Path, monkeypatch):
    folder = RunFolder("search", SearchConfig(name="mine", resume=True))
    loaded = folder.checkpoints.load(CPU)
    assert torch.equal(loaded["network"]["w"], STATE["network"]["w"])
    assert loaded["position"] == STATE["position"]

    def half(state: dict, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "disk full")

    before = contents(earlier)
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        folder.save_checkpoint({})
    assert contents(earlier) == before


class Hostile:
    """What a pickle can do to those who load it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def zipped(state: object, path: Path) -> None:
    torch.save(state, path)


def plain(state: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(state, protocol=2))


@pytest.mark.parametrize("save", [zipped, plain])
def test_a_hostile_checkpoint_is_not_run(earlier: Path, here: Path, save):
    save({**STATE, "more": Hostile(here / "touched")}, earlier / "checkpoint.pt")
    folder = RunFolder("search", SearchConfig(name="mine", resume=True))
    with pytest.raises(UserError, match=r"runs/mine/search/checkpoint\.pt"):
        folder.checkpoints.load(CPU)
    assert not (here / "touched").exists()
    with suppress(RuntimeError):
        torch.load(earlier / "checkpoint.pt", weights_only=False)  # the trap is a real one
    assert (here / "touched").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not a checkpoint")


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "a")


@pytest.mark.parametrize("spoil", [cut, empty, text, other_zip])
def test_a_damaged_checkpoint_is_a_user_error(earlier: Path, spoil):
    spoil(earlier / "checkpoint.pt")
    with pytest.raises(UserError, match=r"runs/mine/search/checkpoint\.pt"):
        RunFolder("search", SearchConfig(name="mine", resume=True)).checkpoints.load(CPU)


def test_only_the_process_that_writes_judges_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first process may have taken the folder before another comes to look at it."""
    monkeypatch.chdir(tmp_path)
    config = SearchConfig(name="shared")
    RunFolder("search", config).take()
    RunFolder("search", config, writes=False)
    with pytest.raises(UserError, match="holds a run"):
        RunFolder("search", config)
