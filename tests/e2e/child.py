"""A process of the test's own, and what it prints."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Long enough for a machine with much else to do; a hub that hangs fails the test here.
PATIENCE_S = 60


class Process:
    """A process of the test, with what it printed so far."""

    def __init__(self, module: str, *arguments: object) -> None:
        self.lines: list[str] = []
        self._partial = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def read(self, within_s: float) -> bool:
        """Takes in what it prints next; False when it printed nothing in time or has ended."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], within_s)[0]:
            return False
        chunk = os.read(self.process.stdout.fileno(), 65536)
        *whole, self._partial = (self._partial + chunk).split(b"\n")
        self.lines += [line.decode() for line in whole]
        return bool(chunk)

    def until(self, count: int, word: str = "") -> None:
        """Waits for that many lines that begin so."""
        while sum(line.startswith(word) for line in self.lines) < count:
            assert self.read(PATIENCE_S), f"it printed only {self.lines[-3:]}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        while self.read(0):
            pass
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        while self.read(0):
            pass
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def kept(self) -> list[str]:
        return [line.split()[1] for line in self.lines if line.startswith("kept ")]
