"""Looks whether the event loop turns, and says who keeps it from turning.

A thread looks; the loop sets a mark as long as it turns. Where it stands still, the stack of its thread tells which
plugin's code it is in, and the task under way which destination it works for: both are named in one line at once,
while it still stands. A destination that does so again and again is paused, so that the others get their turn.

It sees nothing while code keeps the interpreter's lock (a regular expression without end): systemd's watchdog, which
``hub.notify`` feeds from inside the loop, ends such a process.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from types import FrameType
from typing import Any

from hub.contract import Connection
from hub.leaks import Grown, Leaks
from hub.log import log
from hub.plugins import Registry
from hub.settings import Configuration

LOOK_EVERY_S = 0.25
#: A loop that stands so long delays everybody; a busy machine or a large group of rows does not come near it.
STALL_S = 0.75
#: So many stalls of one destination within so long put it aside.
STRIKES, WITHIN_S = 3, 60.0
#: Tasks of one plugin at once; a busy hub has some hundreds in all.
TASKS, COUNT_EVERY_S = 2000, 2.0

_HUB = __name__.partition(".")[0]

#: What is put aside: ("destination" | "connection", its name), or nothing but told of: ("process", a plugin or "").
Whose = tuple[str, str]


def packages_of(connections: Mapping[str, Connection], config: Configuration, registry: Registry) -> dict[str, str]:
    """The packages that plugins' code is in, each with the one connection it serves, or "" for several."""
    found: dict[str, str] = {}
    for name, connection in connections.items():
        kind = registry.connector_types[config.connections[name].type]
        parts = (kind.open, connection.run, *map(type, (connection.sink, connection.receiver, connection.source)))
        for package in {_package_of(part) for part in parts if part is not None} - {""}:
            found[package] = name if found.get(package, name) == name else ""
    for handler in registry.handlers.values():
        found.setdefault(_package_of(handler.handle), "")
    found.pop("", None)
    return found


def _package_of(code: object) -> str:
    """Of a class or function; "" for what is no plugin's."""
    module = str(getattr(code, "__module__", None) or "")
    return "" if module.partition(".")[0] in (_HUB, "builtins") else module.rpartition(".")[0] or module


class Watchdog:
    """Of one loop; ``start`` and ``stop`` are called on it."""

    def __init__(
        self,
        packages: Mapping[str, str],
        whose: Callable[[asyncio.Task[Any]], Whose | None],
        put_aside: Callable[[Whose, str], Awaitable[None]],
        connections: Mapping[str, Connection] | None = None,
        memory_mb: int = 0,
    ) -> None:
        """
        Args:
            packages: packages of plugins, each with the connection it serves ("" when several).
            whose: what a task works for.
            put_aside: pauses it, with the reason.
            connections: those that are open, as they come and go.
            memory_mb: of this process, above which it is looked whose memory grows; 0: never.
        """
        self._packages = packages
        self._whose = whose
        self._put_aside = put_aside
        self._beat = self._counted = monotonic()
        self._strikes: dict[Whose, deque[float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = threading.Event()
        self._leaks = Leaks(packages, connections or {}, memory_mb, self._has_grown) if memory_mb else None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._leaks is not None:
            self._leaks.close()
        self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    # -- on the loop -------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._beat = now = monotonic()
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._turn)
        if now - self._counted > COUNT_EVERY_S:
            self._counted = now
            self._count_tasks()

    def _count_tasks(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        if len(tasks) <= TASKS:
            return
        for package, count in Counter(filter(None, map(self._package_of_task, tasks))).items():
            if count > TASKS:
                connection = self._packages[package]
                log("loop.crowded", plugin=package, connection=connection, tasks=count)
                self._aside(("connection", connection), "plugin_spawns")

    def _package_of_task(self, task: asyncio.Task[Any]) -> str:
        frame = getattr(task.get_coro(), "cr_frame", None)
        return self._package(frame) if frame is not None else ""

    def _strike(self, whose: Whose) -> None:
        now = monotonic()
        strikes = self._strikes.setdefault(whose, deque(maxlen=STRIKES))
        strikes.append(now)
        if len(strikes) == STRIKES and now - strikes[0] < WITHIN_S:
            strikes.clear()
            self._aside(whose, "plugin_blocks")

    def _aside(self, whose: Whose, reason: str) -> None:
        if whose[1] or whose[0] == "process":
            task = self._loop.create_task(self._do_put_aside(whose, reason))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do_put_aside(self, whose: Whose, reason: str) -> None:
        try:
            await self._put_aside(whose, reason)
        except Exception as error:  # a named edge: it blocks again, and is put aside then
            log("worker.blocked", reason=type(error).__name__)

    # -- on the watchdog's own thread --------------------------------------------------------------

    def _watch(self) -> None:
        looked, told = monotonic(), 0.0
        while not self._ended.wait(LOOK_EVERY_S):
            now = monotonic()
            # One who has overslept himself knows nothing: the whole process stood still, or the machine.
            slept, looked = now - looked, now
            if slept < STALL_S and now - self._beat > STALL_S and told != self._beat:
                told = self._beat
                self._tell(now - self._beat)
            if self._leaks is not None:
                self._leaks.look()

    def _has_grown(self, grown: Grown) -> None:
        log(
            "memory.grown", plugin=grown.plugin, connection=grown.connection, rss_mb=grown.rss_mb,
            grown_kb=grown.grown_kb, of_kb=grown.of_kb,
        )  # fmt: skip
        whose, reason = ("connection", grown.connection), "plugin_leaks"
        if not grown.connection:
            whose, reason = ("process", grown.plugin), "memory_high"
        if not self._ended.is_set():
            self._loop.call_soon_threadsafe(self._aside, whose, reason)

    def _tell(self, stalled_s: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        task = asyncio.current_task(self._loop)
        whose = self._whose(task) if task is not None else None
        while frame is not None and not (package := self._package(frame)):
            frame = frame.f_back
        if frame is None:  # our own code, or a library's that nobody of them called
            log("loop.blocked", plugin="", destination=whose[1] if whose else "", stalled_ms=int(stalled_s * 1000))
            return
        if whose is None and self._packages[package]:
            whose = ("connection", self._packages[package])
        log(
            "loop.blocked",
            plugin=package,
            destination=whose[1] if whose else "",
            stalled_ms=int(stalled_s * 1000),
            where=f"{frame.f_globals.get('__name__')}:{frame.f_lineno}",
        )
        if whose is not None:
            self._loop.call_soon_threadsafe(self._strike, whose)

    def _package(self, frame: FrameType) -> str:
        """The plugin's package that this code belongs to, or ""."""
        name = str(frame.f_globals.get("__name__", ""))
        while name:
            if name in self._packages:
                return name
            name = name.rpartition(".")[0]
        return ""
