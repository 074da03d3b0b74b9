"""Run commands of this repository under a stand-in for Windows: what that system lacks or refuses is refused here.

python tests/windows.py COMMAND [WORD ...] [then COMMAND ...]

Other libraries are imported before, since their own code for Windows is not what is tested. It needs Linux's /proc.
"""

import builtins
import errno
import importlib
import os
import pkgutil
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("torch.utils.tensorboard", "sklearn.model_selection", "matplotlib.figure", "psutil", "filelock",
             "pydantic", "soundfile", "soxr", "safetensors.torch", "librosa", "graphviz",
             "espeakng_loader")  # fmt: skip
MODULES = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "syslog", "posix", "pty"}
FUNCTIONS = ("preadv", "pread", "pwritev", "sched_getaffinity", "fork", "getpgid", "killpg", "setsid",
             "mkfifo", "sysconf", "statvfs", "O_DIRECTORY", "O_NOFOLLOW")  # fmt: skip
SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGTSTP", "SIGQUIT")


def main() -> None:
    """Run the commands, and print the names of files that Windows could not have."""
    for library in LIBRARIES:
        importlib.import_module(library)
    for part in pkgutil.walk_packages(sys.modules["librosa"].__path__, "librosa."):
        importlib.import_module(part.name)  # librosa itself imports its parts when they are first used
    sys.path.insert(0, str(ROOT))
    refuse()
    words = sys.argv[1:]
    while words:
        end = words.index("then") if "then" in words else len(words)
        run(*words[:end])
        words = words[end + 1 :]
    for path in Path().rglob("*"):
        if set(path.name) & set('<>:"|?*\\') or path.name[-1] in ". ":
            print("no name on Windows:", path)


def run(command: str, *words: str) -> None:
    """Run a command as `python COMMAND.py WORDS` does, but in this process."""
    module = importlib.import_module(command)
    kind = getattr(importlib.import_module("config"), f"{command.capitalize()}Config")
    sys.argv = [f"{command}.py", *words]
    cli = importlib.import_module("cli")
    cli.run_command(module.run, cli.command_line(kind))


def refuse() -> None:
    """Make this process lack what Windows lacks, and refuse what Windows refuses."""
    refuse_imports()
    for name in FUNCTIONS:
        if hasattr(os, name):
            delattr(os, name)
    for name in SIGNALS:
        delattr(signal, name)
    shutil._use_fd_functions = False
    tempfile._O_TMPFILE_WORKS = False
    os.open = refusing(os.open, lambda path, *_, **__: os.path.isdir(path) and errno.EACCES)
    os.fsync = refusing(os.fsync, lambda descriptor: is_read_only(descriptor) and errno.EBADF)
    os.replace = refusing(os.replace, lambda old, new: (in_use(old) or in_use(new)) and errno.EACCES)
    os.rename = refusing(
        os.rename,
        lambda old, new: (in_use(old) and errno.EACCES) or (os.path.exists(new) and errno.EEXIST),
    )
    for name in ("unlink", "remove", "rmdir"):
        setattr(os, name, refusing(getattr(os, name), lambda path, **_: in_use(path) and errno.EACCES))
    memory = SimpleNamespace(peak_wset=10**9)
    importlib.import_module("psutil").Process.memory_info = lambda _: memory
    warnings.showwarning = show_warning  # with -X warn_default_encoding: text is UTF-8 only where it says so
    importlib.import_module("utils").WINDOWS = True


def refuse_imports() -> None:
    """Raise `ImportError` where a module of this repository imports one that Windows does not have."""
    imported = builtins.__import__

    def import_module(name, globals=None, *arguments, **options):
        file = str((globals or {}).get("__file__", ""))
        if name in MODULES and file.startswith(str(ROOT)) and "site-packages" not in file:
            raise ImportError(f"no module named {name}: {file}")
        return imported(name, globals, *arguments, **options)

    builtins.__import__ = import_module


def refusing(function, reason):
    """The function, which raises `OSError` where `reason` of its arguments is the number of an error."""

    def call(*arguments, **options):
        if number := reason(*arguments, **options):
            raise OSError(number, os.strerror(number), str(arguments[0]))
        return function(*arguments, **options)

    return call


def is_read_only(descriptor: int) -> bool:
    flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").split("flags:")[1].split()[0]
    return int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def in_use(path: str | os.PathLike) -> bool:
    """Whether this process has the file open, or a file in the folder."""
    place = os.path.realpath(path)
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    opened = [os.readlink(link) for link in links if os.path.lexists(link)]
    return any(each == place or each.startswith(place + os.sep) for each in opened)


def show_warning(message, category, filename, lineno, *_, **__) -> None:
    if category is EncodingWarning and filename.startswith(str(ROOT)) and "site-packages" not in filename:
        print(f"text without an encoding: {filename}:{lineno}")


if __name__ == "__main__":
    main()
