"""Two nodes and one account: as many are bound as the carrier allows, and nobody gets a message twice."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from hub.app import HubApp
from hub.plugins import Registry
from hub.testing import eventually
from tests.engines import put_key

from .conftest import Carrier
from .test_flow import People, announce, hub_with, installed, outcome

__all__ = ["installed"]  # a fixture

pytestmark = pytest.mark.postgres


@asynccontextmanager
async def two_nodes(
    folder: Path, dsn: str, installed: Registry, carrier: Carrier, people: People, sessions: int
) -> AsyncIterator[list[HubApp]]:
    nodes = []
    async with AsyncExitStack() as stack:
        for name in ("a", "b"):
            (folder / name).mkdir()
            if name == "a":
                put_key(folder / name)
            else:
                shutil.copytree(folder / "a" / "var", folder / name / "var", ignore=shutil.ignore_patterns("*.lock"))
            made = hub_with(folder / name, installed, carrier, people, database_url=dsn, sessions=sessions)
            nodes.append(await stack.enter_async_context(made))
        yield nodes


async def test_one_session_is_one_bind_over_two_nodes_and_moves_when_its_node_stops(
    tmp_path: Path, postgres_dsn: str, installed: Registry, carrier: Carrier
) -> None:
    people = People(30)
    # A second bind at the same time would be refused, and the count below would show it.
    carrier.smsc.change({"bind_limit": 1})
    async with two_nodes(tmp_path, postgres_dsn, installed, carrier, people, 1) as (a, b):
        await eventually(lambda: carrier.count("bound") == 1)
        await announce(b, "Tin thứ nhất", "1")
        await outcome(b, delivered=30, cancelled_same_recipient=1)
        assert carrier.count("binds") == 1
        await a.stop()
        await eventually(lambda: carrier.count("bound") == 1 and carrier.count("binds") == 2, 20)
        await announce(b, "Tin thứ hai", "2")
        await outcome(b, delivered=60, cancelled_same_recipient=2)
        assert (carrier.count("binds"), carrier.count("binds_refused")) == (2, 0)
    assert len(carrier.taken()) == len(set(carrier.taken())) == 60


async def test_two_sessions_are_two_binds(
    tmp_path: Path, postgres_dsn: str, installed: Registry, carrier: Carrier
) -> None:
    async with two_nodes(tmp_path, postgres_dsn, installed, carrier, People(30), 2) as (a, _):
        await eventually(lambda: carrier.count("bound") == 2)
        await announce(a, "Tin chung")
        await outcome(a, delivered=30, cancelled_same_recipient=1)
    assert len(carrier.taken()) == len(set(carrier.taken())) == 30


async def test_a_limit_nobody_told_us_about_delays_and_loses_nothing(
    tmp_path: Path, postgres_dsn: str, installed: Registry, carrier: Carrier
) -> None:
    """The control: two nodes believe in two sessions, the carrier lets one in."""
    carrier.smsc.change({"bind_limit": 1})
    async with two_nodes(tmp_path, postgres_dsn, installed, carrier, People(10), 2) as (a, _):
        await eventually(lambda: carrier.count("bound") == 1 and carrier.count("binds_refused") >= 1, 20)
        await announce(a, "Tin chung")
        await outcome(a, delivered=10, cancelled_same_recipient=1)
    assert len(carrier.taken()) == len(set(carrier.taken())) == 10
