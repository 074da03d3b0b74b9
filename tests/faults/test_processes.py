"""Two processes in one folder, signals and kills: real processes, and afterwards the result of an undisturbed run."""

import signal
import subprocess

from harness import checkpoint, contents, folder, here, is_one_line, result, run, start, wait_for, whole


def stopped(name: str) -> subprocess.Popen:
    """A process that stands still in its second epoch."""
    process = start(name, "--overwrite")
    wait_for(process, "epoch   1")
    process.send_signal(signal.SIGSTOP)
    return process


def test_a_second_process_is_refused_and_a_killed_one_blocks_nobody(whole: dict[str, bytes], capsys):
    process = stopped("shared")
    before = contents(folder("shared"))
    for flag in ("--resume", "--overwrite"):
        assert run("shared", flag) == 2
        assert is_one_line(capsys.readouterr().err, "runs/shared/augment is in use by another process")
    assert contents(folder("shared")) == before
    process.kill()
    process.communicate()
    assert run("shared", "--resume") == 0
    assert result("shared") == whole


def test_sigusr1_saves_and_exits_with_138(whole: dict[str, bytes]):
    process = stopped("warned")
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1 == 138
    assert "--resume goes on from here" in (folder("warned") / "augment.log").read_text()
    assert checkpoint("warned")["position"]["epoch"] >= 1
    assert run("warned", "--resume") == 0
    assert result("warned") == whole
