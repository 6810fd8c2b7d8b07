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
    Index("telecom_sms_batch_name", "name", unique=True),
)  # fmt: skip
#: Parts of long messages whose others have not come yet.
Table(
    "telecom_sms_part", METADATA, _key("connection"), _hash(), _key("reference", Integer), _key("of_parts", Integer),
    _key("part", Integer), _hash("body_hash", key=False), Column("body", LargeBinary, nullable=False),
    _at("received_at"),
    Index("telecom_sms_part_by_age", "received_at"),
)  # fmt: skip
Table("telecom_sms_heard", METADATA, _hash("body_hash"), _at("heard_at"))
Table(
    "telecom_sms_inbox", METADATA, _hash("id"), _text("connection"), _text("sent_to"), _text("keyword"),
    _text("meaning"), _at("received_at"), _text("subject"), Column("body", LargeBinary, nullable=False),
    Index("telecom_sms_inbox_by_age", "received_at"),
)  # fmt: skip


def _query(*pieces: str) -> Query:
    """One statement, in pieces that are constants of this file."""
    return query(text("".join(pieces)))


# -- before a message is begun ---------------------------------------------------------------------

#: Touches a row when the phone is free in this campaign or already this delivery's own (a later try); else none.
CLAIM_PHONE: Final = _query(
    "INSERT INTO telecom_sms_sent (campaign, phone_hash, delivery_id, admitted_at, purpose, connection, network, unit,"
    " segments, dong) VALUES (:campaign, :phone_hash, :delivery_id, :admitted_at, :purpose, :connection, :network,"
    " :unit, :segments, :dong) ON CONFLICT (campaign, phone_hash) DO UPDATE SET delivery_id = excluded.delivery_id"
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
LAST_REFERENCE: Final = _query(
    "SELECT last_reference FROM telecom_sms_counter WHERE sender = :sender AND phone_hash = :phone_hash"
)
#: Compare-and-set: touches no row when somebody else counted on from ``seen`` first.
COUNT_ON: Final = _query(
    "INSERT INTO telecom_sms_counter (sender, phone_hash, last_reference) VALUES (:sender, :phone_hash, :reference)"
    " ON CONFLICT (sender, phone_hash) DO UPDATE SET last_reference = excluded.last_reference"
    " WHERE telecom_sms_counter.last_reference = :seen"
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
_BATCH_COLUMNS = "id, name, purpose, template, asked_by, test, paused_at, send_at, created_at, fingerprint"
BATCH: Final = _query("SELECT ", _BATCH_COLUMNS, " FROM telecom_sms_batch WHERE name = :name")
BATCHES: Final = _query("SELECT ", _BATCH_COLUMNS, " FROM telecom_sms_batch ORDER BY created_at DESC LIMIT :limit")
PAUSE_BATCH: Final = _query(
    "UPDATE telecom_sms_batch SET paused_at = :paused_at WHERE name = :name AND paused_at IS NULL"
)
RESUME_BATCH: Final = _query("UPDATE telecom_sms_batch SET paused_at = NULL WHERE name = :name")
COSTS: Final = _query(
    "SELECT connection, network, unit, purpose, count(*), sum(segments), sum(dong) FROM telecom_sms_sent"
    " WHERE admitted_at >= :first AND admitted_at < :behind GROUP BY connection, network, unit, purpose"
    " ORDER BY connection, network, unit, purpose"
)
COSTS_OF_BATCH: Final = _query(
    "SELECT connection, network, unit, purpose, count(*), sum(segments), sum(dong) FROM telecom_sms_sent"
    " WHERE campaign = :campaign GROUP BY connection, network, unit, purpose ORDER BY connection, network, unit"
)
