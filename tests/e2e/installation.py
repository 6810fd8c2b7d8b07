"""The shipped configuration on free ports, run as an operator runs it: ``unionhub simulators``, ``unionhub run``."""

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
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xlsxwriter

ROOT = Path(__file__).parents[2]
GIVEN = ("An", "Bình", "Cường", "Dũng", "Hải", "Hùng", "Long", "Nam", "Sơn", "Tuấn")
PORTS = ("18081", "18082", "12775", "18084")
#: What the shipped subscriptions.toml shows as a comment: messages to people.
CAMPAIGN = """
[[subscription]]
name = "dot-gui-tin"
types = ["vn.congdoan.campaign.announced.v1"]
to_each = { app = "c-thainguyen", phone = "nha-mang" }
fields = ["title", "text"]
ordered = false
"""


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for each in held:
        each.close()
    return ports


def until(condition: Callable[[], Any], within_s: float = 30.0, every_s: float = 0.05) -> Any:
    """What ``condition`` answers as soon as it is true; AssertionError at the deadline."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {within_s} s"
        time.sleep(every_s)
    return answer


@dataclass
class RunningHub:
    """One ``unionhub run`` process."""

    process: subprocess.Popen[str]
    #: As printed for the operator, with the token if there is one.
    url: str

    @property
    def base(self) -> str:
        return self.url.partition("?")[0].rstrip("/")

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.base + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def stop(self, by: signal.Signals = signal.SIGTERM, within_s: float = 10.0) -> int:
        self.process.send_signal(by)
        return self.process.wait(within_s)


class Installation:
    """A folder with ``config/`` and ``var/``, and whatever runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config"
        self.log = folder / "hub.log"
        self.controls: dict[str, int] = {}
        self.logs: dict[str, Path] = {}
        #: How much of each simulator's log is from before this installation.
        self._from: dict[str, int] = {}

    @classmethod
    def new(cls, folder: Path) -> Installation:
        """The shipped configuration on free ports."""
        made = cls(folder)
        shutil.copytree(ROOT / "config", made.config, ignore=shutil.ignore_patterns("demo", "secrets"))
        ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        for path in (made.config / "connections").glob("*.toml"):
            path.write_text(re.sub("|".join(PORTS), lambda m: ports[m[0]], path.read_text()))
        return made

    def another(self, folder: Path, subscriptions: str) -> Installation:
        """With a ledger of its own beside the same simulators, and with more subscriptions."""
        other = Installation(folder)
        shutil.copytree(self.config, other.config)
        other.controls, other.logs = self.controls, self.logs
        other._from = {name: log.stat().st_size for name, log in self.logs.items()}
        with (other.config / "subscriptions.toml").open("a") as file:
            file.write(subscriptions)
        return other

    @contextmanager
    def simulators(self) -> Iterator[None]:
        """Until the end of the block; notes where each can be told how to behave."""
        with self._process("simulators") as process:
            assert process.stdout is not None
            for _ in range(len(PORTS)):
                line = process.stdout.readline()
                name, ready, log = re.fullmatch(r"(\w+): (\{.*\})  log: (.*)\n", line, re.DOTALL).groups()  # type: ignore[union-attr]
                self.controls[name], self.logs[name] = json.loads(ready)["control"], Path(log)
            yield
            process.terminate()
            assert process.wait(20) == 0

    @contextmanager
    def hub(self, *arguments: str, **environ: str) -> Iterator[RunningHub]:
        """``unionhub run`` on any free port, from when it has said where it listens."""
        with self._process("run", *arguments, **{"UNIONHUB_HTTP__PORT": "0", **environ}) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert "console: " in said, self.log.read_text()[-2000:]
            yield RunningHub(process, said.rpartition(" ")[2].strip())

    @contextmanager
    def _process(self, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
        with self.log.open("a") as log, subprocess.Popen(
            [sys.executable, "-m", "hub.cli", *arguments, "--config", str(self.config)],
            stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environ},
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(15)
                    except subprocess.TimeoutExpired:
                        process.kill()

    # -- partners --------------------------------------------------------------------------------

    def behave(self, name: str, **change: Any) -> dict[str, Any]:
        """Changes a simulator's behaviour; without a change, its state."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.controls[name]}/control",
            data=json.dumps(change).encode() if change else None,
            headers={"Content-Type": "application/json"},
            method="PUT" if change else "GET",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
            return state

    def taken(self, name: str) -> Counter[str]:
        """How often each id was taken, from the partner's own log."""
        with self.logs[name].open() as log:
            log.seek(self._from.get(name, 0))
            lines = [json.loads(line) for line in log.read().splitlines()]
        return Counter(line["id"] for line in lines if line["verdict"] == "taken")

    # -- the ledger, from outside ----------------------------------------------------------------

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.folder}/var/unionhub.db?mode=ro", uri=True, timeout=5)) as db:
            return db.execute(sql, values).fetchall()

    def count(self, sql: str, *values: object) -> int:
        return int(self.rows(sql, *values)[0][0])

    def states(self, destination: str) -> dict[str, int]:
        both = "SELECT destination, state FROM queue UNION ALL SELECT destination, state FROM delivery"
        return dict(
            self.rows(f"SELECT state, count(*) FROM ({both}) WHERE destination = ? GROUP BY state", destination)
        )

    def member_list(self, people: int) -> Path:
        """A plain list: one unit, every second person has the app."""
        path = self.folder / "list.xlsx"
        book = xlsxwriter.Workbook(str(path))
        sheet = book.add_worksheet("Danh sách")
        head = ("STT", "Mã CĐCS", "Tên CĐCS", "Họ và tên", "Giới tính", "Ngày sinh", "Số điện thoại", "Cài app")
        sheet.write_row(0, 0, head)
        for n in range(people):
            born = f"{1 + n % 28:02}/{1 + n // 28 % 12:02}/1990"
            phone = f"0912555{n:03}"
            name = f"Nguyễn Văn {GIVEN[n // 10 % 10]} {GIVEN[n % 10]}"
            sheet.write_row(n + 1, 0, (n + 1, "CDCS-01", "Công ty mẫu", name, "Nam", born, phone, "x" if n % 2 else ""))
        book.close()
        return path
