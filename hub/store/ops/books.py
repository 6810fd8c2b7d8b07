"""What holds in a ledger at any moment, as queries for what does not: each answers rows only where it is broken."""

from __future__ import annotations

from collections.abc import Mapping

_OPEN = "CASE WHEN state IN ('waiting', 'pending', 'leased', 'sending') THEN 'open' ELSE state END"

#: Name -> query. Each is one statement, so it sees one state of a ledger that is being written.
BOOKS: Mapping[str, str] = {
    # The counters are a recount of what is kept and what was pruned.
    "counters": (
        "SELECT destination, state, sum(n) FROM ("
        f"SELECT destination, {_OPEN} AS state, count(*) AS n FROM queue GROUP BY 1, 2"
        " UNION ALL SELECT destination, state, count(*) FROM delivery GROUP BY 1, 2"
        " UNION ALL SELECT destination, state, -count FROM tally WHERE state NOT LIKE 'pruned:%'"
        " UNION ALL SELECT destination, substr(state, 8), count FROM tally WHERE state LIKE 'pruned:%'"
        " AND destination <> ''"
        ") AS counted GROUP BY destination, state HAVING sum(n) <> 0"
    ),
    # No delivery is both owed and settled.
    "owed_and_settled": "SELECT queue.id FROM queue JOIN delivery ON delivery.id = queue.id",
    # Nobody waits without a head.
    "waiting_without_head": (
        "SELECT w.id FROM queue w WHERE w.state = 'waiting' AND NOT EXISTS (SELECT 1 FROM queue h"
        " WHERE h.destination = w.destination AND h.order_key = w.order_key AND h.seq < w.seq"
        " AND h.state IN ('pending', 'leased', 'sending', 'unknown', 'dead'))"
    ),
    # A destination knows of its earliest delivery; else nobody would ever look there.
    "due_unnoticed": (
        "SELECT q.id FROM queue q JOIN destination d ON d.id = q.destination WHERE q.state = 'pending'"
        " AND q.crashes = 0 AND q.due_at < d.next_due_at"
    ),
}
