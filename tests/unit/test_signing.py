"""Signing and verifying: against the reference library, against the specification's vector, against malice."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from hub.errors import ConfigError, Unauthenticated
from hub.signing import new_secret, parse_secret, sign, verify

KEY = bytes(range(32))
OTHER = bytes(range(100, 132))
NOW = datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC)
STAMP = int(NOW.timestamp())
BODY = '{"noi_dung":"Công đoàn"}'.encode()
#: int() reads these digits too.
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
REFUSAL = "The request is not signed as agreed."


def signed(message_id: str = "msg_1", stamp: str | int = STAMP, body: bytes = BODY, key: bytes = KEY) -> dict[str, str]:
    """Headers as a sender of its own would write them, whatever the id and the timestamp look like."""
    content = f"{message_id}.{stamp}.".encode("utf-8", "surrogateescape") + body
    digest = hmac.digest(key, content, "sha256")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(stamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def refusal(headers: dict[str, str], body: bytes = BODY, keys: tuple[bytes, ...] = (KEY,)) -> str:
    with pytest.raises(Unauthenticated) as raised:
        verify(keys, headers, body, NOW)
    return str(raised.value)


def test_the_vector_of_the_specification_comes_out() -> None:
    # Source: standard-webhooks, libraries/*/test: the same message in every language.
    key = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    value = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert value == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(key=st.binary(min_size=24, max_size=80), message_id=st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True),
       body=st.text(), stamp=st.integers(min_value=0, max_value=4_000_000_000))  # fmt: skip
def test_it_signs_as_the_reference_library_does(key: bytes, message_id: str, body: str, stamp: int) -> None:
    moment = datetime.fromtimestamp(stamp, UTC)
    assert sign(key, message_id, stamp, body.encode()) == Webhook(key).sign(message_id, moment, body)


@given(key=st.binary(min_size=24, max_size=80), body=st.text())
def test_what_it_signs_the_reference_library_verifies_and_so_does_it(key: bytes, body: str) -> None:
    now = datetime.now(UTC)
    stamp = int(now.timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(key, "msg_1", stamp, body.encode()),
    }
    Webhook(key).verify(body, headers, json_parse=False)
    assert verify([key], headers, body.encode(), now) == "msg_1"


def test_every_key_signs_during_a_rotation_and_any_is_enough_to_verify() -> None:
    headers = {**signed(), "webhook-signature": sign(KEY, "msg_1", STAMP, BODY, OTHER)}
    assert headers["webhook-signature"].count("v1,") == 2
    assert verify([KEY], headers, BODY, NOW) == "msg_1"
    assert verify([OTHER], headers, BODY, NOW) == "msg_1"
    assert verify([b"z" * 24, OTHER], signed(key=OTHER), BODY, NOW) == "msg_1"


@pytest.mark.parametrize("late", [-300, -1, 0, 1, 300])
def test_a_timestamp_within_five_minutes_either_way_is_taken(late: int) -> None:
    assert verify([KEY], signed(stamp=STAMP + late), BODY, NOW) == "msg_1"


def test_the_tolerance_is_the_callers() -> None:
    assert verify([KEY], signed(stamp=STAMP - 900), BODY, NOW, timedelta(minutes=15)) == "msg_1"


def test_the_timestamp_is_verified_as_it_was_written() -> None:
    assert verify([KEY], signed(stamp=f"0{STAMP}"), BODY, NOW) == "msg_1"


@pytest.mark.parametrize(
    "stamp",
    [STAMP - 301, STAMP + 301, STAMP - 600, STAMP + 600, "", "nan", "inf", "1e9", f"+{STAMP}", f"-{STAMP}", f" {STAMP}",
     f"{STAMP}\n", f"{STAMP}.0", "1_790_000_000", str(STAMP).translate(ARABIC), "１７９０００００００",
     "9" * 12, "9" * 13, "0x6500"],
)  # fmt: skip
def test_a_timestamp_outside_or_not_of_ascii_digits_is_refused(stamp: str | int) -> None:
    assert refusal(signed(stamp=stamp)) == REFUSAL


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "a\n", "ă", "a" * 129, "../x", "\udc80", "a\0"])
def test_an_id_outside_its_alphabet_is_refused_though_its_signature_is_right(message_id: str) -> None:
    assert refusal(signed(message_id)) == REFUSAL


def test_an_id_of_128_characters_is_taken() -> None:
    assert verify([KEY], signed("a" * 128), BODY, NOW) == "a" * 128


GOOD = signed()["webhook-signature"]
DIGEST = base64.b64decode(GOOD[3:])


@pytest.mark.parametrize(
    "value",
    [
        "", " ", ",", "v1", "v1,", "v1," + "A" * 43, "v1,=" + GOOD[4:], GOOD[3:], GOOD.replace("v1", "v0"),
        GOOD.replace("v1", "v1a"), GOOD.replace("v1", "V1"), GOOD.replace("v1,", "v1 ,"), GOOD.replace(",", ":"),
        GOOD[:-1], GOOD + "=", GOOD.replace("=", ""), GOOD + "\n", "v1," + DIGEST.hex(), "v1," + "ă" * 44,
        "v1," + "\udcff" * 44, "sha1=" + "0" * 40,
        "v1," + base64.b64encode(bytes([DIGEST[0] ^ 1]) + DIGEST[1:]).decode(),
        "v1," + base64.b64encode(DIGEST[:-1] + bytes([DIGEST[-1] ^ 128])).decode(),
        "v1," + base64.b64encode(DIGEST[:20]).decode(),
    ],
)  # fmt: skip
def test_a_signature_that_is_not_exactly_right_is_refused_with_the_same_text(value: str) -> None:
    assert refusal({**signed(), "webhook-signature": value}) == REFUSAL


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(name: str) -> None:
    headers = signed()
    del headers[name]
    assert refusal(headers) == REFUSAL


def test_a_boundary_moved_by_a_dot_is_refused() -> None:
    # "a" + "." + stamp + "." + body, cut elsewhere, signs the same bytes.
    body = f"{STAMP}.".encode() + BODY
    headers = {**signed(body=body), "webhook-id": f"msg_1.{STAMP}"}
    assert refusal(headers) == REFUSAL


def test_another_body_or_another_key_is_refused() -> None:
    assert refusal(signed(), body=BODY + b" ") == REFUSAL
    assert refusal(signed(key=OTHER)) == REFUSAL


@pytest.mark.parametrize("keys", [(), (b"",), (b"short",)])
def test_no_key_an_empty_key_and_a_short_key_verify_nothing(keys: tuple[bytes, ...]) -> None:
    assert refusal(signed(key=keys[0] if keys else KEY), keys=keys) == REFUSAL


def test_eight_entries_are_read_and_no_more() -> None:
    junk = ["v1," + base64.b64encode(bytes(32)).decode()] * 800
    junk[7] = GOOD
    assert verify([KEY], {**signed(), "webhook-signature": " ".join(junk)}, BODY, NOW) == "msg_1"
    junk[7], junk[8] = junk[8], GOOD
    assert refusal({**signed(), "webhook-signature": " ".join(junk)}) == REFUSAL


def test_what_stands_beside_a_good_entry_does_no_harm() -> None:
    value = f"v1a,AAAA nonsense {GOOD} v2,ă"
    assert verify([KEY], {**signed(), "webhook-signature": value}, BODY, NOW) == "msg_1"


HEADER = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="v1a,= .+-_0123456789ABCabc", max_size=120),
    st.just(GOOD), st.just(str(STAMP)), st.just("msg_1"),
)  # fmt: skip


@given(message_id=HEADER, stamp=HEADER, value=HEADER, body=st.binary(max_size=40))
def test_no_header_raises_anything_but_unauthenticated(message_id: str, stamp: str, value: str, body: bytes) -> None:
    headers = {"webhook-id": message_id, "webhook-timestamp": stamp, "webhook-signature": value}
    genuine = (message_id, stamp, value, body) == ("msg_1", str(STAMP), GOOD, BODY)
    if genuine:
        assert verify([KEY], headers, body, NOW) == message_id
    else:
        assert refusal(headers, body) == REFUSAL


def test_a_secret_is_whsec_and_base64_of_at_least_24_bytes() -> None:
    assert parse_secret("whsec_" + base64.b64encode(bytes(24)).decode()) == bytes(24)
    assert parse_secret("whsec_" + base64.b64encode(KEY).decode() + "\n") == KEY
    assert len(parse_secret(new_secret())) == 32
    assert new_secret() != new_secret()


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", "whsec_" + base64.b64encode(bytes(23)).decode(), base64.b64encode(KEY).decode(),
     "whsec_cánh đồng lúa chín vàng", "whsec_" + KEY.hex() + "!", "WHSEC_" + base64.b64encode(KEY).decode()],
)  # fmt: skip
def test_a_wrong_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_secret(text)
    assert not text[6:] or text[6:] not in str(raised.value)
