"""What is kept of a partner's answer: readable, masked, cut, sealed where it may be personal."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hub.answers import KEPT_BYTES, Kept, fingerprint, keep, read, redacted
from hub.contract import Exchange
from hub.log import register_secret
from hub.security.keys import HubKey, KeyRing

PHONE, CITIZEN = "0900000001", "001200000001"


async def nothing(_: Sequence[str]) -> dict[str, bytes]:
    return {}


@pytest.fixture
async def ring() -> KeyRing:
    made = KeyRing(HubKey(bytes(32)), nothing)
    await made.prepare(["m-1"], make=True)
    return made


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"ok", "ok"),
        (b'{"error":"unit unknown"}', '{"error":"unit unknown"}'),
        (f"member {PHONE}, citizen {CITIZEN}".encode(), "member ***, citizen ***"),
        (b'{"phone":"\\u002B84900000001"}', '{"phone":"***"}'),
        (b"to=%2B84900000001&x=1", "to=***&x=1"),
        (b'{"n":"\\u0030900000001"}', '{"n":"***"}'),
        (b"Authorization: Bearer abc.def-123", "Authorization: ***"),
        (b"sent Bearer abcdef.123456 back", "sent *** back"),
        (b'{"access_token": "a\\"b c", "ok":1}', '{"access_token": ***, "ok":1}'),
        (b"api-key=k1; Cookie: sid=9", "api-key=***; Cookie: ***"),
        (b"password='half", "password=***"),
        (b"we hold whsec_QUFBQUFBQUFB here", "we hold *** here"),
        (b"hub_live_abcdef012345", "***"),
        (b"v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= is wrong", "*** is wrong"),
        (b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.sig", "***"),
        (b"\x1b[31mred\x07 \xe2\x80\xae x", "\ufffd[31mred\ufffd \ufffd x"),
        ("Lỗi: không đúng đơn vị".encode(), "Lỗi: không đúng đơn vị"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_an_answer_is_readable_and_what_must_not_be_read_is_masked(answer: bytes, kept: str) -> None:
    assert redacted(answer) == kept


def test_a_secret_of_a_connection_is_masked_wherever_it_comes_back() -> None:
    register_secret("hunter2-of-the-test")
    assert redacted(b"<p>hunter2-of-the-test</p>") == "<p>***</p>"


def test_an_encoding_that_no_mask_can_read_leaves_size_and_fingerprint() -> None:
    answer = f"phone {PHONE}".encode("utf-16")
    assert redacted(answer) == fingerprint(answer) and PHONE[:4] not in redacted(answer)


def test_the_first_two_kibibytes_are_kept_and_a_number_across_the_end_is_none() -> None:
    answer = b"x" * (KEPT_BYTES - 6) + b" " + PHONE.encode() + b" " + b"y" * 16_000
    kept = redacted(answer)
    assert kept == "x" * (KEPT_BYTES - 6) + " *** y…"


@pytest.mark.parametrize(
    "hostile", [b'token:"' * 2340, b"token " * 2730, b"eyJ" * 5461, b"bearer " * 2340, b"a" * 16384]
)
def test_an_answer_made_to_be_slow_costs_no_more_than_its_length(hostile: bytes) -> None:
    """Quadratic, one of these would take minutes."""
    assert len(redacted(hostile)) <= len(hostile)


async def test_an_answer_about_a_person_goes_with_the_persons_key(ring: KeyRing) -> None:
    async def unseal(pairs: Sequence[tuple[str, bytes | None]]) -> list[bytes | None]:
        return [None if value is None else ring.unseal(subject, value) for subject, value in pairs]

    seen = Exchange(status=400, answer=b"name canary-7731", dns_ms=1.5, tls_ms=2.0)
    sealed = keep(seen, "m-1", ring)
    assert sealed is not None and b"canary" not in sealed
    rows = [sealed, keep(seen, None, ring), None, b"12 bytes sha256:0123456789abcdef"]
    assert await read(unseal, rows) == [
        Kept(1500, 2000, "name canary-7731"), Kept(1500, 2000, "name canary-7731"), Kept(),
        Kept(answer="12 bytes sha256:0123456789abcdef"),
    ]  # fmt: skip
    ring.forget(["m-1"])
    assert await read(unseal, [sealed]) == [Kept()]
    # Without the key at hand nothing that could be read is written down.
    away = keep(seen, "m-2", ring)
    assert away is not None and b"canary" not in away and b"sha256:" in away


def test_nothing_seen_is_nothing_kept(ring: KeyRing) -> None:
    assert keep(Exchange(status=200, connect_ms=0.1), "m-1", ring) is None
