"""kill -9, at every named place of the code, at two that only a stranger sees, and at random.

One installation lives and dies some dozens of times, then lives once more until all is settled and is looked
over: ``Verdict.broken`` says in words what does not hold.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import monotonic
from uuid import UUID

from benchmarks.torture import victim
from benchmarks.torture.deaths import Deaths
from benchmarks.torture.partner import Callers, Partner, Try
from hub.crashpoint import POINTS
from hub.model import State
from hub.store.sqlite.copy import open_to_read
from hub.testing import eventually, running_hub

#: Phases that are no place in our code: a partner has the bytes, a caller has the answer, no reason at all.
OUTSIDE = ("partner.received", "caller.answered", "random")
PHASES = (*POINTS, *OUTSIDE)
#: Lives of one installation before it is looked over.
LIVES = 25
#: Passes of a place before the fatal one, at most; places that are passed seldom have fewer.
PASSES = {"receipt.matched": 12, "delivery.tried": 10, "delivery.settled": 10, "delivery.claimed": 8}
#: A hub that hangs fails here.
PATIENCE_S = 60.0

#: What crashes took along is tried again one by one, as it may be what crashed us.
DRAIN_S = 300.0
_ATTEMPTS = "SELECT lease_no, outcome, reason FROM attempt WHERE delivery_id = ? ORDER BY lease_no"
_OPEN = ("waiting", "pending", "leased", "sending")


@dataclass
class Verdict:
    """What one installation, or many added up, went through, and what of it was wrong."""

    kills: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    deliveries: int = 0
    #: Tries beyond the first that the partner took, where a resend is safe; and the most of one delivery.
    repeats: int = 0
    most_of_one: int = 0
    unknown: int = 0
    #: In flight at four kills, three of them alone: the hub's rule takes such a one for what kills it. Only those
    #: whose four deaths were seen from outside as well (``deaths``); any other is broken.
    poisoned: int = 0
    #: Seconds from birth until it listens again, one per life.
    back_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        for phase, count in other.kills.items():
            self.kills[phase] = self.kills.get(phase, 0) + count
        self.acknowledged += other.acknowledged
        self.deliveries += other.deliveries
        self.repeats += other.repeats
        self.most_of_one = max(self.most_of_one, other.most_of_one)
        self.unknown += other.unknown
        self.poisoned += other.poisoned
        self.back_s += other.back_s
        self.broken += other.broken


class Lives:
    """The fork server, and the one hub it has alive."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = 0
        self.url = ""
        self.ended = asyncio.Event()
        self.ready = asyncio.Event()
        #: Everything is imported: the first life takes no longer than the others.
        self.warm = asyncio.Event()
        self.status = 0
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, _, rest = line.decode().strip().partition(" ")
            if word == "waiting":
                self.warm.set()
            elif word == "born":
                self.pid = int(rest)
            elif word == "ready":
                self.url = rest
                self.ready.set()
            elif word == "ended":
                self.status, self.pid = int(rest), 0
                self.ended.set()

    async def begin(self, **life: object) -> None:
        """Until it listens, or is dead already."""
        assert self._process.stdin is not None
        self.ended.clear()
        self.ready.clear()
        self.url = ""
        self._process.stdin.write(json.dumps(life).encode() + b"\n")
        await _first(self.ready, self.ended)

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    async def close(self) -> None:
        self.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@asynccontextmanager
async def fork_server() -> AsyncIterator[Lives]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.torture.victim",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    lives = Lives(process)
    try:
        await asyncio.wait_for(lives.warm.wait(), DRAIN_S)
        yield lives
    finally:
        await lives.close()


