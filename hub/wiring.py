"""What is sent where: destinations and subscriptions, as the configuration and the connections say now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from hub.contract import Connection, EventType, Subscribed
from hub.deliver import Target
from hub.log import log
from hub.model import Json
from hub.plugins import Registry
from hub.routing import Router, Subscription, projection
from hub.settings import Configuration
from hub.store.base import ConnectionRow, DestinationRow, Store
from hub.worker import LaneSpec

#: The spacing leaves a little room, so that rounding never exceeds what was agreed.
PACE = 0.97
INTERNAL = "handlers"


class Wiring:
    """Read when the hub opens, and again when a connection says that it has changed.

    ``targets``, ``lanes`` and ``projections`` stay the same objects, for those who look things up in them.
    """

    def __init__(
        self,
        config: Configuration,
        registry: Registry,
        event_types: Mapping[str, EventType],
        store: Store,
        router: Router,
        connections: Mapping[str, Connection],
    ) -> None:
        self.config = config
        self._registry = registry
        self._event_types = event_types
        self._store = store
        self._router = router
        self._connections = connections
        self.targets: dict[str, Target] = {}
        self.lanes: dict[str, LaneSpec] = {}
        #: Of today's routes, and all that deliveries may be pinned to from before.
        self.projections: dict[bytes, tuple[str, ...]] = {}

    async def read(self) -> None:
        """Asks every connection, then changes everything at once; when one cannot be asked, nothing changes."""
        subscriptions = [s.routed() for s in self.config.subscriptions]
        for name, connection in self._connections.items():
            if connection.routes is not None:
                subscriptions += _own(name, await connection.routes())
        targets, lanes = self._destinations()
        # First what is sent where is kept, then anything is owed there: what a unit owes to a destination that is not
        # committed yet makes it due for nobody, and would lie there until somebody configures again.
        await self._keep_projections(self._router.ahead(subscriptions))
        await self._configure(targets, lanes)
        self._router.replace(subscriptions)
        for mine, new in ((self.targets, targets), (self.lanes, lanes)):
            mine.clear()
            mine.update(new)  # type: ignore[arg-type]  # one pair after the other, each of one type

    def _destinations(self) -> tuple[dict[str, Target], dict[str, LaneSpec]]:
        targets: dict[str, Target] = {}
        lanes: dict[str, LaneSpec] = {}
        for name, connection in self._connections.items():
            if connection.sink is None:
                continue
            kind = self._registry.connector_types[self.config.connections[name].type]
            for spec in connection.sink.destinations():
                destination = f"{name}/{spec.name}" if spec.name else name
                spacing = int(1_000_000 / (PACE * spec.rate_per_s)) if spec.rate_per_s else 0
                targets[destination] = Target(name, kind.channel, connection.sink)
                lanes[destination] = LaneSpec(spec.concurrency, spacing)
        for name, handler in self._registry.handlers.items():
            targets["handler:" + name] = Target(INTERNAL, handler=handler)
            lanes["handler:" + name] = LaneSpec(10)
        return targets, lanes

    async def _configure(self, targets: Mapping[str, Target], lanes: Mapping[str, LaneSpec]) -> None:
        rows = [ConnectionRow(name, self.config.connections[name].type) for name in self._connections]
        rows.append(ConnectionRow(INTERNAL, "internal"))
        destinations = [DestinationRow(id, t.connection, lanes[id].spacing_us) for id, t in targets.items()]
        await self._store.configure(rows, destinations)

    async def _keep_projections(self, router: Router) -> None:
        current = {
            route.projection.id: orjson.dumps(route.projection.fields)
            for name in self._event_types
            for route in router.routes(name)
        }
        current[projection(()).id] = orjson.dumps(())
        kept = await self._store.keep_projections(current)
        self.projections |= {id: tuple(orjson.loads(fields)) for id, fields in kept.items()}


def _own(connection: str, subscribed: Sequence[Subscribed]) -> list[Subscription]:
    """A connection's own subscriptions; one that leads elsewhere is named and left out."""
    found = []
    for each in subscribed:
        if each.to.partition("/")[0] != connection:
            log("plugin.raised", connection=connection, error="subscription_of_others")
            continue
        given: Json = {name: getattr(each, name) for name in Subscribed.__slots__}
        found.append(Subscription(**given))
    return found
