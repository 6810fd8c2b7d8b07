"""Verifiers take the genuine sender alone, and say the same for every other reason."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.contract import RawRequest
from hub.errors import Unauthenticated
from hub.signing import (
    RECIPES,
    ApiKeyVerifier,
    BasicVerifier,
    HmacRecipe,
    HmacVerifier,
    IpVerifier,
    MtlsVerifier,
    Verifier,
    networks,
)

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
AT = str(int(NOW.timestamp()))
KEY, OLD = b"a-shared-secret-of-24-bytes", b"another-secret-of-24-bytes!"
BODY = '{"trạng_thái": "đã trả"}'.encode()


def request(headers: dict[str, str], body: bytes = BODY, **more: str) -> RawRequest:
    return replace(RawRequest("source", headers, body, NOW), **more)


def genuine(verifier: Verifier, asked: RawRequest) -> bool:
    try:
        verifier(asked)
    except Unauthenticated as error:
        assert str(error) == "The request is not signed as agreed.", "one text for every reason"
        return False
    return True


def mac(signed: bytes, key: bytes = KEY, algorithm: str = "sha256") -> bytes:
    return hmac.digest(key, signed, algorithm)


#: As each sender's documentation says, written down apart from our recipes.
SIGNED: dict[str, Callable[[bytes], dict[str, str]]] = {
    "body-hex": lambda key: {"x-signature": mac(BODY, key).hex()},
    "body-base64": lambda key: {"x-signature": b64encode(mac(BODY, key)).decode()},
    "github": lambda key: {"x-hub-signature-256": "sha256=" + mac(BODY, key).hex()},
    "shopify": lambda key: {"x-shopify-hmac-sha256": b64encode(mac(BODY, key)).decode()},
    "slack": lambda key: {
        "x-slack-request-timestamp": AT, "x-slack-signature": "v0=" + mac(b"v0:%b:%b" % (AT.encode(), BODY), key).hex()
    },
    "stripe": lambda key: {
        "stripe-signature": f"t={AT},v1={mac(b'%b.%b' % (AT.encode(), BODY), key).hex()}"
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_what_its_sender_signs_and_nothing_else(name: str) -> None:
    verifier = HmacVerifier(RECIPES[name], [OLD, KEY])
    headers = SIGNED[name](KEY)
    assert genuine(verifier, request(headers))
    assert genuine(verifier, request(SIGNED[name](OLD))), "while keys are changed"
    assert not genuine(verifier, request(headers, BODY + b" "))
    assert not genuine(verifier, request(SIGNED[name](b"a-strangers-secret-of-24-b")))
    assert not genuine(verifier, request({}))
    for header, value in headers.items():
        assert not genuine(verifier, request({k: v for k, v in headers.items() if k != header}))
        for wrong in ("", value[:-1], value + "0", "é" + value[1:], value.swapcase() + "x", "sha1=" + value, "٣" * 10):
            assert not genuine(verifier, request({**headers, header: wrong})), wrong


def test_github_s_own_example_holds() -> None:
    """Source: docs.github.com, "Testing the webhook payload validation"."""
    value = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    verifier = HmacVerifier(RECIPES["github"], [b"It's a Secret to Everybody"])
    assert genuine(verifier, request({"x-hub-signature-256": value}, b"Hello, World!"))


@pytest.mark.parametrize("seconds", [-301, 301, -600, 600, 10**9])
@pytest.mark.parametrize("name", ["slack", "stripe"])
def test_an_old_signature_is_refused(name: str, seconds: int) -> None:
    late = replace(request(SIGNED[name](KEY)), received_at=NOW + timedelta(seconds=seconds))
    assert not genuine(HmacVerifier(RECIPES[name], [KEY]), late)


@pytest.mark.parametrize("at", ["nan", "1_000", "٣٣", "", "-1", "9" * 13, "1e9", " 1"])
def test_a_timestamp_is_ascii_digits(at: str) -> None:
    headers = {"x-slack-request-timestamp": at, "x-slack-signature": "v0=" + mac(f"v0:{at}:".encode() + BODY).hex()}
    assert not genuine(HmacVerifier(RECIPES["slack"], [KEY]), request(headers))


def test_of_a_long_list_of_signatures_only_the_first_are_looked_at() -> None:
    right = mac(f"{AT}.".encode() + BODY).hex()
    many = [f"v1={'0' * 64}"] * 800
    verifier = HmacVerifier(RECIPES["stripe"], [KEY])
    assert genuine(verifier, request({"stripe-signature": ",".join([f"t={AT}", *many[:3], f"v1={right}"])}))
    assert not genuine(verifier, request({"stripe-signature": ",".join([f"t={AT}", *many, f"v1={right}"])}))


def test_a_key_that_is_too_short_verifies_nothing() -> None:
    for key in (b"", b"short"):
        assert not genuine(HmacVerifier(RECIPES["body-hex"], [key]), request({"x-signature": mac(BODY, key).hex()}))


def test_method_and_path_can_be_signed_too() -> None:
    recipe = HmacRecipe(header="x-sig", signed=("{method}", "\n", "{path}", "\n", "{body}"), algorithm="sha512")
    value = mac(b"PUT\na/b\n" + BODY, algorithm="sha512").hex()
    verifier = HmacVerifier(recipe, [KEY])
    assert genuine(verifier, request({"x-sig": value}, method="PUT", path="a/b"))
    assert not genuine(verifier, request({"x-sig": value}, method="PUT", path="a/c"))


@given(st.dictionaries(st.sampled_from(["x-signature", "stripe-signature", "authorization", "x-key"]), st.text()))
def test_no_header_makes_a_verifier_raise_anything_else(headers: dict[str, str]) -> None:
    for verifier in (
        *(HmacVerifier(recipe, [KEY]) for recipe in RECIPES.values()), BasicVerifier("u", ["p"]),
        ApiKeyVerifier("x-key", ["k" * 20]), MtlsVerifier(networks(["10.0.0.1"]), ["CN=x"]),
        IpVerifier(networks(["10.0.0.0/8"])),
    ):  # fmt: skip
        assert not genuine(verifier, request(headers))


def test_basic_and_keys() -> None:
    basic = BasicVerifier("nguồn", ["mật khẩu", "mới"])
    for password, is_right in (("mật khẩu", True), ("mới", True), ("cũ", False), ("", False)):
        value = "Basic " + b64encode(f"nguồn:{password}".encode()).decode()
        assert genuine(basic, request({"authorization": value})) is is_right
    key = ApiKeyVerifier("authorization", ["k-1", ""], prefix="ApiKey ")
    assert genuine(key, request({"authorization": "ApiKey k-1"}))
    for wrong in ("ApiKey ", "ApiKey k-2", "k-1", "apikey k-1"):
        assert not genuine(key, request({"authorization": wrong}))


@pytest.mark.parametrize(
    ("remote", "checked", "subject", "is_right"),
    [
        ("10.0.0.9", "SUCCESS", "CN=source", True),
        ("::ffff:10.0.0.9", "SUCCESS", "CN=source", True),
        ("10.0.0.8", "SUCCESS", "CN=source", False),
        ("10.0.0.9", "NONE", "CN=source", False),
        ("10.0.0.9", "", "CN=source", False),
        ("10.0.0.9", "SUCCESS", "CN=source2", False),
        ("", "SUCCESS", "CN=source", False),
    ],
)
def test_a_certificate_counts_by_the_named_proxys_word_alone(
    remote: str, checked: str, subject: str, is_right: bool
) -> None:
    verifier = MtlsVerifier(networks(["10.0.0.9"]), ["CN=source"])
    headers = {"x-ssl-client-verify": checked, "x-ssl-client-s-dn": subject}
    assert genuine(verifier, request(headers, remote=remote)) is is_right


@pytest.mark.parametrize(
    ("remote", "forwarded", "is_right"),
    [
        ("203.0.113.7", "", True),
        ("203.0.114.7", "", False),
        ("203.0.114.7", "203.0.113.7", False),  # whoever connects may write the header
        ("10.0.0.9", "203.0.113.7", True),
        ("10.0.0.9", "203.0.113.7, 198.51.100.1", False),
        ("10.0.0.9", "198.51.100.1, 203.0.113.7", True),
        ("10.0.0.9", "203.0.113.7, 10.0.0.9", True),
        ("10.0.0.9", "", False),
        ("10.0.0.9", "not an address", False),
        ("2001:db8::1", "", True),
    ],
)
def test_an_address_is_the_one_that_our_own_proxies_saw(remote: str, forwarded: str, is_right: bool) -> None:
    verifier = IpVerifier(networks(["203.0.113.0/24", "2001:db8::/32"]), networks(["10.0.0.9"]))
    assert genuine(verifier, request({"x-forwarded-for": forwarded}, remote=remote)) is is_right
