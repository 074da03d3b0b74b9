"""The first line of the output comes before the slow imports: it is printed even where torch cannot be imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, environment

SLOW = ("torch", "sklearn", "scipy", "librosa", "tensorboard", "ray", "matplotlib")
LINES = {
    "prepare --corpus demo": "prepare   the corpus demo",
    "prepare --root my.csv --check": "prepare   checks the corpus manifest at my.csv",
    "search --dataset my --fold 2": "search    dataset my, fold 2, in runs/demo/search",
    "augment --name a/b": "augment   dataset demo, fold 1, in runs/a/b/augment",
    "evaluate --model runs/a --out o": "evaluate  runs/a on dataset demo, fold 1, to o",
    "predict --model runs/a x.wav y.wav": "predict   x.wav and 1 more by runs/a",
    "predict --model runs/a x.wav": "predict   x.wav by runs/a",
    "export --model runs/a --out a.onnx": "export    runs/a as onnx, to a.onnx",
    "crossval --methods darts cnn": "crossval  darts cnn svm on dataset demo, in runs/crossval",
}


def start(line: str, folder: Path, blocked: tuple[str, ...], **variables: str) -> subprocess.CompletedProcess:
    """Run a command in a process that cannot import the `blocked` libraries."""
    command, *words = line.split()
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({blocked})); sys.argv = {[f'{command}.py', *words]};"
        f"sys.path.insert(0, {str(ROOT)!r}); runpy.run_path({str(ROOT / command) + '.py'!r}, run_name='__main__')"
    )
    options = {"cwd": folder, "env": {**environment(), **variables}, "capture_output": True, "text": True}
    return subprocess.run([sys.executable, "-c", program], timeout=60, check=False, **options)


@pytest.mark.parametrize("line", LINES)
def test_a_line_says_what_is_done_before_slow_libraries_are_imported(line: str, tmp_path: Path) -> None:
    done = start(line, tmp_path, SLOW)
    is_for_people = done.stderr if line.startswith("predict") else done.stdout
    assert is_for_people.splitlines()[0] == LINES[line]
    assert "ModuleNotFoundError" in done.stderr, "it is printed before the imports"
    assert line.startswith("predict") or done.stdout.count("\n") == 1


def test_results_for_other_programs_stand_alone(tmp_path: Path) -> None:
    assert start("predict --model runs/a x.wav --json", tmp_path, SLOW).stdout == ""


def test_processes_of_torchrun_do_not_repeat_the_line(tmp_path: Path) -> None:
    assert start("search", tmp_path, SLOW, LOCAL_RANK="0").stdout == ""


def test_visualize_needs_no_slow_library_but_matplotlib(tmp_path: Path) -> None:
    done = start("visualize darts_v2", tmp_path, SLOW[:-1])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["plots/normal.png", "plots/reduce.png"]
