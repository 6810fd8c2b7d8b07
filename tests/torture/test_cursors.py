"""A pull that is killed at each of its commits: the cursor is never ahead of what is stored, and nothing is missing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.store.sqlite.copy import open_to_read
from tests.docs.pages import ROOT
from tests.torture.pulling import PER_PAGE

Live = Callable[[Path, int, str, int], int]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """One life in a process of its own; answers its status."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.torture.pulling"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        asks, answers = process.stdin, process.stdout

        def one(folder: Path, pages: int, point: str, nth: int) -> int:
            asks.write(json.dumps({"folder": str(folder), "pages": pages, "point": point, "nth": nth}) + "\n")
            asks.flush()
            return int(answers.readline())

        yield one
        asks.close()


def cursor_and_rows(folder: Path) -> tuple[int, list[str]]:
    """Where the pull is, and the papers that are stored."""
    with closing(open_to_read(folder / "var" / "unionhub.db")) as db:
        [(cursor,)] = db.execute("SELECT cursor FROM connection WHERE name = 'archive'")
        papers = [json.loads(body)["id"] for (body,) in db.execute("SELECT body FROM content")]
    return int(cursor or 0), papers


def agrees(cursor: int, papers: list[str]) -> bool:
    return sorted(papers) == sorted(f"{n}-{i}" for n in range(cursor) for i in range(PER_PAGE))


@pytest.mark.parametrize("point", ["ledger.written", "ledger.committed"])
def test_a_pull_that_is_killed_at_each_commit_keeps_cursor_and_rows_together(
    tmp_path: Path, live: Live, point: str
) -> None:
    """Life n ends at its n-th commit, until one reaches its end; the ledger goes on from each."""
    assert live(tmp_path, 1, "", 0) == 0  # the file and its tables are made
    pages = 2
    for nth in range(1, 50):
        pages += 3
        before, _ = cursor_and_rows(tmp_path)
        status = live(tmp_path, pages, point, nth)
        cursor, papers = cursor_and_rows(tmp_path)
        assert agrees(cursor, papers), f"{point}:{nth}"
        assert cursor >= before
        if status == 0:
            break  # it makes fewer commits than that
        assert status == -signal.SIGKILL
    else:
        pytest.fail("more commits than that: look further")
    assert nth > 5, "pages were met, and what comes before and after them"
    assert cursor_and_rows(tmp_path)[0] == pages


def test_a_first_load_that_is_killed_at_page_700_of_1000_goes_on_there(tmp_path: Path, live: Live) -> None:
    assert live(tmp_path, 1000, "ledger.committed", 705) == -signal.SIGKILL
    cursor, papers = cursor_and_rows(tmp_path)
    assert cursor >= 690 and agrees(cursor, papers)
    asked = [int(line) for line in (tmp_path / "asked").read_text().split()]
    assert live(tmp_path, 1000, "", 0) == 0
    again = [int(line) for line in (tmp_path / "asked").read_text().split()][len(asked) :]
    assert again == list(range(cursor, 1000)), "nothing before the cursor is asked for again"
    assert agrees(*cursor_and_rows(tmp_path)) and len(cursor_and_rows(tmp_path)[1]) == 1000 * PER_PAGE
