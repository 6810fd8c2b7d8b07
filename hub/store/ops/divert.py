"""What moves a delivery to another destination: only what has surely not left.

Its id stays that of the destination it was first owed to, so it is still owed once.
"""

from __future__ import annotations

from collections.abc import Sequence

from hub.store.base import Settlement
from hub.store.ops.tx import Tx

SECOND = 1_000_000
#: Whoever is unsettled on the key, an accepted one aside, goes first.
KEY_HELD = (
    "SELECT 1 FROM queue WHERE order_key = ? AND destination = ? AND order_key IS NOT NULL"
    " AND state <> 'accepted' LIMIT 1"
)
#: Until it is asked about again whether one that cannot move may be sent.
STAYS_FOR = 60 * SECOND
#: What is sent is pinned anew at the first try there: nothing of the old bytes left.
_MOVE = (
    "UPDATE queue SET destination = ?, state = ?, reason = ?, due_at = ?, lease_no = lease_no + ?, lease_owner = NULL,"
    " lease_until = NULL, body_sha256 = NULL WHERE id = ? AND destination = ? AND NOT EXISTS (SELECT 1 FROM attempt a"
    " WHERE a.delivery_id = queue.id AND a.destination = queue.destination AND a.outcome IN ('ambiguous', ?))"
)


def _lost(may_have_left: bool) -> str:
    return "lost" if may_have_left else "ambiguous"


def _state_at(tx: Tx, target: str, order_key: bytes | None) -> str:
    """It joins its key at the target behind whoever is there."""
    held = order_key is not None and tx.execute(KEY_HELD, (order_key, target)).fetchone() is not None
    return "waiting" if held else "pending"


def _moved(tx: Tx, source: str, target: str, state: str, due: int) -> None:
    tx.count(source, "open", -1)
    tx.count(target, "open", 1)
    if state == "pending":
        tx.due(target, due)


def hand_over(tx: Tx, s: Settlement) -> bool:
    """A claimed delivery that its sink diverts; False when it stays. The caller holds both ordering keys."""
    state = _state_at(tx, s.divert_to, s.order_key)
    ours = " AND lease_no = ? AND state IN ('leased', 'sending')"
    values = (s.divert_to, state, s.reason, s.due_us, 0, s.id, s.destination, _lost(s.lost_may_have_left), s.lease_no)
    if not tx.execute(_MOVE + ours, values).rowcount:
        return False
    _moved(tx, s.destination, s.divert_to, state, s.due_us)
    return True


def divert(
    tx: Tx, ids: Sequence[bytes], source: str, target: str, now: int, lost_may_have_left: bool
) -> list[bytes | None]:
    """Those of ``ids`` that wait at ``source``; answers the ordering keys, None for none, of those that moved.

    Each gets a line in its history under a lease number of its own. The caller promotes who follows at the source.
    """
    marks = ", ".join("?" * len(ids))
    rows = tx.execute(f"SELECT id, order_key FROM queue WHERE id IN ({marks}) ORDER BY seq", tuple(ids)).fetchall()
    tx.lock(*{("order", place, key) for _, key in rows if key is not None for place in (source, target)})
    keys: list[bytes | None] = []
    for delivery_id, key in rows:
        state = _state_at(tx, target, key)
        values = (target, state, "diverted", now, 1, delivery_id, source, _lost(lost_may_have_left))
        if not tx.execute(_MOVE + " AND state = 'pending'", values).rowcount:
            continue
        _moved(tx, source, target, state, now)
        tx.execute(
            "INSERT INTO attempt (delivery_id, lease_no, destination, started_at, finished_at, outcome, reason)"
            " SELECT id, lease_no, ?, ?, ?, 'diverted', ? FROM queue WHERE id = ?",
            (source, now, now, f"to:{target}", delivery_id),
        )
        keys.append(key)
    return keys
