"""What strangers, broken senders and impatient partners put on the wire, and what the hub makes of it."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from hub import views
from hub.store.sqlite.writer import Writer
from hub.testing import eventually
from tests.engines import stored_bytes
from tests.flow.front_door import (
    KEY,
    MARK,
    NAME,
    PHONE,
    QUESTION,
    Answer,
    Door,
    open_door,
    question,
    raw_request,
    signed,
)

# One hub serves all tests that leave nothing behind.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    with pytest.MonkeyPatch.context() as patch:
        async with open_door(tmp_path_factory.mktemp("hub"), patch) as opened:
            yield opened
            lines = opened.log.getvalue().decode()
            for told in (MARK, PHONE, "Nguyễn Thị Mẫu", "request.failed", "library.warned"):
                assert told not in lines


def now(seconds: int = 0) -> str:
    return str(int(datetime.now(UTC).timestamp()) + seconds)


async def settled(door: Door) -> dict[str, int]:
    """Row counts once nothing is under way."""
    await eventually(lambda: _nothing_queued(door))
    return await door.rows()


async def _nothing_queued(door: Door) -> bool:
    return await door.hub.store.read("SELECT count(*) FROM queue") == [(0,)]


async def refused(door: Door, headers: dict[str, str], body: bytes, path: str = f"/in/{NAME}") -> tuple[int, str]:
    """Status and problem, after checking that nothing was stored."""
    before = await settled(door)
    answer = await door.post(body, headers, path)
    assert await door.rows() == before, "something was stored"
    return answer.status, answer.problem


# -- what is refused before anything is read --------------------------------------------------------


@pytest.mark.parametrize("name", ["unknown-zq9801547", "quiet", "..%2fapi", "%00", "c-thainguyen%0a", "C-THAINGUYEN"])
async def test_a_name_that_receives_nothing_is_not_found(door: Door, name: str) -> None:
    body = question()
    assert await refused(door, signed(body), body, f"/in/{name}") == (404, "not-found")


@pytest.mark.parametrize(
    "media",
    [
        None, "text/plain", "application/xml", "multipart/form-data; boundary=zq9801547", "application/jsonp",
        "application/json, text/html", "application/json; charset=utf-7", "application/json; charset=zq9801547",
        "application/json; charset=utf-16", "application/json; charset=rot13", "json", "/", "\x80\xff",
    ],
)  # fmt: skip
async def test_another_media_type_or_charset_is_unsupported(door: Door, media: str | None) -> None:
    body = question()
    headers = {k: v for k, v in signed(body).items() if k != "Content-Type"}
    if media is not None:
        headers["Content-Type"] = media
    raw = raw_request({**headers, "Host": "127.0.0.1", "Content-Length": str(len(body))}, body, b"Connection: close")
    before = await settled(door)
    answer = await door.raw(raw)
    assert (answer.status, answer.problem) == (415, "media-type-unsupported")
    assert await door.rows() == before


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "zq9801547", ""])
async def test_an_encoded_body_is_unsupported_and_not_inflated(door: Door, encoding: str) -> None:
    body = gzip.compress(question())
    headers = {**signed(body, "msg_zip"), "Content-Encoding": encoding}
    assert await refused(door, headers, body) == (415, "content-encoding-unsupported")


async def test_a_declared_megabyte_too_many_is_refused_before_it_is_sent(door: Door) -> None:
    before = await settled(door)
    headers = {**signed(b"", "msg_big"), "Host": "127.0.0.1", "Content-Length": "1048577"}
    # Not one byte of the body is sent: who answers had not waited for it.
    answer = await door.raw(raw_request(headers))
    assert (answer.status, answer.problem, answer.rest) == (413, "body-too-large", b"")
    invited = await door.raw(raw_request({**headers, "Expect": "100-continue"}))
    assert (invited.status, invited.problem) == (413, "body-too-large"), "it was invited to send"
    assert await door.rows() == before


async def test_an_endless_chunked_body_is_refused_while_it_is_still_coming(door: Door) -> None:
    before = await settled(door)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    headers = {**signed(b"", "msg_endless"), "Host": "127.0.0.1", "Transfer-Encoding": "chunked"}
    writer.write(raw_request(headers))
    chunk = b"8000\r\n" + b"[" * 0x8000 + b"\r\n"
    answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    sent = 0
    while not answer.done() and sent < 8 << 20:
        writer.write(chunk)
        sent += len(chunk)
        await writer.drain()
        await asyncio.sleep(0)
    assert (await answer).startswith(b"HTTP/1.1 413 "), "the answer came before the end of the body"
    assert sent < 4 << 20
    writer.close()
    assert await door.rows() == before


@pytest.mark.parametrize("count", [65, 120, 500])
async def test_too_many_headers_are_refused(door: Door, count: int) -> None:
    body = question()
    before = await settled(door)
    lines = [b"X-%d: %s" % (n, MARK.encode()) for n in range(count)]
    headers = {**signed(body), "Host": "127.0.0.1", "Content-Length": str(len(body)), "Connection": "close"}
    answer = await door.raw(raw_request(headers, body, *lines))
    assert (answer.status, answer.problem in ("headers-invalid", "request-malformed")) == (400, True)
    assert await door.rows() == before


# -- framing ---------------------------------------------------------------------------------------

_LENGTH = len(question("q-inner"))
CHUNKED = b"Transfer-Encoding: chunked"
FRAMING: dict[str, tuple[bytes, ...]] = {
    "length and chunked": (b"Content-Length: 5", CHUNKED),
    "chunked and length": (CHUNKED, b"Content-Length: 5"),
    "chunked twice": (CHUNKED, CHUNKED),
    "chunked then identity": (b"Transfer-Encoding: chunked, identity",),
    "gzip then chunked": (b"Transfer-Encoding: gzip, chunked",),
    "not quite chunked": (b"Transfer-Encoding: xchunked",),
    "chunked with a tab": (b"Transfer-Encoding:\x0bchunked",),
    "two lengths": (b"Content-Length: 0", b"Content-Length: 44"),
    "a list of lengths": (b"Content-Length: 0, 44",),
    "a signed length": (b"Content-Length: +0",),
    "a negative length": (b"Content-Length: -1",),
    "a hexadecimal length": (b"Content-Length: 0x0",),
    "a length beyond 64 bits": (b"Content-Length: 99999999999999999999999",),
    "two hosts": (b"Host: zq9801547.example", b"Content-Length: 0"),
    "a NUL in a header": (b"X-A: a\x00zq9801547", b"Content-Length: 0"),
    "a CR in a header": (b"X-A: a\rzq9801547: 1", b"Content-Length: 0"),
    "a bare LF": (b"X-A: a\nzq9801547: 1", b"Content-Length: 0"),
    "a folded header": (b"X-A: a\r\n zq9801547", b"Content-Length: 0"),
    "a space before the colon": (b"Content-Length : 0",),
    "an unknown expectation": (b"Expect: zq9801547", b"Content-Length: 0"),
    "a media type twice": (b"Content-Type: text/zq9801547", b"Content-Length: 0"),
}


def inner(id: str) -> bytes:
    """A genuine request, hidden where a careless server would look for the next one."""
    body = question("q-inner")
    return raw_request({**signed(body, id), "Host": "127.0.0.1", "Content-Length": str(len(body))}, body)


@pytest.mark.parametrize("case", FRAMING)
async def test_ambiguous_framing_ends_the_connection_and_hides_no_second_request(door: Door, case: str) -> None:
    before = await settled(door)
    headers = {"Host": "127.0.0.1", "Content-Type": "application/json"}
    hidden = inner("msg_smuggled_" + str(list(FRAMING).index(case)))
    answer = await door.raw(raw_request(headers, b"0\r\n\r\n" + hidden + hidden, *FRAMING[case]))
    assert (answer.status in (400, 417), answer.problem) == (True, "request-malformed")
    assert answer.rest == b"", "a second answer: a second request was seen"
    assert await settled(door) == before


@pytest.mark.parametrize(
    "chunk", [b"zz\r\nabc\r\n", b"ffffffffffffffff1\r\nabc", b"3;a\nb\r\nabc\r\n", b"3\r\nabcdef\r\n"]
)
async def test_a_chunk_that_goes_wrong_later_ends_the_connection(door: Door, chunk: bytes) -> None:
    before = await settled(door)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    headers = {**signed(b"", "msg_chunk"), "Host": "127.0.0.1", "Transfer-Encoding": "chunked"}
    writer.write(raw_request(headers, b"1\r\n[\r\n"))
    await door.get("/healthz")  # by now the first chunk has been read
    writer.write(chunk + b"0\r\n\r\n" + inner("msg_later"))
    async with asyncio.timeout(5):
        received = await reader.read()
    writer.close()
    assert received.count(b"HTTP/1.1 ") == 1 and received.startswith(b"HTTP/1.1 400 ")
    assert MARK.encode() not in received
    assert await settled(door) == before


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00zq9801547\r\n\r\n", b"ZQ9801547 / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n", b"zq9801547\r\n\r\n",
        b"GET /" + b"zq9801547" * 2000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"zq9801547" * 2000 + b"\r\n\r\n",
        b"GET http://[zq9801547/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /zq9801547 HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_is_not_http_gets_a_problem_document_and_no_echo(door: Door, sent: bytes) -> None:
    answer = await door.raw(sent)
    assert (answer.status, answer.problem) == (400, "request-malformed")


async def test_who_hangs_up_in_the_middle_leaves_nothing(door: Door) -> None:
    before, lines = await settled(door), len(door.lines("event.received"))
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    body = question("q-gone")
    headers = {**signed(body, "msg_gone"), "Host": "127.0.0.1", "Content-Length": str(len(body))}
    writer.write(raw_request(headers, body[:-5]))
    await writer.drain()
    await door.get("/healthz")
    writer.transport.abort()
    await eventually(lambda: len(door.lines("event.received")) > lines)
    assert await door.rows() == before


async def test_a_body_that_comes_too_slowly_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_door(tmp_path, monkeypatch, settings={"http": {"body_deadline_s": 0.2}}) as door:
        before = await door.rows()
        body = question()
        headers = {**signed(body), "Host": "127.0.0.1", "Content-Length": str(len(body))}
        answer = await door.raw(raw_request(headers, body[:-1]))
        assert (answer.status, answer.problem, answer.rest) == (408, "body-too-slow", b"")
        assert await door.rows() == before


# -- signatures ------------------------------------------------------------------------------------


def _forged(case: str) -> tuple[dict[str, str], bytes]:
    body = question("q-forged")
    good = signed(body, "msg_forged")
    sig = good["webhook-signature"]
    ts = good["webhook-timestamp"]
    change: dict[str, str | None] = {
        "no id": {"webhook-id": None},
        "no timestamp": {"webhook-timestamp": None},
        "no signature": {"webhook-signature": None},
        "empty signature": {"webhook-signature": ""},
        "another id": {"webhook-id": "msg_other"},
        "another timestamp": {"webhook-timestamp": now(1)},
        "a flipped digit": {"webhook-signature": sig[:10] + ("A" if sig[10] != "A" else "B") + sig[11:]},
        "half a signature": {"webhook-signature": sig[:24]},
        "another version": {"webhook-signature": "v0" + sig[2:]},
        "asymmetric label": {"webhook-signature": "v1a" + sig[2:]},
        "no version": {"webhook-signature": sig[3:]},
        "behind eight others": {"webhook-signature": "v1,x " * 8 + sig},
        "800 entries": {"webhook-signature": "v1,x " * 800 + sig},
        "not ASCII": {"webhook-signature": "v1," + "é" * 22},
        "moved boundary": {"webhook-id": "msg_forged." + ts[:3], "webhook-timestamp": ts[3:]},
        "eleven minutes old": signed(body, "msg_forged", now(-660)),
        "eleven minutes ahead": signed(body, "msg_forged", now(660)),
        "nan": signed(body, "msg_forged", "nan"),
        "underscores": signed(body, "msg_forged", ts[:4] + "_" + ts[4:]),
        "plus": signed(body, "msg_forged", "+" + ts),
        "Arabic digits": signed(body, "msg_forged", ts.translate({48 + n: 0x660 + n for n in range(10)})),
        "a NaN date": signed(body, "msg_forged", "1e400"),
        "an empty key": signed(body, "msg_forged", key=b""),
        "another key": signed(body, "msg_forged", key=KEY[::-1]),
        "a short key": signed(body, "msg_forged", key=KEY[:8]),
        "an id with a dot": signed(body, "msg.forged"),
        "an id too long": signed(body, "m" * 129),
    }[case]  # type: ignore[assignment]
    return {k: v for k, v in {**good, **change}.items() if v is not None}, body


FORGERIES = [
    "no id", "no timestamp", "no signature", "empty signature", "another id", "another timestamp", "a flipped digit",
    "half a signature", "another version", "asymmetric label", "no version", "behind eight others", "800 entries",
    "not ASCII", "moved boundary", "eleven minutes old", "eleven minutes ahead", "nan", "underscores", "plus",
    "Arabic digits", "a NaN date", "an empty key", "another key", "a short key", "an id with a dot", "an id too long",
]  # fmt: skip


async def test_every_wrong_signature_gets_the_same_words_and_leaves_nothing(door: Door) -> None:
    before = await settled(door)
    answers = {}
    for case in FORGERIES:
        headers, body = _forged(case)
        answer = await door.post(body, headers)
        assert (answer.status, answer.problem) == (401, "signature-invalid"), case
        answers[case] = answer.body
    assert len(set(answers.values())) == 1, "a forger learns nothing from the words"
    assert await door.rows() == before
    headers, _ = _forged("no id")
    assert (await door.post(question("q-changed"), signed(question()))).status == 401


async def test_nothing_is_parsed_before_the_signature_is_checked(door: Door) -> None:
    for body in (b"", b"[" * 100_000, b"\xff\xfe", b'{"a":1,"a":2}', b"zq9801547"):
        assert await refused(door, signed(body, key=KEY[::-1]), body) == (401, "signature-invalid")


# -- strict JSON -----------------------------------------------------------------------------------

NOT_STRICT: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "json-invalid"),
    "words": (b"zq9801547", "json-invalid"),
    "cut off": (question()[:-9], "json-invalid"),
    "two values": (b"{}{}", "json-invalid"),
    "a trailing comma": (b'{"zq9801547":1,}', "json-invalid"),
    "single quotes": (b"{'zq9801547': 1}", "json-invalid"),
    "a comment": (b"{} // zq9801547", "json-invalid"),
    "a raw control character": (b'{"zq9801547": "\x01"}', "json-invalid"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "json-invalid"),
    "UTF-16": ('{"zq9801547": 1}'.encode("utf-16-le").replace(b"\0", b"\x80"), "json-invalid"),
    "Latin-1": (b'{"zq9801547": "\xe9"}', "json-invalid"),
    "an overlong form": (b'{"zq9801547": "\xc0\xaf"}', "json-invalid"),
    "half a surrogate": (b'{"zq9801547": "\\ud800"}', "json-invalid"),
    "a NUL": (b'{"zq9801547": "\\u0000"}', "json-nul"),
    "a raw NUL": (b'{"zq9801547": "\x00"}', "json-nul"),
    "the same key twice": (b'{"zq9801547": 1, "zq9801547": 2}', "json-duplicate-key"),
    "the same key, escaped": (b'{"a": 1, "\\u0061": 2}', "json-duplicate-key"),
    "the same key deep inside": (b'{"x": [{"y": {"a": 1, "a": 1}}]}', "json-duplicate-key"),
    "NaN": (b'{"zq9801547": NaN}', "json-number-range"),
    "infinity": (b'{"zq9801547": -Infinity}', "json-number-range"),
    "1e400": (b'{"zq9801547": 1e400}', "json-number-range"),
    "beyond 64 bits": (b'{"zq9801547": 9223372036854775808}', "json-number-range"),
    "5,000 digits": (b'{"zq9801547": ' + b"1" * 5000 + b"}", "json-number-range"),
    "33 levels": (b"[" * 33 + b"]" * 33, "json-too-deep"),
    "100,000 levels, open": (b'{"a":' * 100_000, "json-too-deep"),
    "50,000 keys": (b"{" + b",".join(b'"k%d":0' % n for n in range(50_000)) + b"}", "json-too-many-items"),
}


@pytest.mark.parametrize("case", NOT_STRICT)
async def test_what_is_not_strict_json_is_refused_and_kept_since_it_is_signed(door: Door, case: str) -> None:
    body, problem = NOT_STRICT[case]
    before = await settled(door)
    for _ in range(2):
        answer = await door.post(body, signed(body, "msg_json"))
        assert (answer.status, answer.problem) == (400, problem)
    kept = before["raw_request"] + 1
    assert await door.rows() == {**before, "raw_request": kept, "subject_key": max(before["subject_key"], 1)}


# -- what is kept ----------------------------------------------------------------------------------


async def test_an_answer_comes_only_after_the_commit(door: Door) -> None:
    body = question("q-commit")
    await settled(door)
    other = sqlite3.connect(door.hub.config.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # nobody can commit now
    posting = asyncio.create_task(door.post(body, signed(body, "msg_commit")))
    for _ in range(20):
        assert (await door.get("/healthz")).status == 200
    assert not posting.done(), "answered before it could have been stored"
    count = "SELECT count(*) FROM event WHERE type = ?"
    before = other.execute(count, (QUESTION,)).fetchone()[0]
    other.execute("COMMIT")
    assert (await posting).status == 202
    # Read from outside at once: what is answered is in the file, whoever looks.
    assert other.execute(count, (QUESTION,)).fetchone()[0] == before + 1
    other.close()


async def test_each_of_many_answers_finds_its_event_in_the_file(door: Door) -> None:
    outside = sqlite3.connect(door.hub.config.database)
    count = "SELECT count(*) FROM event WHERE type = ?"
    before = outside.execute(count, (QUESTION,)).fetchone()[0]
    done = 0

    async def one(n: int) -> None:
        nonlocal done
        body = question(f"q-many-{n}")
        assert (await door.post(body, signed(body, f"msg_many_{n}"))).status == 202
        done += 1
        assert outside.execute(count, (QUESTION,)).fetchone()[0] >= before + done

    await asyncio.gather(*(one(n) for n in range(50)))
    outside.close()


async def test_a_repeat_is_accepted_again_and_adds_nothing(door: Door) -> None:
    body = question("q-repeat")
    first = await door.post(body, signed(body, "msg_repeat", now(-60)))
    kept = await settled(door)
    again = await door.post(body, signed(body, "msg_repeat"))
    assert (first.status, again.status, first.body) == (202, 202, again.body)
    assert await settled(door) == kept


async def test_a_used_id_with_another_body_is_a_conflict_and_adds_nothing(door: Door) -> None:
    body = question("q-conflict")
    await door.post(body, signed(body, "msg_conflict"))
    for other in (question("q-conflict", "Khác"), question("q-other"), b" " + body, b"{}"):
        assert await refused(door, signed(other, "msg_conflict"), other) == (409, "idempotency-conflict")


async def test_a_hundred_parallel_posts_of_one_id_are_one_event(door: Door) -> None:
    before = await settled(door)
    body = question("q-parallel")
    answers = await asyncio.gather(*(door.post(body, signed(body, "msg_parallel")) for _ in range(100)))
    assert {a.status for a in answers} == {202} and len({a.body for a in answers}) == 1
    after = await settled(door)
    for table in ("event", "content", "dedupe", "delivery"):
        assert after[table] - before[table] == 1, table


async def test_of_two_bodies_racing_for_one_id_one_wins_whole(door: Door) -> None:
    bodies = [question(f"q-race-{n}") for n in range(2)]
    before = await settled(door)
    answers = await asyncio.gather(*(door.post(b, signed(b, "msg_race")) for b in bodies * 20))
    counts = {body: {a.status for a, b in zip(answers, bodies * 20, strict=True) if b == body} for body in bodies}
    assert sorted(counts.values(), key=min) == [{202}, {409}]
    assert (await settled(door))["event"] - before["event"] == 1


async def test_a_genuine_body_no_mapping_reads_is_kept_sealed_with_one_repair(door: Door) -> None:
    before = await settled(door)
    body = orjson.dumps({"type": "rating", "stars": 5, "worker": {"name": "Nguyễn Thị Mẫu", "phone": PHONE}})
    for _ in range(2):
        assert (await door.post(body, signed(body, "msg_rating"))).status == 202
    other = orjson.dumps({"type": "rating", "stars": 1})
    assert (await door.post(other, signed(other, "msg_rating"))).status == 409
    assert (await door.post(other, signed(other, "msg_rating_2"))).status == 202

    after = await settled(door)
    assert after["event"] - before["event"] == 2
    assert after["delivery"] == before["delivery"], "nobody is owed what nobody understands"
    repairs = [r for r in await views.repairs(door.hub.store) if r["object"] == NAME]
    assert [r["kind"] for r in repairs] == ["not_understood"]
    rows = await door.hub.store.read("SELECT sealed_for, body FROM content WHERE quarantined = 1")
    assert {await _opened(door, *row) for row in rows} >= {body, other}, "kept as it came"
    raw = await stored_bytes(door.hub)
    assert b"stars" not in raw and PHONE.encode() not in raw and "Thị Mẫu".encode() not in raw


async def test_a_repeat_of_what_was_not_understood_adds_nothing(door: Door) -> None:
    body = orjson.dumps({"type": "rating", "stars": 2})
    assert (await door.post(body, signed(body, "msg_again"))).status == 202
    kept = await settled(door)
    assert (await door.post(body, signed(body, "msg_again"))).status == 202
    assert await settled(door) == kept


async def _opened(door: Door, sealed_for: str, body: bytes) -> bytes | None:
    (opened,) = await door.hub.unseal([(sealed_for, body)])
    return opened


async def test_a_mapping_with_a_bug_keeps_the_body_and_says_whose_it_is(door: Door) -> None:
    body = orjson.dumps({"n": MARK})
    answer = await door.post(body, {"Content-Type": "application/json", "webhook-id": "m1"}, "/in/fragile")
    assert answer.status == 202
    assert door.lines("plugin.raised")[-1]["connection"] == "fragile"
    assert [r["kind"] for r in await views.repairs(door.hub.store) if r["object"] == "fragile"] == ["not_understood"]


async def test_an_error_of_ours_tells_nobody_what_it_was_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_door(tmp_path, monkeypatch) as door:
        before = await door.rows()
        headers = {"Content-Type": "application/json", "X-Token": "tok-5f2c1d0b9a8e"}
        answer = await door.post(question(text=MARK), headers, "/in/broken")
        assert (answer.status, answer.problem) == (500, "internal")
        (line,) = door.lines("request.failed")
        assert (line["path"], line["error"]) == ("/in/broken", "ValueError")
        assert any("front_door.py" in frame for frame in line["trace"][0]["frames"]), "where it was, for us"
        told = orjson.dumps(line).decode()
        for canary in (MARK, PHONE, PHONE[1:], "Nguyễn", "tok-5f2c1d0b9a8e", "cannot verify"):
            assert canary not in told
        assert await door.rows() == before
        assert (await door.get("/readyz")).status == 200


# -- when the ledger cannot be written -------------------------------------------------------------


async def test_a_ledger_that_cannot_be_written_answers_busy_and_recovers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer.__init__, "__defaults__", (1.0,))  # the same writer, with less patience
    async with open_door(tmp_path, monkeypatch) as door:
        assert orjson.loads((await door.get("/readyz")).body) == {"status": "ready", "held": None}
        before = await door.rows()
        body = question("q-busy")
        other = sqlite3.connect(door.hub.config.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        posted, ready = await asyncio.gather(door.post(body, signed(body, "msg_busy")), door.get("/readyz"))
        assert (await door.get("/healthz")).status == 200, "the process answers all the while"
        for answer in (posted, ready):
            assert (answer.status, answer.problem) == (503, "busy")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        other.execute("ROLLBACK")
        other.close()
        assert await door.rows() == before
        assert (await door.post(body, signed(body, "msg_busy"))).status == 202
        assert (await door.get("/readyz")).status == 200


async def test_a_hub_in_hold_is_ready_and_says_why_nothing_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_door(tmp_path, monkeypatch) as door:
        await door.hub.store.hold("restored")
        assert orjson.loads((await door.get("/readyz")).body) == {"status": "ready", "held": "restored"}
        body = question("q-held")
        assert (await door.post(body, signed(body))).status == 202


# -- metrics ---------------------------------------------------------------------------------------


def _series(answer: Answer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(answer.body.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


async def test_metrics_can_be_parsed_and_strangers_add_no_series(door: Door) -> None:
    await door.post(b"{}", signed(b"{}", key=KEY[::-1]))
    await door.post(b"{}", signed(b"{}"), "/in/nobody")
    first = _series(await door.get("/metrics"))
    for n in range(30):
        await door.post(b"{}", signed(b"{}", f"msg_{MARK}_{n}", key=KEY[::-1]))
        await door.post(b"{}", signed(b"{}"), f"/in/{MARK}-{n}")
    answer = await door.get("/metrics")
    second = _series(answer)

    assert second.keys() == first.keys() and MARK.encode() not in answer.body
    unknown = ("unionhub_inbound_requests_total", (("connection", "unknown"), ("status", "404")))
    forged = ("unionhub_inbound_requests_total", (("connection", NAME), ("status", "401")))
    assert second[unknown] - first[unknown] == second[forged] - first[forged] == 30
    assert "version=" in answer.headers["content-type"]


# -- who may look ----------------------------------------------------------------------------------

GUARDED = ("/metrics", "/api/v1/events", "/api/v1/deliveries", "/api/openapi.json", "/")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", "10.0.0.1", "a b", ""]
)
async def test_without_a_token_only_a_loopback_name_gets_in(door: Door, host: str) -> None:
    for path in GUARDED:
        answer = await door.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert (answer.status, answer.problem) == (403, "host-not-allowed"), path
    assert (await door.raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).status == 200
    body = question()
    assert (await door.post(body, {**signed(body, "m", key=b"x" * 32), "Host": "hub.example"})).status == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8080"])
async def test_every_loopback_name_gets_in(door: Door, host: str) -> None:
    answer = await door.raw(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/in/../metrics",
        "/in/..%2fmetrics",
        "/in/%2e%2e/metrics",
        "//metrics",
        "/healthz/../metrics",
        "/healthz;/../metrics",
    ],
)
async def test_no_detour_leads_around_the_guard(door: Door, path: str) -> None:
    answer = await door.raw(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
    assert answer.status in (403, 404, 405) and answer.problem


async def test_with_a_token_everything_but_inbound_and_health_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "tok-0123456789abcdef"
    async with open_door(tmp_path, monkeypatch, token=token) as door:
        right: list[dict[str, Any]] = [
            {"headers": {"Authorization": f"Bearer {token}"}},
            {"headers": {"Cookie": f"unionhub_token={token}"}},
        ]
        wrong: list[dict[str, str]] = [
            {}, {"Authorization": f"Bearer {token[:-1]}"}, {"Authorization": "Bearer "}, {"Authorization": "Basic x"},
            {"Cookie": "unionhub_token=x"}, {"Cookie": "unionhub_token="}, {"Cookie": f"other={token}"},
            {"Authorization": "Bearer é"},
        ]  # fmt: skip
        for path in GUARDED:
            for more in right:
                assert (await door.get(path, **more)).status == 200, path
            for headers in wrong:
                answer = await door.get(path, headers)
                assert (answer.status, answer.problem) == (401, "token-required"), (path, headers)
            for query in ("token=", "token=x", f"x={token}", "token=%ff"):
                assert (await door.get(f"{path}?{query}")).status == 401
        raw = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n"
        assert (await door.raw(raw)).problem == "token-required"
        for path in ("/healthz", "/readyz"):
            assert (await door.get(path)).status == 200
        assert (await door.post(b"{}", signed(b"{}", key=KEY[::-1]))).problem == "signature-invalid"

        entered = await door.get(f"/?token={token}")
        assert (entered.status, entered.headers["location"]) == (303, "/"), "out of the address bar at once"
        cookie = entered.headers["set-cookie"]
        assert token in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
        astray = await door.get(f"//evil.example/%0d%0aX:1?token={token}")
        assert astray.headers["location"].startswith("/evil.example/"), "not to another host"
        assert token not in door.log.getvalue().decode()
