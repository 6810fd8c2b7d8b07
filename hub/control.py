"""The Unix socket beside the ledger: a command line that writes goes through the running hub.

The socket speaks HTTP with one route, ``POST /command``; the answer is a stream of JSON lines, progress
first, the result or the error last. Without a running hub the same command runs in the caller's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from pydantic import ValidationError

from hub.api_commands import COMMANDS as API_COMMANDS
from hub.app import HubApp
from hub.commands import COMMANDS
from hub.contract import Command, Report
from hub.errors import AlreadyRunning, ConfigError, HubError, InputError
from hub.log import log
from hub.model import Json
from hub.plugins import Registry
from hub.settings import Configuration
from hub.subject_commands import COMMANDS as SUBJECT_COMMANDS

#: Unix socket paths end here on every system.
SOCKET_PATH_MAX = 100
HUB: web.AppKey[HubApp] = web.AppKey("hub", HubApp)


def all_commands(registry: Registry) -> dict[str, Command]:
    """The core's and the plugins' commands by "group name"."""
    own = {f"{c.group} {c.name}".strip(): c for c in (*COMMANDS, *API_COMMANDS, *SUBJECT_COMMANDS)}
    return {**registry.commands, **own}


def socket_path(var_dir: Path) -> Path:
    """Beside the ledger, or in a folder of this user's under the runtime folder when that path would be too long."""
    path = var_dir / "hub.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(var_dir)).hexdigest()[:16]
    return _own_folder() / f"{digest}.sock"


def _own_folder() -> Path:
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"unionhub-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Anybody can make a folder of this name first; whose socket lies in it would get our commands.
    if folder.is_symlink() or folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise ConfigError(
            f"thư mục {folder} thuộc người khác hoặc người khác vào được; xóa nó hoặc đặt XDG_RUNTIME_DIR"
            f" / {folder} belongs to somebody else or is open to others: remove it or set XDG_RUNTIME_DIR"
        )
    return folder


def _named_socket(config: Configuration) -> Path:
    """Where the running hub said it listens: its environment may be another than ours."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = config.lock_file.read_text().splitlines()
        if len(lines) > 1:
            return Path(lines[1])
    return socket_path(config.var_dir)


async def run_command(hub: HubApp, name: str, params: Mapping[str, Any], report: Report) -> Json:
    """Runs one command in this process. Raises ``InputError`` on wrong parameters, naming them."""
    command = all_commands(hub.registry).get(name)
    if command is None:
        raise InputError(f"không có lệnh '{name}' / no command '{name}'")
    try:
        checked = command.params.model_validate(params)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise InputError(wrong) from None
    return await command.run(hub, checked, report)


async def serve(hub: HubApp) -> web.AppRunner:
    """Opens the socket, for this user alone."""
    app = web.Application()
    app[HUB] = hub
    app.router.add_post("/command", _command)
    path = socket_path(hub.config.var_dir)

    async def remove(_: web.Application) -> None:
        path.unlink(missing_ok=True)

    app.on_cleanup.append(remove)
    # A long command is cut off by a stop: what it has not committed, it has not done.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # left by a process that was killed: the lock says that nobody serves it
    old = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(old)
    with hub.config.lock_file.open("a") as lock:
        lock.write(f"{path}\n")
    return runner


async def _command(request: web.Request) -> web.StreamResponse:
    hub = request.app[HUB]
    asked = orjson.loads(await request.read())
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    pending: list[bytes] = []

    def report(progress: Mapping[str, Any]) -> None:
        pending.append(orjson.dumps({"progress": dict(progress)}) + b"\n")

    async with contextlib.aclosing(_lines(hub, asked, report, pending)) as lines:
        async for line in lines:
            await response.write(line)
    return response


async def _lines(hub: HubApp, asked: Json, report: Report, pending: list[bytes]) -> AsyncGenerator[bytes]:
    task = asyncio.create_task(run_command(hub, asked["command"], asked["params"], report))
    try:
        while not task.done():
            await asyncio.wait([task], timeout=0.1)
            while pending:
                yield pending.pop(0)
    finally:
        task.cancel()  # whoever asked has gone, or the hub stops
    while pending:
        yield pending.pop(0)
    try:
        yield orjson.dumps({"result": task.result()}, default=str) + b"\n"
    except HubError as error:
        said = {"code": error.code, "message": str(error), "usage": is_usage(error)}
        yield orjson.dumps({"error": said}) + b"\n"
    except Exception as error:  # a named edge: the caller is told, the hub goes on
        log("command.failed", command=asked["command"], error=error)
        said = {"code": "internal", "message": type(error).__name__, "usage": False}
        yield orjson.dumps({"error": said}) + b"\n"


class RemoteError(HubError):
    """The running hub refused the command."""

    def __init__(self, code: str, message: str, usage: bool = False) -> None:
        super().__init__(message)
        self.remote_code = code
        self.usage = usage


def is_usage(error: HubError) -> bool:
    """Whether the command was wrong as it was typed or configured (exit code 2), or right and failed (1)."""
    if isinstance(error, RemoteError):
        return error.usage
    return isinstance(error, ConfigError | AlreadyRunning) or (
        isinstance(error, InputError) and error.http_status == 400
    )


async def call_running(config: Configuration, name: str, params: Mapping[str, Any], report: Report) -> Json | None:
    """The result from the hub that runs with this configuration; None when none runs."""
    path = _named_socket(config)
    if not path.exists():
        return None
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(path)), timeout=aiohttp.ClientTimeout(total=None)
            ) as session,
            session.post("http://hub/command", data=orjson.dumps({"command": name, "params": params})) as response,
        ):
            async for line in response.content:
                said = orjson.loads(line)
                if "progress" in said:
                    report(said["progress"])
                elif "error" in said:
                    raise RemoteError(**said["error"])
                else:
                    result: Json = said["result"]
                    return result
    except aiohttp.ClientConnectorError:
        return None  # the socket of a process that is gone
    except aiohttp.ClientError:
        pass  # it went while we waited
    raise RemoteError(
        "disconnected",
        "hub dừng trước khi trả lời; xem nhật ký của hub rồi thử lại"
        " / the hub stopped before it answered; look at its log, then try again",
    )
