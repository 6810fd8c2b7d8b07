"""Whose memory grows: looked for once the process holds more than it may.

Two pictures are taken, a moment apart: what each plugin's code has allocated and still holds (tracemalloc, which runs
for a moment before the first, so that what is always in flight is in both, and then never, since it costs), and what
can be reached from its connections' own objects, since a plugin may also keep what the hub made. Whoever holds most of
what came in between is named. What a native library
allocates for itself is in neither picture: then nobody is named, and a person has to look.
"""

from __future__ import annotations

import gc
import resource
import sys
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from hub.contract import Connection

#: How often the process is weighed, how long it is traced before the first picture and from there to the second.
WEIGH_EVERY_S, SAMPLE_S = 1.0, 1.5
#: Less than so much in one sample is no leak that anybody could name.
LEAST_BYTES = 1024 * 1024
#: Of what was added, a plugin's code must have asked for so much, or its own objects keep so much. The second says
#: more, since what is only in flight is not in them, and measures less, since buffers count with what fills them.
ALLOCATED_SHARE, KEPT_SHARE = 1 / 2, 1 / 8
#: After a sample, so much more than then before the next.
AGAIN_AT = 1.1
#: Frames of a trace that are kept; objects that are looked at behind one connection.
FRAMES, OBJECTS = 10, 300_000
#: What is followed beside a plugin's own objects: containers, and the values that the hub hands out.
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_HANDED_OUT = ("hub.contract", "hub.model", "hub.testing")


@dataclass(frozen=True, slots=True)
class Grown:
    """What a sample saw. ``connection`` "": several, or none; ``plugin`` "" too: nobody can be named."""

    rss_mb: int
    plugin: str
    connection: str
    #: Of that plugin, and of the whole process, between the pictures.
    grown_kb: int
    of_kb: int


@dataclass(frozen=True, slots=True)
class _Picture:
    """Bytes traced, by package and in all, and bytes reached from each connection."""

    allocated: Counter[str]
    total: int
    reached: dict[str, int]


class Leaks:
    """Looked after by the watchdog's own thread; nothing here touches the loop."""

    def __init__(
        self,
        packages: Mapping[str, str],
        connections: Mapping[str, Connection],
        limit_mb: int,
        found: Callable[[Grown], None],
    ) -> None:
        """
        Args:
            packages: packages of plugins, each with the connection it serves ("" when several).
            limit_mb: resident memory of this process above which it is looked.
            found: called from the watchdog's thread at the end of each sample.
        """
        self._packages = packages
        self._connections = connections
        self._limit_mb = self._again_mb = float(limit_mb)
        self._found = found
        self._weighed = 0.0
        self._sample_ends = 0.0
        self._first: _Picture | None = None
        self._began_tracing = False

    def look(self) -> None:
        """Called again and again; costs one small read a second while all is well."""
        now = monotonic()
        if self._sample_ends:
            if now < self._sample_ends:
                return
            if self._first is None:
                self._first = self._picture()
                self._sample_ends = monotonic() + SAMPLE_S
            else:
                self._end_sample(self._first, self._picture())
        elif now - self._weighed >= WEIGH_EVERY_S:
            self._weighed = now
            if rss_mb() > self._again_mb:
                self._begin_sample(now)

    def close(self) -> None:
        if self._began_tracing:
            tracemalloc.stop()
            self._began_tracing = False

    def _begin_sample(self, now: float) -> None:
        if not tracemalloc.is_tracing():
            tracemalloc.start(FRAMES)
            self._began_tracing = True
        self._first = None
        self._sample_ends = now + SAMPLE_S

    def _picture(self) -> _Picture:
        allocated, total = self._allocated() if tracemalloc.is_tracing() else (Counter[str](), 0)
        return _Picture(allocated, total, self._reached())

    def _end_sample(self, first: _Picture, second: _Picture) -> None:
        self._sample_ends = 0.0
        self.close()
        rss = rss_mb()
        self._again_mb = max(self._limit_mb, rss * AGAIN_AT)
        total = second.total - first.total
        allocated = {name: size - first.allocated[name] for name, size in second.allocated.items()}
        kept = {name: size - first.reached.get(name, 0) for name, size in second.reached.items()}
        plugin, connection, grown = self._whose(allocated, kept, max(total, 1))
        self._found(Grown(round(rss), plugin, connection, grown // 1024, total // 1024))

    def _whose(self, allocated: Mapping[str, int], kept: Mapping[str, int], total: int) -> tuple[str, str, int]:
        """Whoever must be named: plugin, connection ("" when it could be several), bytes."""
        found = [("", "", 0)]
        for package, size in allocated.items():
            if size >= max(LEAST_BYTES, ALLOCATED_SHARE * total):
                its = [name for name in self._connections if self._package_of(name) == package]
                found.append((package, its[0] if len(its) == 1 else "", size))
        for name, size in kept.items():
            if size >= max(LEAST_BYTES, KEPT_SHARE * total):
                found.append((self._package_of(name), name, size))
        return max(found, key=lambda one: (bool(one[1]), one[2]))

    def _package_of(self, connection: str) -> str:
        for part in _parts(self._connections[connection]):
            if package := self._package_named(type(part).__module__):
                return package
        return ""

    def _package_named(self, module: str) -> str:
        while module and module not in self._packages:
            module = module.rpartition(".")[0]
        return module

    # -- the two pictures --------------------------------------------------------------------------

    def _allocated(self) -> tuple[Counter[str], int]:
        """Bytes that live since the sample began, by the package whose code asked for them; and all of them."""
        files = {
            file: package
            for name, module in list(sys.modules.items())
            if (package := self._package_named(name)) and (file := getattr(module, "__file__", None))
        }
        found: Counter[str] = Counter()
        total = 0
        for trace in tracemalloc.take_snapshot().traces:
            total += trace.size
            for frame in reversed(trace.traceback):  # the innermost last
                if package := files.get(frame.filename, ""):
                    found[package] += trace.size
                    break
        return found, total

    def _reached(self) -> dict[str, int]:
        """Bytes that can be reached from each connection's own objects, as far as they are the plugin's or values."""
        return {name: self._size_of(_parts(connection)) for name, connection in list(self._connections.items())}

    def _size_of(self, roots: Iterable[Any]) -> int:
        seen: set[int] = set()
        to_do, size = list(roots), 0
        while to_do and len(seen) < OBJECTS:
            each = to_do.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            size += sys.getsizeof(each, 0)
            if self._is_followed(type(each)):
                to_do += gc.get_referents(each)
        return size

    def _is_followed(self, kind: type) -> bool:
        if kind in _CONTAINERS:
            return True
        if kind is type:
            return False
        return kind.__module__ in _HANDED_OUT or bool(self._package_named(kind.__module__))


def _parts(connection: Connection) -> list[Any]:
    """What a connection's plugin made for it."""
    found = [connection.sink, connection.receiver, connection.source, getattr(connection.run, "__self__", None)]
    return [part for part in found if part is not None]


def rss_mb() -> float:
    """Resident memory of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return 0.0
