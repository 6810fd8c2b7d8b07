"""Which tests may be skipped, and what is said about those that were.

On a developer's machine a skip is counted and explained. With CI set, only what ``allowed_skips.txt`` lists may
be skipped: a test that silently stopped running would look like a test that passes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from hub.store import migrate
from tests import chromium as browser
from tests import postgres

ALLOWED = Path(__file__).with_name("allowed_skips.txt")

found_chromium = cache(browser.find_chromium)
found_postgres = cache(postgres.find_server)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's executable; tests that use it carry the marker ``browser``."""
    path = found_chromium()
    assert path, "mark this test with pytest.mark.browser"
    return path


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    """One server for all of pytest-xdist's workers; tests that use it carry the marker ``postgres``."""
    assert found_postgres(), "mark this test with pytest.mark.postgres"
    base = tmp_path_factory.getbasetemp()
    with postgres.shared_postgres(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as server:
        yield server


async def migrated(dsn: str) -> None:
    from hub.store.postgres.upgrade import upgrade_postgres

    await upgrade_postgres(dsn, [migrate.CORE])


@pytest.fixture
def postgres_dsn(postgres_server: postgres.Server) -> Iterator[str]:
    """A fresh database with the core's tables: copied, since migrating takes longer."""
    template = postgres_server.template("migrated", migrated)
    yield from _database(postgres_server, template)


@pytest.fixture
def empty_postgres_dsn(postgres_server: postgres.Server) -> Iterator[str]:
    yield from _database(postgres_server, "template1")


def _database(server: postgres.Server, template: str) -> Iterator[str]:
    name = server.create_database(template)
    yield server.dsn(name)
    server.drop_database(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, found, what, install in (
        ("browser", found_chromium, "Chromium", browser.INSTALL),
        ("postgres", found_postgres, "PostgreSQL server", postgres.INSTALL),
    ):
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and not found():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=f"no {what} here; install it with: {install}"))


def allowed_skips(text: str) -> set[str]:
    """Node ids of the list; raises ``UsageError`` for a line without a reason."""
    allowed = set()
    for line in text.splitlines():
        node_id, mark, why = line.partition("  # ")
        if not line.strip() or line.startswith("#"):
            continue
        if not mark or not why.strip():
            raise pytest.UsageError(f"{ALLOWED.name}: give the reason, as in 'NODE ID  # why': {line}")
        allowed.add(node_id.strip())
    return allowed


class SkipPolicy:
    """Lives where the results come together: in the only process, or in xdist's controller."""

    def __init__(self, allowed: set[str]) -> None:
        self._allowed = allowed
        self.skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self.skipped[report.nodeid] = why.removeprefix("Skipped: ")

    def forbidden(self) -> list[str]:
        if not os.environ.get("CI"):
            return []
        return sorted(n for n in self.skipped if n not in self._allowed and n.partition("[")[0] not in self._allowed)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.forbidden() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        reasons: dict[str, int] = {}
        for why in self.skipped.values():
            reasons[why] = reasons.get(why, 0) + 1
        for why, count in sorted(reasons.items()):
            terminalreporter.write_line(f"{count} skipped: {why}", yellow=True)
        for node_id in self.forbidden():
            terminalreporter.write_line(f"CI: {node_id} was skipped and is not in {ALLOWED.name}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipPolicy(allowed_skips(ALLOWED.read_text())), "skip-policy")
