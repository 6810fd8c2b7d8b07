"""A node whose tables were upgraded under it takes and begins nothing more, says why, and ends as too old."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from hub import app as hub_app
from hub import serve
from hub.app import HubApp
from hub.contract import Connection
from hub.control import is_usage
from hub.errors import Busy, ConfigError
from hub.testing import RecordingSink, configuration, connector, eventually, plain_event_type, registry_of
from tests.engines import put_key
from tests.flow.conftest import THING, emit, subscription


@pytest.mark.postgres
async def test_a_node_under_which_the_tables_were_upgraded_ends_with_the_code_of_one_too_old(
    tmp_path: Path, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_app, "SCHEMA_EVERY_S", 0.02)
    monkeypatch.setattr(serve, "LINGER_S", 60.0)
    put_key(tmp_path)
    sink = RecordingSink()
    registry = registry_of(
        connector_types=[connector("alpha", Connection(sink=sink))], event_types=[plain_event_type(THING)]
    )
    config = configuration(
        tmp_path, registry, connections={"alpha": {}}, subscriptions=[subscription("alpha")],
        settings={"database_url": postgres_dsn, "http": {"port": 0}},
    )  # fmt: skip
    found: list[tuple[HubApp, str]] = []
    running = asyncio.create_task(serve.serve_forever(config, registry, on_ready=lambda *it: found.append(it)))
    await eventually(lambda: found or running.done())
    ((hub, url),) = found
    await hub.store.pause("connection", "alpha", "operator", "", 1)
    await emit(hub)
    async with aiohttp.ClientSession() as http:
        async with http.get(url + "readyz") as answer:
            assert answer.status == 200
        await hub.store.submit(lambda tx: tx.execute("UPDATE hub_version SET version_num = '9999'").rowcount)
        await eventually(hub.is_outdated.is_set)
        async with http.get(url + "readyz") as answer:
            assert answer.status == 503 and "9999" in (await answer.json(content_type=None))["detail"]
    with pytest.raises(Busy):
        await emit(hub)
    await hub.store.pause("connection", "alpha", None, "", 1)
    assert hub.worker is not None
    hub.worker.wake()
    for _ in range(50):  # a worker that may claim has done so by then
        await hub.store.ping()
    os.kill(os.getpid(), signal.SIGTERM)  # nobody asks any more why it ends
    with pytest.raises(ConfigError, match="9999") as refused:
        await running
    assert is_usage(refused.value), "exit code 2"
    assert sink.shipments == [], "what became due meanwhile is another node's"
