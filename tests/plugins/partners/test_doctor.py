"""The signature doctor: for each mistake that people make, the rule that failed, and never an exception."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.contract import Hub
from hub.signing import new_private_key, new_secret, parse_private_key, parse_secret, public_key, sign, sign_v1a
from plugins.partners import doctor
from plugins.partners import params as p
from plugins.partners.doctor import BOM, Finding, diagnose

NOW = datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC)
AT = int(NOW.timestamp())
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = parse_secret(SECRET)
BODY = '{"b":1,"a":"Đỗ & Hà"}'.encode()


def headers(body: bytes = BODY, **more: str) -> dict[str, str]:
    return {"webhook-id": "m-1", "webhook-timestamp": str(AT), "webhook-signature": sign(KEY, "m-1", AT, body), **more}


def found(body: bytes = BODY, *, secret: str = SECRET, given: dict[str, str] | None = None, **more: Any) -> Finding:
    return diagnose(secret, headers() if given is None else given, body, more.pop("now", NOW), **more)


def test_a_request_that_is_right_is_found_right_whatever_its_headers_case() -> None:
    assert found().code == "ok"
    assert found(given={name.upper(): f" {value} " for name, value in headers().items()}).code == "ok"
    assert found(secret=f"  {SECRET}\n").code == "ok"


@pytest.mark.parametrize(("seconds", "says"), [(301, "301 s late"), (-400, "400 s early"), (86_400, "86400 s late")])
def test_a_clock_that_is_off_is_told_by_how_much(seconds: int, says: str) -> None:
    one = found(now=NOW + timedelta(seconds=seconds))
    assert one.code == "clock_off" and says in one.en


@pytest.mark.parametrize(
    ("seen", "at"),
    [
        (json.dumps(json.loads(BODY)).encode(), 5),
        (json.dumps(json.loads(BODY), ensure_ascii=False).encode(), 5),
        (json.dumps(json.loads(BODY), ensure_ascii=False, separators=(",", ":")).encode() + b"\n", len(BODY)),
        (json.dumps(json.loads(BODY), separators=(",", ":")).encode(), 12),
    ],
)
def test_a_body_that_was_written_anew_is_told_with_its_first_differing_byte(seen: bytes, at: int) -> None:
    for sent in (None, BODY):
        one = found(seen, sent=sent)
        assert one.code == "body_reencoded"
        assert f"from byte {at} on" in one.en


def test_a_body_that_nobody_could_guess_is_told_where_the_sent_one_is_known() -> None:
    assert found(BODY.replace(b"1", b"2")).code == "wrong_secret"
    assert "from byte 5 on" in found(BODY.replace(b"1", b"2"), sent=BODY).en


def test_a_bom_is_told() -> None:
    assert found(BOM + BODY).code == "bom_added"


def test_a_wrong_secret_is_told() -> None:
    one = found(secret=new_secret(), sent=BODY)
    assert one.code == "wrong_secret" and "the body is as it was sent" in one.en


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_abc", SECRET[:-3], SECRET[6:], "whpk_x", "x" * 500, "whsec_é"])
def test_a_secret_that_is_not_one_is_told(secret: str) -> None:
    assert found(secret=secret).code == "secret_malformed"


def digest(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


SIGNED = b"m-1.%d." % AT + BODY


@pytest.mark.parametrize(
    ("computed", "code"),
    [
        (base64.b64encode(digest(SECRET.encode(), SIGNED)).decode(), "secret_not_decoded"),
        ("v1," + base64.b64encode(digest(SECRET[6:].encode(), SIGNED)).decode(), "secret_not_decoded"),
        (digest(SECRET[6:].encode(), SIGNED).hex(), "secret_not_decoded"),
        (base64.b64encode(digest(KEY, BODY)).decode(), "signed_content"),
        (digest(KEY, SIGNED).hex(), "hex_not_base64"),
        (base64.b64encode(digest(KEY, SIGNED)).decode(), "ok"),
    ],
)
def test_what_the_receiver_worked_out_itself_tells_its_mistake(computed: str, code: str) -> None:
    assert found(computed=computed).code == code


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"webhook-id": ""}, "header_missing"),
        ({"webhook-signature": ""}, "header_missing"),
        ({"webhook-timestamp": "1795417509.5"}, "timestamp_malformed"),
        ({"webhook-timestamp": "2026-11-23T07:05:09Z"}, "timestamp_malformed"),
        ({"webhook-id": "m.1"}, "id_malformed"),
        ({"webhook-signature": "v1a,AAAA"}, "other_algorithm"),
        ({"webhook-signature": "sha256=abc"}, "other_algorithm"),
    ],
)
def test_a_header_that_is_wrong_is_named(more: dict[str, str], code: str) -> None:
    one = found(given=headers(**more))
    assert one.code == code
    assert not more or code != "header_missing" or next(iter(more)) in one.en


def test_public_keys_are_understood_as_well() -> None:
    private = parse_private_key(new_private_key())
    given = headers(**{"webhook-signature": sign_v1a(private, "m-1", AT, BODY)})
    assert found(secret=public_key(private), given=given).code == "ok"
    assert found(BOM + BODY, secret=public_key(private), given=given).code == "bom_added"
    assert found(secret=public_key(parse_private_key(new_private_key())), given=given).code == "wrong_secret"
    assert found(secret=SECRET, given=given).code == "other_algorithm"


@given(
    st.text(max_size=80),
    st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=4),
    st.binary(max_size=60),
)
def test_nothing_that_is_pasted_makes_it_raise(secret: str, given_headers: dict[str, str], body: bytes) -> None:
    for each in (given_headers, headers(), {**headers(), **given_headers}):
        for key in (secret, SECRET):
            one = diagnose(key, each, body, NOW, computed=secret, sent=body[::-1])
            assert one.vi and one.en


class Clock:
    def now(self) -> datetime:
        return NOW


async def test_the_command_reads_files_and_names_the_rule(tmp_path: Path) -> None:
    files = {
        "headers": "POST /hook HTTP/1.1\n" + "\n".join(f"{name}: {value}" for name, value in headers().items()),
        "secret": SECRET,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "body").write_bytes(BOM + BODY)
    params = p.DoctorParams(
        headers_file=tmp_path / "headers", body_file=tmp_path / "body", secret_file=tmp_path / "secret"
    )
    told = await doctor.run(cast(Hub, Clock()), params, lambda said: None)
    assert (told["failed"], told["rule"]) == (True, "bom_added")
    assert SECRET[10:] not in repr(told)
