"""What both engines do alike: every write of the Store is one operation, submitted as one unit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from hub.contract import Guard
from hub.model import new_id
from hub.sql import Statement
from hub.store.base import (
    BreakerPolicy,
    Claim,
    ClaimRequest,
    CommitReport,
    ConnectionRow,
    DestinationRow,
    Pruned,
    PruneStep,
    RunRow,
    Settlement,
    Unit,
)
from hub.store.ops import claim as claim_ops
from hub.store.ops import commit as commit_ops
from hub.store.ops import divert as divert_ops
from hub.store.ops import erase as erase_ops
from hub.store.ops import nodes as node_ops
from hub.store.ops import operate as operate_ops
from hub.store.ops import prune as prune_ops
from hub.store.ops import settle as settle_ops
from hub.store.ops.claim import ClaimTx


class Ledger(ABC):
    """Most of ``hub.store.base.Store``; an engine adds how units and reads are run, and who else may be there."""

    #: Whether other processes may work on it at the same time.
    shared: bool
    #: The process that works on it; set before ``open``, so that others know its sessions when it is lost.
    boot: bytes
    #: Called when another process says that something became due.
    on_hint: Callable[[], None]

    def __init__(self, breaker: BreakerPolicy, unresolved_after_s: float) -> None:
        self._breaker = breaker
        self._unresolved_after_s = unresolved_after_s
        self.boot = b""
        self.on_hint = lambda: None

    @abstractmethod
    async def submit(self, op: Callable[[ClaimTx], Any], *, last: bool = False) -> Any:
        """Runs ``op`` in a transaction and answers after its COMMIT; ``last``: after the others it shares it with."""

    @abstractmethod
    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Committed rows of one SQL text."""

    @abstractmethod
    async def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Committed rows of a plugin's query."""

    @abstractmethod
    async def now(self) -> int:
        """The ledger's clock, in microseconds."""

    # -- units and reads ---------------------------------------------------------------------------

    async def commit(self, unit: Unit) -> CommitReport:
        report: CommitReport = await self.submit(
            commit_ops.JustDrafts(unit)
            if commit_ops.JustDrafts.is_all(unit)
            else lambda tx: commit_ops.commit_unit(tx, unit, self._breaker)
        )
        return report

    # -- deliveries --------------------------------------------------------------------------------

    async def claim(self, request: ClaimRequest) -> Claim:
        result: Claim = await self.submit(lambda tx: claim_ops.claim(tx, request, self._breaker), last=True)
        return result

    async def start(self, delivery_id: bytes, lease_no: int, body_sha256: bytes, guards: Sequence[Guard]) -> bool:
        def op(tx: ClaimTx) -> bool:
            commit_ops.run_guards(tx, guards)
            return bool(
                tx.execute(
                    "UPDATE queue SET state = 'sending', body_sha256 = ? WHERE id = ? AND lease_no = ?"
                    " AND state = 'leased'",
                    (body_sha256, delivery_id, lease_no),
                ).rowcount
            )

        return bool(await self.submit(op))

    async def settle(self, settlements: Sequence[Settlement], now: int) -> list[bool]:
        result: list[bool] = await self.submit(lambda tx: settle_ops.settle_all(tx, settlements, now, self._breaker))
        return result

    async def divert(
        self, ids: Sequence[bytes], source: str, target: str, now: int, *, lost_may_have_left: bool = True
    ) -> int:
        def op(tx: ClaimTx) -> int:
            keys = divert_ops.divert(tx, ids, source, target, now, lost_may_have_left)
            for key in keys:
                if key is not None:
                    settle_ops.promote(tx, source, key, now)
            return len(keys)

        return int(await self.submit(op)) if ids else 0

    async def record_refs(self, connection: str, delivery_id: bytes, refs: Sequence[str], of_parts: int = 0) -> None:
        now = await self.now()
        await self.submit(lambda tx: settle_ops.keep_refs(tx, connection, delivery_id, refs, of_parts, now))

    async def sweep(self, now: int) -> int:
        return int(await self.submit(lambda tx: operate_ops.sweep(tx, now, self._unresolved_after_s)))

    async def replay(self, delivery_id: bytes, new_id: bytes, now: int) -> bytes | None:
        result: bytes | None = await self.submit(lambda tx: operate_ops.replay(tx, delivery_id, new_id, now))
        return result

    async def resolve(self, delivery_id: bytes, verdict: str, reason: str, now: int) -> bool:
        return bool(await self.submit(lambda tx: operate_ops.resolve(tx, delivery_id, verdict, reason, now)))

    async def stop_batch(self, batch_id: bytes) -> bool:
        return bool(await self.submit(lambda tx: operate_ops.stop_batch(tx, batch_id)))

    async def cancel_stopped(self, batch_id: bytes, first: bytes, last: bytes, now: int) -> bytes | None:
        following: bytes | None = await self.submit(
            lambda tx: operate_ops.cancel_stopped(tx, batch_id, first, last, now)
        )
        return following

    async def free_jobs(self, boot: bytes, known: Collection[bytes]) -> int:
        return int(await self.submit(lambda tx: node_ops.free_jobs(tx, boot, known)))

    async def free_runs(self, boot: bytes, known: Collection[bytes]) -> int:
        return int(await self.submit(lambda tx: node_ops.free_runs(tx, boot, known)))

    # -- configuration, keys, runs -----------------------------------------------------------------

    async def configure(self, connections: Sequence[ConnectionRow], destinations: Sequence[DestinationRow]) -> None:
        now = await self.now()
        await self.submit(lambda tx: operate_ops.configure(tx, connections, destinations, now))

    async def keep_projections(self, projections: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        kept: dict[bytes, bytes] = await self.submit(lambda tx: operate_ops.keep_projections(tx, projections))
        return kept

    async def subject_keys(self, subjects: Sequence[str]) -> dict[str, bytes]:
        marks = ", ".join("?" * len(subjects))
        rows = await self.read(
            f"SELECT subject, wrapped FROM subject_key WHERE wrapped IS NOT NULL AND subject IN ({marks})",
            tuple(subjects),
        )
        return dict(rows)

    async def erase(self, subject: str, who: str, reason: str, now: int) -> bytes | None:
        destroyed: bytes | None = await self.submit(lambda tx: erase_ops.erase(tx, subject, who, reason, now))
        return destroyed

    async def cancel_erased(self, deliveries: Sequence[bytes], now: int) -> int:
        return int(await self.submit(lambda tx: erase_ops.cancel(tx, deliveries, now))) if deliveries else 0

    async def due_run(self, kind: str, object: str, slot: int, now: int) -> bool:
        run_id = new_id().bytes
        return bool(await self.submit(lambda tx: operate_ops.due_run(tx, run_id, kind, object, slot, now)))

    async def claim_run(self, owner: bytes, now: int) -> RunRow | None:
        run: RunRow | None = await self.submit(lambda tx: operate_ops.claim_run(tx, owner, now))
        return run

    async def finish_run(self, run: RunRow, state: str, reason: str, now: int) -> bool:
        return bool(await self.submit(lambda tx: operate_ops.finish_run(tx, run, state, reason, now)))

    async def pause(self, kind: str, name: str, by: str | None, reason: str, now: int) -> bool:
        def op(tx: ClaimTx) -> bool:
            found = settle_ops.pause(tx, kind, name, by, reason, now)
            if by is None:
                operate_ops.clear_repair(tx, f"{kind}_paused", name, now)
            return found

        return bool(await self.submit(op))

    async def open_repair(self, kind: str, object: str, detail: str, now: int) -> None:
        await self.submit(lambda tx: settle_ops.open_repair(tx, kind, object, detail, now))

    async def clear_repair(self, kind: str, object: str, now: int) -> None:
        await self.submit(lambda tx: operate_ops.clear_repair(tx, kind, object, now))

    async def ping(self) -> None:
        await self.submit(lambda tx: None)

    async def hold(self, reason: str | None) -> None:
        await self.submit(lambda tx: tx.execute("UPDATE ledger SET hold = ?", (reason,)).rowcount)

    async def held(self) -> str | None:
        rows = await self.read("SELECT hold FROM ledger")
        reason: str | None = rows[0][0]
        return reason

    # -- history -----------------------------------------------------------------------------------

    async def prune(self, step: PruneStep) -> Pruned:
        pruned: Pruned = await self.submit(lambda tx: prune_ops.prune(tx, step))
        return pruned

    async def drop_days(self, before: int) -> Mapping[str, int]:
        """An engine with partitions drops them; else ``prune`` does all of it."""
        return {}

    @abstractmethod
    async def snapshot_age_s(self) -> float:
        """How long the oldest open snapshot has lasted."""
