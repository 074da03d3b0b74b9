"""Files of strangers: whatever is in one, it is read, or one line says what is wrong with it."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hostile import READERS, spoilt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils import UserError

PATIENCE = 60  # seconds that a file of some kB may take at most, on a machine that has much else to do
OPTIONS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module", params=READERS)
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A reader's folder as it should be, and the name of the file that is to be spoilt."""
    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        READERS[request.param].make()
    with copy_of(folder):
        READERS[request.param].use()
    return folder, request.param


@contextmanager
def copy_of(folder: Path) -> Iterator[None]:
    """Work in a copy of a folder; what hangs there is ended."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(folder, place, dirs_exist_ok=True)
        os.chdir(place)
        before = signal.signal(signal.SIGALRM, hung)
        signal.alarm(PATIENCE)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            os.chdir(here)


def hung(*_: object) -> None:
    raise AssertionError(f"not done after {PATIENCE} s")


def check(good: tuple[Path, str], data: st.DataObject) -> None:
    """Anything but a result, or an error of the kinds that become one line, fails."""
    folder, file = good
    content = data.draw(spoilt((folder / file).read_bytes()) | st.binary(max_size=200))
    with copy_of(folder):
        Path(file).write_bytes(content)
        with suppress(UserError, OSError):
            READERS[file].use()
        assert not Path("sprung").exists()


@settings(max_examples=4, **OPTIONS)
@given(data=st.data())
def test_a_spoilt_file_is_read_or_refused(good: tuple[Path, str], data: st.DataObject):
    check(good, data)


@pytest.mark.slow
@settings(max_examples=2000, **OPTIONS)
@given(data=st.data())
def test_many_spoilt_files_are_read_or_refused(good: tuple[Path, str], data: st.DataObject):
    check(good, data)
