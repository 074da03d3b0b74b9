"""What must not change a result: resuming a finished run, the number of worker threads, a hidden GPU."""

import time

import pytest
from harness import EPOCHS, expected, folder, in_workspace, result, run, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data import batches


def scalars(name: str) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard shows of a run, as (step, value) by tag."""
    events = EventAccumulator(str(folder(name)), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_a_resumed_finished_run_has_every_scalar_once(expected: dict[str, bytes]):
    before = scalars("undisturbed")
    assert {"test/ua", "test/wa", "test/macro_f1", "train/loss", "machine/step_seconds"} <= before.keys()
    assert all(len(values) == (1 if tag.startswith("test/") else EPOCHS) for tag, values in before.items())
    time.sleep(1)  # TensorBoard orders event files by their second
    assert run("undisturbed", "--resume") == 0
    assert scalars("undisturbed") == before
    assert result("undisturbed") == expected


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_reading_batches_from_disk_with_any_number_of_threads_changes_no_bit(
    expected: dict[str, bytes], monkeypatch, workers: int
):
    monkeypatch.setitem(batches.RESIDENT_BYTES, "cpu", 0)
    assert run(f"workers{workers}", "--overwrite", "--workers", workers) == 0
    assert result(f"workers{workers}") == expected


def test_with_a_hidden_gpu_gpus_auto_runs_on_the_cpu(expected: dict[str, bytes]):
    """`start` hides every GPU; the undisturbed run has --gpus none."""
    process = start("hidden", "--overwrite", "--gpus", "auto")
    assert process.communicate(timeout=120)[1] == ""
    assert result("hidden") == expected
