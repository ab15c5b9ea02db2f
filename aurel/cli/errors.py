"""One line for what a user can mend, a traceback for what only we can."""

from __future__ import annotations

import sys
from collections.abc import Callable

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)
BAD_INPUT = 2
LONGEST = 1000
INTERRUPTED = 130


class Interrupted(Exception):
    """Ctrl-C while there is something to say about what was saved."""


def guarded(run: Callable[[], int], debug: bool = False) -> int:
    """Call `run`; turn errors of the user's making into a line on stderr and an exit code.

    Args:
        run: the command.
        debug: let every error through, with its traceback.

    Returns:
        what `run` returns; 2 after bad input; 130 after Ctrl-C, as shells have it.
    """
    try:
        return run()
    except (KeyboardInterrupt, Interrupted) as stop:
        tell(str(stop) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except USER_ERRORS as error:
        if debug:
            raise
        tell(f"error: {one_line(error)}")
        return BAD_INPUT


def tell(message: str) -> None:
    """Print a line on stderr, under the program's name."""
    print(f"aurel: {message}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks; its type where it has no message.

    Of a very long one, such as a list of all the keys that a file lacks, the beginning.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... (aurel --debug shows the rest)"
