"""Damaged files of every kind that the commands read: each is read or refused, nothing is executed."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hostile import READERS, damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils import UserError

TIMEOUT = 60  # seconds for a file of some kB, on a busy machine
OPTIONS = {"suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module", params=READERS)
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of undamaged files, and the name of the file to damage."""
    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        READERS[request.param].make()
    with copy_of(folder):
        READERS[request.param].use()
    return folder, request.param


@contextmanager
def copy_of(folder: Path) -> Iterator[None]:
    """Work in a copy of a folder, for at most `TIMEOUT` seconds."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        os.chdir(copy)
        handler = signal.signal(signal.SIGALRM, time_out)
        signal.alarm(TIMEOUT)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
            os.chdir(before)


def time_out(*_: object) -> None:
    raise AssertionError(f"not done after {TIMEOUT} s")


def check(good: tuple[Path, str], data: st.DataObject) -> None:
    """Fail unless the damaged file is read, or raises an error that the commands print as one line."""
    folder, file = good
    content = data.draw(damaged((folder / file).read_bytes()) | st.binary(max_size=200))
    with copy_of(folder):
        Path(file).write_bytes(content)
        with suppress(UserError, OSError):
            READERS[file].use()
        assert not Path("sprung").exists()


@settings(max_examples=4, **OPTIONS)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(good: tuple[Path, str], data: st.DataObject):
    check(good, data)


@pytest.mark.slow
@settings(max_examples=2000, **OPTIONS)
@given(data=st.data())
def test_many_damaged_files_are_read_or_refused(good: tuple[Path, str], data: st.DataObject):
    check(good, data)
