"""What is on the wire, read by libraries that are not ours and by the specifications' own vectors."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from asyncio.subprocess import PIPE
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event, from_structured_event
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from hub.contract import Delivered
from hub.errors import ConfigError, Unauthenticated
from hub.signing import (
    new_private_key,
    new_secret,
    parse_private_key,
    parse_public_key,
    parse_secret,
    public_key,
    sign,
    sign_v1a,
    verify,
)
from plugins.partners.endpoint import Keys
from plugins.partners.schema import request
from tests.plugins.partners.conftest import NEW_SECRET, SECRET, Clock, Open, Simulator, event, ship
from tests.plugins.partners.test_guard import Listener, listening

NOW = datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC)
AT = int(NOW.timestamp())
BODY = '{"type":"a","data":{"tên":"Đỗ"}}'.encode()
PRIVATE = parse_private_key(new_private_key())
PUBLIC = parse_public_key(public_key(PRIVATE))


def headers(signature: str, **more: str) -> dict[str, str]:
    return {"webhook-id": "m-1", "webhook-timestamp": str(AT), "webhook-signature": signature, **more}


# -- signatures --------------------------------------------------------------------------------------


def test_ed25519_keys_are_those_of_rfc_8032() -> None:
    """Source: RFC 8032, section 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    shown = "whpk_" + base64.b64encode(public).decode()
    for stored in (seed, seed + public):
        assert public_key(parse_private_key("whsk_" + base64.b64encode(stored).decode())) == shown
    assert parse_public_key(shown).public_bytes_raw() == public


def test_the_v1a_signature_of_the_specification_comes_out() -> None:
    """Source: Standard Webhooks 1.0, the v1a of its example headers; key and message: Svix's own test of that value."""
    private = parse_private_key(
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
    )
    message_id, at, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
    signature = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
    assert sign_v1a(private, message_id, at, body) == signature
    given = {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}
    public = parse_public_key(public_key(private))
    assert verify([public], given, body, datetime.fromtimestamp(at, UTC)) == message_id


def test_what_the_private_key_signs_the_public_key_takes_and_nothing_else() -> None:
    good = sign_v1a(PRIVATE, "m-1", AT, BODY)
    assert verify([PUBLIC], headers(good), BODY, NOW) == "m-1"
    other = parse_public_key(public_key(parse_private_key(new_private_key())))
    for keys, given_headers, body in (
        ([other], headers(good), BODY),
        ([PUBLIC], headers(good), BODY + b" "),
        ([PUBLIC], headers(good, **{"webhook-id": "m-2"}), BODY),
        ([PUBLIC], headers(good, **{"webhook-timestamp": str(AT + 1)}), BODY),
        ([PUBLIC], headers(good.replace("v1a,", "v1,")), BODY),
        ([PUBLIC.public_bytes_raw()], headers(good.replace("v1a,", "v1,")), BODY),
    ):
        with pytest.raises(Unauthenticated):
            verify(keys, given_headers, body, NOW)


def test_the_key_says_the_algorithm_and_never_the_header() -> None:
    """A public key is known to everybody: taken as a shared secret it would sign for everybody."""
    public = PUBLIC.public_bytes_raw()
    forged = sign(public, "m-1", AT, BODY)
    for signature in (forged, forged.replace("v1,", "v1a,")):
        with pytest.raises(Unauthenticated):
            verify([PUBLIC], headers(signature), BODY, NOW)


