"""Several processes' views of one PostgreSQL ledger, each by way of a wire of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from hub.store.base import BreakerPolicy
from hub.store.postgres import PostgresStore
from hub.testing import StandingClock
from tests.conformance.conftest import check_moves
from tests.conformance.wire import Wire, wire_to
from tests.ledger import BREAKER, UNRESOLVED_S, Desk, check_books


@dataclass(slots=True)
class Node:
    desk: Desk
    store: PostgresStore
    wire: Wire


@asynccontextmanager
async def several(
    dsn: str, clock: StandingClock, count: int, breaker: BreakerPolicy = BREAKER
) -> AsyncIterator[list[Node]]:
    """Nodes with connections a, b and c; in the end the books are checked."""
    async with AsyncExitStack() as stack:
        nodes = []
        for n in range(count):
            wire = await stack.enter_async_context(wire_to(dsn))
            store = PostgresStore(wire.dsn, breaker=breaker, unresolved_after_s=UNRESOLVED_S)
            await store.open()
            stack.push_async_callback(store.close)
            desk = Desk(store, clock, boot=f"boot-{n}".encode().ljust(16), keys=10**6 * n)
            nodes.append(Node(desk, store, wire))
        await nodes[0].desk.configure("a", "b", "c")
        for node in nodes:
            node.desk.destinations = ["a", "b", "c"]
        yield nodes
        for node in nodes:
            node.wire.before_passing_on = None
        while await nodes[0].store.place_events(1000):
            pass
        await check_books(nodes[0].store)
        await check_moves(nodes[0].store)
