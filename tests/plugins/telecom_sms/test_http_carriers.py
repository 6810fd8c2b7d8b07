"""HTTP and SOAP carriers: recorded requests, codes, lost answers, receipts; each against its simulator."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from pydantic import ValidationError

from hub.contract import Accepted, Outcome, Receiver, Refused, RetryLater, Scope, SecretRef, Unknown
from hub.errors import ConfigError, NotUnderstood, Unauthenticated
from hub.model import Receipt
from plugins.telecom_sms.accounts import open_esms
from plugins.telecom_sms.carriers import esms, fpt, speedsms, viettel, vnpt
from plugins.telecom_sms.carriers.dialect import Sms
from plugins.telecom_sms.carriers.http import is_ours, request_id
from plugins.telecom_sms.codes import Meaning, Verdict
from plugins.telecom_sms.simulator.fpt import Fpt
from plugins.telecom_sms.simulator.journal import taken_id
from plugins.telecom_sms.simulator.web import serve

from .http_support import FIELDS, NAMES, OPENING, SECRET_PATH, OpenedHttp, http_settings, inbound, opened_http
from .support import KEY, MSISDN, PHONE, Context, MemoryHub, shipment, until

DELIVERY = UUID("01a2086b-a92f-7464-8986-3e303b258df3")
VIETNAMESE = "Công đoàn chào anh chị"
REQUEST_ID = request_id(MemoryHub(), DELIVERY)
REPORTED = {"receipt_path": SecretRef(env="UNUSED"), "public_url": "https://hub.example.vn"}


async def sent(opened: OpenedHttp, text: str = VIETNAMESE, **named: Any) -> Outcome:
    return await opened.sink.send(shipment(text, **named))


# -- recorded requests: every field of the carriers' own ---------------------------------------------


async def test_esms_is_asked_with_all_its_fields() -> None:
    # SendDate alone is never sent: the hub holds messages itself, and a carrier's own clock could not be stopped.
    async with opened_http("esms", campaign_id="tet", sandbox=True, **REPORTED) as opened:
        assert isinstance(await sent(opened, delivery_id=DELIVERY), Accepted)
        path, headers, body = opened.recorded()
    assert path == "/MainService.svc/json/SendMultipleMessage_V4_post_json/"
    assert headers["Content-Type"].startswith("application/json")
    assert json.loads(body) == {
        "ApiKey": SECRET_PATH, "SecretKey": SECRET_PATH, "Content": VIETNAMESE, "Phone": PHONE,
        "Brandname": "CONGDOAN", "SmsType": "2", "IsUnicode": "1", "Sandbox": "1", "campaignid": "tet",
        "RequestId": REQUEST_ID, "CallbackUrl": f"https://hub.example.vn/in/carrier/{SECRET_PATH}",
    }  # fmt: skip


async def test_speedsms_is_asked_with_all_its_fields() -> None:
    async with opened_http("speedsms") as opened:
        assert isinstance(await sent(opened), Accepted)
        path, headers, body = opened.recorded()
    assert path == "/index.php/sms/send"
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"s3cret:x"
    assert json.loads(body) == {"to": [MSISDN], "content": VIETNAMESE, "sms_type": 3, "sender": "CONGDOAN"}


async def test_viettel_is_asked_with_all_its_elements() -> None:
    async with opened_http("viettel") as opened:
        assert isinstance(await sent(opened, 'Chào <anh> & "chị"', delivery_id=DELIVERY), Accepted)
        path, headers, body = opened.recorded()
    number = re.search(rb"<RequestID>([0-9]{1,19})</RequestID>", body)
    assert number is not None and 0 < int(number[1]) < 2**63
    assert (path, headers["SOAPAction"]) == ("/bulkapi", '""')
    assert body.replace(number[1], b"1").decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns:impl="http://impl.bulkSms.ws/"><soapenv:Header/><soapenv:Body><impl:wsCpMt>'
        "<User>ldld</User><Password>s3cret</Password><CPCode>LDLD</CPCode><RequestID>1</RequestID>"
        f"<UserID>{MSISDN}</UserID><ReceiverID>{MSISDN}</ReceiverID><ServiceID>CONGDOAN</ServiceID>"
        '<CommandCode>bulksms</CommandCode><Content>Chào &lt;anh&gt; &amp; "chị"</Content>'
        "<ContentType>1</ContentType></impl:wsCpMt></soapenv:Body></soapenv:Envelope>"
    )
    assert opened.taken() == [taken_id(KEY, MSISDN, 'Chào <anh> & "chị"', 1)]


async def test_fpt_is_asked_for_a_token_and_then_with_all_its_fields() -> None:
    async with opened_http("fpt") as opened:
        assert isinstance(await sent(opened, delivery_id=DELIVERY), Accepted)
        path, _, body = opened.recorded()
        assert isinstance(await sent(opened), Accepted)
        assert opened.simulator.counts["logins"] == 1
    found = json.loads(body)
    assert path == "/api/push-brandname-otp"
    assert base64.b64decode(found.pop("Message")).decode() == VIETNAMESE
    assert re.fullmatch("[0-9a-f]{32}", found.pop("session_id")) and found.pop("access_token")
    assert found == {"BrandName": "CONGDOAN", "Phone": MSISDN, "RequestId": REQUEST_ID}
    login = fpt.Fpt(http_settings("fpt", "http://127.0.0.1"), "s3cret").login()  # type: ignore[arg-type]
    fields = json.loads(login.body)
    assert (login.path, len(fields.pop("session_id"))) == ("/oauth2/token", 32)
    assert fields == {
        "grant_type": "client_credentials", "client_id": "ldld", "client_secret": "s3cret",
        "scope": "send_brandname_otp",
    }  # fmt: skip


async def test_vnpt_is_asked_with_all_its_fields_and_the_template_is_a_setting() -> None:
    async with opened_http("vnpt") as opened:
        assert isinstance(await sent(opened, '"}{text}'), Accepted)
        path, _, body = opened.recorded()
    found = json.loads(body)["RQST"]
    assert path == "/smsmarketing/api" and found.pop("REQID").isdigit()
    assert found == {
        "name": "send_sms_list", "LABELID": "11", "CONTRACTTYPEID": "1", "CONTRACTID": "22", "TEMPLATEID": "33",
        "PARAMS": [{"NUM": "1", "CONTENT": '"}{text}'}], "SCHEDULETIME": "", "MOBILELIST": MSISDN,
        "ISTELCOSUB": "0", "AGENTID": "44", "APIUSER": "ldld", "APIPASS": "s3cret", "USERNAME": "canbo",
        "DATACODING": "0",
    }  # fmt: skip
    shorter = {"m": {"to": "{phone}", "body": ["{text}"], "id": "{request_id}"}}
    settings = http_settings("vnpt", "http://127.0.0.1", request=shorter)
    call = vnpt.Vnpt(settings, "s3cret").call(Sms("r", 1, MSISDN, "x"), "")  # type: ignore[arg-type]
    assert json.loads(call.body) == {"m": {"to": MSISDN, "body": ["x"], "id": "r"}}


@pytest.mark.parametrize(("text", "unicode"), [("Chao anh chi", "0"), (VIETNAMESE, "1"), ("Caffè", "1")])
def test_only_plain_ascii_is_called_plain(text: str, unicode: str) -> None:
    """GSM-7 holds è, but a carrier that is told "not unicode" may take its accent off."""
    sms = Sms("r", 1, MSISDN, text)
    made = esms.Esms(http_settings("esms", "http://127.0.0.1"), "k", "s", "")  # type: ignore[arg-type]
    assert json.loads(made.call(sms, "").body)["IsUnicode"] == unicode
    soap = viettel.Viettel(http_settings("viettel", "http://127.0.0.1"), "s")  # type: ignore[arg-type]
    assert f"<ContentType>{unicode}</ContentType>".encode() in soap.call(sms, "").body


# -- what every carrier must do ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_a_message_is_accepted_and_stands_in_the_carriers_log(name: str) -> None:
    async with opened_http(name) as opened:
        outcome = await sent(opened)
        assert isinstance(outcome, Accepted) and outcome.receipt_within == timedelta(days=1)
        assert opened.taken() == [taken_id(KEY, MSISDN, VIETNAMESE, 1)]
        assert opened.connection.check is not None
        assert all([step.ok async for step in opened.connection.check()])
        assert len(opened.taken()) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_lost_answer_is_asked_again_only_where_the_carrier_knows_a_repeat(name: str) -> None:
    async with opened_http(name, {"lose_share": 1.0}) as opened:
        outcome = await sent(opened, delivery_id=DELIVERY)
        if name in ("esms", "viettel"):
            assert opened.sink.resend_is_safe
            assert isinstance(outcome, RetryLater) and outcome.ambiguous
            opened.simulator.change({"lose_share": 0.0})
            again = await sent(opened, delivery_id=DELIVERY)
            assert isinstance(again, Accepted) and opened.simulator.counts["duplicates"] == 1
            assert again.refs == ((REQUEST_ID,) if name == "esms" else ())
        else:
            assert not opened.sink.resend_is_safe
            assert isinstance(outcome, Unknown) and outcome.reason == "no_answer"
        assert len(opened.taken()) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_carrier_that_is_away_or_answers_nonsense_loses_nothing(name: str) -> None:
    async with opened_http(name, {"down": True}) as opened:
        outcome = await sent(opened)
        if name == "fpt":  # already the token was not to be had, so nothing left
            assert outcome == RetryLater(
                reason="token_unavailable", after=timedelta(seconds=1), scope=Scope.DESTINATION,
                exchange=outcome.exchange,
            )  # fmt: skip
        else:
            assert isinstance(outcome, RetryLater if opened.sink.resend_is_safe else Unknown)
        assert opened.taken() == []
    closed = await sent(opened)
    assert isinstance(closed, RetryLater) and closed.scope is Scope.DESTINATION and not closed.ambiguous
    assert closed.reason == ("token_unavailable" if name == "fpt" else "not_reached")


@pytest.mark.parametrize("name", NAMES)
async def test_a_wrong_key_stops_the_connection(name: str) -> None:
    async with opened_http(name) as opened:
        opened.simulator.accounts = [
            {key: "other" if isinstance(FIELDS[name].get(key), SecretRef) else value for key, value in mine.items()}
            for mine in opened.simulator.accounts
        ]
        outcome = await sent(opened)
        if name == "vnpt":  # whose codes nobody knows: until one is written into `codes`, it is tried again
            assert isinstance(outcome, RetryLater) and outcome.reason == "code_2"
        else:
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.scope) == ("login_refused", Scope.CONNECTION)
        assert opened.taken() == []
        assert "other" not in repr(outcome) and "s3cret" not in repr((outcome, opened.context.logged))


async def test_too_fast_slows_the_carrier_and_fails_nothing() -> None:
    async with opened_http("esms", {"refuse_code": "160", "refuse_share": 1.0}) as opened:
        outcome = await sent(opened)
        assert isinstance(outcome, RetryLater)
        assert (outcome.reason, outcome.scope, outcome.after) == ("throttled", Scope.DESTINATION, timedelta(seconds=1))


@pytest.mark.parametrize(
    ("status", "kind", "reason", "scope"),
    [
        (401, Refused, "login_refused", Scope.CONNECTION),
        (403, Refused, "login_refused", Scope.CONNECTION),
        (404, Refused, "no_such_path", Scope.CONNECTION),
        (429, RetryLater, "throttled", Scope.DESTINATION),
        (500, RetryLater, "http_500", Scope.DELIVERY),
        (302, RetryLater, "http_302", Scope.DELIVERY),
        (200, RetryLater, "http_200", Scope.DELIVERY),
    ],
)
@pytest.mark.parametrize("name", ["esms", "speedsms"])
async def test_where_the_body_says_nothing_the_status_does(
    name: str, status: int, kind: type, reason: str, scope: Scope
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>")

    app = web.Application()
    app.router.add_post("/{any:.*}", answer)
    runner, port = await serve(app, 0)
    async with opened_http(name) as other:
        settings = http_settings(name, f"http://127.0.0.1:{port}")
        connection = OPENING[name][1](other.context.value(), settings)
        assert connection.sink is not None and connection.close is not None
        outcome = await connection.sink.send(shipment("Chào"))
        await connection.close()
    await runner.cleanup()
    in_doubt = reason.startswith("http_")
    if in_doubt and name == "speedsms":
        assert isinstance(outcome, Unknown) and outcome.reason == "no_answer"
    else:
        assert isinstance(outcome, kind) and isinstance(outcome, Refused | RetryLater)
        assert (outcome.reason, outcome.scope) == (reason, scope)
        assert getattr(outcome, "ambiguous", False) is in_doubt


async def test_an_ended_token_is_renewed_once_and_shared() -> None:
    async with opened_http("fpt") as opened:
        await asyncio.gather(*(sent(opened) for _ in range(5)))
        assert isinstance(opened.simulator, Fpt)
        opened.simulator.forget()
        outcomes = await asyncio.gather(*(sent(opened) for _ in range(5)))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert opened.simulator.counts["logins"] == 2
        assert len(opened.taken()) == 10


async def test_a_code_may_be_given_another_meaning_in_the_file() -> None:
    behaviour = {"refuse_code": "777", "refuse_share": 1.0}
    async with opened_http("esms", behaviour) as opened:
        outcome = await sent(opened)
        assert isinstance(outcome, RetryLater) and outcome.reason == "code_777"
    async with opened_http("esms", behaviour, codes={"777": "stop"}) as opened:
        assert isinstance(await sent(opened), Refused)


# -- codes -------------------------------------------------------------------------------------------

_ESMS = {
    "100": Verdict.TAKEN, "124": Verdict.ALREADY, "160": Verdict.AGAIN_SOON, "99": Verdict.BAD_NUMBER,
    "108": Verdict.BAD_NUMBER, "105": Verdict.LATER, "201": Verdict.REFUSED, "163": Verdict.REFUSED,
    "177": Verdict.REFUSED, **dict.fromkeys(("101", "102", "103", "104", "140", "143", "146"), Verdict.STOP),
    "300": Verdict.LATER, "999": Verdict.LATER,
}  # fmt: skip


@pytest.mark.parametrize(("code", "verdict"), _ESMS.items())
def test_a_code_of_esms_means_what_the_table_says(code: str, verdict: Verdict) -> None:
    made = esms.Esms(http_settings("esms", "http://127.0.0.1"), "k", "s", "")  # type: ignore[arg-type]
    for written in (code, int(code)):
        said = made.read(json.dumps({"CodeResult": written, "SMSID": "7"}).encode())
        assert said is not None and said.meaning.verdict is verdict


@pytest.mark.parametrize(
    ("sentence", "meaning"),
    [
        ("Insert MT_QUEUE: OK", Meaning(Verdict.TAKEN, "ok")),
        ("Authenticate: IP_INVALID (YOUR IP: 192.0.2.1)", Meaning(Verdict.STOP, "ip_refused")),
        ("Authenticate:CP_CODE_NOT_FOUND", Meaning(Verdict.STOP, "login_refused")),
        ("Check ServiceID: DUPLICATE MESSAGE", Meaning(Verdict.ALREADY, "duplicate_request")),
        ("Check ServiceID: ALIAS_INVALID:TELCO=03", Meaning(Verdict.REFUSED, "network_not_registered")),
        ("Check Content: MAXLENGTH_LIMIT_640_BYTE", Meaning(Verdict.REFUSED, "message_length_invalid")),
        ("Check Content: MSG_ERROR_CONTAIN_BLACKLIST: x", Meaning(Verdict.REFUSED, "text_blocked")),
        ("Check template: CONTENT_NOT_MATCH_TEMPLATE", Meaning(Verdict.STOP, "template_mismatch")),
        ("Check ReceiverID: FORMAT_ERROR", Meaning(Verdict.BAD_NUMBER, "number_invalid")),
        ("Unable to check telco from input receiver", Meaning(Verdict.BAD_NUMBER, "number_invalid")),
        ("Something new", Meaning(Verdict.LATER, "code_unlisted")),
    ],
)
def test_a_sentence_of_viettel_means_what_the_table_says(sentence: str, meaning: Meaning) -> None:
    made = viettel.Viettel(http_settings("viettel", "http://127.0.0.1"), "s")  # type: ignore[arg-type]
    result = int(meaning.verdict is Verdict.TAKEN)
    answer = f"<a xmlns='http://impl.bulkSms.ws/'><return><message>{sentence}</message><result>{result}</result>"
    said = made.read((answer + "</return></a>").encode())
    assert said is not None and said.meaning == meaning


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>503</html>", b"[]", b"null", b'{"other": 1}', b"\xff\xfe", b"<a><return>",
     b'<!DOCTYPE a [<!ENTITY x "y">]><a><return><message>Insert MT_QUEUE: OK</message></return></a>'],
)  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_answer_of_the_carrier_is_not_read_as_one(name: str, answer: bytes) -> None:
    settings: Any = http_settings(name, "http://127.0.0.1")
    made: Any = {
        "esms": lambda: esms.Esms(settings, "k", "s", ""),
        "speedsms": lambda: speedsms.SpeedSms(settings, "t"),
        "viettel": lambda: viettel.Viettel(settings, "p"),
        "fpt": lambda: fpt.Fpt(settings, "c"),
        "vnpt": lambda: vnpt.Vnpt(settings, "p"),
    }[name]()
    assert made.read(answer) is None


def test_a_phone_speedsms_calls_invalid_is_refused_for_the_recipient() -> None:
    made = speedsms.SpeedSms(http_settings("speedsms", "http://127.0.0.1"), "t")  # type: ignore[arg-type]
    answer = {"status": "success", "code": "00", "data": {"tranId": 5, "totalSMS": 0, "invalidPhone": [MSISDN]}}
    said = made.read(json.dumps(answer).encode())
    assert said is not None and said.meaning.verdict is Verdict.BAD_NUMBER


# -- receipts ----------------------------------------------------------------------------------------


def receiver_of(opened: OpenedHttp) -> Receiver:
    assert opened.connection.receiver is not None
    return opened.connection.receiver


def understood(opened: OpenedHttp, query: dict[str, str] | None = None, body: Any = None) -> list[Receipt]:
    request = inbound("POST" if body else "GET", query=query, body=json.dumps(body).encode() if body else b"")
    verified = receiver_of(opened).verify(request)
    return list(receiver_of(opened).understand(request, verified, body).receipts)


def esms_report(**changes: str) -> dict[str, str]:
    return {"SMSID": "9", "RequestId": REQUEST_ID, "SendStatus": "5", "SendSuccess": "1", "SendFailed": "0"} | changes


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({}, "delivered", ""),
        ({"SendSuccess": "0", "SendFailed": "1"}, "failed", "undeliverable"),
        ({"SendSuccess": "0"}, "interim", "state_unknown_to_carrier"),
        ({"SendStatus": "4"}, "failed", "rejected_by_carrier"),
        ({"SendStatus": "1"}, "interim", "on_its_way"),
        ({"SendStatus": "7"}, "interim", "on_its_way"),
    ],
)
async def test_a_report_of_esms_moves_the_message_we_asked_for(
    changes: dict[str, str], state: str, reason: str
) -> None:
    async with opened_http("esms", **REPORTED) as opened:
        for given in ({"query": esms_report(**changes)}, {"body": esms_report(**changes)}):
            (receipt,) = understood(opened, **given)
            assert (receipt.ref, receipt.state, receipt.reason) == (REQUEST_ID, state, reason)


async def test_a_report_that_names_the_network_corrects_what_the_prefix_predicted() -> None:
    async with opened_http("esms", **REPORTED) as opened:
        told = {"telcoid": "3", "phonenumber": MSISDN}
        for query in (esms_report(**told), esms_report(telcoid="99", phonenumber=MSISDN), esms_report(**told)):
            request = inbound(query=query)
            unit = receiver_of(opened).understand(request, receiver_of(opened).verify(request), b"")
            await opened.hub.commit(unit)
        rows = opened.hub.db.execute("SELECT phone_hash, network FROM telecom_sms_phone").fetchall()
        assert rows == [(opened.hub.keyed_hash("phone", MSISDN), "vinaphone")]


@pytest.mark.parametrize(
    ("status", "state"), [(0, "delivered"), (1, "interim"), (63, "interim"), (64, "failed"), ("65", "failed")]
)
async def test_a_report_of_speedsms_says_how_it_ended(status: Any, state: str) -> None:
    async with opened_http("speedsms", receipt_path=SecretRef(env="UNUSED")) as opened:
        (receipt,) = understood(opened, body={"type": "report", "tranId": 77, "phone": MSISDN, "status": status})
        assert (receipt.ref, receipt.state) == ("77", state)
        with pytest.raises(NotUnderstood):
            understood(opened, body={"type": "report", "tranId": 77, "status": "-1"})


@pytest.mark.parametrize("path", ["", SECRET_PATH[:-1], SECRET_PATH + "/", SECRET_PATH.lower(), "bí mật", "x" * 5000])
async def test_a_report_on_another_path_is_nobody_s(path: str) -> None:
    async with opened_http("esms", **REPORTED) as opened:
        with pytest.raises(Unauthenticated):
            receiver_of(opened).verify(inbound(path=path, query=esms_report()))


@pytest.mark.parametrize("ref", ["", "7", "x" * 40, "0" * 40, REQUEST_ID[:-1] + "0", REQUEST_ID.upper(), "-" * 40])
async def test_a_report_about_a_message_we_never_sent_moves_nothing(ref: str) -> None:
    async with opened_http("esms", **REPORTED) as opened:
        if not ref:
            with pytest.raises(NotUnderstood):
                understood(opened, query=esms_report(RequestId=ref))
            return
        assert understood(opened, query=esms_report(RequestId=ref)) == []
        assert opened.context.logged == [("receipt.foreign", {})]


def test_a_request_id_is_ours_only_with_our_mark_and_the_same_at_every_try() -> None:
    hub = MemoryHub()
    assert request_id(hub, DELIVERY) == REQUEST_ID and len(REQUEST_ID) == 40
    assert is_ours(hub, REQUEST_ID) and not is_ours(hub, DELIVERY.hex + "00000000")


async def test_the_simulated_esms_reports_to_the_address_of_the_message() -> None:
    """The whole way but the hub's server: what it sends is understood."""
    got: list[dict[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(dict(request.query))
        return web.Response(status=503 if len(got) == 1 else 200)

    app = web.Application()
    app.router.add_get("/in/carrier/{tail}", take)
    runner, port = await serve(app, 0)
    async with opened_http(
        "esms", {"undeliv_share": 1.0}, receipt_path=SecretRef(env="UNUSED"), public_url=f"http://127.0.0.1:{port}"
    ) as opened:
        outcome = await sent(opened)
        await until(lambda: opened.simulator.counts["receipts_acked"] == 1)
        (receipt,) = understood(opened, query=got[-1])
        assert isinstance(outcome, Accepted)
        assert (receipt.ref, receipt.state, len(got)) == (outcome.refs[0], "failed", 2)
    await runner.cleanup()


# -- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_an_http_carrier_is_explained(name: str) -> None:
    for key, field in type(http_settings(name, "http://127.0.0.1")).model_fields.items():
        assert field.title, key
        assert field.description and field.description.endswith((".", "}")), key


@pytest.mark.parametrize(
    "base_url",
    ["http://10.0.0.1", "http://rest.esms.vn", "ftp://127.0.0.1", "http://127.0.0.1/path", "http://127.0.0.1?a=b",
     "127.0.0.1", ""],
)  # fmt: skip
def test_an_address_in_plain_or_of_no_use_is_refused(base_url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        http_settings("esms", base_url)


def test_a_carrier_beyond_this_machine_has_quiet_hours() -> None:
    with pytest.raises(ValidationError, match=r"trình giả lập.*simulator"):
        http_settings("esms", "https://rest.esms.vn", quiet_hours=False)
    assert http_settings("esms", "https://rest.esms.vn").quiet_hours


@pytest.mark.parametrize("request_body", [{}, {"a": "{phone}"}, {"a": "{phone}", "b": "{text}", "c": "{password}"}])
def test_a_template_that_cannot_work_is_refused(request_body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="request"):
        http_settings("vnpt", "http://127.0.0.1", request=request_body)


def test_a_guessable_report_path_is_refused() -> None:
    settings: Any = http_settings("esms", "http://127.0.0.1", **REPORTED)
    with pytest.raises(ConfigError, match="receipt_path"):
        open_esms(Context(MemoryHub(), "short").value(), settings)
    without: Any = http_settings("esms", "http://127.0.0.1", receipt_path=SecretRef(env="UNUSED"))
    with pytest.raises(ConfigError, match="public_url"):
        open_esms(Context(MemoryHub(), SECRET_PATH).value(), without)
