"""The hub and its plugins on PostgreSQL: SQL texts, feed positions, the command line, health, and bad databases."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import pkgutil
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import aiohttp
import asyncpg
import jsonschema
import pytest
import xlsxwriter
from prometheus_client.parser import text_string_to_metric_families

import hub
import plugins
from hub import views
from hub.plugins import load_plugins
from hub.store.migrate import CORE, Owner
from hub.store.ops.tx import Tx
from hub.store.postgres import PostgresStore
from hub.store.postgres.upgrade import upgrade_postgres
from hub.store.postgres.writer import translated
from hub.testing import RecordingSink, eventually
from hub.web import api
from tests.command_line import Run, unionhub
from tests.console_site import served
from tests.engines import put_key
from tests.flow import test_inbound
from tests.flow.conftest import Site, emit, placed, reach
from tests.flow.front_door import Door, captured_log, open_door
from tests.postgres import PASSWORD, PASSWORD_ROLE, ROLE, Server

__all__ = ["unionhub"]  # a fixture

pytestmark = pytest.mark.postgres
OWNERS = [CORE, *(Owner(schema.owner, schema.versions) for schema in load_plugins().schemas.values())]


@pytest.fixture
def site(tmp_path: Path, postgres_dsn: str) -> Site:
    """On PostgreSQL, and by its clock."""
    put_key(tmp_path)
    return Site(tmp_path, None, database_url=postgres_dsn)


# -- what is read ----------------------------------------------------------------------------------

#: Modules whose texts are for one engine alone, or that only a process of its own may load.
_APART = ("hub.store.sqlite", "hub.store.migrations", "hub.store.move", "hub.store.backup", "hub.demo", "hub.cli")


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not info.name.startswith(_APART) and "simulator" not in info.name:
            yield importlib.import_module(info.name)


def texts_read() -> dict[str, str]:
    """What is given to ``store.read``, by place; texts that a function puts together are run by the flows."""
    found = {}
    for module in (*_modules(hub), *_modules(plugins)):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not (isinstance(node, ast.Call) and re.search(r"\b_?store\.read$", ast.unparse(node.func))):
                continue
            try:
                text = eval(compile(ast.Expression(node.args[0]), "", "eval"), vars(module))  # noqa: S307 - our own
            except (NameError, IndexError):
                continue
            if isinstance(text, str):
                found[f"{module.__name__}:{node.lineno}"] = text
    return found


async def test_postgresql_understands_every_text_that_is_read(empty_postgres_dsn: str) -> None:
    await upgrade_postgres(empty_postgres_dsn, OWNERS)
    connection = await asyncpg.connect(empty_postgres_dsn)
    wrong = []
    for place, text in texts_read().items():
        try:
            await connection.prepare(translated(text))
        except asyncpg.PostgresError as error:
            wrong.append(f"{place}: {error}")
    await connection.close()
    assert not wrong, "\n".join(wrong)
    assert len(texts_read()) > 20


# -- feed positions --------------------------------------------------------------------------------


async def test_an_event_is_seen_at_once_and_in_the_feed_when_it_has_its_position(
    site: Site, alpha: RecordingSink
) -> None:
    async with site.running(start=False) as hub:
        older = await emit(hub, 2)
        while await hub.store.place_events(100):
            pass
        newer = await emit(hub, 3)
        assert {e["id"] for e in await views.events(hub.store, limit=3)} == set(newer)
        assert [e["id"] for e in (await views.events(hub.store))[3:]] == older[::-1]
        assert [e["id"] for e in await views.events(hub.store, after=0)] == older
        [delivery] = await views.deliveries(hub.store, event_id=views.parse_id(newer[0]))
        shown = await views.delivery(hub.store, views.parse_id(delivery["id"]))
        assert shown is not None and shown["event"]["position"] is None
        jsonschema.validate(shown, api._ONE_DELIVERY)
    async with site.running() as hub:
        await placed(hub)
        assert [e["id"] for e in await views.events(hub.store, after=2)] != []
        assert {e["id"] for e in await views.events(hub.store, after=2)} == set(newer)


async def test_groups_that_need_one_anothers_locks_never_wait_for_the_servers_search_for_deadlocks(
    site: Site, alpha: RecordingSink
) -> None:
    """Two groups at once, each with two units that lock what the other's do, the other way round."""
    with captured_log() as lines:
        async with site.running(start=False) as hub:
            store = hub.store
            assert isinstance(store, PostgresStore)

            def unit(key: bytes) -> asyncio.Task[None]:
                def op(tx: Tx) -> None:
                    tx.lock(("order", "alpha", key))
                    tx.execute("SELECT pg_sleep(0.2)")

                return asyncio.create_task(store.submit(op))

            async def is_under_way() -> bool:
                asleep = (
                    "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(0.2)' AND state = 'active'"
                )
                return await store.read(asleep) == [(1,)]

            first = [unit(b"a"), unit(b"b")]
            await eventually(is_under_way)
            second = [unit(b"b"), unit(b"a")]
            await asyncio.gather(*first, *second)
    assert b"DeadlockDetectedError" not in lines.getvalue()


