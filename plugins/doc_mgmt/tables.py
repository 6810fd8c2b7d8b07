"""The plugin's own tables and every statement on them.

Whatever may name a person (trích yếu, signer, file names, contents) stands only sealed, under the document's
own id as the subject; what is readable here are codes, dates, digests and counts.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    func,
    select,
    update,
)

# The one spelling of "on conflict do nothing" that both engines' compilers accept.
from sqlalchemy.dialects.postgresql import Insert, insert

from hub.contract import Schema
from hub.sql import query

METADATA = MetaData()
VERSIONS = Path(__file__).parent / "migrations" / "versions"
SCHEMA = Schema(owner="doc_mgmt", metadata=METADATA, versions=VERSIONS)

DOCUMENT = Table(
    "doc_mgmt_document",
    METADATA,
    Column("id", LargeBinary(16), primary_key=True),
    Column("connection", Text, nullable=False),
    Column("doc_id", Text, nullable=False),
    Column("own_organ_id", Text, nullable=False),
    Column("own_organ_name", Text, nullable=False),
    # keyed hash of what makes two packets the same document, see intake.identity
    Column("identity_hash", LargeBinary(16), nullable=False, unique=True),
    Column("content_sha256", LargeBinary(32), nullable=False),
    Column("from_organ_id", Text, nullable=False),
    Column("code_number", Text, nullable=False),
    Column("code_notation", Text, nullable=False),
    Column("promulgated_on", Text, nullable=False),  # ISO date
    Column("partner_document_id", Text, nullable=False),
    Column("type_name", Text, nullable=False),
    Column("business_type", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("due_on", Text),
    Column("header_sealed", LargeBinary),
    Column("attachment_count", Integer, nullable=False),
    Column("state", Text, nullable=False),  # received | registered
    Column("arrival_year", Integer),
    Column("arrival_number", Integer),
    Column("received_at_us", BigInteger, nullable=False),
    Column("registered_at_us", BigInteger),
    Column("repeats", Integer, nullable=False),
    # repeats of the same identity whose content was another one
    Column("differing_repeats", Integer, nullable=False),
    UniqueConstraint("arrival_year", "arrival_number"),
    Index("doc_mgmt_document_newest", "received_at_us"),
)

ATTACHMENT = Table(
    "doc_mgmt_attachment",
    METADATA,
    Column("id", LargeBinary(16), primary_key=True),
    Column("document_id", LargeBinary(16), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("name_sealed", LargeBinary),
    Column("content_sealed", LargeBinary),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("extension", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    UniqueConstraint("document_id", "ordinal"),
)

#: One row per docId ever taken: what became of it, and how it is marked on the axis.
PACKET = Table(
    "doc_mgmt_packet",
    METADATA,
    Column("connection", Text, primary_key=True),
    Column("doc_id", Text, primary_key=True),
    Column("verdict", Text, nullable=False),  # stored | repeated | quarantined | refused
    Column("reference_id", LargeBinary(16), nullable=False),  # the document's or the quarantine's id
    Column("seen_at_us", BigInteger, nullable=False),
)

QUARANTINE = Table(
    "doc_mgmt_quarantine",
    METADATA,
    Column("id", LargeBinary(16), primary_key=True),
    Column("connection", Text, nullable=False),
    Column("doc_id", Text, nullable=False),
    Column("own_organ_id", Text, nullable=False),
    Column("own_organ_name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    # None for a secret document: the hub must not keep it
    Column("raw_sealed", LargeBinary),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # kept | resolved
    Column("at_us", BigInteger, nullable=False),
    Index("doc_mgmt_quarantine_open", "connection", "state"),
)

#: Số đến: one gapless counter per year.
COUNTER = Table(
    "doc_mgmt_counter",
    METADATA,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("value", Integer, nullable=False),
)


def _values(table: Table) -> Insert:
    return insert(table).values({column.name: bindparam(column.name) for column in table.columns})


#: Inserts that touch no row when the thing is there already: used as guards, a loser gets a Conflict.
INSERT_DOCUMENT = query(_values(DOCUMENT).on_conflict_do_nothing())
INSERT_PACKET = query(_values(PACKET).on_conflict_do_nothing())
INSERT_ATTACHMENT = query(_values(ATTACHMENT))
INSERT_QUARANTINE = query(_values(QUARANTINE))

COUNT_REPEAT = query(
    update(DOCUMENT)
    .where(DOCUMENT.c.id == bindparam("document_id"))
    .values(
        repeats=DOCUMENT.c.repeats + bindparam("repeats_more"),
        differing_repeats=DOCUMENT.c.differing_repeats + bindparam("differing_more"),
    )
)
#: Run before REGISTER in the same unit: the row stays locked until that unit ends, so numbers have no gap
#: and nobody has to read the counter first.
NEXT_NUMBER = query(
    _values(COUNTER).on_conflict_do_update(
        index_elements=[COUNTER.c.year], set_={"value": COUNTER.c.value + bindparam("one")}
    )
)
REGISTER = query(
    update(DOCUMENT)
    .where(DOCUMENT.c.id == bindparam("document_id"), DOCUMENT.c.state == bindparam("old_state"))
    .values(
        state=bindparam("new_state"),
        arrival_year=bindparam("in_year"),
        arrival_number=select(COUNTER.c.value).where(COUNTER.c.year == bindparam("of_year")).scalar_subquery(),
        registered_at_us=bindparam("at_us"),
    )
)
RESOLVE_QUARANTINE = query(
    update(QUARANTINE)
    .where(QUARANTINE.c.id == bindparam("quarantine_id"), QUARANTINE.c.state == bindparam("old_state"))
    .values(state=bindparam("new_state"))
)
RESOLVE_PACKET = query(
    update(PACKET)
    .where(PACKET.c.connection == bindparam("on_connection"), PACKET.c.doc_id == bindparam("of_doc_id"))
    .values(verdict=bindparam("new_verdict"), reference_id=bindparam("new_reference"))
)

PACKET_BY_DOC_ID = query(
    select(PACKET.c.verdict).where(
        PACKET.c.connection == bindparam("connection"), PACKET.c.doc_id == bindparam("doc_id")
    )
)
DOCUMENT_BY_IDENTITY = query(
    select(DOCUMENT.c.id, DOCUMENT.c.content_sha256).where(DOCUMENT.c.identity_hash == bindparam("identity_hash"))
)
REGISTRATION = query(
    select(
        DOCUMENT.c.state,
        DOCUMENT.c.business_type,
        DOCUMENT.c.doc_id,
        DOCUMENT.c.own_organ_id,
        DOCUMENT.c.own_organ_name,
        DOCUMENT.c.from_organ_id,
        DOCUMENT.c.code_number,
        DOCUMENT.c.code_notation,
        DOCUMENT.c.promulgated_on,
        DOCUMENT.c.partner_document_id,
        DOCUMENT.c.connection,
    ).where(DOCUMENT.c.id == bindparam("document_id"))
)
DOCUMENT_COLUMNS = tuple(column.name for column in DOCUMENT.c)
DOCUMENT_BY_ID = query(select(DOCUMENT).where(DOCUMENT.c.id == bindparam("document_id")))
NEWEST_DOCUMENTS = query(
    select(DOCUMENT)
    .order_by(DOCUMENT.c.received_at_us.desc(), DOCUMENT.c.id.desc())
    .limit(bindparam("limit", type_=Integer))
    .offset(bindparam("offset", type_=Integer))
)
NEWEST_DOCUMENTS_IN_STATE = query(
    select(DOCUMENT)
    .where(DOCUMENT.c.state == bindparam("state"))
    .order_by(DOCUMENT.c.received_at_us.desc(), DOCUMENT.c.id.desc())
    .limit(bindparam("limit", type_=Integer))
    .offset(bindparam("offset", type_=Integer))
)
#: Without the contents: a list must not load megabytes.
ATTACHMENTS_OF = query(
    select(
        ATTACHMENT.c.id,
        ATTACHMENT.c.ordinal,
        ATTACHMENT.c.name_sealed,
        ATTACHMENT.c.sha256,
        ATTACHMENT.c.size_bytes,
        ATTACHMENT.c.extension,
        ATTACHMENT.c.media_type,
    )
    .where(ATTACHMENT.c.document_id == bindparam("document_id"))
    .order_by(ATTACHMENT.c.ordinal)
)
ATTACHMENT_CONTENT = query(select(ATTACHMENT.c.content_sealed).where(ATTACHMENT.c.id == bindparam("attachment_id")))
OPEN_QUARANTINES = query(
    select(func.count())
    .select_from(QUARANTINE)
    .where(QUARANTINE.c.connection == bindparam("connection"), QUARANTINE.c.state == bindparam("state"))
)
QUARANTINES = query(
    select(
        QUARANTINE.c.id,
        QUARANTINE.c.connection,
        QUARANTINE.c.doc_id,
        QUARANTINE.c.reason,
        QUARANTINE.c.sha256,
        QUARANTINE.c.size_bytes,
        QUARANTINE.c.state,
        QUARANTINE.c.at_us,
    ).order_by(QUARANTINE.c.at_us.desc(), QUARANTINE.c.id)
)
QUARANTINE_RAW = query(
    select(
        QUARANTINE.c.connection,
        QUARANTINE.c.doc_id,
        QUARANTINE.c.own_organ_id,
        QUARANTINE.c.own_organ_name,
        QUARANTINE.c.raw_sealed,
        QUARANTINE.c.state,
    ).where(QUARANTINE.c.id == bindparam("quarantine_id"))
)
