"""API keys: ``hub_live_`` or ``hub_test_`` and 32 random bytes. Of a key only its keyed hash is kept.

No slow hash: there is nothing to guess in 256 random bits.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import text

from hub.contract import Principal
from hub.sql import query

LIVE, TEST = "hub_live_", "hub_test_"
#: Microseconds before the end from which on its owner and an operator are told.
WARNING_US = 14 * 86_400_000_000
#: ``last_used_at`` is written at most so often.
TOUCH_US = 60_000_000
#: What a key's hash is of, for ``keyed_hash``.
KIND = "api-key"

_COLUMNS = "id, name, scopes, sees, owner, test, rate_per_min, created_at, expires_at, revoked_at, last_used_at"
FIND = query(text(f"SELECT {_COLUMNS} FROM api_key WHERE digest = :digest"))  # noqa: S608 - constants
LIST = query(text(f"SELECT {_COLUMNS} FROM api_key ORDER BY created_at, id"))  # noqa: S608 - constants
ADD = query(
    text(
        "INSERT INTO api_key (digest, id, name, scopes, sees, owner, test, rate_per_min, created_at, expires_at)"
        " VALUES (:digest, :id, :name, :scopes, :sees, :owner, :test, :rate_per_min, :created_at, :expires_at)"
    )
)
REVOKE = query(text("UPDATE api_key SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL"))
TOUCH = query(
    text("UPDATE api_key SET last_used_at = :now WHERE id = :id AND (last_used_at IS NULL OR last_used_at <= :before)")
)
_SHAPE = re.compile(r"hub_(live|test)_[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept. Instants are microseconds."""

    id: str
    name: str
    scopes: frozenset[str]
    sees: frozenset[str] | None
    owner: str
    test: bool
    rate_per_min: int
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> ApiKey:
        """From a row of ``FIND`` or ``LIST``."""
        id, name, scopes, sees, owner, test, *rest = row
        seen = None if sees is None else frozenset(orjson.loads(sees))
        return cls(id, name, frozenset(scopes.split()), seen, owner, bool(test), *rest)

    def state(self, now: int) -> str:
        """revoked | expired | expiring | active"""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is None or now < self.expires_at - WARNING_US:
            return "active"
        return "expiring" if now < self.expires_at else "expired"

    @property
    def principal(self) -> Principal:
        return Principal(name=f"key:{self.id}", scopes=self.scopes, sees=self.sees, owner=self.owner, test=self.test)


def new_key(*, test: bool) -> str:
    return (TEST if test else LIVE) + secrets.token_urlsafe(32)


def is_key(given: str) -> bool:
    """Whether it looks like a key at all; anything else is not looked for."""
    return _SHAPE.fullmatch(given) is not None
