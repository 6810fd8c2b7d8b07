"""The benchmark on PostgreSQL: it starts a server of its own, and counts what that used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import deliver
from tests.postgres import Server

pytestmark = pytest.mark.postgres
COMMAND = [sys.executable, "-m", "benchmarks.deliver", "--store", "postgres", "--events", "300"]


async def test_a_short_run_loses_nothing_and_tells_the_servers_part(
    tmp_path: Path, empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's part of it; the yardsticks are the same as on SQLite."""
    monkeypatch.setenv("UNIONHUB_RETRY__SCHEDULE_S", "[0.1]")
    log = tmp_path / "sink.log"
    async with deliver.running_sink(log) as url:
        hub = await deliver.run_hub(url, 300, tmp_path / "hub", empty_postgres_dsn)
    assert deliver.tally(log.read_bytes(), hub.event_ids) == (0, 0)
    assert hub.cpu_s > 0 and hub.server_cpu_s is not None and hub.server_cpu_s > 0


def test_a_database_with_something_in_it_is_not_measured(postgres_server: Server, postgres_dsn: str) -> None:
    done = subprocess.run(
        [*COMMAND, "--database", postgres_dsn], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and "an empty database" in done.stderr
    tables = "SELECT count(*) FROM event"
    assert postgres_server.execute(tables, database=postgres_dsn.rpartition("/")[2])[0][0] == 0
