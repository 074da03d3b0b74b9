"""What must not matter does not: that a finished run is resumed, how many threads fetch its batches, a hidden GPU."""

import time

import pytest
from harness import EPOCHS, folder, here, result, run, start, whole
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data import batches


def shown(name: str) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard shows of a run."""
    events = EventAccumulator(str(folder(name)), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_a_finished_run_that_is_resumed_shows_every_scalar_once(whole: dict[str, bytes]):
    before = shown("whole")
    assert {"test/ua", "test/wa", "test/macro_f1", "train/loss", "machine/step_seconds"} <= before.keys()
    assert all(len(values) == (1 if tag.startswith("test/") else EPOCHS) for tag, values in before.items())
    time.sleep(1)  # TensorBoard reads the files of one second and process in no good order
    assert run("whole", "--resume") == 0
    assert shown("whole") == before
    assert result("whole") == whole


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_threads_that_fetch_batches_change_no_bit(whole: dict[str, bytes], monkeypatch, workers: int):
    """The undisturbed run keeps its features in memory; here they are read from the disk, batch by batch."""
    monkeypatch.setitem(batches.RESIDENT_BYTES, "cpu", 0)
    assert run(f"workers{workers}", "--overwrite", "--workers", workers) == 0
    assert result(f"workers{workers}") == whole


def test_a_hidden_gpu_is_as_none(whole: dict[str, bytes]):
    """`start` hides whatever GPU there is, and `--gpus auto` finds none; the undisturbed run was told --gpus none."""
    process = start("hidden", "--overwrite", "--gpus", "auto")
    assert process.communicate(timeout=120)[1] == ""
    assert result("hidden") == whole
