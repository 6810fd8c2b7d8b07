"""One receiving address of one partner, as the sink needs it: checked, with its keys opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from yarl import URL

from hub.contract import DestinationSpec
from hub.model import Event
from hub.signing import sign, sign_v1a
from plugins.partners.grants import Grant, cut, what_may_leave
from plugins.partners.guard import Guard, Refusal
from plugins.partners.schema import ContentMode, request

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from plugins.partners.content_filter import Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What an endpoint's requests are signed with, and what it was while the partner changes over."""

    secret: bytes | None = None
    private: Ed25519PrivateKey | None = None
    older_secrets: tuple[bytes, ...] = ()
    older_private: tuple[Ed25519PrivateKey, ...] = ()
    #: When the older ones stop signing; None while nobody has said.
    older_until: datetime | None = None

    def signatures(self, message_id: str, timestamp: int, body: bytes, now: datetime) -> str:
        """Value of ``webhook-signature``: the current keys first."""
        if self.private is None and not self.older_secrets and self.secret is not None:
            return sign(self.secret, message_id, timestamp, body)  # nearly always: keep it cheap
        with_older = self.older_until is None or now < self.older_until
        found = []
        if self.secret is not None:
            older = self.older_secrets if with_older else ()
            found.append(sign(self.secret, message_id, timestamp, body, *older))
        if self.private is not None:
            found.append(sign_v1a(self.private, message_id, timestamp, body))
        if with_older:
            found += [sign_v1a(each, message_id, timestamp, body) for each in self.older_private]
        return found[0] if len(found) == 1 else " ".join(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """``name`` "" is the connection's own address; one that is managed by the API is ``partner.endpoint``."""

    name: str
    partner: str
    #: Where to post to, or why that may not be done.
    target: URL | Refusal
    keys: Keys
    mode: ContentMode = "structured"
    timeout_s: float = 15.0
    concurrency: int = 10
    rate_per_s: float | None = None
    #: None: the subscription in the file says what may leave.
    grants: tuple[Grant, ...] | None = None
    filter: Filter | None = None
    #: Where the partner reads the whole of what it is granted, before an event's id; then events go out thin.
    reference: str = ""
    #: What it wants of the types granted to its partner.
    types: tuple[str, ...] = ()

    @property
    def spec(self) -> DestinationSpec:
        return DestinationSpec(name=self.name, concurrency=self.concurrency, rate_per_s=self.rate_per_s)


def written(endpoint: Endpoint, event: Event, thin: Sequence[str], now: datetime) -> tuple[dict[str, str], bytes] | str:
    """Headers (of the content alone) and body as this endpoint gets them under its grants, or why it may not.

    Args:
        thin: fields that go out where the rest is read by ``dataref``.
    """
    data = event.data if endpoint.grants is None else what_may_leave(endpoint.grants, event, now)
    if isinstance(data, str):
        return data
    dataref = ""
    if endpoint.reference:
        data, dataref = cut(data, thin), endpoint.reference + str(event.id)
    return request(replace(event, data=data), endpoint.mode, dataref=dataref)


class Book(Protocol):
    """The endpoints of one connection by destination (``connection`` or ``connection/partner.endpoint``)."""

    @property
    def guard(self) -> Guard: ...

    @property
    def endpoints(self) -> Mapping[str, Endpoint]: ...

    @property
    def limit_per_host(self) -> int:
        """Connections at once to one host and port."""


@dataclass(frozen=True, slots=True)
class FixedBook:
    """Endpoints that a file names: they stay as they are while the hub runs."""

    guard: Guard
    endpoints: Mapping[str, Endpoint]

    @property
    def limit_per_host(self) -> int:
        return max(each.concurrency for each in self.endpoints.values())


def specs(endpoints: Mapping[str, Endpoint]) -> Sequence[DestinationSpec]:
    return [each.spec for each in endpoints.values()]
