"""Running a command: its first line, and the exit code and the line of an error."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cli.flags import Config
from cli.messages import MPS_FALLBACK, error_message
from cli.parser import parse
from utils import Interrupted, UserError, printable


def command_line(kind: type[Config]) -> Config:
    """Parse this process's command line; on a mistake, print one line and exit with code 2.

    The commands call this before they import torch, which takes seconds, so that --help and mistakes are answered at
    once. For the same reason, the first line of the output says here what the command is about to do.
    """
    with exit_codes():
        config = parse(kind)
        opening = config.opening()
        if opening and "LOCAL_RANK" not in os.environ:  # torchrun sets it in every process
            stream = sys.stderr if kind.only_results else sys.stdout
            print(f"{kind.command:9} {printable(opening)}", file=stream, flush=True)
        return config


def run_command(run: Callable[[Config], Any], config: Config) -> Any:
    """Return `run(config)`; if it fails, exit as `exit_codes` says."""
    with exit_codes():
        result = run(config)
        sys.stdout.flush()
        return result


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn errors that the user can act on into one line on stderr and an exit code.

    2: wrong input, or an error of the operating system; 128 + the signal's number: interrupted.
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may be invalid Unicode
    try:
        yield
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.args[0])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (UserError, OSError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) and MPS_FALLBACK not in str(error):
            raise
        print("error:", printable(" ".join(error_message(error).split())), file=sys.stderr)
        sys.exit(2)
