"""Connections as they are opened, kept up and closed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from hub.contract import (
    Committed,
    Connection,
    ConnectionContext,
    DestinationNow,
    Directory,
    EventType,
    Hub,
    Principal,
    SecretRef,
    SettingsT,
    UnitOfWork,
)
from hub.errors import ConfigError
from hub.log import log
from hub.model import Json, to_us
from hub.nodes import Nodes
from hub.plugins import Registry
from hub.settings import ConnectionConfig
from hub.store.base import Store
from hub.worker import Worker

#: A plugin that does not close in this time is left to itself.
CLOSE_WITHIN_S = 1.5
#: Pauses before something that ended is begun again: the first, the longest, and after how long it counts as well.
AGAIN_S, AGAIN_MOST_S, LASTED_S = 0.5, 60.0, 30.0


class Core(Hub, Protocol):
    """The hub, as it knows whose unit it commits."""

    async def commit(self, unit: UnitOfWork, *, connection: str = "") -> Committed: ...


class Opener:
    """Makes connections of their configuration, and remembers which secrets each asked for."""

    def __init__(
        self,
        core: Core,
        store: Store,
        registry: Registry,
        secret: Callable[[SecretRef], str],
        changed: Callable[[], Awaitable[None]],
        var_dir: Path,
    ) -> None:
        self._core = core
        self._store = store
        self._registry = registry
        self._secret = secret
        self._changed = changed
        self._var_dir = var_dir
        #: Digests by connection.
        self._used: dict[str, dict[SecretRef, bytes]] = {}

    def open(self, config: ConnectionConfig) -> Connection | None:
        """None, and a line in the log, when the plugin cannot. Raises ``ConfigError``, naming the file."""
        name = config.name
        used: dict[SecretRef, bytes] = {}

        def secret(ref: SecretRef) -> str:
            value = self._secret(ref)
            used[ref] = _digest(value)
            return value

        context = ConnectionContext(
            name=name,
            hub=_ConnectionHub(self._core, name),
            secret=secret,
            log=_logger(name),
            open_repair=_repairer(self._core, self._store, name),
            clear_repair=_clearer(self._core, self._store, name),
            changed=self._changed,
            var_dir=self._var_dir,
        )
        try:
            connection = self._registry.connector_types[config.type].open(context, config.settings)
        except ConfigError as error:
            raise ConfigError(f"{config.file}: {error}") from None
        except Exception as error:  # a named edge: a broken plugin is named and left out, the hub starts
            log("plugin.raised", connection=name, error=type(error).__name__)
            return None
        self._used[name] = used
        return connection

    def has_other_secrets(self, name: str) -> bool:
        """Whether what a connection asked for reads otherwise by now."""
        try:
            return any(_digest(self._secret(ref)) != digest for ref, digest in self._used.get(name, {}).items())
        except ConfigError:  # opening it says what is wrong
            return True


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


async def close(name: str, connection: Connection) -> None:
    if connection.close is None:
        return
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await connection.close()
    except (Exception, SystemExit) as error:  # a named edge: one plugin's trouble must not keep the others open
        log("plugin.raised", connection=name, error=type(error).__name__)


async def keep_running(name: str, connection: Connection, worker: Worker, nodes: Nodes) -> None:
    """What it does by itself, begun again whenever it ends."""
    assert connection.run is not None
    pause = AGAIN_S
    while True:
        started = asyncio.get_running_loop().time()
        try:
            if connection.sessions is None:
                await connection.run()
            else:
                await _run_in_session(name, connection.sessions, connection.run, worker, nodes)
        except (Exception, SystemExit) as error:  # a named edge: it is begun again, ever more slowly
            log("connection.broke", connection=name, error=type(error).__name__)
        lasted = asyncio.get_running_loop().time() - started
        pause = AGAIN_S if lasted > LASTED_S else min(pause * 2, AGAIN_MOST_S)
        await asyncio.sleep(pause)


async def _run_in_session(
    name: str, sessions: int, run: Callable[[], Awaitable[None]], worker: Worker, nodes: Nodes
) -> None:
    """Only so many nodes at once keep the connection up; the others leave its deliveries to them."""
    worker.leave_alone(name)
    lost = asyncio.Event()
    session = await nodes.session(name, sessions, lost.set)
    worker.serve(name)
    running, losing = asyncio.ensure_future(run()), asyncio.create_task(lost.wait())
    try:
        await asyncio.wait((running, losing), return_when=asyncio.FIRST_COMPLETED)
        if running.done() and not running.cancelled():
            running.result()
    finally:
        worker.leave_alone(name)
        for task in (running, losing):
            task.cancel()
        await asyncio.gather(running, losing, return_exceptions=True)
        await nodes.end_session(session)


class _ConnectionHub:
    """The hub as one connection sees it: its receipts carry its name."""

    def __init__(self, core: Core, name: str) -> None:
        self._core = core
        self._name = name
        self.fetch = core.fetch
        self.unseal = core.unseal
        self.keyed_hash = core.keyed_hash
        self.now = core.now

    async def commit(self, unit: UnitOfWork) -> Committed:
        return await self._core.commit(unit, connection=self._name)

    def settings_of(self, kind: type[SettingsT]) -> Mapping[str, SettingsT]:
        return self._core.settings_of(kind)

    async def batch(self, id: UUID) -> Json | None:
        return await self._core.batch(id)

    async def attempts(self, delivery: UUID) -> list[Json]:
        return await self._core.attempts(delivery)

    async def resend(self, event: UUID, destination: str, *, before: datetime) -> UUID | None:
        return await self._core.resend(event, destination, before=before)

    async def stop_batch(self, id: UUID) -> bool:
        return await self._core.stop_batch(id)

    async def divert(self, source: str, target: str, *, limit: int = 500, tried: int = 0) -> int:
        return await self._core.divert(source, target, limit=limit, tried=tried)

    async def standings(self, destinations: Sequence[str]) -> Mapping[str, DestinationNow]:
        return await self._core.standings(destinations)

    @property
    def directory(self) -> Directory:
        return self._core.directory

    @property
    def event_types(self) -> Mapping[str, EventType]:
        return self._core.event_types

    @property
    def principal(self) -> Principal:
        return self._core.principal


def _logger(connection: str) -> Callable[..., None]:
    def write(event: str, **fields: Any) -> None:
        log(event, connection=connection, **fields)

    return write


def _repairer(core: Core, store: Store, connection: str) -> Callable[[str, str], Awaitable[None]]:
    async def open_repair(kind: str, detail: str) -> None:
        await store.open_repair(kind, connection, detail, to_us(core.now()))

    return open_repair


def _clearer(core: Core, store: Store, connection: str) -> Callable[[str], Awaitable[None]]:
    async def clear_repair(kind: str) -> None:
        await store.clear_repair(kind, connection, to_us(core.now()))

    return clear_repair
