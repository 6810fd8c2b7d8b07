"""Starting the simulated partners that a configuration points at, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hub.errors import HubError
from hub.plugins import Registry
from hub.secret_files import resolve_secret
from hub.settings import Configuration


class RunningSimulator:
    """One simulator process; ``log`` is where it writes what it took. It answers after ``wait_ready``."""

    def __init__(self, type_name: str, module: str, arguments: list[str], log: Path) -> None:
        self.type_name = type_name
        self.log = log
        self.ready: dict[str, Any] = {}
        self._module = module
        log.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--log", str(log), *arguments],
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for the hub; we stop them ourselves
        )

    def wait_ready(self) -> None:
        """Raises ``HubError`` when it ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise HubError(
                f"{self._module} không chạy được, xem lỗi ở trên; thường là cổng đã có chương trình khác dùng"
                f" / {self._module} did not start (exit code {code}), see above: often its port is taken"
            )
        self.ready = json.loads(line)

    def control(self, **fields: Any) -> dict[str, Any]:
        """Changes its behaviour (without fields: only looks); answers its state and counts."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ready['control']}/control",
            data=json.dumps(fields).encode() if fields else None,
            headers={"Content-Type": "application/json"},
            method="PUT" if fields else "GET",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
            return state

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def start_all(
    config: Configuration, registry: Registry, folder: Path, extra: Mapping[str, list[str]] | None = None
) -> dict[str, RunningSimulator]:
    """One process per connector type with connections; logs in ``folder``; ``extra`` arguments by type."""
    started: dict[str, RunningSimulator] = {}
    try:
        for name, kind in registry.connector_types.items():
            mine = {c.name: c.settings for c in config.connections.values() if c.type == name and c.enabled}
            if not mine or kind.simulator is None:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            arguments = kind.simulator.arguments(
                mine, lambda ref: resolve_secret(ref, config.folder, os.environ), folder
            )
            started[name] = RunningSimulator(
                name, kind.simulator.module, [*arguments, *(extra or {}).get(name, [])], folder / f"{name}.jsonl"
            )
        # They take a while to load, so they do it side by side.
        for simulator in started.values():
            simulator.wait_ready()
    except BaseException:
        for simulator in started.values():
            simulator.stop()
        raise
    return started


def run_simulators(config: Configuration, registry: Registry) -> int:
    """Until Ctrl-C or SIGTERM; prints where each listens."""
    # From the first process on, whoever stops us stops them too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = start_all(config, registry, config.var_dir / "simulators")
    for simulator in started.values():
        print(f"{simulator.type_name}: {json.dumps(simulator.ready)}  log: {simulator.log}", flush=True)
    if not started:
        print("Không có kết nối nào cần mô phỏng / no connection to simulate", flush=True)
        return 1
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        for simulator in started.values():
            simulator.stop()
    return 0
