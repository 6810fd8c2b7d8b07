"""The demo on PostgreSQL, told once: it balances there too, and the search looks into every table."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hub.demo.balance import balance
from hub.demo.personal import readable
from hub.demo.stage import Books
from hub.demo.story import MARK
from tests.postgres import Server

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("demo-postgres")]
SEED = 7


@dataclass(frozen=True)
class Told:
    """A telling that has ended: its folder, its database and what it printed."""

    folder: Path
    database: str
    code: int
    said: str


def demo(folder: Path, url: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub.cli", "demo", "--once", "--seed", str(SEED), "--port", "0", "--dir", str(folder),
         "--database-url", url],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        env={**os.environ, **environ},
    )  # fmt: skip


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory, postgres_server: Server) -> Told:
    """The one telling; a second worker waits for the first one's."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    result = shared / "told-postgres.json"
    with (shared / "demo-postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            name = postgres_server.create_database()
            # The operator's own database is for another hub.
            done = demo(shared / "demo-postgres", postgres_server.dsn(name), UNIONHUB_DATABASE_URL="postgresql://x/y")
            result.write_text(json.dumps({"database": name, "code": done.returncode, "said": done.stdout}))
    return Told(shared / "demo-postgres", **json.loads(result.read_text()))


@pytest.fixture
def copy(told: Told, tmp_path: Path, postgres_server: Server) -> Iterator[Books]:
    """What remained, for a test to tamper with."""
    shutil.copytree(told.folder, tmp_path / "demo")
    name = postgres_server.create_database(told.database)
    yield Books.open(tmp_path / "demo", postgres_server.dsn(name))
    postgres_server.drop_database(name)


def change(copy: Books, server: Server, *statements: str) -> None:
    server.execute(*statements, database=copy.database_url.rpartition("/")[2])


def test_the_demo_on_postgresql_ends_balanced_after_its_crash(told: Told) -> None:
    assert told.code == 0, told.said[-3000:]
    assert "Sổ cái cân" in told.said and "the ledger balances" in told.said
    assert "Traceback" not in told.said and '{"at"' not in told.said
    numbers = re.findall(r"in the database then: (\d+) leased, (\d+) sending, (\d+) of them SMS", told.said)
    leased, sending, sms = map(int, numbers[0])
    assert leased + sending >= MARK and sms >= 1
    assert not (told.folder / "var" / "unionhub.db").exists()


def test_it_is_the_postgresql_ledger_that_balances(copy: Books, postgres_server: Server) -> None:
    result = balance(copy)
    assert result.faults == []
    assert result.rows["sms-demo"].states["unknown"] == len(result.unknowns) > 0
    assert sum(row.owed for row in result.rows.values()) > 5000
    change(
        copy, postgres_server,
        "DELETE FROM delivery WHERE id = (SELECT id FROM delivery WHERE destination = 'so-noi-vu' LIMIT 1)",
    )  # fmt: skip
    assert any(fault.startswith("so-noi-vu: ") for fault in balance(copy).faults)


def test_the_search_looks_into_every_table(copy: Books, postgres_server: Server) -> None:
    assert readable(copy) == []
    list_ = json.loads((copy.folder / "list.json").read_text())
    name, phone = list_["canaries"]["name"], list_["canaries"]["phone"]
    other = next(m["phone"] for m in list_["members"] if m["phone"] and m["phone"] != phone)
    change(
        copy, postgres_server,
        f"INSERT INTO repair (kind, object, detail, opened_at) VALUES ('k', 'o', 'no address for {other}', 1)",
        f"UPDATE members_member SET profile = convert_to('{{\"full_name\": \"{name}\"}}', 'UTF8')"
        " WHERE subject = (SELECT subject FROM members_member LIMIT 1)",
        f"UPDATE content SET body = 'x {phone[3:]} y' WHERE event_id = (SELECT event_id FROM content LIMIT 1)",
    )  # fmt: skip
    found = readable(copy)
    assert {re.sub(r"_p\d{8}|_default", "", fault) for fault in found} == {
        "table repair: a phone is readable",
        "table members_member: the planted name is readable",
        "table content: the planted phone is readable",
    }
    assert set(found) <= set(balance(copy).faults), "and the balance asks for it"


def test_a_database_with_something_in_it_is_left_alone(tmp_path: Path, postgres_server: Server) -> None:
    name = postgres_server.create_database()
    postgres_server.execute("CREATE TABLE mine (n int)", database=name)
    done = demo(tmp_path / "demo", postgres_server.dsn(name))
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 1) and "is not empty" in done.stdout
    done = demo(tmp_path / "demo", postgres_server.dsn("nowhere"))
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 1) and "createdb" in done.stdout
    done = demo(tmp_path / "demo", "sqlite:///here.db")
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 1) and "postgresql://" in done.stdout
    assert not (tmp_path / "demo").exists()
    postgres_server.drop_database(name)
