"""The benchmark on PostgreSQL: it starts a server of its own, and counts what that used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.postgres import Server

pytestmark = pytest.mark.postgres
COMMAND = [sys.executable, "-m", "benchmarks.deliver", "--store", "postgres", "--events", "300"]


def test_a_short_run_loses_nothing_and_tells_the_servers_part() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=200, check=False)
    answer = json.loads(done.stdout)
    assert (answer["lost"], answer["duplicated"]) == (0, 0)
    assert answer["cpu_s_per_1000"] > 0 and answer["postgres_cpu_s_per_1000"] > 0


def test_a_database_with_something_in_it_is_not_measured(postgres_server: Server, postgres_dsn: str) -> None:
    done = subprocess.run(
        [*COMMAND, "--database", postgres_dsn], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and "an empty database" in done.stderr
    tables = "SELECT count(*) FROM event"
    assert postgres_server.execute(tables, database=postgres_dsn.rpartition("/")[2])[0][0] == 0
