"""The plugin's tables and every statement on them; names start with ``partners_``.

What the API manages; files keep their own. Addresses of people and keys are sealed under the partner's own key
(``partner:NAME``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

from hub.contract import Schema
from hub.sql import query

METADATA: Final = MetaData()
VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"
SCHEMA: Final = Schema(owner="partners", metadata=METADATA, versions=VERSIONS)

Table(
    "partners_partner",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("contact", LargeBinary),
    Column("created_at", BigInteger, nullable=False),
)
Table(
    "partners_grant",
    METADATA,
    Column("id", LargeBinary, primary_key=True),
    Column("partner", Text, nullable=False),
    Column("types", LargeBinary, nullable=False),  # JSON
    Column("fields", LargeBinary, nullable=False),  # JSON
    Column("purpose", Text, nullable=False),
    Column("legal_basis", Text, nullable=False),
    Column("begins_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger),
    Index("partners_grant_of", "partner"),
)
Table(
    "partners_endpoint",
    METADATA,
    Column("partner", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("types", LargeBinary, nullable=False),  # JSON
    Column("settings", LargeBinary, nullable=False),  # JSON
    Column("secret", LargeBinary),
    Column("private_key", LargeBinary),
    Column("older_secret", LargeBinary),
    Column("older_private_key", LargeBinary),
    Column("older_until", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
Table(
    "partners_outage",
    METADATA,
    Column("destination", Text, primary_key=True),
    Column("connection", Text, nullable=False),
    Column("failing_since", BigInteger, nullable=False),
    Column("told", Integer, nullable=False),
)
#: One row: counts changes, so that every node notices the next one.
Table(
    "partners_change", METADATA, Column("id", Integer, primary_key=True), Column("number", BigInteger, nullable=False)
)

# -- partners --------------------------------------------------------------------------------------

ADD_PARTNER: Final = query(
    text(
        "INSERT INTO partners_partner (name, title, contact, created_at)"
        " VALUES (:name, :title, :contact, :now) ON CONFLICT (name) DO NOTHING"
    )
)
PARTNERS: Final = query(text("SELECT name, title, contact FROM partners_partner ORDER BY name"))
PARTNER: Final = query(text("SELECT name, title, contact FROM partners_partner WHERE name = :name"))
#: Touches one row while the partner is there.
STILL_THERE: Final = query(text("UPDATE partners_partner SET title = title WHERE name = :name"))

# -- grants ----------------------------------------------------------------------------------------

ADD_GRANT: Final = query(
    text(
        "INSERT INTO partners_grant (id, partner, types, fields, purpose, legal_basis, begins_at, ends_at)"
        " VALUES (:id, :partner, :types, :fields, :purpose, :legal_basis, :begins_at, :ends_at)"
    )
)
#: A grant is never made longer: only an earlier end than the one it has is taken.
END_GRANT: Final = query(
    text(
        "UPDATE partners_grant SET ends_at = :at WHERE id = :id AND partner = :partner"
        " AND (ends_at IS NULL OR ends_at > :at)"
    )
)
_GRANT = "SELECT id, partner, types, fields, purpose, legal_basis, begins_at, ends_at FROM partners_grant"
GRANTS: Final = query(text(_GRANT + " ORDER BY partner, begins_at, id"))
GRANTS_OF: Final = query(text(_GRANT + " WHERE partner = :partner ORDER BY begins_at, id"))

# -- endpoints -------------------------------------------------------------------------------------

ADD_ENDPOINT: Final = query(
    text(
        "INSERT INTO partners_endpoint (partner, name, url, types, settings, secret, private_key, older_secret,"
        " older_private_key, older_until, created_at) VALUES (:partner, :name, :url, :types, :settings, :secret,"
        " :private_key, NULL, NULL, 0, :now) ON CONFLICT (partner, name) DO NOTHING"
    )
)
_ENDPOINT = (
    "SELECT partner, name, url, types, settings, secret, private_key, older_secret, older_private_key, older_until"
    " FROM partners_endpoint"
)
ENDPOINTS: Final = query(text(_ENDPOINT + " ORDER BY partner, name"))
ENDPOINTS_OF: Final = query(text(_ENDPOINT + " WHERE partner = :partner ORDER BY name"))
ROTATE: Final = query(
    text(
        "UPDATE partners_endpoint SET older_secret = secret, older_private_key = private_key, older_until = :until,"
        " secret = :secret, private_key = :private_key WHERE partner = :partner AND name = :name"
    )
)
CHANGE_ENDPOINT: Final = query(
    text(
        "UPDATE partners_endpoint SET url = :url, types = :types, settings = :settings"
        " WHERE partner = :partner AND name = :name"
    )
)
REMOVE_ENDPOINT: Final = query(text("DELETE FROM partners_endpoint WHERE partner = :partner AND name = :name"))

# -- what nodes tell each other --------------------------------------------------------------------

CHANGED: Final = query(text("SELECT number FROM partners_change"))
CHANGE: Final = query(
    text(
        "INSERT INTO partners_change (id, number) VALUES (1, 1)"
        " ON CONFLICT (id) DO UPDATE SET number = partners_change.number + 1"
    )
)

# -- outages ---------------------------------------------------------------------------------------

OUTAGES: Final = query(text("SELECT destination, failing_since, told FROM partners_outage WHERE connection = :of"))
OUTAGE: Final = query(text("SELECT failing_since FROM partners_outage WHERE destination = :destination"))
SAVE_OUTAGE: Final = query(
    text(
        "INSERT INTO partners_outage (destination, connection, failing_since, told)"
        " VALUES (:destination, :connection, :failing_since, :told) ON CONFLICT (destination) DO UPDATE SET"
        " failing_since = excluded.failing_since, told = excluded.told WHERE excluded.told > partners_outage.told"
    )
)
END_OUTAGE: Final = query(text("DELETE FROM partners_outage WHERE destination = :destination"))
