"""What the story needs around it: a folder, free ports, simulators, a hub process, a look into its file."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub.plugins import Registry, load_plugins
from hub.settings import Configuration, load, write_simulator_secrets
from hub.simulators import RunningSimulator, start_all

SOURCE = Path(__file__).resolve().parents[2] / "config" / "demo"
#: The simulators' ports in ``config/demo``; each run takes free ones.
FIXED_PORTS = ("18081", "18082", "12775", "18084")


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


class Stage:
    """Everything of one run, below one folder; ``close`` ends only what it started."""

    def __init__(self, folder: Path, port: int, key: bytes) -> None:
        self.folder = folder
        self.config_dir = folder / "config"
        self.key = key
        self.port = free_port(port)
        self.registry: Registry = load_plugins()
        self.hub: subprocess.Popen[bytes] | None = None
        self.simulators: dict[str, RunningSimulator] = {}
        self._copy_configuration()
        self.config = self._load()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def database(self) -> Path:
        return self.config.database

    def _copy_configuration(self) -> None:
        shutil.copytree(SOURCE, self.config_dir)
        ports = {fixed: str(free_port()) for fixed in FIXED_PORTS}
        for path in (self.config_dir / "connections").glob("*.toml"):
            path.write_text(re.sub(r"\b(" + "|".join(FIXED_PORTS) + r")\b", lambda m: ports[m[1]], path.read_text()))
        write_simulator_secrets(self.config_dir)

    def _load(self) -> Configuration:
        known = self.registry
        config = load(self.config_dir, {}, known.connector_types, known.event_types, known.handlers)
        if known.broken:
            raise DemoFailed("; ".join(f"{b.name}: {b.why}" for b in known.broken))
        return config

    def start_simulators(self, seed: int) -> None:
        key = self.key.hex()
        extra = {
            "citizen_app": ["--key", key, "--hub-url", self.url.rstrip("/")],
            "telecom_sms": ["--key", key, "--seed", str(seed)],
            "doc_axis": ["--seed", str(seed), "--documents", "20"],
        }
        self.simulators = start_all(self.config, self.registry, self.folder / "simulators", extra)

    def start_hub(self) -> None:
        """Starts the hub and waits until it answers."""
        environ = {**os.environ, "UNIONHUB_HTTP__PORT": str(self.port)}
        with (self.folder / "hub.log").open("ab") as log:
            self.hub = subprocess.Popen(
                [sys.executable, "-m", "hub.cli", "run", "--config", str(self.config_dir)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environ,
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
            tail = (self.folder / "hub.log").read_text(errors="replace")[-800:]
            raise DemoFailed(f"the hub ended with code {self.hub.returncode}: {tail}")
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
            raise DemoFailed("the hub did not stop within 15 s of SIGTERM") from None
        return time.monotonic() - started

    def command(self, *arguments: str) -> Any:
        """Runs ``unionhub ... --json`` as an operator would; answers what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "hub.cli", *arguments, "--config", str(self.config_dir), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DemoFailed(f"unionhub {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Committed rows of the hub's file, read from outside, whether the hub runs or not."""
        db = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)
        try:
            return db.execute(sql, parameters).fetchall()
        finally:
            db.close()

    def wait(self, condition: Callable[[], Any], within_s: float, what: str, every_s: float = 0.05) -> Any:
        until = time.monotonic() + within_s
        while True:
            answer = condition()
            if answer:
                return answer
            if time.monotonic() > until:
                raise DemoFailed(f"waited {within_s:.0f} s for the {what}")
            if self.hub is not None and self.hub.returncode is None:
                self.hub_died()
            time.sleep(every_s)

    def close(self) -> None:
        if self.hub is not None and self.hub.poll() is None:
            self.hub.terminate()
            try:
                self.hub.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.hub.kill()
                self.hub.wait()
        for simulator in self.simulators.values():
            simulator.stop()
        self.simulators = {}