# -- what comes in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flow",
    [
        test_inbound.test_a_repeat_is_accepted_again_and_adds_nothing,
        test_inbound.test_a_used_id_with_another_body_is_a_conflict_and_adds_nothing,
        test_inbound.test_a_hundred_parallel_posts_of_one_id_are_one_event,
        test_inbound.test_of_two_bodies_racing_for_one_id_one_wins_whole,
        test_inbound.test_a_genuine_body_no_mapping_reads_is_kept_sealed_with_one_repair,
        test_inbound.test_a_repeat_of_what_was_not_understood_adds_nothing,
    ],
    ids=lambda flow: flow.__name__,
)
async def test_what_is_said_of_inbound_requests_holds_here_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_dsn: str, flow: Callable[[Door], Awaitable[None]]
) -> None:
    put_key(tmp_path)
    async with open_door(tmp_path, monkeypatch, settings={"database_url": postgres_dsn}) as door:
        await flow(door)


# -- health ----------------------------------------------------------------------------------------


@contextmanager
def outage(server: Server, dsn: str) -> Iterator[None]:
    """The database takes nobody, and whoever was connected is thrown out."""
    name = dsn.rpartition("/")[2]
    server.execute(
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    yield
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def test_health_tells_the_process_from_its_database_and_both_come_back_alone(
    site: Site, alpha: RecordingSink, postgres_server: Server
) -> None:
    async with site.running() as hub, served(hub) as url, aiohttp.ClientSession() as http:

        async def status(path: str) -> int:
            async with http.get(url + path) as answer:
                await answer.read()
                return answer.status

        await emit(hub, 3)
        await reach(hub, ["delivered"] * 3)
        async with http.get(url + "/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ready", "held": None})
        async with http.get(url + "/metrics") as answer:
            told = {s.name for f in text_string_to_metric_families(await answer.text()) for s in f.samples}
        assert {"unionhub_deliveries", "unionhub_snapshot_age_seconds", "unionhub_attempts_total"} <= told
        with outage(postgres_server, site.database_url):
            async with http.get(url + "/readyz") as answer:
                assert answer.status == 503 and answer.headers["Retry-After"]
                assert site.database_url not in await answer.text()
            assert await status("/healthz") == 200
            assert await status("/metrics") == 503

        async def ready() -> bool:
            return await status("/readyz") == 200 and await status("/metrics") == 200

        await eventually(ready)
        await emit(hub)
        await reach(hub, ["delivered"] * 4)


# -- the command line ------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, unionhub: Run) -> Path:
    """What ``init`` writes: the database is the environment's alone."""
    assert unionhub("init", tmp_path / "config").code == 0
    return tmp_path / "config"


def some_members(path: Path) -> Path:
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet("DS")
        sheet.write_row(0, 0, ["STT", "Họ và tên", "Ngày sinh", "Giới tính", "Số CCCD", "SĐT", "Mã đơn vị", "Cài app"])
        sheet.write_row(1, 0, [1, "Lê Thị Hoa", "05/03/1985", "Nữ", "019185001234", "0912555001", "U-1", "x"])
        sheet.write_row(2, 0, [2, "Ma Văn An", "06/03/1986", "Nam", "019086001234", "0912555002", "U-1", ""])
    return path


