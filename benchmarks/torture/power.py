"""Power cuts under SQLite: every write and fsync of a working hub is recorded, then cut off at any moment.

What was not synced by then may have reached the disk or not, in any order, and a write in pieces of 512 bytes. Each
cut is a file as the next start would find it, and is opened and looked over.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from benchmarks.torture.disk import Op, layer
from hub.app import HubApp
from hub.contract import Accepted, Connection, Delivered, Outcome, RetryLater, Shipment, UnitOfWork
from hub.model import Draft, Receipt
from hub.store.ops.books import BOOKS
from hub.store.sqlite.copy import open_to_read
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub

THING = "vn.congdoan.thing.happened.v1"
SECTOR = 512
#: What becomes of the writes that no fsync covers.
Fate = Literal["kept", "dropped", "shuffled", "torn"]
FATES: tuple[Fate, ...] = ("kept", "dropped", "shuffled", "torn")
#: Pages of the log until they are folded into the file: in an office 4000, so that a recording would hold none.
CHECKPOINT_PAGES = 60


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody outside knows from here on: a commit was answered, or bytes have left."""

    kind: Literal["acknowledged", "left"]
    id: bytes


@dataclass(slots=True)
class Recording:
    """The files as they were, all that was done to them since, and what the world saw meanwhile, in one order."""

    files: dict[str, bytes]
    log: list[Op | Seen]
    key: bytes
    safe: dict[bytes, bool] = field(default_factory=dict)


def _registry(sinks: dict[str, RecordingSink]) -> Any:
    return registry_of(
        connector_types=[connector(n, Connection(sink=s)) for n, s in sinks.items()],
        event_types=[plain_event_type(THING)],
    )


def _hub(folder: Path, sinks: dict[str, RecordingSink], synchronous: str, start: bool = True) -> Any:
    return running_hub(
        folder,
        _registry(sinks),
        connections={name: {} for name in sinks},
        subscriptions=[{"name": name, "types": [THING], "to": name} for name in sinks],
        settings={"retry": {"schedule_s": [0.02] * 40}, "breaker": {"failures": 10_000}},
        synchronous=synchronous,
        start=start,
    )


