"""One process per ledger, and who it is. What kills do to it: ``tests/torture/test_kills.py``."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hub.errors import AlreadyRunning
from hub.store.lock import ProcessLock

HOLDER = """
import sys
from pathlib import Path
from hub.store.lock import ProcessLock
ProcessLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "unionhub.db.lock"
    lock = ProcessLock(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=f"pid {first.pid}"):
            lock.acquire()
        first.send_signal(signal.SIGSTOP)  # a stopped one still holds it
        with pytest.raises(AlreadyRunning):
            lock.acquire()
        first.kill()
        first.wait()
    lock.acquire()
    lock.release()
