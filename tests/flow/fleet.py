"""Several hubs on one PostgreSQL database, each a node with a folder and a line to the server of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.app import HubApp
from hub.contract import Connection, Handler, Page, UnitOfWork
from hub.model import Draft
from hub.testing import connector, plain_event_type, registry_of, running_hub
from tests.flow.conftest import PERSONAL, THING, subscription
from tests.postgres_proxy import Line, line_to


@dataclass
class Fleet:
    """``lease_s``: 60 where a test shows that nobody waits for a lapse, else as short as can be."""

    folder: Path
    dsn: str
    lease_s: float = 60.0
    settings: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    key: bytes = field(default_factory=lambda: os.urandom(32))

    @asynccontextmanager
    async def node(
        self,
        name: str,
        parts: Mapping[str, Connection],
        *,
        start: bool = True,
        schedule: str = "",
        handlers: Mapping[str, Handler] | None = None,
        **more: Any,
    ) -> AsyncIterator[HubApp]:
        folder = self.folder / name
        (folder / "var").mkdir(parents=True, exist_ok=True)
        (folder / "var" / "hub.key").write_bytes(self.key)
        (folder / "var" / "hub.key").chmod(0o600)
        registry = registry_of(
            connector_types=[connector(n, part) for n, part in parts.items()],
            event_types=[plain_event_type(THING), plain_event_type(PERSONAL, personal=True)],
            handlers=(handlers or {}).values(),
        )
        to_handlers = [subscription(f"to-{n}", to=f"handler:{n}") for n in handlers or ()]
        async with line_to(self.dsn) as line:
            self.lines[name] = line
            async with running_hub(
                folder,
                registry,
                connections={n: {"type": n, "schedule": schedule if p.source else ""} for n, p in parts.items()},
                subscriptions=[*(subscription(n) for n, p in parts.items() if p.sink), *to_handlers],
                settings={
                    "retry": {"schedule_s": [0.05] * 20, "jitter": 0},
                    "worker": {
                        "lease_s": self.lease_s,
                        "attempt_deadline_s": self.lease_s * 0.9,
                        "stop_within_s": 2,
                    },
                    **self.settings,
                    "database_url": line.url,
                },
                start=start,
                **more,
            ) as hub:
                try:
                    yield hub
                finally:
                    line.go_on()


class Archive:
    """A source of so many pages, which notes who asked for which."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.asked: list[tuple[str, int]] = []
        self.block: dict[str, int] = {}
        self.blocked = asyncio.Event()

    def at(self, name: str) -> Connection:
        return Connection(source=_Reader(self, name))

    def read_by(self, name: str) -> list[int]:
        return [page for by, page in self.asked if by == name]


class _Reader:
    def __init__(self, archive: Archive, name: str) -> None:
        self.archive = archive
        self.name = name

    async def page(self, cursor: str | None) -> Page:
        n = int(cursor or 0)
        self.archive.asked.append((self.name, n))
        if self.archive.block.get(self.name) == n:
            self.archive.blocked.set()
            await asyncio.Event().wait()
        draft = Draft(type=THING, source="", dedupe_key=f"page-{n}", data={"id": str(n), "n": n})
        return Page(unit=UnitOfWork(drafts=[draft]), cursor=str(n + 1), done=n + 1 >= self.archive.pages)

    async def acknowledge(self, page: Page) -> None:
        return None
