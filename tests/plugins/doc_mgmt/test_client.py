"""The wire client against golden values and against the simulated axis over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from hub.clock import system_clock
from hub.testing import eventually
from plugins.doc_mgmt.client import AxisClient, AxisError, sign
from plugins.doc_mgmt.edxml import Code, Organ, ResponseFor, Status, StatusCode
from plugins.doc_mgmt.edxml_reader import read_document
from plugins.doc_mgmt.edxml_writer import write_status
from tests.plugins.doc_mgmt.support import ORGAN_ID, SECRET, StartAxis

NOON = datetime(2026, 11, 23, 7, 5, 9, 7_900, tzinfo=UTC)
MakeClient = Callable[..., AxisClient]


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    made: list[AxisClient] = []

    def make(endpoint: str, secret: str = SECRET, **options: object) -> AxisClient:
        given: dict[str, object] = {
            "system_id": "SYS-TEST", "timeout_s": 10.0, "connections": 4, "packet_bytes": 1 << 20, "now": system_clock,
            **options,
        }  # fmt: skip
        client = AxisClient(endpoint, secret=lambda: secret, **given)  # type: ignore[arg-type]  # a table of options
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


async def status_of(client: AxisClient, doc_id: str, code: StatusCode) -> bytes:
    document = read_document(await client.fetch(doc_id))
    return write_status(
        Status(
            sender=Organ(organ_id=ORGAN_ID),
            response_for=ResponseFor(
                organ_id=document.sender.organ_id,
                code=Code(document.code.number, document.code.notation),
                promulgated_on=document.promulgated_on,
                document_id=document.document_id,
            ),
            code=code,
            at=NOON,
        )
    )


def test_the_signature_is_the_one_openssl_computes() -> None:
    # printf '%s' "$J" | openssl dgst -sha256 -hmac khoa-thu-nghiem, with J written by hand from the recipe
    digest = "8d55f6c7bf7cd534cf027a10e1bb5731c68279c3cb991c0f4844774c685b3758"  # printf '<edXML/>' | sha256sum
    headers = sign(
        SECRET.encode(),
        "SYS-TEST",
        NOON,
        {"from": ORGAN_ID, "servicetype": "eDoc", "messagetype": "status", "hash-file": digest},
    )
    assert headers == {
        "XroadVnpt-systemid": "SYS-TEST",
        "XroadVnpt-timestamp": "23112026T140509+0007",
        "XroadVnpt-from": "999.00.01.H55",
        "XroadVnpt-servicetype": "eDoc",
        "XroadVnpt-messagetype": "status",
        "XroadVnpt-hash-file": digest,
        "XroadVnpt-sign-header-key": "systemid;timestamp;from;servicetype;messagetype;hash-file",
        "XroadVnpt-sign-header": (
            '{"XroadVnpt-systemid":"SYS-TEST","XroadVnpt-timestamp":"23112026T140509+0007",'
            '"XroadVnpt-from":"999.00.01.H55","XroadVnpt-servicetype":"eDoc","XroadVnpt-messagetype":"status",'
            f'"XroadVnpt-hash-file":"{digest}"}}'
        ),
        "XroadVnpt-hash-header": "7ecb9135cb6496bd6a4bf012ee1e14b73646f4e1bb412c7fd701c7911974d355",
        "XroadVnpt-version": "3.0.201608",
        "User-Agent": "JAVASDKAgent/1.0.0 XRoad/VPCP",
    }


async def test_a_packet_is_listed_until_it_is_marked(start_axis: StartAxis, make_client: MakeClient) -> None:
    partner = await start_axis(documents=3, only_readable=True)
    client = make_client(partner.endpoint)
    listed = await client.received()
    assert [item.doc_id for item in listed] == ["SIM7-000000", "SIM7-000001", "SIM7-000002"]
    for item in listed:
        assert await client.fetch(item.doc_id) == partner.axis.packets[item.doc_id].content
    await client.mark("SIM7-000001", "done")
    await client.mark("SIM7-000001", "done")
    assert [item.doc_id for item in await client.received()] == ["SIM7-000000", "SIM7-000002"]
    assert partner.axis.marks == {"SIM7-000001": "done"}


async def test_a_status_packet_is_taken_and_a_repeat_is_counted(start_axis: StartAxis, make_client: MakeClient) -> None:
    partner = await start_axis()
    client = make_client(partner.endpoint)
    packet = await status_of(client, "SIM7-000000", StatusCode.ARRIVED)
    reply = await client.send_status(packet, ORGAN_ID)
    await client.send_status(packet, ORGAN_ID)
    document_id = partner.axis.packets["SIM7-000000"].document_id
    assert reply.http_status == 200
    assert partner.taken() == [f"{document_id}:01"] * 2
    assert partner.axis.state()["repeats"] == 1


async def test_a_wrong_secret_is_refused_and_changes_nothing(start_axis: StartAxis, make_client: MakeClient) -> None:
    partner = await start_axis()
    with pytest.raises(AxisError) as refused:
        await make_client(partner.endpoint, secret="sai-khoa").mark("SIM7-000000", "done")
    assert (refused.value.http_status, refused.value.error_code) == (401, "401")
    assert partner.axis.marks == {}


async def test_the_timestamp_is_made_for_every_call(start_axis: StartAxis, make_client: MakeClient) -> None:
    partner = await start_axis(tolerance_s=60)
    moment = system_clock() - timedelta(hours=1)
    client = make_client(partner.endpoint, now=lambda: moment)
    with pytest.raises(AxisError):
        await client.received()
    moment = system_clock()
    assert await client.received()


async def test_a_header_signed_by_nobody_is_noticed_by_the_axis(start_axis: StartAxis) -> None:

    partner = await start_axis()
    headers = sign(SECRET.encode(), "SYS-TEST", system_clock(), {"docId": "SIM7-000000", "status": "done"})
    for name, value in (("XroadVnpt-docId", "SIM7-000001"), ("XroadVnpt-sign-header-key", "systemid;timestamp")):
        async with (
            aiohttp.ClientSession() as session,
            session.post(partner.endpoint + "/updateStatus", headers={**headers, name: value}) as response,
        ):
            assert response.status == 401
    assert partner.axis.marks == {}


@pytest.mark.parametrize("doc_id", ["a\r\nXroadVnpt-status: done", "", "có dấu", "a b", "x" * 201])
async def test_an_id_that_would_break_a_header_is_never_sent(make_client: MakeClient, doc_id: str) -> None:
    with pytest.raises(AxisError, match="parameter_not_sendable") as refused:
        await make_client("http://127.0.0.1:9").mark(doc_id, "done")
    assert not refused.value.bytes_left


async def test_an_axis_that_is_not_there_got_no_bytes(make_client: MakeClient, unused_tcp_port: int) -> None:
    with pytest.raises(AxisError, match="connect_failed") as refused:
        await make_client(f"http://127.0.0.1:{unused_tcp_port}").received()
    assert not refused.value.bytes_left


async def test_an_answer_that_never_comes_leaves_it_open_what_arrived(
    start_axis: StartAxis, make_client: MakeClient
) -> None:
    partner = await start_axis()
    client = make_client(partner.endpoint)
    packet = await status_of(client, "SIM7-000000", StatusCode.ARRIVED)
    await partner.put(withhold=True)
    with pytest.raises(AxisError, match="timed_out") as failed:
        await client.send_status(packet, ORGAN_ID, deadline_s=0.3)
    assert failed.value.bytes_left
    assert [(line["verdict"], line["answered"]) for line in partner.lines()] == [("taken", False)]


async def test_a_connection_cut_after_the_request_leaves_it_open_what_arrived(
    start_axis: StartAxis, make_client: MakeClient
) -> None:
    partner = await start_axis()
    await partner.put(withhold_all=True)
    waiting = asyncio.create_task(make_client(partner.endpoint).received())
    await eventually(lambda: partner.axis.state()["held"])
    await partner.put(down=True, withhold_all=False)
    with pytest.raises(AxisError, match="connection_lost") as failed:
        await waiting
    assert failed.value.bytes_left


ANSWERS: list[tuple[str, bytes, str]] = [
    ("200 OK", b"{}", "refused"),
    ("200 OK", b'{"status":"OK","ErrorCode":"1"}', "refused"),
    ("200 OK", b'{"status":"FAIL","ErrorCode":"0"}', "refused"),
    ("200 OK", b'{"status":"OK"}', "refused"),
    ("200 OK", b"<html>login</html>", "answer_malformed"),
    ("200 OK", b"[" * 100_000, "answer_malformed"),
    ("200 OK", b'"OK"', "answer_malformed"),
    ("200 OK", b'{"status":"OK","ErrorCode":"0","data":{"docId":"x"}}', "answer_malformed"),
    ("200 OK", b'{"status":"OK","ErrorCode":"0","data":"' + b"A" * (9 << 20) + b'"}', "answer_too_large"),
    ("302 Found", b"", "http_error"),
    ("204 No Content", b"", "http_error"),
    ("500 Oops", b'{"status":"OK","ErrorCode":"0","data":[]}', "http_error"),
]


@pytest.mark.parametrize(("status", "body", "code"), ANSWERS)
async def test_only_ok_with_error_code_zero_is_success(
    make_client: MakeClient, status: str, body: bytes, code: str
) -> None:
    async with _scripted(status, body) as endpoint:
        with pytest.raises(AxisError) as failed:
            await make_client(endpoint).received()
    assert failed.value.code == code


async def test_an_error_code_that_is_a_text_is_not_kept(make_client: MakeClient) -> None:
    body = json.dumps({"status": "FAIL", "ErrorCode": "Ông Nguyễn Văn Ví Dụ 0912555123"}).encode()
    async with _scripted("200 OK", body) as endpoint:
        with pytest.raises(AxisError) as failed:
            await make_client(endpoint).received()
    assert failed.value.error_code == ""
    assert "0912555123" not in repr(failed.value)


async def test_error_code_zero_may_be_a_number_and_the_list_may_be_absent(make_client: MakeClient) -> None:
    async with _scripted("200 OK", b'{"status":"OK","ErrorCode":0}') as endpoint:
        assert await make_client(endpoint).received() == []


class _scripted:
    """A bare socket that answers one fixed response to whatever comes."""

    def __init__(self, status: str, body: bytes) -> None:
        self._answer = (
            f"HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        ).encode() + body

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer)
        with contextlib.suppress(ConnectionError):  # the client may have read enough
            await writer.drain()
        writer.close()
