"""Notices about endpoints by mail, over real SMTP to a relay in another process."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub import views
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.model import Draft, Json, new_id
from hub.plugins import load_plugins
from hub.testing import eventually, plain_event_type, registry_of, running_hub
from tests.plugins.partners.conftest import SECRET
from tests.plugins.partners.test_delivery import answer
from tests.plugins.partners.test_guard import Listener, listening

TYPE = "vn.congdoan.partners-test.made.v1"
RELAY = Path(__file__).with_name("smtp_relay.py")


@asynccontextmanager
async def relay(folder: Path, *options: str) -> AsyncIterator[tuple[int, Path]]:
    log = folder / "mails"
    log.touch()
    command = (sys.executable, str(RELAY), "--log", str(log), *options)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            yield int(await process.stdout.readline()), log
    finally:
        process.kill()
        await process.wait()


def mails(log: Path) -> list[Json]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@asynccontextmanager
async def telling_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch, url: str, port: int, **mail: Any
) -> AsyncIterator[HubApp]:
    monkeypatch.setenv("S", SECRET)
    monkeypatch.setenv("MAIL_WORD", "canary-word-5519")
    settings = {"host": "127.0.0.1", "port": port, "security": "none", "sender": "hub@ldld.example", **mail}
    partner = {"url": url, "secret": {"env": "S"}, "allow_networks": ["127.0.0.0/8"], "contact": "cntt@a.example"}
    async with running_hub(
        folder,
        registry_of(load_plugins(allowed={"partners"}), event_types=[plain_event_type(TYPE)]),
        connections={"a": {"type": "partner", "settings": partner}, "thu": {"type": "mail", "settings": settings}},
        subscriptions=[
            {"name": "a", "types": [TYPE], "to": "a"},
            {"name": "thu", "types": ["vn.congdoan.endpoint.*"], "to": "thu"},
        ],
        settings={"retry": {"schedule_s": [0.05] * 5}},
    ) as hub:
        draft = Draft(type=TYPE, source="/t", dedupe_key=str(new_id()), data={"id": "1", "n": 1})
        await hub.commit(UnitOfWork(drafts=[draft]))
        yield hub


async def settled(hub: HubApp) -> Json | None:
    rows = [r for r in await views.deliveries(hub.store, destination="thu") if r["state"] not in ("pending", "leased")]
    return rows[0] if rows else None


async def test_the_contact_and_the_officers_are_told_in_both_languages_what_happened_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = {"user": "hub", "password": {"env": "MAIL_WORD"}, "officers": ["can-bo@ldld.example"]}
    async with (
        listening(Listener(answer(410)), "127.0.0.1") as partner,
        relay(tmp_path, "--password", "canary-word-5519", "--busy-first") as (port, log),
        telling_hub(tmp_path, monkeypatch, f"http://127.0.0.1:{partner.port}/", port, **login) as hub,
    ):
        [mail] = await eventually(lambda: mails(log))
        assert sorted(mail["to"]) == ["TO:<can-bo@ldld.example>", "TO:<cntt@a.example>"]
        message = email.message_from_string(mail["text"], policy=email.policy.default)
        text = message.get_content()
        assert message["Subject"] == "Địa chỉ nhận đã bị tắt / endpoint was switched off: a"
        for part in ("Địa chỉ nhận a", "gone", "Việc cần làm", "Endpoint a", "What to do"):
            assert part in text
        assert "canary" not in mail["text"] and SECRET not in mail["text"]
        row = await eventually(lambda: settled(hub))
        assert row["state"] == "delivered"
        attempts = (await views.delivery(hub.store, bytes.fromhex(row["id"].replace("-", ""))))["attempts"]  # type: ignore[index]
        assert [each["reason"] for each in attempts] == ["smtp_451", ""]
        [(event_id,)] = await hub.store.read("SELECT id FROM event WHERE type LIKE '%endpoint.disabled%'")
        assert bytes(event_id).hex() in message["Message-ID"].replace("-", "")


@pytest.mark.parametrize(
    ("options", "mail", "expected"),
    [
        (("--refuse", "cntt@a.example"), {}, ("dead", "address_invalid")),
        (("--password", "right"), {"user": "hub", "password": {"env": "MAIL_WORD"}}, ("paused", "login_refused")),
    ],
)
async def test_what_the_relay_refuses_is_kept_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], mail: Json, expected: tuple[str, str]
) -> None:
    async with (
        listening(Listener(answer(410)), "127.0.0.1") as partner,
        relay(tmp_path, *options) as (port, log),
        telling_hub(tmp_path, monkeypatch, f"http://127.0.0.1:{partner.port}/", port, **mail) as hub,
    ):

        async def known() -> tuple[str, str] | None:
            row = await settled(hub)
            if row is not None:
                return row["state"], row["reason"]
            [(reason,)] = await hub.store.read("SELECT paused_reason FROM connection WHERE name = 'thu'")
            return ("paused", reason) if reason else None

        assert await eventually(known) == expected
        assert mails(log) == []


async def test_a_relay_that_is_down_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(Listener(answer(410)), "127.0.0.1") as partner:
        async with listening(Listener(), "127.0.0.1") as gone:
            pass
        async with telling_hub(tmp_path, monkeypatch, f"http://127.0.0.1:{partner.port}/", gone.port) as hub:
            assert (await eventually(lambda: settled(hub)))["reason"] == "tries_spent:connect"
