"""One line for errors that a user can fix, a traceback for faults of the library."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)
BAD_INPUT = 2
LONGEST = 1000
INTERRUPTED = 130
_IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.\n")


class Interrupted(Exception):
    """Ctrl-C, with a message about the files that were saved."""


def guarded(run: Callable[[], int], debug: bool = False) -> int:
    """Call `run`; print errors that a user can fix as one line on stderr and return an exit code.

    Args:
        run: the command.
        debug: raise every error, with its traceback.

    Returns:
        The exit code of `run`; 2 after bad input; 130 after Ctrl-C, as in shells.
    """
    try:
        return run()
    except (KeyboardInterrupt, Interrupted) as stop:
        report(str(stop) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except USER_ERRORS as error:
        if debug:
            raise
        report(f"error: {one_line(error)}")
        return BAD_INPUT


def report(message: str) -> None:
    """Print a line on stderr that starts with the program's name."""
    print(f"aurel: {message}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line, or the name of its type if it has no message.

    Of an error in a process that reads data, the message of the first error is returned, without
    the traceback before it. A message longer than `LONGEST` characters, such as a list of missing
    keys, is cut.
    """
    text = str(error)
    if worker := _IN_WORKER.match(text):
        text = text.rpartition(f"\n{worker[1]}: ")[2]
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... (aurel --debug shows the rest)"
