"""The folder of a run: what it contains, who may write to it, what --resume and --overwrite refuse."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import contents
from matplotlib.image import imsave
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from config import AugmentConfig, SearchConfig
from training.meters import Usage
from training.provenance import Origin
from training.run_folder import FLAGS_THAT_MAY_CHANGE, RunFolder, log
from utils import UserError

CPU = torch.device("cpu")
USAGE = Usage(0.25, 0.5, 128.0, 812.0, None)
STATE = {
    "network": {"w": torch.arange(4.0)},
    "position": {"epoch": 3, "history": [{"a": 1.5, "b": [None, "c"]}]},
}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in its own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def earlier() -> Path:
    """The folder of a run that was started with the default flags and has a checkpoint."""
    folder = RunFolder("search", SearchConfig(name="mine"))
    folder.open()
    folder.save_checkpoint(STATE)
    return folder.path


def test_the_folder_has_the_name_and_kind_of_the_run_and_its_configuration():
    config = SearchConfig(name="mine", epochs=3, rnn_ops="lstm")
    folder = RunFolder("search", config)
    assert not Path("runs").exists(), "the constructor must not write"
    folder.open()
    assert folder.path == Path("runs/mine/search")
    stored = json.loads((folder.path / "config.json").read_text())
    assert not {"resume", "overwrite", "config"} & stored.keys()
    assert SearchConfig(**stored) == config
    assert folder.plots.is_dir()


def test_an_existing_run_is_refused_and_left_unchanged(earlier: Path):
    before = contents(earlier)
    with pytest.raises(
        UserError, match="runs/mine/search holds a run: --resume continues it, --overwrite starts"
    ):
        RunFolder("search", SearchConfig(name="mine"))
    assert contents(earlier) == before


def test_search_and_augment_of_one_name_are_separate_runs(earlier: Path):
    before = contents(earlier)
    RunFolder("augment", AugmentConfig(name="mine", overwrite=True)).open()
    assert contents(earlier) == before


def test_overwrite_deletes_the_run_when_the_folder_is_opened(earlier: Path):
    (earlier / "old.txt").write_text("old")
    before = contents(earlier)
    folder = RunFolder("search", SearchConfig(name="mine", overwrite=True, epochs=7))
    assert contents(earlier) == before
    folder.open()
    assert not (earlier / "old.txt").exists()
    assert folder.checkpoints.load(CPU) is None
    assert json.loads((earlier / "config.json").read_text())["epochs"] == 7


def test_resume_keeps_the_checkpoint(earlier: Path):
    folder = RunFolder("search", SearchConfig(name="mine", resume=True))
    folder.open()
    assert torch.equal(folder.checkpoints.load(CPU)["network"]["w"], STATE["network"]["w"])


def test_resume_refuses_every_changed_flag_except_those_that_may_change(earlier: Path):
    stored = json.loads((earlier / "config.json").read_text())
    for flag in stored:
        (earlier / "config.json").write_text(json.dumps({**stored, flag: "something else"}))
        if flag in FLAGS_THAT_MAY_CHANGE:
            RunFolder("search", SearchConfig(name="mine", resume=True))
        else:
            with pytest.raises(UserError, match=f"--{flag} is "):
                RunFolder("search", SearchConfig(name="mine", resume=True))


def test_resume_names_all_changed_flags_and_leaves_the_run_unchanged(earlier: Path):
    before = contents(earlier)
    with pytest.raises(
        UserError, match=r"^--epochs is 7 and --seed is 3, but runs/mine/search was started with 50 and 2: "
    ):
        RunFolder("search", SearchConfig(name="mine", resume=True, seed=3, epochs=7))
    assert contents(earlier) == before


def test_the_checkpoint_of_another_run_is_refused_with_the_changed_flags(earlier: Path):
    """A checkpoint of another fold has the right shapes, but may be trained on the test speakers."""
    other = RunFolder("search", SearchConfig(name="other", fold=2))
    other.open()
    other.save_checkpoint(STATE)
    shutil.copy(other.path / "checkpoint.pt", earlier)
    mine = RunFolder("search", SearchConfig(name="mine", resume=True))
    with pytest.raises(
        UserError, match=r"--fold is 1, but runs/mine/search/checkpoint.pt was started with 2: "
    ):
        mine.load_checkpoint(CPU)
    own = RunFolder("search", SearchConfig(name="other", fold=2, resume=True, workers=0)).load_checkpoint(CPU)
    assert own["position"] == STATE["position"]


def test_a_checkpoint_made_from_other_features_is_refused(earlier: Path):
    config, inputs = SearchConfig(name="mine", resume=True), {"features/demo": "a"}
    RunFolder("search", config, origin=Origin(inputs, {})).save_checkpoint(STATE)
    assert RunFolder("search", config, origin=Origin(inputs, {"torch": "9"})).load_checkpoint(CPU)
    with pytest.raises(
        UserError, match=r"features/demo has changed since runs/mine/search/checkpoint.pt was started"
    ):
        RunFolder("search", config, origin=Origin({"features/demo": "b"}, {})).load_checkpoint(CPU)


@pytest.mark.parametrize("record", [None, "", "[]", '{"flags": {}}', '{"flags": 3, "inputs": {}}'])
def test_a_checkpoint_without_a_record_of_its_run_is_refused(earlier: Path, record: object):
    folder = RunFolder("search", SearchConfig(name="mine", resume=True))
    folder.checkpoints.save({**STATE, "made": record})
    with pytest.raises(UserError, match="does not say which run it belongs to"):
        folder.load_checkpoint(CPU)


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_with_files_but_no_run_is_refused(flags: dict):
    path = Path("runs/mine/search")
    path.mkdir(parents=True)
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not empty and holds no run; choose another --name"):
        RunFolder("search", SearchConfig(name="mine", **flags))
    assert (path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_in_use_is_refused_to_other_writers(earlier: Path, flags: dict):
    writer, second = (RunFolder("search", SearchConfig(name="mine", resume=True)) for _ in range(2))
    with writer:
        before = contents(Path("runs"))
        with pytest.raises(UserError, match=r"runs/mine/search (is in use by another process|holds a run)"):
            RunFolder("search", SearchConfig(name="mine", **flags)).open()
        with pytest.raises(UserError, match="runs/mine/search is in use by another process: wait, or choose"):
            second.__enter__()
        RunFolder("search", SearchConfig(name="mine", **flags), writes=False).open()
        RunFolder("augment", AugmentConfig(name="mine")).open()
        assert before.items() <= contents(Path("runs")).items()
    with second:
        pass


def test_the_folder_is_checked_again_when_it_is_opened():
    first, second = (RunFolder("search", SearchConfig(name="mine", epochs=epochs)) for epochs in (1, 2))
    with first:
        pass
    before = contents(first.path)
    with pytest.raises(UserError, match="runs/mine/search holds a run"):
        second.open()
    assert contents(first.path) == before


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("files", [[], [".config.json.123"]])
def test_an_empty_folder_or_one_with_a_temporary_file_is_accepted(flags: dict, files: list[str]):
    path = Path("runs/mine/search")
    path.mkdir(parents=True)
    for file in files:
        (path / file).write_text('{"na')
    with RunFolder("search", SearchConfig(name="mine", **flags)):
        assert (path / "config.json").exists()


def test_a_kill_during_overwrite_leaves_the_whole_run_or_nothing(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
):
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


TEXTS = ["", "{", "[]", "3", "null", "\ud800", "[" * 10**5]
FORMS = ['{"inputs": [1]}', '{"starts": 5}', '{"inputs": null}']


@pytest.mark.parametrize(
    ("name", "text"),
    [*(("config.json", text) for text in TEXTS), *(("origin.json", text) for text in TEXTS + FORMS)],
)
def test_a_damaged_description_of_the_run_is_refused(earlier: Path, name: str, text: str):
    (earlier / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    before = contents(earlier)
    with pytest.raises(UserError, match=f"runs/mine/search/{name} is damaged"):
        RunFolder("search", SearchConfig(name="mine", resume=True))
    assert contents(earlier) == before


def test_a_process_that_does_not_write_creates_no_file(capsys):
    folder = RunFolder("search", SearchConfig(name="mine"), writes=False)
    folder.open()
    folder.open_events(1)
    log.info("not shown")
    folder.record([{"epoch": 1, "train/loss": 1.0}], USAGE)
    folder.save_checkpoint(STATE)
    assert not Path("runs").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}])
def test_a_process_that_does_not_write_leaves_an_existing_run_unchanged(earlier: Path, flags: dict):
    before = contents(earlier)
    RunFolder("search", SearchConfig(name="mine", **flags), writes=False).open()
    assert contents(earlier) == before


def test_the_log_goes_once_to_the_terminal_and_to_the_file(capsys):
    for flags in ({}, {"resume": True}):
        RunFolder("search", SearchConfig(name="mine", **flags)).open()
        log.info("line of %s", flags)
    assert capsys.readouterr().out.splitlines() == ["line of {}", "line of {'resume': True}"]
    lines = Path("runs/mine/search/search.log").read_text().splitlines()
    assert [line[-24:].partition("line")[2] for line in lines] == [" of {}", " of {'resume': True}"]


def test_an_epoch_is_recorded_in_the_history_tensorboard_and_the_log(capsys):
    folder = RunFolder("search", SearchConfig(name="mine"))
    folder.open()
    folder.open_events(1)
    history = []
    for epoch, loss in enumerate((1.5, 0.5), 1):
        history.append({"epoch": epoch, "train/loss": loss, "lr": 0.1 * epoch, "genotype": {"normal": []}})
        folder.record(history, USAGE)
    folder.events.close()
    lines = (folder.path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    events = EventAccumulator(str(folder.path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "lr", *USAGE.scalars()}
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.5), (2, 0.5)]
    assert [event.value for event in events.Scalars("machine/step_seconds")] == [0.25, 0.25]
    printed = [
        f"epoch   {epoch}  train/loss {loss}  {USAGE}\n" for epoch, loss in ((1, "1.500"), (2, "0.500"))
    ]
    assert capsys.readouterr().out == "".join(printed)


def test_add_image_adds_png_files_and_skips_others():
    folder = RunFolder("search", SearchConfig(name="mine"))
    folder.open()
    folder.open_events(1)
    imsave(folder.plots / "cell.png", np.random.default_rng(0).random((4, 6, 3)))
    (folder.plots / "cell.dot").write_text("digraph {}")
    folder.add_image("cell", folder.plots / "cell.png", 1)
    folder.add_image("source", folder.plots / "cell.dot", 1)
    folder.events.close()
    events = EventAccumulator(str(folder.path))
    events.Reload()
    assert events.Tags()["images"] == ["cell"]
    assert [(image.height, image.width) for image in events.Images("cell")] == [(4, 6)]
