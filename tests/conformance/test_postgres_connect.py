"""Trouble with server, address, login or rights is one line with what to do, and without the password."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import asyncpg
import pytest

from hub.errors import Busy, ConfigError
from hub.store.migrate import CORE
from hub.store.place import place
from hub.store.postgres.connect import check_server, connect, explained
from hub.store.postgres.upgrade import upgrade_postgres
from tests.postgres import PASSWORD, PASSWORD_ROLE, ROLE, Server

WRONG = "wr0ng-h0rse"


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.postgres
async def test_a_right_address_connects_with_and_without_a_password_and_over_the_socket(
    postgres_server: Server,
) -> None:
    for url in (
        postgres_server.dsn("postgres"),
        postgres_server.dsn("postgres", PASSWORD_ROLE, PASSWORD),
        postgres_server.socket_dsn("postgres"),
    ):
        connection = await connect(url, settings={"lock_timeout": "123ms"})
        assert await connection.fetchval("SHOW lock_timeout") == "123ms"
        await connection.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("address", "says", "advises"),
    [
        (lambda s, port: f"postgresql://{ROLE}:{WRONG}@127.0.0.1:{port}/postgres", "cannot be reached", "firewall"),
        (lambda s, port: f"postgresql://{ROLE}:{WRONG}@/postgres?host=/nowhere", "cannot be reached", "that it runs"),
        (lambda s, port: s.dsn("no_such_database"), "/no_such_database: .* no such database", "createdb"),
        (lambda s, port: s.dsn("postgres", "nobody_here"), "refused the login", "pg_hba.conf"),
        (lambda s, port: s.dsn("postgres", PASSWORD_ROLE, WRONG), r"refused the login \(28P01\)", "password"),
        (lambda s, port: s.dsn("postgres", PASSWORD_ROLE), "refused the login|cannot be reached", "password|check"),
        (lambda s, port: s.dsn("postgres") + "?sslmode=perhaps", "written wrongly", "parameter"),
        (lambda s, port: s.dsn("postgres") + "?sslmode=require", "cannot be reached", "check"),
    ],
    ids=["port", "socket", "database", "role", "password", "no password", "parameter", "no TLS"],
)
async def test_each_trouble_of_the_connection_is_named_with_what_to_do(
    postgres_server: Server,
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
    address: Callable[[Server, int], str],
    says: str,
    advises: str,
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    with pytest.raises(ConfigError, match=says) as told:
        await upgrade_postgres(address(postgres_server, closed_port), [CORE])
    text = str(told.value)
    assert WRONG not in text and "\n" not in text
    english = text.partition(" / ")[2]
    assert any(word in english for word in advises.split("|")), english


@pytest.mark.parametrize(
    "url",
    [
        "mysql://hub@host/db",
        "host/db",
        "postgresql://hub@host",
        f"postgresql://hub:{WRONG}/more@host/db",
        f"postgresql://hub:{WRONG}@more@host/db",
        f"postgresql://hub:{WRONG}#more@host/db",
        f"postgresql://hub:{WRONG}?more@host/db",
        f"postgresql:/hub:{WRONG}@host/db",
        f"postgresql://hub:{WRONG}@host:port/db",
        f"postgresql://hub:{WRONG}@127.0.0.1:999999/db",
    ],
)
async def test_an_address_written_wrongly_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="written wrongly") as told:
        await connect(url)
    assert WRONG not in str(told.value) and "more" not in str(told.value)


def test_messages_name_server_and_database_but_no_user_and_no_password() -> None:
    assert place("postgresql://hub:secret@db.example:5433/union?sslmode=require") == "db.example:5433/union"
    assert place("postgresql://hub@/union?host=/run/postgresql") == "socket/union"
    assert place("postgresql://a:1,b:2/union") == "a:1,b:2/union"


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_something_else_on_the_port_is_not_taken_for_a_server(answer: bytes | None) -> None:
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:  # never says a word
            await reader.read()
        writer.write(answer or b"")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConfigError, match="cannot be reached"):
        await connect(f"postgresql://hub@127.0.0.1:{port}/db", timeout_s=0.3)
    server.close()
    await asyncio.gather(*serving)


@pytest.mark.parametrize(
    ("major", "standby", "encoding", "says"),
    [
        (13, False, "UTF8", "the server is PostgreSQL 13.4; 14 or newer is needed: upgrade the server"),
        (9, False, "UTF8", "14 or newer is needed"),
        (15, True, "UTF8", "read-only standby: give the address of the primary"),
        (15, False, "SQL_ASCII", "the database's encoding is SQL_ASCII, UTF8 is needed"),
    ],
)
def test_a_server_the_hub_cannot_work_with_is_refused(major: int, standby: bool, encoding: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_server("host/db", major, f"{major}.4", standby=standby, encoding=encoding)


@pytest.mark.parametrize("major", [14, 15, 18])
def test_supported_servers_are_welcome(major: int) -> None:
    check_server("host/db", major, f"{major}.1", standby=False, encoding="UTF8")


@pytest.mark.postgres
async def test_a_database_of_another_encoding_is_refused_before_anything_is_made(postgres_server: Server) -> None:
    postgres_server.execute(f"CREATE DATABASE t_ascii OWNER {ROLE} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(ConfigError, match="UTF8 is needed"):
            await upgrade_postgres(postgres_server.dsn("t_ascii"), [CORE])
        assert not postgres_server.execute("SELECT 1 FROM pg_class WHERE relname = 'event'", database="t_ascii")
    finally:
        postgres_server.drop_database("t_ascii")


@pytest.mark.postgres
async def test_a_user_without_the_right_to_make_tables_is_told_which_right_and_nothing_is_made(
    postgres_server: Server, empty_postgres_dsn: str
) -> None:
    name = empty_postgres_dsn.rpartition("/")[2]
    postgres_server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database=name)
    with pytest.raises(ConfigError, match=r"the user lacks a right: .*grant CREATE on the schema"):
        await upgrade_postgres(postgres_server.dsn(name, PASSWORD_ROLE, PASSWORD), [CORE])
    assert not postgres_server.execute("SELECT 1 FROM pg_class WHERE relname LIKE 'event%'", database=name)


@pytest.mark.postgres
async def test_a_user_who_may_not_read_the_tables_is_told_so(postgres_server: Server, postgres_dsn: str) -> None:
    name = postgres_dsn.rpartition("/")[2]
    with pytest.raises(ConfigError, match="the user lacks a right"):
        await upgrade_postgres(postgres_server.dsn(name, PASSWORD_ROLE, PASSWORD), [CORE])


@pytest.mark.postgres
async def test_a_read_only_database_is_told_so(postgres_server: Server, empty_postgres_dsn: str) -> None:
    name = empty_postgres_dsn.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(ConfigError, match="the database is read-only"):
        await upgrade_postgres(empty_postgres_dsn, [CORE])


def test_want_of_space_is_no_mistake_of_the_configuration() -> None:
    assert isinstance(explained(asyncpg.DiskFullError("x"), "host/db"), Busy)


def test_an_error_nobody_knows_is_left_as_it_is() -> None:
    assert explained(asyncpg.SyntaxOrAccessError("x"), "host/db") is None
    assert explained(RuntimeError("x"), "host/db") is None
