"""What the story needs around it: a folder, free ports, simulators, a hub process, a look into its database."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.demo.outside import Outside, Window
from hub.plugins import Registry, load_plugins
from hub.settings import Configuration, load, write_simulator_secrets
from hub.settings_model import PREFIX
from hub.simulators import RunningSimulator, start_all

SOURCE = Path(__file__).parent / "config"
#: The simulators' ports in ``config/demo``; each run takes free ones.
FIXED_PORTS = ("18081", "18082", "12775", "18084")
#: On PostgreSQL what a killed hub held is its own until its lease has ended: nobody wants to watch that for long.
QUICK_TAKE_OVER = {"WORKER__LEASE_S": "8", "WORKER__ATTEMPT_DEADLINE_S": "7"}


class DemoFailed(Exception):
    """The story did not end as it must."""


def free_port(wanted: int = 0) -> int:
    """``wanted`` if nobody listens there, else any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Books:
    """What remains of a run: its configuration, the ledger, the partners' logs and the key of their hashes.

    ``database_url``: "" is the SQLite file in the folder.
    """

    folder: Path
    config: Configuration
    registry: Registry
    key: bytes
    database_url: str = ""

    @classmethod
    def new(cls, folder: Path, database_url: str = "") -> Books:
        """Copies the demo's configuration to ``folder``, on free ports and with a fresh key."""
        shutil.copytree(SOURCE, folder / "config")
        ports = {fixed: str(free_port()) for fixed in FIXED_PORTS}
        for path in (folder / "config" / "connections").glob("*.toml"):
            path.write_text(re.sub(r"\b(" + "|".join(FIXED_PORTS) + r")\b", lambda m: ports[m[1]], path.read_text()))
        write_simulator_secrets(folder / "config")
        (folder / "simulators").mkdir()
        (folder / "simulators" / "key").write_text(secrets.token_hex(16))
        return cls.open(folder, database_url)

    @classmethod
    def open(cls, folder: Path, database_url: str = "") -> Books:
        known = load_plugins()
        if known.broken:
            raise DemoFailed("; ".join(f"{b.name}: {b.why}" for b in known.broken))
        config = load(
            folder / "config", environ_of(database_url), known.connector_types, known.event_types, known.handlers
        )
        key = bytes.fromhex((folder / "simulators" / "key").read_text())
        return cls(folder, config, known, key, database_url)

    @property
    def logs(self) -> dict[str, Path]:
        """The partners' logs by connector type."""
        return {path.stem: path for path in sorted((self.folder / "simulators").glob("*.jsonl"))}

    @property
    def hub_log(self) -> Path:
        return self.folder / "hub.log"

    @property
    def seen(self) -> Path:
        """Pages, metrics and problem documents as a visitor saw them."""
        return self.folder / "seen"

    @property
    def ledger(self) -> Outside:
        return Outside(self.config.database, self.database_url)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Committed rows of the hub's database, read from outside."""
        return self.ledger.query(sql, *parameters)


def environ_of(database_url: str) -> dict[str, str]:
    """The variables that put the demo's hub on a PostgreSQL database: what an operator changes, and a short lease."""
    if not database_url:
        return {}
    return {PREFIX + name: value for name, value in {"DATABASE_URL": database_url, **QUICK_TAKE_OVER}.items()}


class Stage:
    """Everything that runs during one telling; ``close`` ends only what it started."""

    def __init__(self, folder: Path, port: int, database_url: str = "") -> None:
        self.folder = folder
        self.books = Books.new(folder, database_url)
        self._window = Window(self.books.ledger)
        self.query = self._window.query
        self.port = free_port(port)
        self.hub: subprocess.Popen[bytes] | None = None
        self.simulators: dict[str, RunningSimulator] = {}
        # The operator's own settings are for another hub.
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environ = theirs | environ_of(database_url)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start_simulators(self, seed: int) -> None:
        key = self.books.key.hex()
        extra = {
            "citizen_app": ["--key", key, "--hub-url", self.url.rstrip("/")],
            "telecom_sms": ["--key", key, "--seed", str(seed)],
            "doc_axis": ["--seed", str(seed), "--documents", "20"],
        }
        self.simulators = start_all(self.books.config, self.books.registry, self.folder / "simulators", extra)

    def start_hub(self) -> None:
        """Starts the hub and waits until it answers."""
        with self.books.hub_log.open("ab") as log:
            self.hub = subprocess.Popen(
                [sys.executable, "-m", "hub.cli", "run", "--config", str(self.books.config.folder)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**self._environ, "UNIONHUB_HTTP__PORT": str(self.port)},
                start_new_session=True,
            )
        self.wait(lambda: self.answers() or self.hub_died(), 30, "hub to answer")

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
        except OSError:
            return False
        return True

    def hub_died(self) -> bool:
        assert self.hub is not None
        if self.hub.poll() is not None:
            tail = self.books.hub_log.read_text(errors="replace")[-800:]
            raise DemoFailed(f"hub tự dừng / the hub ended (exit code {self.hub.returncode}): {tail}")
        return False

    def kill_hub(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        assert self.hub is not None
        self.hub.send_signal(signal.SIGKILL)
        self.hub.wait()

    def stop_hub(self) -> float:
        """SIGTERM; answers the seconds it took. It must be within the ten it promises."""
        assert self.hub is not None
        started = time.monotonic()
        self.hub.send_signal(signal.SIGTERM)
        try:
            self.hub.wait(timeout=15)
        except subprocess.TimeoutExpired:
            raise DemoFailed("hub không dừng trong 15 giây / the hub did not stop within 15 s of SIGTERM") from None
        return time.monotonic() - started

    def command(self, *arguments: str) -> Any:
        """Runs ``unionhub ... --json`` as an operator would; answers what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "hub.cli", *arguments, "--config", str(self.books.config.folder), "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=self._environ,
        )
        if done.returncode != 0:
            raise DemoFailed(f"unionhub {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def visit(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> int:
        """Asks the hub as anybody on this machine could, keeps what was answered and tells its status."""
        request = urllib.request.Request(self.url.rstrip("/") + path, data=body, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, said = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, said = error.code, error.read()
        self.books.seen.mkdir(exist_ok=True)
        number = len(list(self.books.seen.iterdir()))
        (self.books.seen / f"{number:02}-{status}.txt").write_bytes(said)
        return int(status)

    def wait(self, condition: Callable[[], Any], within_s: float, what: str, every_s: float = 0.05) -> Any:
        until = time.monotonic() + within_s
        while True:
            answer = condition()
            if answer:
                return answer
            if time.monotonic() > until:
                raise DemoFailed(f"đợi {within_s:.0f} giây chưa xong / waited {within_s:.0f} s for the {what}")
            if self.hub is not None and self.hub.returncode is None:
                self.hub_died()
            time.sleep(every_s)

    def stop_simulators(self) -> None:
        for simulator in self.simulators.values():
            simulator.stop()
        self.simulators = {}

    def close(self) -> None:
        if self.hub is not None and self.hub.poll() is None:
            self.hub.terminate()
            try:
                self.hub.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.hub.kill()
                self.hub.wait()
        self.stop_simulators()
        self._window.close()