@given(st.text(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_a_malformed_header_never_raises_anything_else(signature: str, message_id: str, timestamp: str) -> None:
    key = parse_secret(new_secret())
    for each in (signature, "v1," + signature, "v1a," + signature):
        given_headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": each}
        for full in (given_headers, headers(each), {}):
            with pytest.raises(Unauthenticated):
                verify([key, PUBLIC], full, BODY, NOW)


@pytest.mark.parametrize("text", ["", "whsk_", "whsk_!!!!", "whsec_" + "A" * 44, "whsk_" + "A" * 20, "whpk_é"])
def test_a_key_that_is_none_is_refused_without_repeating_it(text: str) -> None:
    for parse in (parse_private_key, parse_public_key):
        with pytest.raises(ConfigError) as raised:
            parse(text)
        assert not text[6:] or text[6:] not in str(raised.value)


def test_old_and_new_keys_of_both_kinds_sign_side_by_side_until_their_time() -> None:
    secrets = [new_secret(), new_secret()]
    older = parse_private_key(new_private_key())
    keys = Keys(
        secret=parse_secret(secrets[0]), older_secrets=(parse_secret(secrets[1]),), private=PRIVATE,
        older_private=(older,), older_until=datetime(2026, 11, 23, 8, tzinfo=UTC),
    )  # fmt: skip
    value = keys.signatures("m-1", AT, BODY, NOW)
    assert [entry.split(",")[0] for entry in value.split(" ")] == ["v1", "v1", "v1a", "v1a"]
    everyone: list[Any] = [parse_secret(each) for each in secrets]
    everyone += [PUBLIC, parse_public_key(public_key(older))]
    for key in everyone:
        assert verify([key], headers(value), BODY, NOW) == "m-1"
    later = keys.signatures("m-1", AT, BODY, datetime(2026, 11, 23, 8, tzinfo=UTC))
    assert [entry.split(",")[0] for entry in later.split(" ")] == ["v1", "v1a"]
    for gone in (everyone[1], everyone[3]):
        with pytest.raises(Unauthenticated):
            verify([gone], headers(later), BODY, NOW)


def test_the_official_library_takes_our_v1_beside_a_v1a() -> None:
    secret = new_secret()
    now = datetime.now(UTC)
    keys = Keys(secret=parse_secret(secret), private=PRIVATE)
    value = keys.signatures("m-1", int(now.timestamp()), BODY, now)
    given_headers = headers(value, **{"webhook-timestamp": str(int(now.timestamp()))})
    assert Webhook(secret).verify(BODY, given_headers) == json.loads(BODY)


# -- bodies ------------------------------------------------------------------------------------------

ODD = replace(event(), source='//ldld.example/a b%"é', subject='tên "x" 100%')


def test_the_official_library_reads_the_same_event_in_both_cloud_event_modes() -> None:
    one = replace(ODD, data={"unit": "CDCS-01", "n": 1.5, "tên": "Đỗ Thị Ánh"})
    read = []
    for mode, parse in (("structured", from_structured_event), ("binary", from_binary_event)):
        found, body = request(one, mode)  # type: ignore[arg-type]
        read.append(parse(HTTPMessage(found, body)))
    for each in read:
        assert (each.get_id(), each.get_type(), each.get_subject()) == (str(one.id), one.type, one.subject)
        assert (each.get_time(), each.get_specversion()) == (one.occurred_at, "1.0")
        assert each.get_data() == one.data
    assert read[0].get_source() == read[1].get_source()


def test_the_plain_body_is_type_timestamp_and_data() -> None:
    one = event(unit="CDCS-01")
    found, body = request(one, "webhook")
    assert found == {"Content-Type": "application/json"}
    assert json.loads(body) == {"type": one.type, "timestamp": "2026-11-23T07:05:09Z", "data": {"unit": "CDCS-01"}}


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_binary_headers_are_printable_ascii_whatever_the_event_holds(subject: str, source: str) -> None:
    found, _ = request(replace(event(), subject=subject, source=source), "binary")
    for value in found.values():
        assert all("!" <= char <= "~" for char in value)
        assert '"' not in value


@pytest.mark.parametrize("mode", ["structured", "binary", "webhook"])
async def test_each_mode_is_taken_by_a_strict_partner_with_the_same_bytes_at_every_try(
    simulator: Simulator, open_partner: Open, clock: Clock, mode: str
) -> None:
    connection, one = open_partner(simulator.url("so-noi-vu"), content_mode=mode), event(unit="CDCS-01")
    await ship(connection, one)
    await ship(connection, one)
    state = (await simulator.state())["endpoints"]["so-noi-vu"]
    assert (state["taken"], state["repeats"], state["changed_bodies"], state["refused"]) == (1, 1, 0, 0)
    assert state["last"] == [str(one.id)] * 2
    assert "." not in str(one.id)


# -- another library's word --------------------------------------------------------------------------

_NPM = """
const { Webhook } = require("standardwebhooks");
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(given.map(({ secret, headers, body }) => {
  try { new Webhook(secret).verify(Buffer.from(body, "base64"), headers); return true; } catch (e) { return e.message; }
})));
"""


def _has_npm_library() -> bool:
    found = shutil.which("node")
    look = [found or "", "-e", 'require("standardwebhooks")']
    return found is not None and subprocess.run(look, capture_output=True, timeout=60).returncode == 0


@pytest.mark.skipif(
    not _has_npm_library(),
    reason="npm install --prefix DIR standardwebhooks, then NODE_PATH=DIR/node_modules; it is not shipped",
)
async def test_the_npm_library_takes_each_mode_and_both_keys_of_a_change(open_partner: Open) -> None:
    cases = []
    for mode in ("structured", "binary", "webhook"):
        async with listening(Listener(), "127.0.0.1") as partner:
            url, older = f"http://127.0.0.1:{partner.port}/", {"env": "NEW_SECRET"}
            assert isinstance(
                await ship(open_partner(url, content_mode=mode, previous_secret=older), event(tên="Đỗ")), Delivered
            )
        sent = dict(line.split(": ", 1) for line in partner.heads[0].decode().split("\r\n")[1:] if line)
        for secret, body in ((SECRET, partner.bodies[0]), (NEW_SECRET, partner.bodies[0]), (SECRET, b"{}")):
            cases.append({"secret": secret, "headers": sent, "body": base64.b64encode(body).decode()})
    node = await asyncio.create_subprocess_exec("node", "-e", _NPM, stdin=PIPE, stdout=PIPE)
    said, _ = await node.communicate(json.dumps(cases).encode())
    assert json.loads(said) == [True, True, "No matching signature found"] * 3