async def record(folder: Path, seed: int, events: int = 120, synchronous: str = "FULL") -> Recording:
    """A hub at work on an empty folder: events in, three sinks out, one of them with receipts, some refusals."""
    dice = random.Random(seed)
    log: list[Any] = []
    reports: list[tuple[str, str]] = []
    safe: dict[bytes, bool] = {}

    def sending(name: str, resend_is_safe: bool) -> Any:
        async def send(shipment: Shipment) -> Outcome:
            safe[shipment.id] = resend_is_safe
            refused = dice.random() < 0.15
            if not refused:  # what a partner refused may go out again
                log.append(Seen("left", shipment.id))
            await asyncio.sleep(dice.random() * 0.003)
            if refused:
                return RetryLater(reason="busy")
            if name != "carrier":
                return Delivered()
            ref = shipment.id.hex()
            reports.append((ref, dice.choice(["delivered", "delivered", "failed"])))
            return Accepted(refs=(ref,), receipt_within=timedelta(hours=1))

        return send

    sinks = {}
    for name, is_safe in (("safe", True), ("unsafe", False), ("carrier", False)):
        sinks[name] = RecordingSink(script=[sending(name, is_safe)] * (events * 20), resend_is_safe=is_safe)
    with layer() as disk:
        async with _hub(folder, sinks, synchronous) as hub:
            # Inside a unit, so that it is the writer's own connection that is told.
            await hub.store.submit(lambda tx: tx.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"))
            files = _files(folder)
            disk.recorded(log)
            await _work(hub, dice, log, reports, events)
            disk.judge = lambda op: 0
    return Recording(files, log, (folder / "var" / "hub.key").read_bytes(), safe)


def _files(folder: Path) -> dict[str, bytes]:
    """The database and its log, as SQLite reads them; nothing is under way."""
    var = folder / "var"
    return {str(p): p.read_bytes() for p in (var / "unionhub.db", var / "unionhub.db-wal") if p.exists()}


async def _work(hub: HubApp, dice: random.Random, log: list[Any], reports: list[tuple[str, str]], events: int) -> None:
    async def one(n: int) -> None:
        draft = Draft(type=THING, source="/torture", dedupe_key=str(n), data={"id": str(n), "n": n})
        [event] = (await hub.commit(UnitOfWork(drafts=[draft]))).events
        log.append(Seen("acknowledged", event.bytes))

    for first in range(0, events, 6):
        await asyncio.gather(*(one(n) for n in range(first, first + 6)))
        due, reports[:] = reports[:], []
        for ref, state in due:
            await hub.commit(UnitOfWork(receipts=[Receipt(ref=ref, state=state)]), connection="carrier")
        await asyncio.sleep(dice.random() * 0.01)

    async def settled() -> bool:
        [(left,)] = await hub.store.read("SELECT count(*) FROM queue WHERE state IN ('pending', 'leased', 'sending')")
        return bool(left == 0)

    await eventually(settled, 60)


# -- cutting ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _FileState:
    durable: bytearray
    pending: list[Op] = field(default_factory=list)


@dataclass(slots=True)
class Cut:
    """Files as the next start finds them, and what the world had seen by then."""

    at: int
    fate: Fate
    files: dict[str, bytearray]
    acknowledged: set[bytes]
    left: set[bytes]


def cuts(recording: Recording, count: int, seed: int, fsync_lies: bool = False) -> Iterator[Cut]:
    """``count`` power cuts at random moments, in the order of the recording.

    ``fsync_lies``: a disk that says it has written and has not, as some do.
    """
    dice = random.Random(seed)
    moments = sorted(dice.randint(1, len(recording.log)) for _ in range(count))
    files = {path: _FileState(bytearray(data)) for path, data in recording.files.items()}
    acknowledged: set[bytes] = set()
    left: set[bytes] = set()
    done = 0
    for n, moment in enumerate(moments):
        for step in recording.log[done:moment]:
            if isinstance(step, Seen):
                (acknowledged if step.kind == "acknowledged" else left).add(step.id)
                continue
            state = files.setdefault(step.path, _FileState(bytearray()))
            if step.kind != "sync":
                state.pending.append(step)
            elif not fsync_lies:
                for op in state.pending:
                    _apply(state.durable, op)
                state.pending.clear()
        done = moment
        fate = FATES[n % len(FATES)]
        yield Cut(moment, fate, {p: _after(s, fate, dice) for p, s in files.items()}, set(acknowledged), set(left))


def _apply(image: bytearray, op: Op) -> None:
    if op.kind == "write":
        if len(image) < op.at:
            image.extend(bytes(op.at - len(image)))
        image[op.at : op.at + len(op.data)] = op.data
    else:
        del image[op.at :]  # a deleted file (``at`` is 0) is as good as an empty one


def _after(state: _FileState, fate: Fate, dice: random.Random) -> bytearray:
    image = bytearray(state.durable)
    survivors = _survivors(state.pending, fate, dice)
    for op in survivors:
        _apply(image, op)
    return image


def _survivors(pending: Sequence[Op], fate: Fate, dice: random.Random) -> list[Op]:
    if fate == "dropped":
        return []
    if fate == "kept":
        return list(pending)
    some = [op for op in pending if dice.random() < 0.5]
    dice.shuffle(some)
    return some if fate == "shuffled" else [piece for op in some for piece in _torn(op, dice)]


def _torn(op: Op, dice: random.Random) -> Iterator[Op]:
    if op.kind != "write":
        yield op
        return
    start = 0
    while start < len(op.data):
        end = min(len(op.data), (op.at + start) // SECTOR * SECTOR + SECTOR - op.at)
        if dice.random() < 0.7:
            yield op._replace(at=op.at + start, data=op.data[start:end])
        start = end


# -- looking it over -------------------------------------------------------------------------------


def wrong_in(cut: Cut, safe: dict[bytes, bool], folder: Path) -> list[str]:
    """What does not hold in the ledger that this cut left behind: kinds of damage, "" never."""
    path = put(cut, folder)
    found = []
    try:
        # Read only: the last one to close a file that can be written folds its log into it.
        with closing(open_to_read(path)) as db:
            if db.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                return ["corrupt"]
            events = {id for (id,) in db.execute("SELECT id FROM event")}
            if not cut.acknowledged <= events:
                found.append("lost")
            queued = "SELECT id FROM queue WHERE state IN ('waiting', 'pending', 'leased')"
            would_go = {id for (id,) in db.execute(queued)}
            if any(not safe[id] for id in would_go & cut.left):
                found.append("resent")
            known = {id for (id,) in db.execute("SELECT id FROM queue UNION ALL SELECT id FROM delivery")}
            if not cut.left <= known:
                found.append("lost")
            found += [f"books.{name}" for name, sql in BOOKS.items() if db.execute(sql + " LIMIT 1").fetchone()]
    except sqlite3.DatabaseError:
        return ["corrupt"]
    return found


def put(cut: Cut, folder: Path) -> Path:
    """Writes the files into ``folder``, where nothing else is; answers the database."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("unionhub.db*"):
        old.unlink()
    for path, data in cut.files.items():
        (folder / Path(path).name).write_bytes(data)
    return folder / "unionhub.db"


def tally(recording: Recording, count: int, seed: int, folder: Path, fsync_lies: bool = False) -> Counter[str]:
    """How many cuts did which damage; ``cuts`` counts all."""
    found: Counter[str] = Counter(cuts=0)
    for cut in cuts(recording, count, seed, fsync_lies):
        found["cuts"] += 1
        found.update(set(wrong_in(cut, recording.safe, folder)))
    return found


async def resent_by_a_start(recording: Recording, cut: Cut, folder: Path) -> set[UUID]:
    """Starts the whole hub on what is left: unsafe deliveries that go out again although their bytes had left."""
    put(cut, folder / "var")
    (folder / "var" / "hub.key").write_bytes(recording.key)
    (folder / "var" / "hub.key").chmod(0o600)
    sinks = {name: RecordingSink(resend_is_safe=name == "safe") for name in ("safe", "unsafe")}

    async def worked_off() -> bool:
        sql = "SELECT count(*) FROM queue WHERE destination <> 'carrier' AND state IN ('pending', 'leased', 'sending')"
        return bool(await hub.store.read(sql) == [(0,)])

    async with _hub(folder, sinks, "FULL", start=False) as hub:
        await hub.store.hold(None)  # another place than its marker names
        await hub.start()
        await eventually(worked_off, 60)
    again = {s.id for s in sinks["unsafe"].shipments} & cut.left
    return {UUID(bytes=id) for id in again}
