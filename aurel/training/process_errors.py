"""Errors of other processes of a run, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)(.*)", re.DOTALL)
_PEER = re.compile(
    r"gloo|nccl|processgroup|connection (closed|reset)|broken pipe|timed out waiting|socket",
    re.IGNORECASE,
)


@contextmanager
def one_line_process_errors() -> Iterator[None]:
    """Replace torch's errors about processes that ended.

    Raises:
        ChildProcessError: a process that reads data ended.
        ConnectionError: another process that trains ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if found := _WORKER.search(text):
            signal = re.search(r"killed by signal: (\w[\w ]*)", text)
            how = f" ({signal[1]})" if signal else ""
            raise ChildProcessError(
                f"a process that reads data ended{how}, number {found[1].strip()}: often memory is "
                "missing, which a lower data.num_workers or data.batch_size saves; --ckpt_path "
                "last continues from the last checkpoint"
            ) from error
        if _PEER.search(text):
            raise ConnectionError(
                "another process of this run ended, or does not answer; --ckpt_path last continues "
                f"from the last checkpoint ({' '.join(text.split())[:200]})"
            ) from error
        raise