async def _first(*events: asyncio.Event) -> None:
    """Until one of them is set. Raises TimeoutError."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(tasks, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    if not done:
        raise TimeoutError("the hub neither answered nor died")


async def installation(
    lives: Lives,
    folder: Path,
    database_url: str,
    phases: Sequence[str],
    seed: int,
    without: str = "",
    passes: int = 25,
) -> Verdict:
    """Kills one hub at these phases, one after the other, then looks it over.

    Args:
        passes: of a place before the fatal one, at most: how much work each life does.

    Raises: RuntimeError when a phase was not reached: then it was not tested.
    """
    dice = random.Random(seed)
    verdict, callers, deaths = Verdict(), Callers(dice), Deaths(folder, database_url)
    async with Partner(dice) as partner:
        partner.report = callers.report
        base = {"folder": str(folder), "database_url": database_url, "partner": partner.address, "without": without}
        for phase in phases:
            partner.life += 1
            await _one_life(lives, partner, callers, phase, min(passes, PASSES.get(phase, passes)), dice, base, verdict)
            await deaths.look()
        partner.life += 1
        partner.report = lambda ref, state: None
        await _last_life(lives, callers, folder, database_url, partner, deaths, base, verdict)
    return verdict


async def _one_life(
    lives: Lives, partner: Partner, callers: Callers, phase: str, passes: int, dice: random.Random,
    base: dict[str, str], verdict: Verdict,
) -> None:  # fmt: skip
    nth = dice.randint(1, passes)
    partner.seen = 0
    partner.on_request = lambda count: _kill_at(lives, phase == "partner.received", count, nth)
    callers.on_acknowledged = lambda count: _kill_at(lives, phase == "caller.answered", count, nth)
    born = monotonic()
    # Before it listens too: what it does at its start must bear a kill as well.
    at_random = asyncio.create_task(_kill_after(lives, dice.random() * 0.4)) if phase == "random" else None
    await lives.begin(**base, point=phase if phase in POINTS else "", nth=nth)
    if lives.ready.is_set():
        verdict.back_s.append(monotonic() - born)
        calling = asyncio.create_task(callers.run(lives.url, lives.ended))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await lives.ended.wait()
        except TimeoutError:
            raise RuntimeError(
                f"{phase}:{nth} was not reached in {PATIENCE_S:.0f} s; hub.log ends: {_last_lines(base['folder'])}"
            ) from None
        finally:
            lives.ended.set()
            await calling
    if at_random is not None:
        await at_random
    if lives.status != -signal.SIGKILL:
        raise RuntimeError(f"the hub ended by itself with {lives.status} on its way to {phase}:{nth}; see hub.log")
    verdict.kills[phase] = verdict.kills.get(phase, 0) + 1


def _last_lines(folder: str) -> str:
    return " | ".join((Path(folder) / "hub.log").read_text().splitlines()[-5:])


async def _kill_after(lives: Lives, seconds: float) -> None:
    await asyncio.sleep(seconds)
    while not lives.ended.is_set():  # it may not be born yet
        lives.kill()
        await asyncio.sleep(0.01)


def _kill_at(lives: Lives, meant: bool, count: int, nth: int) -> None:
    if meant and count == nth:
        lives.kill()


async def _last_life(
    lives: Lives, callers: Callers, folder: Path, database_url: str, partner: Partner, deaths: Deaths,
    base: dict[str, str], verdict: Verdict,
) -> None:  # fmt: skip
    """Whatever was not answered is posted again, all that can settle settles, the hub stops by itself."""
    partner.on_request = callers.on_acknowledged = lambda count: None
    await lives.begin(**base, point="", nth=0)
    if lives.ended.is_set():
        raise RuntimeError(f"the hub does not start any more ({lives.status}); see hub.log")
    async with asyncio.timeout(DRAIN_S):
        while callers.open and not lives.ended.is_set():
            await callers.run(lives.url, lives.ended, new=False)
        known = victim.registry(partner.address)
        await _settled(folder, database_url)
        lives.kill(signal.SIGTERM)
        await lives.ended.wait()
    if lives.status:
        verdict.broken.append(f"a stop ended with {lives.status}")
    async with running_hub(
        folder, known, connections={n: {} for n in ("door", *victim.SINKS)}, start=False,
        settings=victim.settings(database_url),
    ) as hub:  # fmt: skip
        await _look_over(hub.store.read, callers, partner, deaths, verdict)
        from tests.flow.conftest import check_books

        try:
            await check_books(hub.store)
        except AssertionError as error:
            verdict.broken.append(f"the books do not balance: {error}")
        if not database_url and await hub.store.read("PRAGMA integrity_check") != [("ok",)]:
            verdict.broken.append("the file is damaged")


async def _settled(folder: Path, database_url: str) -> None:
    """Until nothing is owed any more, as a second process reads it."""
    sql = f"SELECT count(*) FROM queue WHERE state IN {_OPEN}"
    if not database_url:
        with closing(open_to_read(folder / "var" / "unionhub.db")) as db:
            await eventually(lambda: db.execute(sql).fetchone()[0] == 0, DRAIN_S, 0.02)
        return
    import asyncpg

    connection = await asyncpg.connect(database_url)

    async def none_left() -> bool:
        return bool(await connection.fetchval(sql) == 0)

    try:
        await eventually(none_left, DRAIN_S, 0.05)
    finally:
        await connection.close()


# -- what must hold --------------------------------------------------------------------------------


async def _look_over(read: object, callers: Callers, partner: Partner, deaths: Deaths, verdict: Verdict) -> None:
    assert callable(read)
    events = await read("SELECT e.id, d.key, e.type FROM event e LEFT JOIN dedupe d ON d.event_id = e.id")
    contents = [json.loads(body)["id"] for (body,) in await read("SELECT body FROM content")]
    stored = set(contents)
    sent_in = {id for id in callers.acknowledged if id.startswith("m-")}
    verdict.acknowledged = len(callers.acknowledged)
    if lost := sent_in - stored:
        verdict.broken.append(f"{len(lost)} acknowledged and lost")
    if len(contents) != len(stored):
        verdict.broken.append(f"{len(contents) - len(stored)} messages became two events")
    reported = {id for id in callers.acknowledged if id.startswith("r-")}
    [(receipts,)] = await read("SELECT count(*) FROM receipt")
    if receipts < len(reported):
        verdict.broken.append(f"{len(reported) - receipts} acknowledged receipts lost")
    if callers.odd_statuses:
        verdict.broken.append(f"callers were answered {sorted(callers.odd_statuses)}")
    owed = {
        (destination, UUID(bytes=event)): (UUID(bytes=id), State(state), (reason, crashes, lease_no))
        for id, event, destination, state, reason, crashes, lease_no in await read(
            "SELECT id, event_id, destination, state, reason, crashes, lease_no FROM queue UNION ALL"
            " SELECT id, event_id, destination, state, reason, crashes, lease_no FROM delivery"
        )
    }
    expected = {
        (name, UUID(bytes=id))
        for id, _, kind in events
        for name in (victim.SINKS if kind == victim.THING else ["safe"])
    }
    if set(owed) != expected:
        verdict.broken.append(f"{len(set(owed) ^ expected)} deliveries too many or too few")
    verdict.deliveries = len(owed)
    kills = sum(verdict.kills.values())
    for (name, event), (delivery, state, (reason, crashes, lease_no)) in owed.items():
        tries = partner.tries.get((name, delivery), [])
        is_poison = False
        if state is State.DEAD and reason == "poison":
            doubts = deaths.doubts(delivery.bytes, crashes, lease_no, await read(_ATTEMPTS, (delivery.bytes,)))
            is_poison = not doubts
            verdict.poisoned += is_poison
            verdict.broken += [f"{name} {delivery}: {doubts}"] if doubts else []
        for wrong in _wrong(name, event, tries, state, kills, is_poison):
            verdict.broken.append(f"{name} {delivery}: {wrong}")
        if state is State.ACCEPTED and f"{delivery}-{len(tries)}" in callers.reported:
            verdict.broken.append(f"{name} {delivery}: its receipt was acknowledged and has no effect")
        taken = sum(each.status != 503 for each in tries)
        verdict.most_of_one = max(verdict.most_of_one, taken)
        verdict.repeats += max(taken - 1, 0)
        verdict.unknown += state is State.UNKNOWN


def _wrong(name: str, event: UUID, made: Sequence[Try], state: State, kills: int, is_poison: bool) -> list[str]:
    found = []
    if len({each.body for each in made}) > 1 or any(each.event != event for each in made):
        found.append("other bytes under the same id")
    taken = [each for each in made if each.status != 503]
    if victim.SINKS[name]:
        if not is_poison and (state is not State.DELIVERED or not taken):
            found.append(f"{state.value} with {len(taken)} arrivals")
        # A try that nobody heard the end of is repeated by the next life.
        if len(taken) > 1 + kills or any(a.life == b.life for a, b in pairwise(taken)):
            found.append("sent twice without a crash between")
        return found
    if len(taken) > 1 or any(each.status != 503 for each in made[:-1]):
        found.append(f"taken {len(taken)} times, {len(made)} tries")
    if is_poison and not taken:
        return found
    # A refusal that was cut off is unknown too; a machine never finds out, and never sends again.
    settled = (State.DELIVERED, State.ACCEPTED, State.DEAD) if name == "carrier" else (State.DELIVERED,)
    if (state in settled and not taken) or (not taken and state is not State.UNKNOWN):
        found.append(f"{state.value} and never arrived")
    if taken and state not in (*settled, State.UNKNOWN):
        found.append(f"{state.value} and arrived")
    return found