def test_an_operator_changes_the_database_url_and_nothing_else(
    unionhub: Run, config: Path, tmp_path: Path, empty_postgres_dsn: str
) -> None:
    def run(*arguments: object, code: int = 0) -> str:
        done = unionhub(*arguments, "--config", config, UNIONHUB_DATABASE_URL=empty_postgres_dsn)
        assert done.code == code, done
        return done.out

    def rows(*arguments: object) -> list[dict[str, object]]:
        (listed,) = [v for v in asked(*arguments).values() if isinstance(v, list)]
        return listed

    def asked(*arguments: object) -> dict[str, object]:
        done = unionhub(*arguments, "--config", config, "--json", UNIONHUB_DATABASE_URL=empty_postgres_dsn)
        assert done.code == 0, done
        answer: dict[str, object] = done.json
        return answer

    where = empty_postgres_dsn.rpartition("@")[2]
    assert f"PostgreSQL {where}, empty" in run("check")
    assert not (tmp_path / "var").exists(), "looking changes nothing"
    run("db", "upgrade")
    assert f"PostgreSQL {where}, ready" in run("check")
    assert sorted(p.name for p in (tmp_path / "var").iterdir()) == ["hub.key", "unionhub.lock"]
    assert asked("members", "import", some_members(tmp_path / "list.xlsx"))["created"] == 2
    assert len(rows("members", "list")) == 2 and "0912***001" in run("members", "show", "0912555001")
    assert len(rows("members", "units")) == 1
    asked("campaigns", "announce", "tet", "--title", "Tết", "--text", "Chúc mừng năm mới")
    assert len(rows("events", "list")) == 3
    deliveries = rows("deliveries", "list", "--state", "pending")
    assert {d["destination"] for d in deliveries} >= {"doi-tac-mau"}
    shown = asked("deliveries", "show", deliveries[0]["id"])
    assert shown["attempts"] == [] and shown["event"]
    run("deliveries", "replay", deliveries[0]["id"], code=1)
    run("deliveries", "resolve", deliveries[0]["id"], "--as", "delivered", "--reason", "gọi hỏi", code=1)
    run("connections", "pause", "doi-tac-mau", "--reason", "bảo trì")
    assert {c["state"] for c in rows("connections", "list") if c["connection"] == "doi-tac-mau"} == {"paused"}
    run("connections", "resume", "doi-tac-mau")
    assert asked("sync", "run", "truc-van-ban")["due"]
    assert len(asked("sync", "list")["runs"]) == 2  # type: ignore[arg-type]
    for listing in (["repairs", "list"], ["documents", "list"], ["documents", "quarantine"]):
        assert rows(*listing) == []
    run("release")
    assert run("events", "reread", "c-thainguyen")


# -- a bad database --------------------------------------------------------------------------------

GUEST = PASSWORD_ROLE


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_guest(*statements: str) -> Callable[[Server, str], str]:
    """Another user's database, after the owner (who is told as ``hub``) and the superuser said these."""

    def spoil(server: Server, name: str) -> str:
        for statement in statements:
            server.execute(statement.format(name=name), database=name)
        return server.dsn(name, GUEST, PASSWORD)

    return spoil


def _after(*statements: str) -> Callable[[Server, str], str]:
    def spoil(server: Server, name: str) -> str:
        for statement in statements:
            server.execute(statement.format(name=name), database=name)
        return server.dsn(name)

    return spoil


