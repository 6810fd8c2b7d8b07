"""A PostgreSQL server of the tests' own: ``python -m tests.postgres`` tells its programs' folder, or how to get them.

``with running_postgres() as server:`` needs no pytest. It works as root too: the server then runs as another user.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import quote
from uuid import uuid4

INSTALL = f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y --no-install-recommends postgresql"
PROGRAMS = ("initdb", "pg_ctl", "postgres")
OLDEST = 14
PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/pgsql/bin", "opt/homebrew/opt/postgresql*/bin")
#: Owns the tests' databases, and is no superuser: a right the hub would lack in an office is lacking here too.
ROLE = "hub"
#: A role that has to tell its password; every other one is trusted.
PASSWORD_ROLE, PASSWORD = "hub_with_password", "right-horse"

_SETTINGS = {"listen_addresses": "127.0.0.1", "max_connections": "200", "logging_collector": "off"}
#: Nobody needs the tests' data after a power cut. A killed server loses nothing by these.
_FAST = {"fsync": "off", "full_page_writes": "off"}
_ACCESS = f"""\
local all all trust
host all {PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


def find_server() -> Path | None:
    """The folder with the newest server's programs."""
    whole = [folder for folder in _folders() if all((folder / program).exists() for program in PROGRAMS)]
    version, folder = max(((_version(folder), folder) for folder in whole), default=((), None))
    return folder if version >= (OLDEST,) else None


def _folders() -> Iterator[Path]:
    for place in PLACES:
        yield from Path("/").glob(place)
    if config := shutil.which("pg_config"):
        yield Path(subprocess.run([config, "--bindir"], capture_output=True, text=True, timeout=60).stdout.strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def _version(folder: Path) -> tuple[int, ...]:
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=60).stdout
    number = re.search(r"(\d+(?:\.\d+)*)", told)
    return tuple(int(n) for n in number[1].split(".")) if number else ()


def _other_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@dataclass(frozen=True)
class Server:
    """A running server; ``stop`` and ``start`` as often as a test needs, its address stays."""

    programs: Path
    folder: Path
    port: int

    def dsn(self, database: str, user: str = ROLE, password: str | None = None) -> str:
        secret = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def socket_dsn(self, database: str, user: str = ROLE) -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def start(self) -> None:
        """Raises: RuntimeError with the end of the server's log."""
        log = self.folder / "log"
        command = ["pg_ctl", "start", "-w", "-t", "120", "-l", str(log), "-o", f"-p {self.port} -k {self.folder}"]
        if self._call(command).returncode:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()[-2000:] if log.exists() else 'no log'}")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """``fast`` ends every session first; ``immediate`` is a crash: the next start recovers from the log."""
        self._call(["pg_ctl", "stop", "-w", "-t", "120", "-m", mode]).check_returncode()

    def _call(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.programs / command[0], *command[1:], "-D", self.folder / "data"],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
            # A pipe would be held open by the server itself.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **_other_user(),
        )

    def execute(self, *statements: str, database: str = "postgres", user: str = "postgres") -> list[Any]:
        """Runs statements one by one, from any thread; answers the last one's rows."""
        import asyncpg

        async def run() -> list[Any]:
            connection = await asyncpg.connect(self.dsn(database, user))
            try:
                rows = []
                for statement in statements:
                    rows = await connection.fetch(statement)
                return rows
            finally:
                await connection.close()

        rows: list[Any] = _await(run)
        return rows

    def create_database(self, template: str = "template1") -> str:
        name = f"t_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def template(self, name: str, fill: Callable[[str], Awaitable[object]]) -> str:
        """The template of that name; the first process to ask makes it with ``fill(dsn)``."""
        with _locked(self.folder / f"{name}.lock"):
            if not self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
                made = self.create_database()

                async def run() -> object:
                    return await fill(self.dsn(made))

                _await(run)
                # Nobody, autovacuum included, may be connected to what is being copied.
                self.execute(
                    f"ALTER DATABASE {made} ALLOW_CONNECTIONS false", f"ALTER DATABASE {made} RENAME TO {name}"
                )
        return name


def _await(function: Callable[[], Awaitable[Any]]) -> Any:
    """Waits for it in a thread with a loop of its own: the caller may be inside a loop."""

    async def run() -> Any:
        return await function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()


@contextmanager
def running_postgres(folder: Path | None = None, *, durable: bool = False) -> Iterator[Server]:
    """A server with a fresh cluster, stopped and removed at the end.

    Args:
        folder: an empty folder that the server's user can reach (as root, pytest's own are out of its reach) and
            whose path is short (it holds the socket); by default one in /tmp.
        durable: keeps ``fsync`` on, as in an office; for measurements.
    """
    server = _make(folder, durable)
    try:
        yield server
    finally:
        _remove(server)


def _make(folder: Path | None = None, durable: bool = False) -> Server:
    programs = find_server()
    if programs is None:
        raise RuntimeError(f"no PostgreSQL server here; install it with: {INSTALL}")
    folder = folder or Path(tempfile.mkdtemp(prefix="uhpg-", dir="/tmp"))
    if other := _other_user():
        os.chown(folder, other["user"], other["group"])
    for last in (False, False, True):
        server = Server(programs, folder, _free_port())
        if not (folder / "data").exists():
            _init(server, durable)
        try:
            server.start()
            break
        except RuntimeError:  # somebody else may have taken the port meanwhile
            if last:
                shutil.rmtree(folder)
                raise
    server.execute(f"CREATE ROLE {ROLE} LOGIN", f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD '{PASSWORD}'")
    return server


def _init(server: Server, durable: bool) -> None:
    server._call(
        ["initdb", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    ).check_returncode()
    settings = _SETTINGS if durable else _SETTINGS | _FAST
    with (server.folder / "data" / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    (server.folder / "data" / "pg_hba.conf").write_text(_ACCESS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _remove(server: Server) -> None:
    with suppress(subprocess.CalledProcessError):  # a test may have stopped it
        server.stop("immediate")
    shutil.rmtree(server.folder)


@contextmanager
def shared_postgres(meeting_point: Path) -> Iterator[Server]:
    """The one server of every process that names the same folder; the last to leave stops it.

    Users hold a shared lock, so that one who was killed does not count any more.
    """
    note = meeting_point / "postgres.json"
    with (meeting_point / "postgres.users").open("w") as users:
        with _locked(meeting_point / "postgres.lock"):
            if note.exists():
                told = json.loads(note.read_text())
                server = Server(Path(told["programs"]), Path(told["folder"]), told["port"])
            else:
                server = _make()
                note.write_text(
                    json.dumps({"programs": str(server.programs), "folder": str(server.folder), "port": server.port})
                )
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield server
        finally:
            with _locked(meeting_point / "postgres.lock"):
                if _is_last(users):
                    note.unlink()
                    _remove(server)


def _is_last(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    found = find_server()
    print(found or INSTALL)
    sys.exit(0 if found else 1)
