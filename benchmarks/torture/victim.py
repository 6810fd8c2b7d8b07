"""The hub that is killed: a fork server, since importing it takes longer than one of its lives.

``python -m benchmarks.torture.victim`` reads one life a line (JSON: folder, database_url, partner, point, nth,
without, and files: how many it may open) and prints ``born PID``, ``ready URL`` when it listens, ``ended STATUS``
when it is gone. The life is the shipped process: ``hub.serve``, its web server, worker and store, on sinks that
speak HTTP through ``hub.http``.
"""

from __future__ import annotations

import gc
import hmac
import importlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from yarl import URL

from benchmarks.process import run
from benchmarks.torture import controls
from hub import crashpoint
from hub.contract import (
    Accepted,
    Admission,
    Admit,
    Connection,
    ConnectionContext,
    DestinationSpec,
    Outcome,
    RawRequest,
    Shipment,
    UnitOfWork,
    Verified,
)
from hub.errors import Unauthenticated
from hub.http import Session, exchange, open_session, outcome_of
from hub.log import configure as configure_log
from hub.model import Draft, Event, Receipt
from hub.plugins import Registry
from hub.serve import serve_forever
from hub.settings import Configuration
from hub.testing import configuration, connector, plain_event_type, registry_of

THING = "vn.congdoan.thing.happened.v1"
#: Goes to ``safe`` alone, one after the other per key.
STEP = "vn.congdoan.step.taken.v1"
KEY = b"invented, like everything here"
#: Whether what was sent may be sent again, by connection. ``carrier`` reports later.
SINKS: Mapping[str, bool] = {"safe": True, "unsafe": False, "carrier": False}
#: Whoever tries to send the message of this id to ``safe`` dies of it.
POISON = "poison"
#: Tries in flight at once per sink.
CONCURRENCY = 8


def signature(body: bytes) -> str:
    return hmac.digest(KEY, body, "sha256").hex()


class Sink:
    """Posts ``/{connection}/{delivery}`` to the partner."""

    def __init__(self, name: str, partner: str, context: ConnectionContext) -> None:
        self.resend_is_safe = SINKS[name]
        self._name = name
        self._partner = partner
        self._context = context
        self._session: Session | None = None

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=CONCURRENCY)]

    def render(self, event: Event) -> bytes:
        return orjson.dumps({"event": str(event.id), **event.data}, option=orjson.OPT_SORT_KEYS)

    async def admit(self, shipment: Shipment) -> Admission:
        return Admit()

    async def send(self, shipment: Shipment) -> Outcome:
        if shipment.event.data["id"] == POISON and self._name == "safe":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._session is None:
            self._session = open_session(limit_per_host=CONCURRENCY)
        reply = await exchange(
            self._session,
            "POST",
            URL(f"{self._partner}/{self._name}/{shipment.delivery_id}"),
            headers={"Content-Type": "application/json"},
            data=shipment.body,
            deadline_s=shipment.deadline_s,
        )
        if reply.status == 202 and reply.failure is None:
            return Accepted(refs=(reply.answer.decode(),), receipt_within=timedelta(hours=1))
        return outcome_of(reply, self._context.hub.now())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Receiver:
    """Takes things, steps and receipts; the sender's own id is the dedupe key."""

    def verify(self, request: RawRequest) -> Verified:
        if not hmac.compare_digest(request.headers.get("signature", ""), signature(request.body)):
            raise Unauthenticated
        return Verified(request.headers["message-id"])

    def understand(self, request: RawRequest, verified: Verified, body: Any) -> UnitOfWork:
        key = verified.dedupe_key
        if "ref" in body:
            return UnitOfWork(receipts=[Receipt(ref=body["ref"], state=body["state"], dedupe_key=key)])
        step = body["key"] is not None
        kind, order = (STEP, body["key"]) if step else (THING, None)
        return UnitOfWork(drafts=[Draft(type=kind, source="", dedupe_key=key, data=body, ordering_key=order)])


def registry(partner: str) -> Registry:
    def opener(name: str) -> Any:
        def make(context: ConnectionContext) -> Connection:
            sink = Sink(name, partner, context)
            return Connection(sink=sink, close=sink.close, receiver=Receiver() if name == "carrier" else None)

        return make

    thin = ("id", "n", "key")
    return registry_of(
        connector_types=[connector("door", Connection(receiver=Receiver())), *(connector(n, opener(n)) for n in SINKS)],
        event_types=[plain_event_type(THING, thin=thin), plain_event_type(STEP, thin=thin)],
    )


def settings(database_url: str) -> dict[str, Any]:
    """Short pauses: nobody waits an hour for a retry here. Durability is the shipped one."""
    return {
        "database_url": database_url,
        "http": {"port": 0},
        "retry": {"schedule_s": [0.05] * 40, "jitter": 0.2},
        "breaker": {"failures": 10_000},
        # On PostgreSQL the next life waits for the lease of the one before.
        "worker": {"lease_s": 1.0, "attempt_deadline_s": 10, "stop_within_s": 5},
    }


def configured(folder: Path, known: Registry, database_url: str) -> Configuration:
    return configuration(
        folder,
        known,
        connections={name: {} for name in ("door", *SINKS)},
        subscriptions=[
            *({"name": name, "types": [THING], "to": name} for name in SINKS),
            {"name": "steps", "types": [STEP], "to": "safe"},
        ],
        settings=settings(database_url),
    )


def live(life: Mapping[str, Any]) -> None:
    """One life, from the first file opened to SIGTERM or SIGKILL."""
    folder = Path(life["folder"])
    if files := life.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if life["point"]:
        crashpoint.arm(life["point"], life["nth"])
    known = registry(life["partner"])
    with (folder / "hub.log").open("ab") as lines, controls.without(life["without"]):
        configure_log(lines)
        work = serve_forever(
            configured(folder, known, life["database_url"]),
            known,
            on_ready=lambda _, url: print("ready", url, flush=True),
        )
        run(work)


def main() -> None:
    _warm_up()
    gc.freeze()  # forked processes share what is never touched
    print("waiting", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                live(json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print("born", child, flush=True)
        _, status = os.waitpid(child, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


def _warm_up() -> None:
    """Imports what a life would import; makes no loop, thread or file."""
    for name in ("alembic.command", "hub.store.sqlite", "hub.store.postgres", "hub.store.postgres.upgrade", "uvloop"):
        with suppress(ImportError):  # uvloop and asyncpg are extras
            importlib.import_module(name)


if __name__ == "__main__":
    main()
