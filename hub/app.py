"""The composition root: builds the hub from a configuration and the plugins, starts and stops it."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

from hub import erasure, metrics
from hub.backups import back_up
from hub.clock import Clock, ServerClock, system_clock
from hub.commit import Committer
from hub.connections import Opener, close, keep_running
from hub.contract import (
    OPERATOR,
    Committed,
    Connection,
    DestinationNow,
    Directory,
    EventType,
    FeedView,
    Principal,
    RawRequest,
    SecretRef,
    SettingsT,
    UnitOfWork,
)
from hub.deliver import Deliverer
from hub.divert import divert, standings
from hub.errors import Busy, ConfigError, InputError, NotFound
from hub.fanout import FanOut, Stopped, batch_progress, stop_batch
from hub.ingest import QUARANTINED, Taken, replay, reread, take
from hub.log import know, log
from hub.model import Json, new_id, to_us
from hub.nodes import Nodes
from hub.plugins import Registry
from hub.rawrequests import Keeping
from hub.resend import resend
from hub.retention import Pruner, Rules
from hub.retry import Policy
from hub.routing import Router
from hub.runs import Runs
from hub.schedule import Scheduler
from hub.secret_files import resolve_secret
from hub.security.keys import HubKey, KeyRing
from hub.settings import Configuration, load, parse_schedule
from hub.settings_model import HubSettings
from hub.sql import Statement
from hub.store.base import BreakerPolicy, RunRow
from hub.store.choose import is_empty, make_store
from hub.store.migrate import CORE, Owner, is_behind
from hub.views import attempts
from hub.watchdog import Watchdog, Whose, packages_of
from hub.wiring import Wiring
from hub.worker import Worker

SWEEP_EVERY_S = 1.0
#: An erasure may be committed so much after the instant that it says.
ERASED_OVERLAP_US = 60_000_000
#: How often a node looks whether another one, of a newer version, has upgraded the tables under it.
SCHEMA_EVERY_S = 5.0
#: Of the task that runs a command, and of those it starts.
_PRINCIPAL = ContextVar("principal", default=OPERATOR)


@contextmanager
def asked_by(principal: Principal) -> Iterator[None]:
    """What runs inside is asked for by ``principal``."""
    token = _PRINCIPAL.set(principal)
    try:
        yield
    finally:
        _PRINCIPAL.reset(token)


class HubApp:
    """One installation in this process. ``open`` is enough for commands; ``start`` makes it work."""

    def __init__(
        self,
        config: Configuration,
        registry: Registry,
        *,
        clock: Clock | None = None,
        environ: Mapping[str, str] = os.environ,
        synchronous: str = "FULL",
    ) -> None:
        """``clock``: the ledger's own unless given."""
        self.config = config
        self.registry = registry
        know(registry.log_events.values())
        clock = clock or (ServerClock() if config.is_postgres else system_clock)
        self.clock = clock
        self._environ = environ
        self.boot = new_id().bytes
        settings = config.hub
        key_file = config.var_dir / "hub.key"
        may_create = not key_file.exists() and is_empty(settings.database_url, config.database)
        self._hub_key = HubKey.load(key_file, may_create=may_create)
        own = [Owner(s.owner, s.versions) for s in registry.schemas.values()]
        self._owners = [CORE, *own]
        self.store = make_store(
            settings.database_url,
            config.database,
            config.lock_file,
            owners=own,
            breaker=BreakerPolicy(settings.breaker.failures, settings.breaker.first_s, settings.breaker.max_s),
            unresolved_after_s=settings.unknown.unresolved_after_days * 86400.0,
            key_fingerprint=self._hub_key.fingerprint,
            synchronous=synchronous,
            clock=clock,
        )
        self.store.boot = self.boot
        self.event_types: Mapping[str, EventType] = MappingProxyType(
            {QUARANTINED.name: QUARANTINED, **registry.event_types}
        )
        self.router = Router(
            [s.routed() for s in config.subscriptions], {name: t.thin for name, t in self.event_types.items()}
        )
        self._ring = KeyRing(self._hub_key, self.store.subject_keys)
        self.committer = Committer(
            self.store,
            self._hub_key,
            self._ring,
            self.router,
            self.event_types,
            clock,
            base=settings.source,
            dedupe_keep=timedelta(days=settings.dedupe.keep_days),
        )
        self.nodes = Nodes(
            self.store,
            self.boot,
            os.uname().nodename,
            clock,
            settings.worker.lease_s,
            on_freed=lambda: self._changed(True),
            on_lead=self._took_the_lead,
        )
        self.store.on_hint = self._hinted
        self._directory: Directory | None = None
        self._stopped = Stopped(self.store)
        #: What keys with an owner read of the feed.
        self.feed_view: FeedView | None = None
        self.connections: dict[str, Connection] = {}
        self._wiring = Wiring(config, registry, self.event_types, self.store, self.router, self.connections)
        self._rewiring = asyncio.Lock()
        self._opener = Opener(self, self.store, registry, self.secret, self.rewire, config.var_dir)
        self.worker: Worker | None = None
        self.scheduler: Scheduler | None = None
        self._watchdog: Watchdog | None = None
        self._runs = Runs(
            self.store,
            self.nodes,
            self.committer,
            clock,
            self.boot,
            self.connections,
            {"fan_out": self._fan_out, "backup": self._back_up},
            lambda items: self._changed(items > 0),
        )
        self._erased_from = 0
        #: Why this process may not go on: the tables are newer than it.
        self.outdated: ConfigError | None = None
        self.is_outdated = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        #: Called after each commit of this process: the console's live view.
        self.on_change: Callable[[], None] = lambda: None

    # -- the Hub that plugins see ------------------------------------------------------------------

    async def commit(self, unit: UnitOfWork, *, connection: str = "") -> Committed:
        self._refuse_if_outdated()
        committed = await self.committer.commit(unit, connection=connection)
        self._changed(bool(unit.drafts))
        if any(draft.audience is not None for draft in unit.drafts):
            self._runs.wake.set()
        for draft, repeated in zip(unit.drafts, committed.repeated, strict=True):
            if not repeated:
                metrics.count_event(draft.type)
        return committed

    async def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return await self.store.fetch(statement)

    async def unseal(self, sealed: Sequence[tuple[str, bytes | None]]) -> list[bytes | None]:
        await self._ring.prepare({subject for subject, value in sealed if value is not None}, make=False)
        return [None if value is None else self._ring.unseal(subject, value) for subject, value in sealed]

    def settings_of(self, kind: type[SettingsT]) -> Mapping[str, SettingsT]:
        found = {name: c.settings for name, c in self.config.connections.items() if c.enabled}
        return {name: settings for name, settings in found.items() if isinstance(settings, kind)}

    async def erase(self, subject: str, reason: str) -> int:
        """Destroys a subject's key on the word of whoever asks now; answers how many deliveries were cancelled."""
        _, cancelled = await erasure.erase(
            self.store, self._ring, subject, self.principal.name, reason, to_us(self.clock())
        )
        self._changed(cancelled > 0)
        return cancelled

    def keep_erased(self, folder: Path, ids: Sequence[bytes]) -> None:
        """Names destroyed keys in a folder's list; blocks."""
        erasure.keep(folder, ids, self._hub_key)

    async def batch(self, id: UUID) -> Json | None:
        return await batch_progress(self.store, id.bytes)

    async def stop_batch(self, id: UUID) -> bool:
        stopped = await stop_batch(self.store, id.bytes, self.clock, self._stopped)
        self._changed(stopped is not None)
        return stopped is not None

    async def attempts(self, delivery: UUID) -> list[Json]:
        return await attempts(self.store, delivery.bytes, self.unseal)

    async def resend(self, event: UUID, destination: str, *, before: datetime) -> UUID | None:
        owed = await resend(
            self.store, self.committer, self.router, event, destination, to_us(before), to_us(self.clock())
        )
        self._changed(owed is not None)
        return owed

    async def divert(self, source: str, target: str, *, limit: int = 500, tried: int = 0) -> int:
        left = self._wiring.targets.get(source)
        moved = await divert(
            self.store, source, target, to_us(self.clock()), limit=limit, tried=tried,
            # Where resending is unsafe the start is committed first: what a crash cut off before it never left.
            lost_may_have_left=left is None or left.sink is None or left.sink.resend_is_safe,
        )  # fmt: skip
        self._changed(moved > 0)
        return moved

    async def standings(self, destinations: Sequence[str]) -> Mapping[str, DestinationNow]:
        return await standings(self.store, destinations, to_us(self.clock()))

    def keyed_hash(self, kind: str, value: str) -> bytes:
        return self._hub_key.keyed_hash("p:" + kind, value.encode())

    def now(self) -> datetime:
        return self.clock()

    @property
    def directory(self) -> Directory:
        if self._directory is None:
            raise NotFound("no plugin provides a directory")
        return self._directory

    @property
    def principal(self) -> Principal:
        return _PRINCIPAL.get()

    # -- life --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens the ledger and the connections' objects; nothing is sent or received yet."""
        await self.store.open()
        try:
            await self.nodes.set_clock()
            self._directory = self._made("hub_directory", self.registry.directory)
            self.feed_view = self._made("hub_feed_view", self.registry.feed_view)
            self._open_connections()
            if not self.store.shared:  # else whoever leads does
                await self.store.take_over(self.boot, to_us(self.clock()))
            await self._wiring.read()
        except BaseException:
            await self.store.close()
            raise
        settings = self.config.hub
        deliverer = Deliverer(
            hub=self,
            store=self.store,
            committer=self.committer,
            router=self.router,
            projections=self._wiring.projections,
            targets=self._wiring.targets,
            directory=self._directory,
            policy=Policy(
                schedule_s=settings.retry.schedule_s,
                jitter=settings.retry.jitter,
                retry_after_cap_s=settings.retry.retry_after_cap_s,
                unresolved_after_s=settings.unknown.unresolved_after_days * 86400.0,
            ),
            clock=self.clock,
            deadline_s=settings.worker.attempt_deadline_s,
            still_ours=self.nodes.still_ours,
            is_stopped=self._stopped,
        )
        self.worker = Worker(
            self.store,
            deliverer,
            self._wiring.lanes,
            boot=self.boot,
            clock=self.clock,
            lease_s=settings.worker.lease_s,
            claim_batch=settings.worker.claim_batch,
            may_claim=lambda: self.outdated is None and self.nodes.good(),
            term=lambda: self.nodes.term,
            on_settled=lambda: self.on_change(),
        )

    async def start(self) -> None:
        """Starts working: sessions, worker, runs, schedule, sweeps."""
        assert self.worker is not None
        # What is loaded now stays; the short-lived objects of deliveries are freed by counting, and looking
        # for cycles among them every 700 allocations costs a third of the rate.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        self.scheduler = Scheduler(self.store, self.clock, self._runs.wake.set, self.nodes.leads)
        for name in self.connections:
            self._begin(name)
        if self.config.hub.backup.schedule:
            self.scheduler.add("ledger", parse_schedule(self.config.hub.backup.schedule), "backup")
        await self.nodes.join()
        self._spawn(self.nodes.run(), "nodes")
        self._spawn(self.worker.run(), "worker")
        self._spawn(self._runs.run(), "runs")
        self._spawn(self._sweeps(), "sweeps")
        if self.store.shared:
            self._spawn(self._watch_schema(), "schema")
        pruner = Pruner(self.store, Rules.of(self.config, self.router), self.clock, leads=self.nodes.leads)
        self._spawn(pruner.run(), "retention")
        self.scheduler.start()
        packages = packages_of(self.connections, self.config, self.registry)
        await self.store.clear_repair("memory_high", os.uname().nodename, to_us(self.clock()))
        self._watchdog = Watchdog(
            packages, self._whose, self._put_aside, self.connections, self.config.hub.worker.memory_mb
        )
        self._watchdog.start()
        log("hub.started", connections=len(self.connections), held=await self.store.held())

    async def stop(self) -> None:
        """Stops within the configured time; what was claimed is settled or given back."""
        if self._stopping:
            return
        self._stopping = True
        if self.scheduler is not None:
            self.scheduler.stop()
        if self.worker is not None and self._tasks:
            # The rest of the time is for sessions to close and the last commit.
            await self.worker.stop(self.config.hub.worker.stop_within_s * 0.6)
            worker_task = next(t for t in self._tasks if t.get_name() == "worker")
            with suppress(TimeoutError):
                async with asyncio.timeout(self.config.hub.worker.stop_within_s * 0.2):
                    await asyncio.shield(worker_task)
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # a plugin's task that will not end must not keep the ledger from being closed
            _, deaf = await asyncio.wait(self._tasks, timeout=self.config.hub.worker.stop_within_s * 0.2)
            for task in deaf:
                log("plugin.raised", connection=task.get_name().partition(":")[2], error="will_not_stop")
        if self._watchdog is not None:
            self._watchdog.stop()
        await asyncio.gather(*(close(name, connection) for name, connection in self.connections.items()))
        if self._tasks:
            await self.nodes.leave()
        await self.store.close()
        if self._tasks:
            log("hub.stopped")

    def _whose(self, task: asyncio.Task[Any]) -> Whose | None:
        kind, _, name = task.get_name().partition(":")
        if kind == "run" and name in self.connections:
            return ("connection", name)
        return self.worker.whose(task) if self.worker is not None else None

    async def _put_aside(self, whose: Whose, reason: str) -> None:
        kind, name = whose
        if kind == "process":
            return await self.store.open_repair(reason, os.uname().nodename, name, to_us(self.clock()))
        await self.store.pause(kind, name, "hub", reason, to_us(self.clock()))
        assert self.worker is not None
        self.worker.give_back(kind, name)
        log("destination.paused", destination=name, reason=reason)

    # -- inbound and runs --------------------------------------------------------------------------

    async def take(self, request: RawRequest) -> Taken:
        """One inbound message; raises ``NotFound`` for a name that receives nothing."""
        self._refuse_if_outdated()
        connection = self.connections.get(request.connection)
        if connection is None or connection.receiver is None:
            raise NotFound
        inbound = self.config.connections[request.connection].inbound
        taken = await take(
            request,
            connection.receiver,
            self.committer,
            self.store,
            f"/connections/{request.connection}",
            Keeping(inbound.keep_raw, inbound.keep_days),
        )
        self._changed(taken.events > 0)
        return taken

    async def reread(self, name: str) -> tuple[int, int]:
        """Reads again what a connection brought and nobody could read; answers how many were, and were not."""
        connection = self.connections.get(name)
        if connection is None or connection.receiver is None:
            raise NotFound(f"'{name}' không phải kết nối nhận yêu cầu / '{name}' receives no requests")
        read = await reread(name, connection.receiver, self.committer, self.store, f"/connections/{name}")
        self._changed(read[0] > 0)
        return read

    async def replay_request(self, connection: str, id: bytes) -> Committed:
        """Puts one kept request through today's mapping; raises ``NotFound`` where its connection receives nothing."""
        found = self.connections.get(connection)
        if found is None or found.receiver is None:
            raise NotFound(f"'{connection}' không phải kết nối nhận yêu cầu / '{connection}' receives no requests")
        committed = await replay(id, found.receiver, self.committer, self.store)
        self._changed(bool(committed.events))
        return committed

    async def pull_now(self, name: str) -> bool:
        """Makes a run due at once; False when one is open already."""
        if name not in self.connections or self.connections[name].source is None:
            raise NotFound(f"'{name}' is not a connection that is pulled")
        now = to_us(self.clock())
        due = await self.store.due_run("pull", name, -now, now)
        self._runs.wake.set()
        return due

    async def _fan_out(self, run: RunRow) -> int:
        return await FanOut(self.committer, self.store, self.directory, self.clock).run(run)

    async def _back_up(self, run: RunRow) -> int:
        return await back_up(self.config, self.store, self.clock, self._owners)

    async def _watch_schema(self) -> None:
        """Until the tables are newer than this code: then it takes and begins nothing more; whoever runs it ends it."""
        versions = [f"SELECT '{o.name}', version_num FROM {o.name}_version" for o in self._owners]  # noqa: S608
        asked = " UNION ALL ".join(versions)
        named = {owner.name: owner for owner in self._owners}
        while self.outdated is None:
            await asyncio.sleep(SCHEMA_EVERY_S)
            try:
                for name, version in await self.store.read(asked):
                    is_behind(named[name], version)
            except ConfigError as error:
                self.outdated = error
                log("node.outdated", node=os.uname().nodename, error=str(error))
                self.is_outdated.set()
            except Exception as error:  # a named edge: asked again soon
                log("worker.blocked", reason=type(error).__name__)

    def _refuse_if_outdated(self) -> None:
        if self.outdated is not None:
            raise Busy(str(self.outdated))

    async def _forget_erased(self) -> None:
        """Other nodes destroy keys too: what this one keeps in memory ends with them, a look later at most."""
        if self.store.shared:
            looked_at = to_us(self.clock())
            rows = await self.store.read("SELECT subject FROM erasure WHERE erased_at >= ?", (self._erased_from,))
            self._ring.forget(subject for (subject,) in rows)
            self._erased_from = looked_at - ERASED_OVERLAP_US

    async def _sweeps(self) -> None:
        while True:
            try:
                await self._forget_erased()
                if self.nodes.leads() and await self.store.sweep(to_us(self.clock())):
                    self._changed(True)
            except Busy:
                log("worker.blocked", reason="ledger_busy")
            except Exception as error:  # a named edge: what ran out today is found again in a second
                log("worker.blocked", reason=type(error).__name__)
            await asyncio.sleep(SWEEP_EVERY_S)

    # -- building ----------------------------------------------------------------------------------

    def _made(self, hook: str, make: Callable[[HubApp], Any] | None) -> Any:
        """What a plugin makes of this hub, or None."""
        if make is None:
            return None
        try:
            return make(self)
        except Exception as error:  # a named edge: without a directory nobody is written to, the rest works
            plugin = next((p.name for p in self.registry.plugins if hook in p.hooks), "")
            log("plugin.raised", hook=hook, plugin=plugin, error=error)
            return None

    def _open_connections(self) -> None:
        for name, config in self.config.connections.items():
            if config.enabled and (connection := self._opener.open(config)) is not None:
                self.connections[name] = connection

    # -- another configuration ---------------------------------------------------------------------

    async def reload(self) -> Json:
        """Works by the files as they are now, or raises ``ConfigError`` and goes on by those it knows.

        What hub.toml says counts from the next start. Of a connection that changed, tries under way end first.
        """
        if not self._tasks:
            raise InputError("chưa có hub nào đang chạy ở đây / no hub is running here")
        known = self.registry
        config = load(
            self.config.folder, self._environ, known.connector_types, known.event_types, known.handlers,
            broken_plugins=bool(self.config.left_out),
        )  # fmt: skip
        async with self._rewiring:
            old, new = self.config.connections, config.connections
            changed = [
                name
                for name in {**old, **new}
                if old.get(name) != new.get(name) or self._opener.has_other_secrets(name)
            ]
            opened: dict[str, Connection] = {}
            try:
                for name in changed:
                    if name in new and new[name].enabled and (made := self._opener.open(new[name])) is not None:
                        opened[name] = made
            except ConfigError:
                await asyncio.gather(*(close(name, made) for name, made in opened.items()))
                raise
            for name in changed:
                await self._end(name)
            restart = [name for name in type(config.hub).model_fields if _differs(self.config.hub, config.hub, name)]
            self.config = self._wiring.config = replace(config, hub=self.config.hub)
            self.connections.update(opened)
            await self._rewire()
            for name in opened:
                self._begin(name)
        log("hub.reloaded", connections=changed, needs_restart=restart)
        return {"connections": sorted(changed), "subscriptions": len(config.subscriptions), "needs_restart": restart}

    def _begin(self, name: str) -> None:
        """What a connection does by itself while the hub works."""
        assert self.worker is not None and self.scheduler is not None
        connection, schedule = self.connections[name], self.config.connections[name].schedule
        self.worker.serve(name)
        if connection.source is not None and schedule is not None:
            self.scheduler.add(name, schedule)
        if connection.run is not None:
            self._spawn(keep_running(name, connection, self.worker, self.nodes), f"run:{name}")

    async def _end(self, name: str) -> None:
        """Ends what it does by itself, lets its tries end, and closes it."""
        connection = self.connections.pop(name, None)
        if connection is None:
            return
        assert self.worker is not None and self.scheduler is not None
        self.scheduler.remove(name)
        self.worker.leave_alone(name)
        await self.worker.ended(name, self.config.hub.worker.attempt_deadline_s)
        running = [task for task in self._tasks if task.get_name() == f"run:{name}"]
        for task in running:
            task.cancel()
            self._tasks.remove(task)
        if running:
            await asyncio.wait(running, timeout=2.0)
        await close(name, connection)

    async def rewire(self) -> None:
        """A connection's own destinations or subscriptions are others now. Raises what it raises when asked."""
        async with self._rewiring:
            await self._rewire()

    async def _rewire(self) -> None:
        await self._wiring.read()
        if self.worker is not None:
            self.worker.set_lanes(self._wiring.lanes)

    def secret(self, ref: SecretRef) -> str:
        """The secret behind a reference of the configuration."""
        return resolve_secret(ref, self.config.folder, self._environ)

    def _spawn(self, work: Any, name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _hinted(self) -> None:
        """Another process says that something became due."""
        self._runs.wake.set()
        self._changed(True)

    def _took_the_lead(self) -> None:
        if self.scheduler is not None:
            self.scheduler.look()

    def _changed(self, more_due: bool) -> None:
        if self.worker is not None and more_due:
            self.worker.wake()
        self.on_change()


def _differs(one: HubSettings, other: HubSettings, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
