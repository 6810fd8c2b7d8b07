"""Standard Webhooks 1.0, symmetric (v1) and Ed25519 (v1a): signs what leaves, verifies what comes in.

Own lines, because the reference library raises ValueError on a malformed header, which would be a 500 for
hostile input; the library is the oracle of the tests.
Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hashlib
import re
import secrets
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hmac import compare_digest
from typing import TYPE_CHECKING

from hub.errors import ConfigError, Unauthenticated
from hub.security.verifiers import RECIPES as RECIPES
from hub.security.verifiers import ApiKeyVerifier as ApiKeyVerifier
from hub.security.verifiers import BasicVerifier as BasicVerifier
from hub.security.verifiers import HmacRecipe as HmacRecipe
from hub.security.verifiers import HmacVerifier as HmacVerifier
from hub.security.verifiers import IpVerifier as IpVerifier
from hub.security.verifiers import MtlsVerifier as MtlsVerifier
from hub.security.verifiers import Verifier as Verifier
from hub.security.verifiers import networks as networks

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Source: Standard Webhooks, "Signature scheme": between 24 and 64 bytes; older keys may be longer.
MIN_KEY_BYTES = 24
#: A sender rotating its keys needs two or three; the rest of a long list is not looked at.
MAX_ENTRIES = 8
TOLERANCE = timedelta(minutes=5)

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
# Spelled out: int() and \d also take underscores and the digits of other scripts.
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def parse_secret(text: str) -> bytes:
    """The key in ``whsec_<base64>``; raises ``ConfigError`` without repeating any of it."""
    prefix, key = text[:6], b""
    if prefix == "whsec_":
        try:
            key = a2b_base64(text[6:].strip(), strict_mode=True)
        except ValueError:
            key = b""
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(f"a signing secret is whsec_ followed by base64 of at least {MIN_KEY_BYTES} bytes")
    return key


def new_secret() -> str:
    """A fresh secret as it is handed to a partner."""
    return "whsec_" + b2a_base64(secrets.token_bytes(32), newline=False).decode()


def parse_private_key(text: str) -> Ed25519PrivateKey:
    """The key in ``whsk_<base64>`` of 32 bytes, or 64 with the public half behind; raises ``ConfigError``."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _keyed_base64("whsk_", text)
    if len(key) not in (32, 64):
        raise ConfigError("a private signing key is whsk_ followed by base64 of 32 or 64 bytes")
    return Ed25519PrivateKey.from_private_bytes(key[:32])


def parse_public_key(text: str) -> Ed25519PublicKey:
    """The key in ``whpk_<base64>`` of 32 bytes; raises ``ConfigError``."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = _keyed_base64("whpk_", text)
    if len(key) != 32:
        raise ConfigError("a public signing key is whpk_ followed by base64 of 32 bytes")
    return Ed25519PublicKey.from_public_bytes(key)


def _keyed_base64(prefix: str, text: str) -> bytes:
    if not text.startswith(prefix):
        return b""
    try:
        return a2b_base64(text[len(prefix) :].strip(), strict_mode=True)
    except ValueError:
        return b""


def new_private_key() -> str:
    """A fresh private key; ``public_key`` tells what the partner gets."""
    return "whsk_" + b2a_base64(secrets.token_bytes(32), newline=False).decode()


def public_key(key: Ed25519PrivateKey) -> str:
    return "whpk_" + b2a_base64(key.public_key().public_bytes_raw(), newline=False).decode()


def sign_v1a(key: Ed25519PrivateKey, message_id: str, timestamp: int, body: bytes) -> str:
    """One entry of ``webhook-signature`` that is checked with the public key; entries stand side by side by a space."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return "v1a," + b2a_base64(key.sign(signed), newline=False).decode()


def sign(key: bytes, message_id: str, timestamp: int, body: bytes, *older: bytes) -> str:
    """Value of ``webhook-signature``; ``older`` keys sign too while a partner changes over."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    value = "v1," + b2a_base64(_digest(key, signed), newline=False).decode()
    for old in older:
        value += " v1," + b2a_base64(_digest(old, signed), newline=False).decode()
    return value


@lru_cache(maxsize=256)
def _keyed(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The inner and outer hash with the key in them. Source: RFC 2104, section 2 and 4."""
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    return hashlib.sha256(bytes(b ^ 0x36 for b in block)), hashlib.sha256(bytes(b ^ 0x5C for b in block))


def _digest(key: bytes, signed: bytes) -> bytes:
    """HMAC-SHA256 as of ``hmac``, at half the cost: that copies its state in Python, and ``hmac.digest`` gives up

    the interpreter lock for every few hundred bytes.
    """
    inner, outer = _keyed(key)
    inner, outer = inner.copy(), outer.copy()
    inner.update(signed)
    outer.update(inner.digest())
    return outer.digest()


def verify(
    keys: Sequence[bytes | Ed25519PublicKey],
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    tolerance: timedelta = TOLERANCE,
) -> str:
    """The verified message id.

    Args:
        keys: any of them may have signed; one shorter than 24 bytes verifies nothing. The kind of the key says
            the algorithm, never the header.
        headers: names in lower case.

    Raises:
        Unauthenticated: for every reason with the same text, so that a forger learns nothing.
    """
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(timestamp):
        raise Unauthenticated
    if abs(now.timestamp() - int(timestamp)) > tolerance.total_seconds():
        raise Unauthenticated
    # The timestamp is signed as it was written: "007" and "7" are different messages.
    signed = f"{message_id}.{timestamp}.".encode() + body
    value = headers.get("webhook-signature", "")
    # 32 bytes are 44 characters of base64, 64 are 88.
    given = _entries(value, "v1,", 47)
    for key in keys:
        if isinstance(key, bytes):
            if len(key) >= MIN_KEY_BYTES:
                expected = _digest(key, signed)
                if any(compare_digest(expected, each) for each in given):
                    return message_id
        elif any(_is_signed(key, each, signed) for each in _entries(value, "v1a,", 92)):
            return message_id
    raise Unauthenticated


def _entries(value: str, version: str, length: int) -> list[bytes]:
    """Decoded entries of one version; other versions and what is not base64 are passed over."""
    found = []
    for entry in value.split(" ", MAX_ENTRIES)[:MAX_ENTRIES]:
        if len(entry) == length and entry.startswith(version):
            try:
                found.append(a2b_base64(entry[len(version) :], strict_mode=True))
            except ValueError:
                continue
    return found


def _is_signed(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True
