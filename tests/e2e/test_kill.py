"""A hub that is killed again and again under load: nothing acknowledged is lost, nothing unsafe goes out twice."""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from hub.errors import AlreadyRunning
from hub.store.lock import ProcessLock

ROOT = Path(__file__).parents[2]
KILLS = 2
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


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    log = tmp_path / "sink.log"
    process = Process("tests.e2e.kill_sink", log)
    process.until(1)
    yield int(process.lines[0]), log
    process.kill()


@contextmanager
def ledger(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "var" / "unionhub.db")) as db:
        yield db


def by_state(folder: Path, destination: str) -> Counter[str]:
    with ledger(folder) as db:
        rows = db.execute(
            "SELECT state, count(*) FROM (SELECT state, destination FROM queue UNION ALL"
            " SELECT state, destination FROM delivery) WHERE destination = ? GROUP BY 1",
            (destination,),
        )
        return Counter(dict(rows.fetchall()))


def test_nothing_acknowledged_is_lost_and_nothing_unsafe_is_sent_twice(tmp_path: Path, sink: tuple[int, Path]) -> None:
    port, log = sink
    seed = int(os.environ.get("KILL_SEED", "11"))
    dice = random.Random(seed)
    folder = tmp_path / "hub"
    folder.mkdir()
    acknowledged: list[str] = []
    in_flight = 0
    for n in range(KILLS):
        hub = Process("tests.e2e.kill_hub", folder, port, f"run{n}", 400)
        hub.until(1, "ready")
        hub.until(dice.randrange(20, 300), "kept")
        hub.kill()
        acknowledged += hub.kept()
        left = by_state(folder, "safe") + by_state(folder, "unsafe")
        in_flight += left["leased"] + left["sending"]
    assert in_flight, f"no kill hit a delivery in flight (seed {seed})"

    last = Process("tests.e2e.kill_hub", folder, port, "last", 0)
    last.until(1, "ready")
    for _ in range(PATIENCE_S * 10):
        left = by_state(folder, "safe") + by_state(folder, "unsafe")
        if not left["pending"] + left["leased"] + left["sending"] + left["waiting"]:
            break
        last.read(0.1)
    assert last.stop() == 0

    with ledger(folder) as db:
        stored = {str(UUID(bytes=id)) for (id,) in db.execute("SELECT id FROM event")}
        states = {
            (destination, str(UUID(bytes=event))): state
            for destination, event, state in db.execute(
                "SELECT destination, event_id, state FROM queue UNION ALL"
                " SELECT destination, event_id, state FROM delivery"
            )
        }
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert set(acknowledged) <= stored, f"acknowledged and lost (seed {seed})"
    assert set(states) == {(name, event) for name in ("safe", "unsafe") for event in stored}

    sent: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for line in log.read_text().splitlines():
        name, event, delivery, digest, verdict = line.split()
        sent.setdefault((name, event), []).append((delivery, digest, verdict))
    for (name, event), tries in sent.items():
        assert len({(delivery, digest) for delivery, digest, _ in tries}) == 1, "another id or other bytes"
        taken = [verdict for _, _, verdict in tries].count("200")
        if name == "unsafe":
            assert all(verdict == "503" for _, _, verdict in tries[:-1]), f"{event} was taken and sent again"
            assert states[name, event] == "unknown" or taken == 1
        else:
            assert states[name, event] == "delivered" and 1 <= taken <= 1 + KILLS
    assert {event for name, event in sent if name == "safe"} == stored
    never_sent = {event for event in stored if ("unsafe", event) not in sent}
    assert all(states["unsafe", event] == "unknown" for event in never_sent)


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path, sink: tuple[int, Path]) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    hub = Process("tests.e2e.kill_hub", folder, sink[0], "one", 0)
    hub.until(1, "ready")
    pid = int(hub.lines[0].split()[1])
    lock = ProcessLock(folder / "var" / "unionhub.db.lock")
    with pytest.raises(AlreadyRunning, match=f"pid {pid}"):
        lock.acquire()
    hub.process.send_signal(signal.SIGSTOP)  # a stopped one still holds it
    with pytest.raises(AlreadyRunning):
        lock.acquire()
    hub.process.send_signal(signal.SIGCONT)
    hub.kill()
    lock.acquire()
    lock.release()
