"""The composition root: builds the hub from a configuration and the plugins, starts and stops it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from hub import metrics
from hub.backups import back_up
from hub.clock import Clock, ServerClock, system_clock
from hub.commit import Committer
from hub.contract import (
    OPERATOR,
    Committed,
    Connection,
    ConnectionContext,
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
from hub.errors import Busy, ConfigError, HubError, InputError, NotFound
from hub.fanout import FanOut, Stopped, batch_progress, stop_batch
from hub.ingest import QUARANTINED, Taken, replay, reread, take
from hub.log import know, log
from hub.model import Json, new_id, to_us
from hub.nodes import Nodes
from hub.plugins import Registry
from hub.rawrequests import Keeping
from hub.retention import Pruner, Rules
from hub.retry import Policy
from hub.routing import Router
from hub.schedule import Scheduler
from hub.secret_files import resolve_secret
from hub.security.keys import HubKey, KeyRing
from hub.settings import Configuration, ConnectionConfig, load, parse_schedule
from hub.settings_model import HubSettings
from hub.sql import Statement
from hub.store.base import BreakerPolicy, RunRow
from hub.store.choose import is_empty, make_store
from hub.store.migrate import CORE, Owner
from hub.sync import pull
from hub.watchdog import Watchdog, Whose, packages_of
from hub.wiring import Wiring
from hub.worker import Worker

#: Runs (pulls, fan-outs) at once.
RUNS = 4
SWEEP_EVERY_S = 1.0
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
        #: Digests, by connection, of the secrets it asked for.
        self._secrets_used: dict[str, dict[SecretRef, bytes]] = {}
        self.worker: Worker | None = None
        self.scheduler: Scheduler | None = None
        self._watchdog: Watchdog | None = None
        self._run_wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        #: Called after each commit of this process: the console's live view.
        self.on_change: Callable[[], None] = lambda: None

    # -- the Hub that plugins see ------------------------------------------------------------------

    async def commit(self, unit: UnitOfWork, *, connection: str = "") -> Committed:
        committed = await self.committer.commit(unit, connection=connection)
        self._changed(bool(unit.drafts))
        if any(draft.audience is not None for draft in unit.drafts):
            self._run_wake.set()
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

    async def batch(self, id: UUID) -> Json | None:
        return await batch_progress(self.store, id.bytes)

    async def stop_batch(self, id: UUID) -> bool:
        stopped = await stop_batch(self.store, id.bytes, self.clock, self._stopped)
        self._changed(stopped is not None)
        return stopped is not None

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
            may_claim=self.nodes.good,
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
        self.scheduler = Scheduler(self.store, self.clock, self._run_wake.set, self.nodes.leads)
        for name in self.connections:
            self._begin(name)
        if self.config.hub.backup.schedule:
            self.scheduler.add("ledger", parse_schedule(self.config.hub.backup.schedule), "backup")
        await self.nodes.join()
        self._spawn(self.nodes.run(), "nodes")
        self._spawn(self.worker.run(), "worker")
        self._spawn(self._runs(), "runs")
        self._spawn(self._sweeps(), "sweeps")
        pruner = Pruner(self.store, Rules.of(self.config, self.router), self.clock, leads=self.nodes.leads)
        self._spawn(pruner.run(), "retention")
        self.scheduler.start()
        packages = packages_of(self.connections, self.config, self.registry)
        self._watchdog = Watchdog(packages, self._whose, self._put_aside)
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
        await asyncio.gather(*(self._close(name, connection) for name, connection in self.connections.items()))
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
        await self.store.pause(kind, name, "hub", reason, to_us(self.clock()))
        assert self.worker is not None
        self.worker.give_back(kind, name)
        log("destination.paused", destination=name, reason=reason)

    async def _close(self, name: str, connection: Connection) -> None:
        close = connection.close
        if close is None:
            return
        try:
            async with asyncio.timeout(1.5):
                await close()
        except (Exception, SystemExit) as error:  # a named edge: one plugin's trouble must not keep the others open
            log("plugin.raised", connection=name, error=type(error).__name__)

    # -- inbound and runs --------------------------------------------------------------------------

    async def take(self, request: RawRequest) -> Taken:
        """One inbound message; raises ``NotFound`` for a name that receives nothing."""
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
        self._run_wake.set()
        return due

    async def _runs(self) -> None:
        under_way: dict[asyncio.Task[None], bytes] = {}
        term, unsure = self.nodes.term, False
        try:
            while True:
                self._run_wake.clear()
                run = None
                if not self.nodes.still_ours(term):  # others go on with what this process had before
                    for task in under_way:
                        task.cancel()
                    under_way.clear()
                    term, unsure = self.nodes.term, True
                try:
                    if unsure and self.nodes.good():
                        await self.store.free_runs(self.boot, set(under_way.values()))
                        unsure = False
                    if len(under_way) < RUNS and self.nodes.good() and await self.store.held() is None:
                        unsure = True  # until the answer is here
                        run = await self.store.claim_run(self.boot, to_us(self.clock()))
                        unsure = False
                except Exception as error:  # a named edge: asked again in a second
                    log("worker.blocked", reason=type(error).__name__)
                if run is None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await self._run_wake.wait()
                    continue
                task = asyncio.create_task(self._run(run))
                under_way[task] = run.id
                task.add_done_callback(lambda done: under_way.pop(done, None))
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _run(self, run: RunRow) -> None:
        state, reason, items = "done", "", 0
        try:
            if run.kind == "fan_out":
                items = await FanOut(self.committer, self.store, self.directory, self.clock).run(run)
            elif run.kind == "backup":
                items = await back_up(self.config, self.store, self.clock, self._owners)
            else:
                source = self.connections[run.object].source
                assert source is not None
                items = await pull(run, source, self.committer, self.store, f"/connections/{run.object}")
        except (Exception, SystemExit) as error:  # a named edge: the cursor stays, the next slot tries again
            state, reason = "failed", error.code if isinstance(error, HubError) else type(error).__name__
        self._changed(items > 0)
        if not await self._finish(run, state, reason):
            state, reason = "left", "run_lost"
        metrics.runs.labels(run.kind, state).inc()
        log("run.finished", kind=run.kind, object=run.object, state=state, reason=reason, items=items)

    async def _finish(self, run: RunRow, state: str, reason: str) -> bool:
        """Until it is written: a run left open would keep its connection from ever running again."""
        while True:
            try:
                return await self.store.finish_run(run, state, reason, to_us(self.clock()))
            except Busy:
                log("worker.blocked", reason="ledger_busy")
                await asyncio.sleep(SWEEP_EVERY_S)

    async def _sweeps(self) -> None:
        while True:
            try:
                if self.nodes.leads() and await self.store.sweep(to_us(self.clock())):
                    self._changed(True)
            except Busy:
                log("worker.blocked", reason="ledger_busy")
            except Exception as error:  # a named edge: what ran out today is found again in a second
                log("worker.blocked", reason=type(error).__name__)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def _keep_running(self, name: str, connection: Connection) -> None:
        assert connection.run is not None
        pause = 0.5
        while True:
            started = asyncio.get_running_loop().time()
            try:
                if connection.sessions is None:
                    await connection.run()
                else:
                    await self._run_in_session(name, connection.sessions, connection.run)
            except (Exception, SystemExit) as error:  # a named edge: it is begun again, ever more slowly
                log("connection.broke", connection=name, error=type(error).__name__)
            lasted = asyncio.get_running_loop().time() - started
            pause = 0.5 if lasted > 30 else min(pause * 2, 60.0)
            await asyncio.sleep(pause)

    async def _run_in_session(self, name: str, sessions: int, run: Callable[[], Awaitable[None]]) -> None:
        """Only so many nodes at once keep the connection up; the others leave its deliveries to them."""
        assert self.worker is not None
        self.worker.leave_alone(name)
        lost = asyncio.Event()
        session = await self.nodes.session(name, sessions, lost.set)
        self.worker.serve(name)
        running, losing = asyncio.ensure_future(run()), asyncio.create_task(lost.wait())
        try:
            await asyncio.wait((running, losing), return_when=asyncio.FIRST_COMPLETED)
            if running.done() and not running.cancelled():
                running.result()
        finally:
            self.worker.leave_alone(name)
            for task in (running, losing):
                task.cancel()
            await asyncio.gather(running, losing, return_exceptions=True)
            await self.nodes.end_session(session)

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
            if config.enabled and (connection := self._open_one(config)) is not None:
                self.connections[name] = connection

    def _open_one(self, config: ConnectionConfig) -> Connection | None:
        """None, and a line in the log, when the plugin cannot. Raises ``ConfigError``, naming the file."""
        name = config.name
        used: dict[SecretRef, bytes] = {}

        def secret(ref: SecretRef) -> str:
            value = self.secret(ref)
            used[ref] = hashlib.sha256(value.encode()).digest()
            return value

        context = ConnectionContext(
            name=name,
            hub=_ConnectionHub(self, name),
            secret=secret,
            log=_logger(name),
            open_repair=_repairer(self, name),
            clear_repair=_clearer(self, name),
            changed=self.rewire,
            var_dir=self.config.var_dir,
        )
        try:
            connection = self.registry.connector_types[config.type].open(context, config.settings)
        except ConfigError as error:
            raise ConfigError(f"{config.file}: {error}") from None
        except Exception as error:  # a named edge: a broken plugin is named and left out, the hub starts
            log("plugin.raised", connection=name, error=type(error).__name__)
            return None
        self._secrets_used[name] = used
        return connection

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
                name for name in {**old, **new} if old.get(name) != new.get(name) or self._has_other_secrets(name)
            ]
            opened: dict[str, Connection] = {}
            try:
                for name in changed:
                    if name in new and new[name].enabled and (made := self._open_one(new[name])) is not None:
                        opened[name] = made
            except ConfigError:
                await asyncio.gather(*(self._close(name, made) for name, made in opened.items()))
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

    def _has_other_secrets(self, name: str) -> bool:
        try:
            return any(
                hashlib.sha256(self.secret(ref).encode()).digest() != digest
                for ref, digest in self._secrets_used.get(name, {}).items()
            )
        except ConfigError:  # opening it says what is wrong
            return True

    def _begin(self, name: str) -> None:
        """What a connection does by itself while the hub works."""
        assert self.worker is not None and self.scheduler is not None
        connection, schedule = self.connections[name], self.config.connections[name].schedule
        self.worker.serve(name)
        if connection.source is not None and schedule is not None:
            self.scheduler.add(name, schedule)
        if connection.run is not None:
            self._spawn(self._keep_running(name, connection), f"run:{name}")

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
        await self._close(name, connection)

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
        self._run_wake.set()
        self._changed(True)

    def _took_the_lead(self) -> None:
        if self.scheduler is not None:
            self.scheduler.look()

    def _changed(self, more_due: bool) -> None:
        if self.worker is not None and more_due:
            self.worker.wake()
        self.on_change()


class _ConnectionHub:
    """The hub as one connection sees it: its receipts carry its name."""

    def __init__(self, app: HubApp, name: str) -> None:
        self._app = app
        self._name = name
        self.fetch = app.fetch
        self.unseal = app.unseal
        self.keyed_hash = app.keyed_hash
        self.now = app.now

    async def commit(self, unit: UnitOfWork) -> Committed:
        return await self._app.commit(unit, connection=self._name)

    def settings_of(self, kind: type[SettingsT]) -> Mapping[str, SettingsT]:
        return self._app.settings_of(kind)

    async def batch(self, id: UUID) -> Json | None:
        return await self._app.batch(id)

    async def stop_batch(self, id: UUID) -> bool:
        return await self._app.stop_batch(id)

    @property
    def directory(self) -> Directory:
        return self._app.directory

    @property
    def event_types(self) -> Mapping[str, EventType]:
        return self._app.event_types

    @property
    def principal(self) -> Principal:
        return self._app.principal


def _differs(one: HubSettings, other: HubSettings, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def _logger(connection: str) -> Callable[..., None]:
    def write(event: str, **fields: Any) -> None:
        log(event, connection=connection, **fields)

    return write


def _repairer(app: HubApp, connection: str) -> Callable[[str, str], Awaitable[None]]:
    async def open_repair(kind: str, detail: str) -> None:
        await app.store.open_repair(kind, connection, detail, to_us(app.clock()))

    return open_repair


def _clearer(app: HubApp, connection: str) -> Callable[[str], Awaitable[None]]:
    async def clear_repair(kind: str) -> None:
        await app.store.clear_repair(kind, connection, to_us(app.clock()))

    return clear_repair
