"""Who sent an inbound request: verifiers for any plugin's receiver. Standard Webhooks has its own in ``hub.signing``.

Each is a value that is called with the raw request before anything is parsed, and raises ``Unauthenticated`` with the
same text for every reason. Comparisons take the same time wherever the first difference is.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hmac import compare_digest, digest
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal, Protocol

from hub.contract import RawRequest
from hub.errors import Unauthenticated

Network = IPv4Network | IPv6Network

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
#: Entries of a list of signatures that are looked at.
MAX_ENTRIES = 8


class Verifier(Protocol):
    """Raises ``Unauthenticated`` where the sender is not who it must be."""

    def __call__(self, request: RawRequest) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HmacRecipe:
    """Where a sender puts its HMAC and what it signs.

    ``signed``: the parts, joined by nothing: ``{body}``, ``{timestamp}``, ``{method}``, ``{path}`` (after
    ``/in/NAME/``), or text as it stands.
    """

    header: str
    signed: tuple[str, ...] = ("{body}",)
    algorithm: Literal["sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    #: Before each signature in the header.
    prefix: str = ""
    #: What stands between several signatures; "" there is one.
    separator: str = ""
    #: Header with the seconds since 1970, or ``header:t=`` for a part of a list.
    timestamp: str = ""
    tolerance: timedelta = timedelta(minutes=5)


#: Sources: docs.github.com "Validating webhook deliveries"; docs.stripe.com "Verify webhook signatures manually";
#: shopify.dev "Verify HTTPS webhooks"; api.slack.com "Verifying requests from Slack".
RECIPES: dict[str, HmacRecipe] = {
    "body-hex": HmacRecipe(header="x-signature"),
    "body-base64": HmacRecipe(header="x-signature", encoding="base64"),
    "github": HmacRecipe(header="x-hub-signature-256", prefix="sha256="),
    "shopify": HmacRecipe(header="x-shopify-hmac-sha256", encoding="base64"),
    "slack": HmacRecipe(
        header="x-slack-signature", prefix="v0=", signed=("v0:", "{timestamp}", ":", "{body}"),
        timestamp="x-slack-request-timestamp",
    ),
    "stripe": HmacRecipe(
        header="stripe-signature", prefix="v1=", separator=",", signed=("{timestamp}", ".", "{body}"),
        timestamp="stripe-signature:t=",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HmacVerifier:
    """Any of the keys may have signed; one of fewer than 16 bytes verifies nothing."""

    recipe: HmacRecipe
    keys: Sequence[bytes]

    def __call__(self, request: RawRequest) -> None:
        recipe = self.recipe
        at = self._timestamp(request)
        parts = {
            "{body}": request.body, "{timestamp}": at.encode(), "{method}": request.method.encode(),
            "{path}": request.path.encode(),
        }  # fmt: skip
        signed = b"".join(parts[p] if p in parts else p.encode() for p in recipe.signed)
        given = self._given(request)
        found = False
        for key in self.keys:
            expected = digest(key, signed, recipe.algorithm)
            found |= len(key) >= 16 and any(compare_digest(expected, each) for each in given)
        if not found:
            raise Unauthenticated

    def _timestamp(self, request: RawRequest) -> str:
        name, _, part = self.recipe.timestamp.partition(":")
        if not name:
            return ""
        value = request.headers.get(name, "")
        if part:
            value = next((e[len(part) :] for e in _split(value, self.recipe.separator) if e.startswith(part)), "")
        if not _TIMESTAMP.fullmatch(value):
            raise Unauthenticated
        if abs(request.received_at.timestamp() - int(value)) > self.recipe.tolerance.total_seconds():
            raise Unauthenticated
        return value

    def _given(self, request: RawRequest) -> list[bytes]:
        recipe = self.recipe
        size = hashlib.new(recipe.algorithm).digest_size
        found = []
        for entry in _split(request.headers.get(recipe.header, ""), recipe.separator):
            if entry.startswith(recipe.prefix):
                decoded = _decoded(entry[len(recipe.prefix) :], recipe.encoding)
                if len(decoded) == size:
                    found.append(decoded)
        return found


def _split(value: str, separator: str) -> list[str]:
    return [e.strip() for e in value.split(separator, MAX_ENTRIES)[:MAX_ENTRIES]] if separator else [value]


def _decoded(text: str, encoding: str) -> bytes:
    try:
        if encoding == "base64":
            return b64decode(text.encode("ascii"), validate=True)
        return bytes.fromhex(text) if text.isascii() and text.isalnum() else b""
    except ValueError:
        return b""


@dataclass(frozen=True, slots=True)
class BasicVerifier:
    """HTTP Basic: any of the passwords, while one is changed for another."""

    user: str
    passwords: Sequence[str]

    def __call__(self, request: RawRequest) -> None:
        given = request.headers.get("authorization", "")
        expected = [b"Basic " + b64encode(f"{self.user}:{password}".encode()) for password in self.passwords]
        _one_of(given, expected)


@dataclass(frozen=True, slots=True)
class ApiKeyVerifier:
    """A shared key in a header of the sender's choice."""

    header: str
    keys: Sequence[str]
    prefix: str = ""

    def __call__(self, request: RawRequest) -> None:
        _one_of(request.headers.get(self.header, ""), [(self.prefix + key).encode() for key in self.keys if key])


def _one_of(given: str, expected: Sequence[bytes]) -> None:
    raw = given.encode("utf-8", "surrogateescape")
    # Digests, so that the length of a secret takes no other time either.
    told = hashlib.sha256(raw).digest()
    if not any(compare_digest(told, hashlib.sha256(each).digest()) for each in expected):
        raise Unauthenticated


@dataclass(frozen=True, slots=True)
class MtlsVerifier:
    """A client certificate that a named proxy has checked: its word counts from its own address alone.

    The proxy must overwrite both headers of whatever comes in; ``subjects``: values of ``header`` as it writes them.
    """

    proxies: Sequence[Network]
    subjects: Sequence[str]
    header: str = "x-ssl-client-s-dn"
    #: The header that says SUCCESS where the certificate was checked.
    checked: str = "x-ssl-client-verify"

    def __call__(self, request: RawRequest) -> None:
        if not _within(request.remote, self.proxies) or request.headers.get(self.checked, "") != "SUCCESS":
            raise Unauthenticated
        _one_of(request.headers.get(self.header, ""), [subject.encode() for subject in self.subjects])


@dataclass(frozen=True, slots=True)
class IpVerifier:
    """The sender's address is in the list; behind ``proxies``, the last of X-Forwarded-For that is not theirs."""

    networks: Sequence[Network]
    proxies: Sequence[Network] = ()

    def __call__(self, request: RawRequest) -> None:
        address = request.remote
        hops = [hop.strip() for hop in request.headers.get("x-forwarded-for", "").split(",") if hop.strip()]
        while hops and _within(address, self.proxies):
            address = hops.pop()
        if not _within(address, self.networks):
            raise Unauthenticated


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and CIDRs; raises ``ValueError``."""
    return tuple(ip_network(text, strict=True) for text in texts)


def _within(text: str, where: Sequence[Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return any(address.version == network.version and address in network for network in where)
