"""The plugin's two tables and every statement on them.

``telecom_sms_sent``: which delivery owns the one SMS a phone gets of a campaign. ``telecom_sms_counter``: the joining
reference of the last long message to a number. Phones are keyed hashes here, never numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

from hub.sql import query

METADATA: Final = MetaData()
VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"

SENT: Final = Table(
    "telecom_sms_sent",
    METADATA,
    Column("campaign", LargeBinary(16), primary_key=True),
    Column("phone_hash", LargeBinary(16), primary_key=True),
    Column("delivery_id", LargeBinary(16), nullable=False),
    Column("admitted_at", BigInteger, nullable=False),
    Index("telecom_sms_sent_by_age", "admitted_at"),
)
COUNTER: Final = Table(
    "telecom_sms_counter",
    METADATA,
    Column("sender", Text, primary_key=True),
    Column("phone_hash", LargeBinary(16), primary_key=True),
    Column("last_reference", Integer, nullable=False),
)

#: Touches a row when the phone is free in this campaign or already this delivery's own (a later try); else none.
CLAIM_PHONE: Final = query(
    text(
        "INSERT INTO telecom_sms_sent (campaign, phone_hash, delivery_id, admitted_at)"
        " VALUES (:campaign, :phone_hash, :delivery_id, :admitted_at)"
        " ON CONFLICT (campaign, phone_hash) DO UPDATE SET delivery_id = excluded.delivery_id"
        " WHERE telecom_sms_sent.delivery_id = excluded.delivery_id"
    )
)
LAST_REFERENCE: Final = query(
    text("SELECT last_reference FROM telecom_sms_counter WHERE sender = :sender AND phone_hash = :phone_hash")
)
#: Compare-and-set: touches no row when somebody else counted on from ``seen`` first.
COUNT_ON: Final = query(
    text(
        "INSERT INTO telecom_sms_counter (sender, phone_hash, last_reference)"
        " VALUES (:sender, :phone_hash, :reference)"
        " ON CONFLICT (sender, phone_hash) DO UPDATE SET last_reference = excluded.last_reference"
        " WHERE telecom_sms_counter.last_reference = :seen"
    )
)
