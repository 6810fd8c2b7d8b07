"""Backed up under load and restored: nothing goes out before a person says so, and then only what was owed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.command_line import Run, unionhub
from tests.e2e.installation import CAMPAIGN, Installation, until

__all__ = ["unionhub"]  # a fixture

PEOPLE = 120
REACHED = ("partner", "citizen_app", "telecom_sms")
UNDER_WAY = "SELECT count(*) FROM queue WHERE state IN ('waiting', 'pending', 'leased', 'sending', 'accepted')"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation.new(tmp_path_factory.mktemp("shipped"))
    with installation.simulators():
        yield installation


@pytest.fixture
def crowd(shipped: Installation, tmp_path: Path, unionhub: Run) -> Installation:
    """People in the ledger, a message owed to each of them, and a backup key."""
    installation = shipped.another(tmp_path, CAMPAIGN)
    config = ("--config", installation.config)
    assert unionhub("members", "import", installation.member_list(PEOPLE), *config).code == 0
    text = "Cong doan moi du Tet sum vay."
    assert unionhub("campaigns", "announce", "tet", "--title", "Tết", "--text", text, *config).code == 0
    assert unionhub("db", "backup-key", installation.config / "secrets" / "backup.key", *config).code == 0
    toml = installation.config / "hub.toml"
    toml.write_text(toml.read_text().replace('# key_file = ""', 'key_file = "secrets/backup.key"'))
    return installation


def taken(installation: Installation) -> dict[str, Counter[str]]:
    return {name: installation.taken(name) for name in REACHED}


def test_a_ledger_backed_up_under_load_and_restored_sends_nothing_until_released(
    crowd: Installation, unionhub: Run
) -> None:
    config = ("--config", crowd.config)
    for name in REACHED:
        crowd.behave(name, slow_ms=400)
    with crowd.hub() as hub:
        until(lambda: sum(crowd.taken("telecom_sms").values()) >= 10, every_s=0.01)
        until(lambda: crowd.count("SELECT count(*) FROM delivery") >= 5, every_s=0.01)
        done = unionhub("db", "backup", "--json", *config)
        assert done.code == 0, done
        before = sent_in_all(crowd)
        # The original goes on: what it sends now the backup still knows as owed.
        until(lambda: sent_in_all(crowd) > before + 10, every_s=0.01)
        assert hub.stop() == 0
    for name in REACHED:
        crowd.behave(name, slow_ms=0)
    sent = taken(crowd)
    restored = unionhub("db", "restore", done.json["file"], "--replace", "--json", *config)
    assert restored.code == 0 and restored.json["sha256"] == done.json["sha256"]
    owed = crowd.rows("SELECT destination, id, event_id FROM queue WHERE state IN ('waiting', 'pending', 'leased')")
    assert len(owed) == restored.json["owed"] > 0
    settled = crowd.count("SELECT count(*) FROM delivery")
    assert settled >= 5

    with crowd.hub() as hub:
        assert hub.get("/readyz")[0] == 200
        assert unionhub("connections", "pause", "nha-mang", *config).code == 0  # it works, and is asked
        assert unionhub("connections", "resume", "nha-mang", *config).code == 0
        # What comes in now is kept; its deliveries wait like all the others.
        assert unionhub("campaigns", "announce", "hai", "--title", "Hai", "--text", "Tin thu hai.", *config).code == 0
        assert unionhub("events", "list", *config).code == 0
        assert hub.stop() == 0
    assert crowd.count("SELECT count(*) FROM delivery") == settled
    assert taken(crowd) == sent, "nothing went out"
    assert crowd.count("SELECT count(*) FROM event WHERE type LIKE '%.campaign.announced.v1'") == 2

    with crowd.hub() as hub:
        assert unionhub("release", "--json", *config).json == {"was_held": "restored"}
        until(lambda: crowd.count(UNDER_WAY) == 0, 60)
        assert hub.stop() == 0
    # Whoever got a thing twice was owed it in the backup; nothing that it knew as delivered went again.
    twice = {name: {id for id in crowd.taken(name) - sent[name] if id in sent[name]} for name in REACHED}
    assert twice["citizen_app"] <= {str(UUID(bytes=id)) for to, id, _ in owed if to == "c-thainguyen"}
    assert twice["partner"] <= {f"{UUID(bytes=event)}@{to}" for to, _, event in owed}
    assert len(twice["telecom_sms"]) <= sum(to == "nha-mang" for to, _, _ in owed)
    assert any(twice.values()), "what the original sent after the backup is what a release sends again"
    assert unionhub("db", "check", *config).code == 0


def sent_in_all(installation: Installation) -> int:
    return sum(sum(ids.values()) for ids in taken(installation).values())


@pytest.fixture
def large(tmp_path: Path, unionhub: Run) -> Path:
    """A ledger that takes a second or more to copy, and the folder of its installation."""
    folder = tmp_path / "large"
    config = folder / "config"
    assert unionhub("init", config).code == 0
    assert unionhub("connections", "list", "--config", config).code == 0
    assert unionhub("db", "backup-key", config / "secrets" / "backup.key", "--config", config).code == 0
    toml = config / "hub.toml"
    toml.write_text(toml.read_text().replace('# key_file = ""', 'key_file = "secrets/backup.key"'))
    with closing(sqlite3.connect(folder / "var" / "unionhub.db", isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute(
            "INSERT INTO content (event_id, body) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n"
            " WHERE x < 80000) SELECT randomblob(16), randomblob(700) FROM n"
        )
    return folder


def killed_once(condition: Any, folder: Path, *arguments: object) -> None:
    """Starts a command and kills it as soon as the condition holds."""
    command = [sys.executable, "-m", "hub.cli", *map(str, arguments), "--config", str(folder / "config")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(condition, every_s=0.001)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL


def test_a_backup_or_restore_that_is_killed_leaves_no_half_file_under_any_name_that_counts(
    large: Path, unionhub: Run
) -> None:
    config = ("--config", large / "config")
    var, backups, ledger = large / "var", large / "backups", large / "var" / "unionhub.db"
    before = ledger.read_bytes()

    def partial(folder: Path, of: int) -> bool:
        try:
            return any(path.stat().st_size >= of for path in folder.glob("*partial*"))
        except FileNotFoundError:  # it got its name, or was cleared away, since it was listed
            return False

    killed_once(lambda: partial(var, 1_000_000), large, "db", "backup")
    killed_once(lambda: partial(backups, 1_000_000), large, "db", "backup")
    assert list(backups.glob("*.backup")) == [] and list(backups.glob("*partial*"))
    done = unionhub("db", "backup", "--json", *config)
    assert done.code == 0 and [str(p) for p in backups.iterdir()] == [done.json["file"]], "the next one clears it away"
    assert not list(var.glob("*partial*"))

    killed_once(lambda: partial(var, 1_000_000), large, "db", "restore", done.json["file"], "--replace")
    assert ledger.read_bytes() == before
    assert unionhub("connections", "list", *config).code == 0
    assert unionhub("db", "restore", done.json["file"], "--replace", *config).code == 0
    assert not list(var.glob("*partial*"))
    assert unionhub("release", "--json", *config).json == {"was_held": "restored"}


def test_a_large_ledger_is_copied_and_restored_within_a_small_memory(large: Path, unionhub: Run) -> None:
    """The file is larger than what each command may take beside the interpreter and its libraries."""
    size = (large / "var" / "unionhub.db").stat().st_size
    assert size > 60_000_000
    archive = large / "a.backup"
    idle = peak_rss("--version")
    for command in (
        ("db", "backup", "--to", archive),
        ("db", "check", archive),
        ("db", "restore", archive, "--replace"),
        ("db", "check"),
    ):
        peak = peak_rss(*command, "--config", large / "config")
        assert peak - idle < size // 2, f"{command[1]}: {peak - idle} bytes more for {size}"


def peak_rss(*arguments: object) -> int:
    """The most memory that a command ever had."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hub.cli", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    return usage.ru_maxrss * 1024
