"""Standard Webhooks 1.0, symmetric (v1): signs what leaves, verifies what comes in.

Own lines, because the reference library raises ValueError on a malformed header, which would be a 500 for
hostile input; the library is the oracle of the tests.
Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
import re
import secrets
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hmac import compare_digest

from hub.errors import ConfigError, Unauthenticated

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


def sign(key: bytes, message_id: str, timestamp: int, body: bytes, *older: bytes) -> str:
    """Value of ``webhook-signature``; ``older`` keys sign too while a partner changes over."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    value = "v1," + b2a_base64(_digest(key, signed), newline=False).decode()
    for old in older:
        value += " v1," + b2a_base64(_digest(old, signed), newline=False).decode()
    return value


@lru_cache(maxsize=256)
def _keyed(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")


def _digest(key: bytes, signed: bytes) -> bytes:
    """As ``hmac.digest``, which gives up the interpreter lock for every few hundred bytes: five times the cost."""
    mac = _keyed(key).copy()
    mac.update(signed)
    return mac.digest()


def verify(
    keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: datetime, tolerance: timedelta = TOLERANCE
) -> str:
    """The verified message id.

    Args:
        keys: any of them may have signed; one shorter than 24 bytes verifies nothing.
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
    given = _digests(headers.get("webhook-signature", ""))
    for key in keys:
        if len(key) >= MIN_KEY_BYTES:
            expected = _digest(key, signed)
            if any(compare_digest(expected, each) for each in given):
                return message_id
    raise Unauthenticated


def _digests(value: str) -> list[bytes]:
    """Decoded v1 entries; other versions and what is not base64 are passed over."""
    found = []
    for entry in value.split(" ", MAX_ENTRIES)[:MAX_ENTRIES]:
        # 32 bytes are 44 characters of base64; the version before the comma names the only algorithm.
        if len(entry) == 47 and entry.startswith("v1,"):
            try:
                found.append(a2b_base64(entry[3:], strict_mode=True))
            except ValueError:
                continue
    return found
