"""What the portal keeps: passes (one-time links, sessions), what the inspector inbox received, replays under way."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text, text

from hub.sql import query
from plugins.partners.tables import METADATA

#: ``kind``: link | session. ``digest`` is a keyed hash: who reads this table cannot sign in.
Table(
    "partners_pass",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("partner", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
#: ``content``: headers and body, sealed under the partner's key.
Table(
    "partners_inbox",
    METADATA,
    Column("id", LargeBinary, primary_key=True),
    Column("partner", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("rule", Text, nullable=False),
    Column("content", LargeBinary),
    Index("partners_inbox_of", "partner", "received_at"),
)
#: ``state``: running | stopped | done. ``after`` is the last event that was looked at; ``stepped_at`` when,
#: or until when a node has it to itself.
Table(
    "partners_replay",
    METADATA,
    Column("id", LargeBinary, primary_key=True),
    Column("partner", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("after", LargeBinary, nullable=False),
    Column("until", LargeBinary, nullable=False),
    Column("per_s", Integer, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("stepped_at", BigInteger, nullable=False, server_default="0"),
    Index("partners_replay_of", "partner", "endpoint"),
)

# -- passes ----------------------------------------------------------------------------------------

ADD_PASS: Final = query(
    text("INSERT INTO partners_pass (digest, kind, partner, expires_at) VALUES (:digest, :kind, :partner, :expires_at)")
)
#: One row where the link holds: a session in its place.
SIGN_IN: Final = query(
    text(
        "INSERT INTO partners_pass (digest, kind, partner, expires_at) SELECT :session, 'session', partner, :expires_at"
        " FROM partners_pass WHERE digest = :link AND kind = 'link' AND expires_at > :now"
    )
)
END_PASS: Final = query(text("DELETE FROM partners_pass WHERE digest = :digest AND kind = :kind"))
SESSION: Final = query(
    text("SELECT partner FROM partners_pass WHERE digest = :digest AND kind = 'session' AND expires_at > :now")
)
END_PASSES: Final = query(text("DELETE FROM partners_pass WHERE expires_at <= :now"))

# -- inspector inbox -------------------------------------------------------------------------------

RECEIVED: Final = query(
    text(
        "INSERT INTO partners_inbox (id, partner, endpoint, received_at, rule, content)"
        " VALUES (:id, :partner, :endpoint, :now, :rule, :content)"
    )
)
KEEP_LAST: Final = query(
    text(
        "DELETE FROM partners_inbox WHERE partner = :partner AND id NOT IN (SELECT id FROM partners_inbox"
        " WHERE partner = :partner ORDER BY received_at DESC, id DESC LIMIT :keep)"
    )
)
END_RECEIVED: Final = query(text("DELETE FROM partners_inbox WHERE received_at <= :before"))
RECEIVED_BY: Final = query(
    text(
        "SELECT id, received_at, rule, content FROM partners_inbox WHERE partner = :partner AND endpoint = :endpoint"
        " AND received_at > :since ORDER BY received_at DESC, id DESC"
    )
)
#: Whether there is anything to tidy away.
OLD: Final = query(
    text(
        "SELECT 1 FROM partners_pass WHERE expires_at <= :now UNION ALL"
        " SELECT 1 FROM partners_inbox WHERE received_at <= :before UNION ALL"
        " SELECT 1 FROM partners_replay WHERE state <> 'running' AND created_at <= :replays_before"
    )
)

# -- deliveries of the ledger, read only -----------------------------------------------------------

DELIVERIES: Final = query(
    text(
        "SELECT * FROM (SELECT * FROM (SELECT id, event_id, state, reason, tries, created_at, due_at FROM queue"
        " WHERE destination = :destination AND id < :before ORDER BY id DESC LIMIT :limit) q UNION ALL"
        " SELECT * FROM (SELECT id, event_id, state, reason, tries, created_at, CAST(NULL AS BIGINT) AS due_at"
        " FROM delivery WHERE destination = :destination AND id < :before ORDER BY id DESC LIMIT :limit) d) s"
        " ORDER BY id DESC LIMIT :limit"
    )
)
DELIVERY: Final = query(
    text(
        "SELECT s.*, e.type FROM (SELECT id, event_id, state, reason, tries, created_at, due_at, generation FROM queue"
        " WHERE destination = :destination AND id = :id UNION ALL SELECT id, event_id, state, reason, tries,"
        " created_at, CAST(NULL AS BIGINT) AS due_at, generation FROM delivery WHERE destination = :destination"
        " AND id = :id) s LEFT JOIN event e ON e.id = s.event_id"
    )
)
STANDING: Final = query(
    text(
        "SELECT coalesce(c.paused_by, d.paused_by), d.paused_reason, d.failures, d.breaker_until, d.not_before"
        " FROM destination d JOIN connection c ON c.name = d.connection WHERE d.id = :destination"
    )
)
EVENTS: Final = query(text("SELECT id, type FROM event WHERE id > :after AND id < :until ORDER BY id LIMIT :limit"))
#: What became of events whose ids lie in a range: a delivery's id begins with its event's millisecond.
OWED: Final = query(
    text(
        "SELECT event_id, generation, state, created_at FROM queue WHERE id >= :first AND id <= :last"
        " AND destination = :destination UNION ALL SELECT event_id, generation, state, created_at FROM delivery"
        " WHERE id >= :first AND id <= :last AND destination = :destination ORDER BY 2"
    )
)

# -- replays ---------------------------------------------------------------------------------------

ADD_REPLAY: Final = query(
    text(
        "INSERT INTO partners_replay (id, partner, endpoint, mode, after, until, per_s, total, sent, state, created_at)"
        " VALUES (:id, :partner, :endpoint, :mode, :after, :until, :per_s, :total, 0, 'running', :now)"
    )
)
_REPLAY = "SELECT id, partner, endpoint, mode, after, until, per_s, total, sent, state, created_at FROM partners_replay"
RUNNING: Final = query(text(_REPLAY + " WHERE state = 'running' AND stepped_at <= :before ORDER BY id"))
REPLAYS_OF: Final = query(
    text(_REPLAY + " WHERE partner = :partner AND endpoint = :endpoint ORDER BY id DESC LIMIT 10")
)
#: One node at a time: what another one has sent meanwhile would be taken for done, and the next sent too.
TAKE_REPLAY: Final = query(
    text(
        "UPDATE partners_replay SET stepped_at = :until"
        " WHERE id = :id AND after = :old AND state = 'running' AND stepped_at <= :before"
    )
)
STEP_REPLAY: Final = query(
    text(
        "UPDATE partners_replay SET after = :new, sent = sent + :sent, state = :state, stepped_at = :now"
        " WHERE id = :id AND after = :old AND state = 'running'"
    )
)
END_REPLAYS: Final = query(text("DELETE FROM partners_replay WHERE state <> 'running' AND created_at <= :before"))
STOP_REPLAY: Final = query(
    text(
        "UPDATE partners_replay SET state = 'stopped'"
        " WHERE id = :id AND partner = :partner AND endpoint = :endpoint AND state = 'running'"
    )
)