#: What is wrong before there is a ledger: how to bring it about, and what the one line says.
BAD: dict[str, tuple[Callable[[Server, str], str], str]] = {
    "an address without a name": (lambda s, n: f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1", "UNIONHUB_DATABASE_URL"),
    "nobody listens": (lambda s, n: f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{_closed_port()}/{n}", "firewall"),
    "no such database": (lambda s, n: s.dsn("nowhere"), "createdb"),
    "no such user": (lambda s, n: s.dsn(n, "nobody", PASSWORD), "pg_hba.conf"),
    "a wrong password": (lambda s, n: s.dsn(n, GUEST, PASSWORD + "x"), "PGPASSFILE"),
    "no TLS": (lambda s, n: s.dsn(n, GUEST, PASSWORD) + "?sslmode=require", "cannot be reached"),
    "no right to connect": (_as_guest("REVOKE ALL ON DATABASE {name} FROM PUBLIC"), "lacks a right"),
    "no right to make tables": (_as_guest("REVOKE CREATE ON SCHEMA public FROM PUBLIC"), "lacks a right"),
    "no right to look": (_as_guest("REVOKE ALL ON SCHEMA public FROM PUBLIC"), "lacks a right"),
    "a database for reading": (_after("ALTER DATABASE {name} SET default_transaction_read_only = on"), "read-only"),
}
#: The same with a ledger that an own hub has made.
SPOILT: dict[str, tuple[Callable[[Server, str], str], str]] = {
    "a right to read alone": (_as_guest("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC"), "lacks a right"),
    "no right to read": (_as_guest(), "lacks a right"),
    "a ledger for reading": (_after("ALTER DATABASE {name} SET default_transaction_read_only = on"), "read-only"),
    "a newer hub's tables": (_after("UPDATE hub_version SET version_num = '9999'"), "install the newer version"),
    "a newer plugin's tables": (_after("UPDATE members_version SET version_num = '9999'"), "'members'"),
}
COMMANDS = (["check"], ["run"], ["db", "upgrade"], ["connections", "list"])


def refused(unionhub: Run, config: Path, dsn: str, says: str, but_not: tuple[str, ...] = ()) -> None:
    """Every command that needs the database says one line, without the password, and makes nothing."""
    before = sorted(config.parent.rglob("*"))
    for command in COMMANDS:
        if command[0] in but_not:
            continue
        done = unionhub(*command, "--config", config, UNIONHUB_DATABASE_URL=dsn)
        assert done.code == 2, (command, done)
        said = [line for line in done.err.splitlines() if not line.startswith("Cấu hình sai")]
        assert len(said) == 1 and says in said[0] and " / " in said[0], (command, said)
        assert PASSWORD not in done.err + done.out
        made = {p.name for p in set(config.parent.rglob("*")) - set(before)}
        assert made <= {"unionhub.lock", "var"}, (command, made)


def tables(server: Server, name: str) -> list[str]:
    found = server.execute("SELECT relname, relnamespace FROM pg_class ORDER BY 1, 2", database=name)
    return [str(tuple(row)) for row in found]


@pytest.mark.parametrize("case", BAD)
def test_a_database_that_cannot_be_used_is_refused_in_one_line_and_nothing_is_made(
    unionhub: Run, config: Path, postgres_server: Server, empty_postgres_dsn: str, case: str
) -> None:
    spoil, says = BAD[case]
    name = empty_postgres_dsn.rpartition("/")[2]
    dsn = spoil(postgres_server, name)
    before = tables(postgres_server, name)
    refused(unionhub, config, dsn, says)
    assert tables(postgres_server, name) == before


@pytest.mark.parametrize("case", SPOILT)
def test_a_ledger_that_cannot_be_used_is_refused_in_one_line_and_nothing_is_changed(
    unionhub: Run, config: Path, postgres_server: Server, empty_postgres_dsn: str, case: str
) -> None:
    name = empty_postgres_dsn.rpartition("/")[2]
    assert unionhub("connections", "list", "--config", config, UNIONHUB_DATABASE_URL=empty_postgres_dsn).code == 0
    spoil, says = SPOILT[case]
    dsn = spoil(postgres_server, name)
    refused(unionhub, config, dsn, says)


@pytest.mark.parametrize("key", ["missing", "foreign"])
def test_a_ledger_whose_key_is_missing_or_foreign_is_refused_and_no_key_is_made(
    unionhub: Run, config: Path, empty_postgres_dsn: str, key: str
) -> None:
    assert unionhub("connections", "list", "--config", config, UNIONHUB_DATABASE_URL=empty_postgres_dsn).code == 0
    file = config.parent / "var" / "hub.key"
    file.unlink()
    if key == "foreign":
        file.write_bytes(bytes(32))
    refused(unionhub, config, empty_postgres_dsn, "copy", but_not=("check",))
    assert file.exists() == (key == "foreign")
