"""Commands in processes of their own, and their end by Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from aurel.cli.processes import Job, run_jobs

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def job(label: str, *codes: str, log: Path | None = None) -> Job:
    return Job(label, [lambda code=code: python(code) for code in codes], log)  # type: ignore[misc]


def test_commands_of_a_job_run_in_order_until_one_fails(tmp_path: Path) -> None:
    log, ended = tmp_path / "folder" / "run.log", []
    jobs = [
        job("a", "print(1)", "print(2)", log=log),
        job("b", "raise SystemExit(1)", "print('never')"),
        job("c", "print(3)", log=log),
    ]
    run_jobs(jobs, 1, lambda one: ended.append((one.label, one.code)))
    assert ended == [("a", 0), ("b", 1), ("c", 0)]
    assert log.read_text().split() == ["1", "2", "3"]


def test_after_bad_input_no_further_job_starts() -> None:
    jobs = [job("a", "raise SystemExit(2)"), job("b", "pass")]
    run_jobs(jobs, 1)
    assert [one.code for one in jobs] == [2, None]


def test_jobs_run_at_the_same_time(tmp_path: Path) -> None:
    meet = (
        "import os, sys, time\n"
        "mine, other = {paths}\n"
        "open(mine, 'w').close()\n"
        "end = time.monotonic() + 20\n"
        "while not os.path.exists(other) and time.monotonic() < end: time.sleep(0.01)\n"
        "sys.exit(not os.path.exists(other))"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    jobs = [job("a", meet.format(paths=(a, b))), job("b", meet.format(paths=(b, a)))]
    run_jobs(jobs, 2)
    assert [one.code for one in jobs] == [0, 0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_reaches_every_process_once_and_waits_for_them(
    tmp_path: Path, number: signal.Signals
) -> None:
    started, saved = tmp_path / "started", tmp_path / "saved"
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n"
        f"    open({str(started)!r}, 'w').close()\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(0.3)\n"
        f"    open({str(saved)!r}, 'a').write('saved ')\n"
        "    raise SystemExit(130)"
    )

    def stop() -> None:
        deadline = time.monotonic() + 30
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), number)

    one, handlers = job("a", code), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs([one, job("b", "pass")], 1)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, handlers[0])
    assert one.code == 130 and saved.read_text() == "saved "
    assert signal.getsignal(signal.SIGTERM) == handlers[1]


def test_commands_can_be_stopped_behind_nohup() -> None:
    code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run_jobs([one := job("a", code)], 1)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert one.code == 0
