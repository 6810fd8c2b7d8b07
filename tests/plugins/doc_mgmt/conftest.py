"""A simulated axis on loopback sockets, and this plugin loaded as every plugin is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from hub.contract import EventType
from hub.plugins import Registry, load_plugins
from plugins.doc_mgmt.simulator.__main__ import arguments, start
from tests.plugins.doc_mgmt.support import SECRET, Partner, StartAxis


@pytest.fixture
async def start_axis(tmp_path: Path) -> AsyncIterator[StartAxis]:
    """Starts a simulated axis; options as on its command line (``documents=4``)."""
    cleanups: list[Callable[[], Awaitable[None]]] = []

    async def begin(**options: Any) -> Partner:
        log_path, secret_file = tmp_path / "axis.log", tmp_path / "axis.key"
        secret_file.write_text(SECRET)
        secret_file.chmod(0o600)
        flags = ["--only-readable"] if options.pop("only_readable", False) else []
        given = {"documents": 4, "seed": 7, "system_id": "SYS-TEST", "secret": SECRET, **options}
        values = [item for name, value in given.items() for item in (f"--{name.replace('_', '-')}", str(value))]
        log = log_path.open("a", encoding="utf-8")
        axis, runners, ready = await start(arguments(["--log", str(log_path), *flags, *values]), log)

        async def stop() -> None:
            axis.switches.update(withhold=False, withhold_all=False)
            async with axis.released:
                axis.released.notify_all()
            for runner in runners:
                await runner.cleanup()
            log.close()

        cleanups.append(stop)
        return Partner(axis, ready["port"], ready["control"], log_path, secret_file)

    yield begin
    for cleanup in cleanups:
        await cleanup()


@pytest.fixture
def registry() -> Registry:
    """This plugin through the loader every plugin comes through."""
    loaded = load_plugins(points=[EntryPoint("doc_mgmt", "plugins.doc_mgmt", "unionhub.plugins")])
    assert loaded.broken == ()
    return loaded


@pytest.fixture
def event_types(registry: Registry) -> dict[str, EventType]:
    return dict(registry.event_types)
