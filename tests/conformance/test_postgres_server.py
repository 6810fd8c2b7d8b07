"""The tests' own server: one for all who meet at a folder, gone with the last of them, hard to kill for good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgres import running_postgres, shared_postgres

pytestmark = pytest.mark.postgres


def test_those_who_meet_share_one_server_and_the_last_one_stops_it(tmp_path: Path) -> None:
    with shared_postgres(tmp_path) as first:
        with shared_postgres(tmp_path) as second:
            assert second == first
        assert first.execute("SELECT 1")[0][0] == 1
    assert not first.folder.exists()
    with pytest.raises(ConnectionRefusedError):
        first.execute("SELECT 1")


def test_a_user_who_was_killed_does_not_keep_the_server_alive(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.postgres import shared_postgres\n"
        "with shared_postgres(Path(sys.argv[1])) as server:\n    print(server.port, flush=True)\n    sys.stdin.read()\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        with shared_postgres(tmp_path) as server:
            assert server.port == port
            other.kill()
            other.wait()
            assert server.execute("SELECT 1")[0][0] == 1
    assert not server.folder.exists()


def test_a_server_that_crashed_comes_back_at_its_address_with_what_was_committed() -> None:
    with running_postgres() as server:
        name = server.create_database()
        server.execute("CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)", database=name)
        server.stop("immediate")
        server.start()
        assert server.execute("SELECT n FROM kept", database=name)[0][0] == 7
    assert not server.folder.exists()
