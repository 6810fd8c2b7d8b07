"""The plugin's own tables and every statement on them.

Phones are keyed hashes here, or sealed under the subject ``phone-<hash>``; never numbers. ``telecom_sms_sent`` says
which delivery owns the one SMS a phone gets of a campaign, and what it cost; ``telecom_sms_counter`` holds the joining
reference of the last long message to a number; the rest is what was agreed with people and what they wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

from hub.sql import Query, query

METADATA: Final = MetaData()
VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"


def _key(name: str, kind: type[Text] | type[BigInteger] | type[Integer] = Text) -> Column[object]:
    return Column(name, kind(), primary_key=True, autoincrement=False)


def _hash(name: str = "phone_hash", *, key: bool = True) -> Column[bytes]:
    return Column(name, LargeBinary(16), primary_key=key, nullable=False)


def _text(name: str, default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=default)


def _int(name: str, default: str | None = None) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=default)


def _at(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


Table(
    "telecom_sms_sent", METADATA, _hash("campaign"), _hash(), _hash("delivery_id", key=False), _at("admitted_at"),
    _text("purpose", ""), _text("connection", ""), _text("network", ""), _text("unit", ""), _int("segments", "0"),
    _int("dong", "0"),
    Index("telecom_sms_sent_by_age", "admitted_at"),
    Index("telecom_sms_sent_by_phone", "phone_hash", "admitted_at"),
)  # fmt: skip
Table("telecom_sms_counter", METADATA, _key("sender"), _hash(), _int("last_reference"))
#: A row per phone that was written to: what happens to one phone at a time is ordered by it. ``network`` is what a
#: receipt said of it, where a number has moved.
Table("telecom_sms_phone", METADATA, _hash(), _at("last_at"), _text("network", ""))
Table("telecom_sms_prefix", METADATA, _key("prefix"), _key("hour", BigInteger), _int("messages"))
#: ``purpose`` "*" is every class; ``reason``: opted_out or wrong_person; ``said``: the words, or who entered it.
Table(
    "telecom_sms_optout", METADATA, _hash(), _key("purpose"), _text("reason"), _text("said"), _at("since"),
    Column("phone", LargeBinary, nullable=False),
)  # fmt: skip
Table("telecom_sms_consent", METADATA, _hash(), _key("purpose"), _text("evidence"), _at("since"))
Table("telecom_sms_do_not_call", METADATA, _hash(), _at("listed_at"))
Table(
    "telecom_sms_override", METADATA, _hash("campaign"), _text("reason"), _text("asked_by"), _at("given_at")
)  # fmt: skip
Table(
    "telecom_sms_template", METADATA, _key("name"), _key("version", Integer), _text("purpose"), _text("body"),
    _at("created_at"),
)  # fmt: skip
Table(
    "telecom_sms_batch", METADATA, _hash("id"), _text("name"), _text("purpose"), _text("template"),
    _hash("fingerprint", key=False), _text("asked_by"),
    _int("test"), Column("paused_at", BigInteger, nullable=True), _at("send_at"), _at("created_at"),
    Column("budget", BigInteger, nullable=True), Column("spent", BigInteger, nullable=False, server_default="0"),
    _text("paused_by", ""),
    Index("telecom_sms_batch_name", "name", unique=True),
)  # fmt: skip
#: Parts of long messages whose others have not come yet.
Table(
    "telecom_sms_part", METADATA, _key("connection"), _hash(), _key("reference", Integer), _key("of_parts", Integer),
    _key("part", Integer), _hash("body_hash", key=False), Column("body", LargeBinary, nullable=False),
    _at("received_at"),
    Index("telecom_sms_part_by_age", "received_at"),
)  # fmt: skip
#: Of an account over all nodes: up to when its segments have their instants, segments in 1,000 seconds, and when a
#: carrier's "too fast" last made them fewer.
Table("telecom_sms_pace", METADATA, _key("connection"), _at("next_at"), _at("rate"), _at("cut_at"))
Table("telecom_sms_heard", METADATA, _hash("body_hash"), _at("heard_at"))
Table(
    "telecom_sms_inbox", METADATA, _hash("id"), _text("connection"), _text("sent_to"), _text("keyword"),
    _text("meaning"), _at("received_at"), _text("subject"), Column("body", LargeBinary, nullable=False),
    Index("telecom_sms_inbox_by_age", "received_at"),
)  # fmt: skip
#: What a choice of carriers (``route``) thinks of each; ``reason`` "" is fit.
Table(
    "telecom_sms_carrier", METADATA, _key("route"), _key("connection"), _text("reason"), _at("since"), _at("until"),
)  # fmt: skip
#: When what was kept long enough was last looked for.
Table("telecom_sms_upkeep", METADATA, _key("name"), _at("done_at"))


def _query(*pieces: str) -> Query:
    """One statement, in pieces that are constants of this file."""
    return query(text("".join(pieces)))


# -- before a message is begun ---------------------------------------------------------------------

#: Touches a row when the phone is free in this campaign or already this delivery's own (a later try); else none.
CLAIM_PHONE: Final = _query(
    "INSERT INTO telecom_sms_sent (campaign, phone_hash, delivery_id, admitted_at, purpose, connection, network, unit,"
    " segments, dong) VALUES (:campaign, :phone_hash, :delivery_id, :admitted_at, :purpose, :connection, :network,"
    " :unit, :segments, :dong) ON CONFLICT (campaign, phone_hash) DO UPDATE SET connection = excluded.connection,"
    " network = excluded.network, segments = excluded.segments, dong = excluded.dong"
    " WHERE telecom_sms_sent.delivery_id = excluded.delivery_id"
)
#: Everything that is known of a phone and a campaign: kind, purpose, word, number.
KNOWN: Final = _query(
    "SELECT 'optout', purpose, reason, since FROM telecom_sms_optout WHERE phone_hash = :phone_hash"
    " UNION ALL SELECT 'do_not_call', '', '', listed_at FROM telecom_sms_do_not_call WHERE phone_hash = :phone_hash"
    " UNION ALL SELECT 'consent', purpose, '', since FROM telecom_sms_consent WHERE phone_hash = :phone_hash"
    " UNION ALL SELECT 'network', '', network, last_at FROM telecom_sms_phone WHERE phone_hash = :phone_hash"
    " UNION ALL SELECT 'override', '', '', given_at FROM telecom_sms_override WHERE campaign = :campaign"
    " UNION ALL SELECT 'paused', '', '', paused_at FROM telecom_sms_batch"
    " WHERE id = :campaign AND paused_at IS NOT NULL"
    " UNION ALL SELECT 'test', '', '', created_at FROM telecom_sms_batch WHERE id = :campaign AND test = 1"
    " UNION ALL SELECT 'send_at', '', '', send_at FROM telecom_sms_batch WHERE id = :campaign"
    " UNION ALL SELECT 'sent', purpose, '', admitted_at FROM telecom_sms_sent"
    " WHERE phone_hash = :phone_hash AND admitted_at > :since AND delivery_id <> :delivery_id"
    " UNION ALL SELECT 'prefix', '', '', messages FROM telecom_sms_prefix WHERE prefix = :prefix AND hour = :hour"
    " UNION ALL SELECT 'budget', '', '', budget FROM telecom_sms_batch WHERE id = :campaign AND budget IS NOT NULL"
    " UNION ALL SELECT 'spent', '', '', spent FROM telecom_sms_batch WHERE id = :campaign"
    " UNION ALL SELECT 'own', '', '', dong FROM telecom_sms_sent"
    " WHERE campaign = :campaign AND phone_hash = :phone_hash AND delivery_id = :delivery_id"
)
#: Always touches a row, and holds it until COMMIT: whatever concerns this phone waits its turn.
TOUCH_PHONE: Final = _query(
    "INSERT INTO telecom_sms_phone (phone_hash, last_at) VALUES (:phone_hash, :now)"
    " ON CONFLICT (phone_hash) DO UPDATE SET last_at = excluded.last_at"
)
#: Touches a row unless the phone refused this class since it was asked about.
NOT_OPTED_OUT: Final = _query(
    "UPDATE telecom_sms_phone SET last_at = last_at WHERE phone_hash = :phone_hash AND NOT EXISTS"
    " (SELECT 1 FROM telecom_sms_optout WHERE phone_hash = :phone_hash AND purpose IN ('*', :purpose))"
)
#: Touches a row while the phone got at most ``most`` messages since then, this one with them.
WITHIN: Final = _query(
    "UPDATE telecom_sms_phone SET last_at = last_at WHERE phone_hash = :phone_hash AND (SELECT count(*)"
    " FROM telecom_sms_sent WHERE phone_hash = :phone_hash AND admitted_at > :since) <= :most"
)
#: The same, of one class.
WITHIN_PURPOSE: Final = _query(
    "UPDATE telecom_sms_phone SET last_at = last_at WHERE phone_hash = :phone_hash AND (SELECT count(*)"
    " FROM telecom_sms_sent WHERE phone_hash = :phone_hash AND admitted_at > :since AND purpose = :purpose) <= :most"
)
#: Touches a row when nothing at all is known that speaks against a message; what it is, a look at ``KNOWN`` tells.
CLEAR: Final = _query(
    "UPDATE telecom_sms_phone SET last_at = last_at WHERE phone_hash = :phone_hash AND network IN ('', :network)"
    " AND NOT EXISTS (SELECT 1 FROM telecom_sms_optout WHERE phone_hash = :phone_hash AND purpose IN ('*', :purpose))"
    " AND NOT EXISTS (SELECT 1 FROM telecom_sms_batch WHERE id = :campaign"
    " AND (paused_at IS NOT NULL OR test = 1 OR send_at > :now OR budget IS NOT NULL))"
    " AND (SELECT count(*) FROM telecom_sms_sent WHERE phone_hash = :phone_hash AND admitted_at > :since_hour"
    " AND delivery_id <> :delivery_id) < :most_hour"
    " AND (SELECT count(*) FROM telecom_sms_sent WHERE phone_hash = :phone_hash AND admitted_at > :since_day"
    " AND purpose = :purpose AND delivery_id <> :delivery_id) < :most_day"
)
_MINE = (
    "EXISTS (SELECT 1 FROM telecom_sms_sent WHERE campaign = :campaign AND phone_hash = :phone_hash"
    " AND delivery_id = :delivery_id)"
)
#: Counts a message to a block of numbers once, however often it is tried; touches no row at the limit.
COUNT_PREFIX: Final = _query(
    "INSERT INTO telecom_sms_prefix (prefix, hour, messages) VALUES (:prefix, :hour, 1) ON CONFLICT (prefix, hour)"
    " DO UPDATE SET messages = telecom_sms_prefix.messages + CASE WHEN ",
    _MINE,
    " THEN 0 ELSE 1 END WHERE telecom_sms_prefix.messages < :most OR ",
    _MINE,
)
_OWN_DONG = (
    "coalesce((SELECT s.dong FROM telecom_sms_sent s WHERE s.campaign = :campaign AND s.phone_hash = :phone_hash"
    " AND s.delivery_id = :delivery_id), 0)"
)
#: Before ``CLAIM_PHONE``. Touches no row when the campaign's budget does not hold it; an earlier try is not paid twice.
SPEND: Final = _query(
    "UPDATE telecom_sms_batch SET spent = spent + :dong - ", _OWN_DONG,
    " WHERE id = :campaign AND budget IS NOT NULL AND spent + :dong - ", _OWN_DONG, " <= budget",
)  # fmt: skip
#: Before ``UNCHARGE``. What the budget stopped has room again and goes on.
UNSPEND: Final = _query(
    "UPDATE telecom_sms_batch SET spent = spent - ",
    _OWN_DONG,
    ", paused_at = CASE WHEN paused_by = 'budget' THEN NULL ELSE paused_at END, paused_by = ''"
    " WHERE id = :campaign AND budget IS NOT NULL AND ",
    _OWN_DONG,
    " > 0",
)
UNCHARGE: Final = _query(
    "UPDATE telecom_sms_sent SET segments = 0, dong = 0"
    " WHERE campaign = :campaign AND phone_hash = :phone_hash AND delivery_id = :delivery_id"
)
#: Touches no row when something was given back since it was looked at: what fits again must not be paused.
STOP_AT_BUDGET: Final = _query(
    "UPDATE telecom_sms_batch SET paused_at = :now, paused_by = 'budget' WHERE id = :campaign AND paused_at IS NULL"
    " AND spent + :dong - ", _OWN_DONG, " > budget",
)  # fmt: skip
LAST_REFERENCE: Final = _query(
    "SELECT last_reference FROM telecom_sms_counter WHERE sender = :sender AND phone_hash = :phone_hash"
)
#: Compare-and-set: touches no row when somebody else counted on from ``seen`` first.
COUNT_ON: Final = _query(
    "INSERT INTO telecom_sms_counter (sender, phone_hash, last_reference) VALUES (:sender, :phone_hash, :reference)"
    " ON CONFLICT (sender, phone_hash) DO UPDATE SET last_reference = excluded.last_reference"
    " WHERE telecom_sms_counter.last_reference = :seen"
)
PACE: Final = _query("SELECT next_at, rate, cut_at FROM telecom_sms_pace WHERE connection = :connection")
#: Compare-and-set: touches no row when another node took from the pace since it was ``seen``.
TAKE_PACE: Final = _query(
    "INSERT INTO telecom_sms_pace (connection, next_at, rate, cut_at) VALUES (:connection, :next_at, :rate, :cut_at)"
    " ON CONFLICT (connection) DO UPDATE SET next_at = excluded.next_at, rate = excluded.rate,"
    " cut_at = excluded.cut_at WHERE telecom_sms_pace.next_at = :seen"
)
#: A receipt said which network the phone is in now. Unit: with ``TOUCH_PHONE`` before it.
MOVED: Final = _query("UPDATE telecom_sms_phone SET network = :network WHERE phone_hash = :phone_hash")

# -- what people said ------------------------------------------------------------------------------

OPT_OUT: Final = _query(
    "INSERT INTO telecom_sms_optout (phone_hash, purpose, reason, said, since, phone)"
    " VALUES (:phone_hash, :purpose, :reason, :said, :since, :phone) ON CONFLICT (phone_hash, purpose)"
    " DO UPDATE SET reason = excluded.reason, said = excluded.said, since = excluded.since, phone = excluded.phone"
)
OPT_IN: Final = _query("DELETE FROM telecom_sms_optout WHERE phone_hash = :phone_hash")
NO_CONSENT: Final = _query("DELETE FROM telecom_sms_consent WHERE phone_hash = :phone_hash AND purpose = :purpose")
NO_CONSENT_AT_ALL: Final = _query("DELETE FROM telecom_sms_consent WHERE phone_hash = :phone_hash")
CONSENT: Final = _query(
    "INSERT INTO telecom_sms_consent (phone_hash, purpose, evidence, since)"
    " VALUES (:phone_hash, :purpose, :evidence, :since) ON CONFLICT (phone_hash, purpose)"
    " DO UPDATE SET evidence = excluded.evidence, since = excluded.since"
)
OPTED_OUT: Final = _query(
    "SELECT phone_hash, purpose, reason, said, since, phone FROM telecom_sms_optout ORDER BY since DESC LIMIT :limit"
)
LIST_DO_NOT_CALL: Final = _query(
    "INSERT INTO telecom_sms_do_not_call (phone_hash, listed_at) VALUES (:phone_hash, :listed_at)"
    " ON CONFLICT (phone_hash) DO UPDATE SET listed_at = excluded.listed_at"
)
#: Numbers that an older list had and the newest has not.
UNLIST_DO_NOT_CALL: Final = _query("DELETE FROM telecom_sms_do_not_call WHERE listed_at < :listed_at")
OVERRIDE: Final = _query(
    "INSERT INTO telecom_sms_override (campaign, reason, asked_by, given_at)"
    " VALUES (:campaign, :reason, :asked_by, :given_at) ON CONFLICT (campaign) DO NOTHING"
)
OVERRIDE_OF: Final = _query("SELECT reason, asked_by, given_at FROM telecom_sms_override WHERE campaign = :campaign")

# -- what people wrote -----------------------------------------------------------------------------

#: Touches no row when the same was heard since ``after``: the carrier repeats what we had not answered.
HEAR: Final = _query(
    "INSERT INTO telecom_sms_heard (body_hash, heard_at) VALUES (:body_hash, :now) ON CONFLICT (body_hash)"
    " DO UPDATE SET heard_at = excluded.heard_at WHERE telecom_sms_heard.heard_at < :after"
)
FORGET_HEARD: Final = _query("DELETE FROM telecom_sms_heard WHERE heard_at < :before")
KEEP_PART: Final = _query(
    "INSERT INTO telecom_sms_part (connection, phone_hash, reference, of_parts, part, body_hash, body, received_at)"
    " VALUES (:connection, :phone_hash, :reference, :of_parts, :part, :body_hash, :body, :now)"
    " ON CONFLICT (connection, phone_hash, reference, of_parts, part)"
    " DO UPDATE SET body_hash = excluded.body_hash, body = excluded.body, received_at = excluded.received_at"
)
_SAME_MESSAGE = (
    " WHERE connection = :connection AND phone_hash = :phone_hash AND reference = :reference AND of_parts = :of_parts"
)
PARTS: Final = _query(
    "SELECT part, body_hash, body, received_at FROM telecom_sms_part", _SAME_MESSAGE, " ORDER BY part"
)
DROP_PARTS: Final = _query("DELETE FROM telecom_sms_part", _SAME_MESSAGE)
STALE_PARTS: Final = _query(
    "SELECT DISTINCT connection, phone_hash, reference, of_parts FROM telecom_sms_part"
    " WHERE received_at < :before AND connection = :connection LIMIT 20"
)
KEEP_INBOX: Final = _query(
    "INSERT INTO telecom_sms_inbox (id, connection, sent_to, keyword, meaning, received_at, subject, body)"
    " VALUES (:id, :connection, :sent_to, :keyword, :meaning, :received_at, :subject, :body)"
)
INBOX: Final = _query(
    "SELECT id, connection, sent_to, keyword, meaning, received_at, subject, body FROM telecom_sms_inbox"
    " WHERE received_at < :before ORDER BY received_at DESC LIMIT :limit"
)

# -- templates, batches, costs ---------------------------------------------------------------------

TEMPLATE: Final = _query(
    "SELECT version, purpose, body, created_at FROM telecom_sms_template WHERE name = :name"
    " ORDER BY version DESC LIMIT 1"
)
TEMPLATE_VERSION: Final = _query(
    "SELECT version, purpose, body, created_at FROM telecom_sms_template WHERE name = :name AND version = :version"
)
TEMPLATES: Final = _query(
    "SELECT name, version, purpose, body, created_at FROM telecom_sms_template ORDER BY name, version DESC"
)
ADD_TEMPLATE: Final = _query(
    "INSERT INTO telecom_sms_template (name, version, purpose, body, created_at)"
    " VALUES (:name, :version, :purpose, :body, :created_at)"
)
OPEN_BATCH: Final = _query(
    "INSERT INTO telecom_sms_batch (id, name, purpose, template, fingerprint, asked_by, test, send_at, created_at)"
    " VALUES (:id, :name, :purpose, :template, :fingerprint, :asked_by, :test, :send_at, :created_at)"
    " ON CONFLICT (name) DO NOTHING"
)
_BATCH_COLUMNS = (
    "id, name, purpose, template, asked_by, test, paused_at, send_at, created_at, fingerprint, budget, spent, paused_by"
)
BATCH: Final = _query("SELECT ", _BATCH_COLUMNS, " FROM telecom_sms_batch WHERE name = :name")
BATCHES: Final = _query("SELECT ", _BATCH_COLUMNS, " FROM telecom_sms_batch ORDER BY created_at DESC LIMIT :limit")
PAUSE_BATCH: Final = _query(
    "UPDATE telecom_sms_batch SET paused_at = :paused_at WHERE name = :name AND paused_at IS NULL"
)
RESUME_BATCH: Final = _query("UPDATE telecom_sms_batch SET paused_at = NULL, paused_by = '' WHERE name = :name")
#: ``spent`` is counted anew: without a budget nobody counts. What the budget stopped goes on.
SET_BUDGET: Final = _query(
    "UPDATE telecom_sms_batch SET budget = :budget, spent = coalesce((SELECT sum(s.dong) FROM telecom_sms_sent s"
    " WHERE s.campaign = telecom_sms_batch.id), 0),"
    " paused_at = CASE WHEN paused_by = 'budget' THEN NULL ELSE paused_at END, paused_by = ''"
    " WHERE name = :name"
)
COSTS: Final = _query(
    "SELECT connection, network, unit, purpose, count(*), sum(segments), sum(dong) FROM telecom_sms_sent"
    " WHERE segments > 0 AND admitted_at >= :first AND admitted_at < :behind"
    " GROUP BY connection, network, unit, purpose ORDER BY connection, network, unit, purpose"
)
COSTS_OF_BATCH: Final = _query(
    "SELECT connection, network, unit, purpose, count(*), sum(segments), sum(dong) FROM telecom_sms_sent"
    " WHERE segments > 0 AND campaign = :campaign"
    " GROUP BY connection, network, unit, purpose ORDER BY connection, network, unit"
)

# -- carriers, and what was kept long enough -------------------------------------------------------

NETWORK_OF: Final = _query("SELECT network FROM telecom_sms_phone WHERE phone_hash = :phone_hash")
CARRIERS: Final = _query("SELECT connection, reason, since, until FROM telecom_sms_carrier WHERE route = :route")
#: Touches no row when somebody else found the same first.
JUDGE: Final = _query(
    "INSERT INTO telecom_sms_carrier (route, connection, reason, since, until)"
    " VALUES (:route, :connection, :reason, :since, :until) ON CONFLICT (route, connection) DO UPDATE SET"
    " reason = excluded.reason, since = excluded.since, until = excluded.until WHERE telecom_sms_carrier.reason"
    " <> excluded.reason OR telecom_sms_carrier.until < excluded.until"
)
TAKEN_SINCE: Final = _query(
    "SELECT connection, count(*) FROM telecom_sms_sent WHERE admitted_at >= :since AND segments > 0 GROUP BY connection"
)
#: Touches no row when it was done after ``before``: of several nodes and connections one does it.
TAKE_UPKEEP: Final = _query(
    "INSERT INTO telecom_sms_upkeep (name, done_at) VALUES ('prune', :now) ON CONFLICT (name)"
    " DO UPDATE SET done_at = excluded.done_at WHERE telecom_sms_upkeep.done_at < :before"
)


def _drop(table: str, key: str, condition: str, order: str) -> Query:
    """All arguments are constants of this file."""
    chosen = f"SELECT {key} FROM {table} WHERE {condition} ORDER BY {order} LIMIT :limit"  # noqa: S608
    return _query("DELETE FROM ", table, " WHERE (", key, ") IN (", chosen, ")")


#: Bounded deletions by the name of their setting, of what ended before an instant; in this order.
KEPT: Final = {
    "sent": _drop("telecom_sms_sent", "campaign, phone_hash", "admitted_at < :before", "admitted_at"),
    "inbox": _drop("telecom_sms_inbox", "id", "received_at < :before", "received_at"),
    "heard": _drop("telecom_sms_heard", "body_hash", "heard_at < :before", "heard_at"),
    "prefix": _drop("telecom_sms_prefix", "prefix, hour", "hour < :before / 3600000000", "hour"),
    #: Where a number has moved is remembered as long as somebody may be written to; so are their refusals.
    "phone": _drop("telecom_sms_phone", "phone_hash", "last_at < :before AND network = ''", "last_at"),
    "counter": _drop(
        "telecom_sms_counter", "sender, phone_hash", "NOT EXISTS (SELECT 1 FROM telecom_sms_phone p"
        " WHERE p.phone_hash = telecom_sms_counter.phone_hash AND p.last_at >= :before)", "phone_hash",
    ),
    "override": _drop("telecom_sms_override", "campaign", "given_at < :before", "given_at"),
    "batch": _drop(
        "telecom_sms_batch", "id", "created_at < :before AND NOT EXISTS"
        " (SELECT 1 FROM telecom_sms_sent s WHERE s.campaign = telecom_sms_batch.id)", "created_at",
    ),
}  # fmt: skip
